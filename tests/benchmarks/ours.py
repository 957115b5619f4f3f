"""bayesglm as one more package to measure, in the environment that it is installed in."""

from jobs import Adapter, Fit, serve
from problems import mask_of


def fit_bayesglm(problem, tol):
    """Fit by GLM, or PopulationGLM if there are several outputs."""
    from bayesglm import GLM, PopulationGLM
    from bayesglm.observation_models import NegativeBinomialObservations
    from bayesglm.priors import GroupLasso

    case = problem.case
    family = NegativeBinomialObservations(case.scale) if case.family == "NegativeBinomial" else case.family
    prior = GroupLasso(mask_of(problem.groups)) if case.prior == "GroupLasso" else case.prior
    strength = problem.strength if case.ratio is None else (problem.strength, case.ratio)
    options = None if tol is None else {"tol": tol}
    kind = GLM if problem.y.ndim == 1 else PopulationGLM
    model = kind(family, case.link, prior, strength, solver_kwargs=options)
    model.fit(problem.X, problem.y, sample_weight=problem.weight, offset=problem.offset)
    learned = model.scale_[0] if case.family == "NegativeBinomial" and case.scale is None else None
    words = "..." if tol is None else f'..., solver_kwargs={{"tol": {tol:g}}}'
    return Fit(model.coef_, model.intercept_, f"{kind.__name__}({words})", learned)


ADAPTERS = {"bayesglm": Adapter(fit_bayesglm, "bayesglm", ("bayesglm", "jax", "numpyro.distributions"))}

if __name__ == "__main__":
    serve(ADAPTERS)
