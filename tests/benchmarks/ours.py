"""bayesglm as one more package to measure, in the environment that it is installed in."""

from jobs import Adapter, Fit, serve
from problems import mask_of


def fit_bayesglm(problem, tol):
    """Fit by GLM, or PopulationGLM if there are several outputs."""
    model, words = make_model(problem, tol)
    model.fit(problem.X, problem.y, sample_weight=problem.weight, offset=problem.offset)
    case = problem.case
    learned = model.scale_[0] if case.family == "NegativeBinomial" and case.scale is None else None
    return Fit(model.coef_, model.intercept_, words, learned)


def fit_bayesglm_path(problems, tol):
    """Fit at all strengths together."""
    from bayesglm import strength_path

    first = problems[0]
    model, words = make_model(first, tol)
    strengths = [problem.strength for problem in problems]
    models = strength_path(model, first.X, first.y, strengths, sample_weight=first.weight, offset=first.offset)
    return [Fit(each.coef_, each.intercept_, f"strength_path({words}, ...)") for each in models]


def make_model(problem, tol):
    """Model of a problem, and how it is written."""
    from bayesglm import GLM, PopulationGLM
    from bayesglm.observation_models import NegativeBinomialObservations
    from bayesglm.priors import GroupLasso

    case = problem.case
    family = NegativeBinomialObservations(case.scale) if case.family == "NegativeBinomial" else case.family
    prior = GroupLasso(mask_of(problem.groups)) if case.prior == "GroupLasso" else case.prior
    strength = problem.strength if case.ratio is None else (problem.strength, case.ratio)
    options = None if tol is None else {"tol": tol}
    kind = GLM if problem.y.ndim == 1 else PopulationGLM
    words = "..." if tol is None else f'..., solver_kwargs={{"tol": {tol:g}}}'
    return kind(family, case.link, prior, strength, solver_kwargs=options), f"{kind.__name__}({words})"


ADAPTERS = {"bayesglm": Adapter(fit_bayesglm, "bayesglm", ("bayesglm",), fit_bayesglm_path)}

if __name__ == "__main__":
    serve(ADAPTERS)
