"""How to ask each peer for the fit that a problem describes: ``fit_<peer>(problem, tol) -> Fit``.

Runs in the peer's environment, where bayesglm is not installed. Strengths are translated here: bayesglm's objective
is the weighted mean of the negative log-likelihood plus the penalty; peers that take the sum of the negative
log-likelihoods get the strength times the sum of the weights, and so on.
"""

import math

import numpy as np
from jobs import Absent, Adapter, Fit, serve
from problems import mask_of

MANY = 1_000_000


def fit_sklearn(problem, tol, **options):
    """Estimators of scikit-learn's linear_model; `options` are arguments of PoissonRegressor and the like."""
    refuse(problem, "offset", "vector strengths")
    case = problem.case
    if problem.y.ndim == 2:
        return multi_task_lasso(problem, tol)
    models = {
        ("Gaussian", "identity"): sklearn_gaussian,
        ("Poisson", "exp"): sklearn_smooth,
        ("Gamma", "exp"): sklearn_smooth,
        ("Bernoulli", "logistic"): sklearn_logistic,
    }
    model, setting = lookup(models, case.family, case.link)(problem, given(tol=tol) | options)
    model.fit(problem.X, problem.y, sample_weight=problem.weight)
    return Fit(np.ravel(model.coef_), model.intercept_, setting)


def sklearn_gaussian(problem, options):
    """LinearRegression, Ridge, Lasso or ElasticNet, and how it was called."""
    from sklearn import linear_model

    case, strength = problem.case, problem.strength
    descent = options | {"max_iter": MANY}
    makers = {
        "UnRegularized": lambda: (linear_model.LinearRegression(), "LinearRegression()"),
        "Ridge": lambda: (
            linear_model.Ridge(strength * total(problem), solver="cholesky"),
            'Ridge(alpha=s W, solver="cholesky")',
        ),
        "Lasso": lambda: (linear_model.Lasso(alpha=strength, **descent), call("Lasso", "alpha=s", options)),
        "ElasticNet": lambda: (
            linear_model.ElasticNet(alpha=strength, l1_ratio=case.ratio, **descent),
            call("ElasticNet", "alpha=s, l1_ratio=r", options),
        ),
    }
    return lookup(makers, case.prior)()


def sklearn_smooth(problem, options):
    """PoissonRegressor or GammaRegressor, and how it was called."""
    from sklearn import linear_model

    name = f"{problem.case.family}Regressor"
    if problem.case.prior not in ("UnRegularized", "Ridge"):
        raise Absent
    settings = {"solver": "newton-cholesky"} | options
    model = getattr(linear_model, name)(alpha=problem.strength or 0.0, max_iter=10_000, **settings)
    return model, call(name, "alpha=s" if problem.strength else "alpha=0", settings)


def sklearn_logistic(problem, options):
    """LogisticRegression, and how it was called."""
    from sklearn.linear_model import LogisticRegression

    case = problem.case
    ratio = lookup({"UnRegularized": 0.0, "Ridge": 0.0, "Lasso": 1.0, "ElasticNet": case.ratio}, case.prior)
    settings = {"solver": "saga" if ratio else "newton-cholesky"} | options
    inverse = math.inf if problem.strength is None else 1 / (problem.strength * total(problem))
    model = LogisticRegression(C=inverse, l1_ratio=ratio, max_iter=MANY, random_state=0, **settings)
    words = "C=inf" if problem.strength is None else "C=1/(s W)"
    return model, call("LogisticRegression", words + (f", l1_ratio={ratio:g}" if ratio else ""), settings)


def multi_task_lasso(problem, tol):
    """MultiTaskLasso, whose groups are the coefficients of one feature; it has no square root of the group size."""
    from sklearn.linear_model import MultiTaskLasso

    refuse(problem, "weights")
    if (problem.case.family, problem.case.prior) != ("Gaussian", "GroupLasso"):
        raise Absent
    alpha = problem.strength * math.sqrt(problem.y.shape[1])
    model = MultiTaskLasso(alpha=alpha, max_iter=MANY, **given(tol=tol)).fit(problem.X, problem.y)
    return Fit(model.coef_.T, model.intercept_, call("MultiTaskLasso", "alpha=s sqrt(m)", given(tol=tol)))


def fit_glum(problem, tol):
    """GeneralizedLinearRegressor."""
    from glum import GeneralizedLinearRegressor, NegativeBinomialDistribution

    refuse(problem, "outputs", "groups")
    case = problem.case
    family = lookup(
        {
            ("Gaussian", "identity"): "normal",
            ("Poisson", "exp"): "poisson",
            ("Bernoulli", "logistic"): "binomial",
            ("Gamma", "exp"): "gamma",
            ("NegativeBinomial", "exp"): "negative.binomial",
        },
        case.family,
        case.link,
    )
    if case.family == "NegativeBinomial":
        if case.scale is None:
            raise Absent
        family = NegativeBinomialDistribution(theta=case.scale)
    ratio = {"UnRegularized": 0.0, "Ridge": 0.0, "Lasso": 1.0, "ElasticNet": case.ratio}[case.prior]
    settings = {"solver": "irls-cd" if ratio else "irls-ls"} | given(gradient_tol=tol)
    alpha, own, words = glum_strength(problem)
    model = GeneralizedLinearRegressor(
        alpha=alpha, l1_ratio=ratio, family=family, max_iter=1000, scale_predictors=False, **own, **settings
    )
    model.fit(problem.X, problem.y, sample_weight=problem.weight, offset=problem.offset)
    words += f", l1_ratio={ratio:g}" if ratio else ""
    return Fit(model.coef_, model.intercept_, call("GeneralizedLinearRegressor", words, settings))


def glum_strength(problem):
    """The number alpha, the matrices P1 and P2 for strengths per coefficient, and how it was called."""
    strength = problem.strength
    if strength is None:
        return 0.0, {}, "alpha=0"
    if np.ndim(strength) == 0:
        return strength, {}, "alpha=s"
    return 1.0, {"P1": strength, "P2": strength}, "alpha=1, P1=s, P2=s"


def fit_statsmodels(problem, tol):
    """GLM, or NegativeBinomial where the overdispersion is learned."""
    from statsmodels.discrete.discrete_model import NegativeBinomial
    from statsmodels.genmod import families
    from statsmodels.genmod.generalized_linear_model import GLM

    refuse(problem, "outputs")
    case = problem.case
    if case.prior != "UnRegularized":
        raise Absent
    design = np.column_stack([np.ones(len(problem.X)), problem.X])
    if case.family == "NegativeBinomial" and case.scale is None:
        settings = {"method": "newton", "maxiter": 1000} | given(tol=tol)
        start = NegativeBinomial(problem.y, design).fit(method="bfgs", maxiter=1000, disp=0)
        result = NegativeBinomial(problem.y, design).fit(start_params=start.params, disp=0, **settings)
        setting = call("NegativeBinomial", "", {}) + call(".fit", "", settings)
        return Fit(result.params[1:-1], result.params[:1], setting, result.params[-1])
    family, words = lookup(
        {
            ("Gaussian", "identity"): lambda: (families.Gaussian(), "Gaussian()"),
            ("Poisson", "exp"): lambda: (families.Poisson(), "Poisson()"),
            ("Bernoulli", "logistic"): lambda: (families.Binomial(), "Binomial()"),
            ("Bernoulli", "norm.cdf"): lambda: (families.Binomial(families.links.Probit()), "Binomial(Probit())"),
            ("Gamma", "exp"): lambda: (families.Gamma(families.links.Log()), "Gamma(Log())"),
            ("Gamma", "one_over_x"): lambda: (families.Gamma(), "Gamma()"),
            ("NegativeBinomial", "exp"): lambda: (
                families.NegativeBinomial(alpha=case.scale),
                "NegativeBinomial(alpha=a)",
            ),
        },
        case.family,
        case.link,
    )()
    settings = {} if tol is None else {"tol": tol, "tol_criterion": "params"}
    model = GLM(problem.y, design, family, freq_weights=problem.weight, offset=problem.offset)
    result = model.fit(maxiter=1000, **settings)
    words = f"GLM({words})" if problem.weight is None else f"GLM({words}, freq_weights=weights)"
    return Fit(result.params[1:], result.params[:1], words + call(".fit", "", settings))


def fit_skglm(problem, tol):
    """Solvers of skglm: ProxNewton, AndersonCD for squares, GroupBCD and GroupProxNewton for groups."""
    refuse(problem, "offset", "outputs")
    if problem.weight is not None and problem.case.family != "Gaussian":
        raise Absent
    make = skglm_group if problem.case.prior == "GroupLasso" else skglm_separable
    y = 2 * problem.y - 1 if problem.case.family == "Bernoulli" else problem.y
    datafit, penalty, solver, words = make(problem, given(tol=tol))
    solution = solver.solve(np.asfortranarray(problem.X), y, datafit, penalty)[0]
    names = ", ".join(type(part).__name__ for part in (datafit, penalty))
    return Fit(solution[:-1], solution[-1:], call(f"{type(solver).__name__}({words}).solve", names, {}))


def skglm_separable(problem, options):
    """Datafit, penalty, solver and its arguments for penalties that are sums over coefficients."""
    from skglm import datafits, penalties, solvers

    case, strength = problem.case, problem.strength
    makers = {
        ("Gaussian", "identity"): datafits.Quadratic,
        ("Poisson", "exp"): datafits.Poisson,
        ("Bernoulli", "logistic"): datafits.Logistic,
        ("Gamma", "exp"): datafits.Gamma,
    }
    datafit = lookup(makers, case.family, case.link)()
    if problem.weight is not None:
        datafit = datafits.WeightedQuadratic(problem.weight)
    own = np.ndim(strength) > 0
    if own and (case.prior != "Lasso" or case.family != "Gaussian"):
        raise Absent  # ProxNewton hands the intercept to the penalty too, which WeightedL1 does not take
    penalty = {
        "UnRegularized": lambda: penalties.L1(0.0),
        "Ridge": lambda: penalties.L1_plus_L2(strength, 0.0),
        "Lasso": lambda: penalties.WeightedL1(1.0, strength) if own else penalties.L1(strength),
        "ElasticNet": lambda: penalties.L1_plus_L2(strength, case.ratio),
    }[case.prior]()
    solver = solvers.AndersonCD if case.family == "Gaussian" else solvers.ProxNewton
    return datafit, penalty, solver(fit_intercept=True, max_iter=1000, **options), call("", "", options)[1:-1]


def skglm_group(problem, options):
    """The same for groups."""
    from skglm import datafits, penalties, solvers

    makers = {
        ("Gaussian", "identity"): (datafits.QuadraticGroup, solvers.GroupBCD),
        ("Poisson", "exp"): (datafits.PoissonGroup, solvers.GroupProxNewton),
        ("Bernoulli", "logistic"): (datafits.LogisticGroup, solvers.GroupProxNewton),
    }
    refuse(problem, "weights")
    datafit, solver = lookup(makers, problem.case.family, problem.case.link)
    features, sizes = members(problem.groups), np.unique(problem.groups, return_counts=True)[1]
    pointers = np.append(0, np.cumsum(sizes)).astype(np.int32)
    order = np.concatenate(features).astype(np.int32)
    weights = problem.strength * np.sqrt(sizes)
    return (
        datafit(pointers, order),
        penalties.WeightedGroupL2(1.0, weights, pointers, order),
        solver(fit_intercept=True, max_iter=1000, **options),
        call("", "", options)[1:-1],
    )


def fit_celer(problem, tol):
    """Lasso, ElasticNet, GroupLasso and LogisticRegression of celer; the last has no intercept."""
    import celer

    refuse(problem, "weights", "offset", "outputs")
    case, strength = problem.case, problem.strength
    options = given(tol=tol)
    if (case.family, case.prior, case.data) == ("Bernoulli", "Lasso", "antisymmetric"):
        model = celer.LogisticRegression(C=1 / (strength * len(problem.y)), max_iter=1000, **options)
        model.fit(problem.X, problem.y)
        return Fit(model.coef_[0], [0.0], call("LogisticRegression", "C=1/(s n)", options))
    if case.family != "Gaussian":
        raise Absent
    own = {"weights": strength} if np.ndim(strength) else {}
    alpha, words = (1.0, "alpha=1, weights=s") if own else (strength, "alpha=s")
    makers = {
        "Lasso": lambda: (celer.Lasso(alpha, max_iter=1000, **own, **options), "Lasso", words),
        "ElasticNet": lambda: (
            celer.ElasticNet(alpha, l1_ratio=case.ratio, max_iter=1000, **own, **options),
            "ElasticNet",
            f"{words}, l1_ratio=r",
        ),
        "GroupLasso": lambda: (celer_group(problem, options), "GroupLasso", "alpha=1, weights=s sqrt(p_g)"),
    }
    model, name, words = lookup(makers, case.prior)()
    model.fit(problem.X, problem.y)
    return Fit(model.coef_, model.intercept_, call(name, words, options))


def celer_group(problem, options):
    """GroupLasso of celer, whose weights hold the strengths and the roots of the group sizes."""
    from celer import GroupLasso

    features = members(problem.groups)
    weights = problem.strength * np.sqrt([len(group) for group in features])
    return GroupLasso([group.tolist() for group in features], 1.0, max_iter=1000, weights=weights, **options)


def fit_nemos(problem, tol):
    """GLM or PopulationGLM of NeMoS; its Gaussian loss has no factor 1/2, so strengths are doubled there."""
    import jax
    from nemos.glm import GLM, PopulationGLM
    from nemos.observation_models import NegativeBinomialObservations
    from nemos.regularizer import GroupLasso

    refuse(problem, "weights", "offset")
    case = problem.case
    if case.family == "NegativeBinomial" and case.scale is None:
        raise Absent
    jax.config.update("jax_enable_x64", problem.X.dtype == np.float64)
    strength, words = nemos_strength(problem)
    smooth = case.prior in ("UnRegularized", "Ridge")
    settings = {} if tol is None else {"tol": tol, "maxiter": 10_000 if smooth else 50_000}
    kind = GLM if problem.y.ndim == 1 else PopulationGLM
    model = kind(
        observation_model=NegativeBinomialObservations(case.scale) if case.scale else case.family,
        inverse_link_function=case.link,
        regularizer=case.prior if problem.groups is None else GroupLasso(mask_of(problem.groups)),
        regularizer_strength=strength,
        solver_kwargs=settings,
    )
    model.fit(problem.X, problem.y)
    return Fit(model.coef_, model.intercept_, call(kind.__name__, words, settings))


def nemos_strength(problem):
    """Strength as NeMoS wants it, and how it was called."""
    case = problem.case
    if problem.strength is None:
        return None, ""
    factor, words = (2, "2 s") if case.family == "Gaussian" else (1, "s")
    strength = factor * problem.strength
    if np.ndim(strength) and case.prior != "GroupLasso":
        strength = np.broadcast_to(strength, problem.X.shape[1:] + problem.y.shape[1:])
    if case.ratio is None:
        return strength, f"strength={words}"
    return (strength, case.ratio), f"strength=({words}, r)"


def fit_adelie(problem, tol):
    """grpnet of adelie at one strength; without groups each coefficient is a group."""
    import adelie

    case = problem.case
    family, link = adelie_family(problem)
    weight = None if problem.weight is None else problem.weight / problem.weight.sum()
    ratio = {"Ridge": 0.0, "ElasticNet": case.ratio}.get(case.prior, 1.0)
    starts, factors, words = adelie_groups(problem)
    settings = {} if tol is None else {"tol": tol, "irls_tol": tol}
    state = adelie.grpnet(
        np.asfortranarray(problem.X),
        getattr(adelie.glm, family)(np.asfortranarray(problem.y), weights=weight, **link),
        groups=starts,
        alpha=ratio,
        penalty=factors,
        offsets=problem.offset,
        lmda_path=np.ones(1),
        early_exit=False,
        progress_bar=False,
        **settings,
    )
    coef = state.betas[-1].toarray().reshape(problem.X.shape[1:] + problem.y.shape[1:])
    words += f", alpha={ratio:g}" if ratio != 1 else ""
    return Fit(coef, np.ravel(state.intercepts[-1]), call("grpnet", words, settings))


def adelie_family(problem):
    """Name of the class in adelie.glm, and its link argument."""
    case = problem.case
    if problem.y.ndim == 2:
        refuse(problem, "vector strengths", "weights")
        return lookup({("Gaussian", "GroupLasso"): ("multigaussian", {})}, case.family, case.prior)
    families = {
        ("Gaussian", "identity"): ("gaussian", {}),
        ("Poisson", "exp"): ("poisson", {}),
        ("Bernoulli", "logistic"): ("binomial", {"link": "logit"}),
        ("Bernoulli", "norm.cdf"): ("binomial", {"link": "probit"}),
    }
    return lookup(families, case.family, case.link)


def adelie_groups(problem):
    """First feature of each group, its penalty factor, and how it was called; groups lie side by side."""
    if problem.y.ndim == 2:
        # The loss for several outputs is their mean, where bayesglm has the sum.
        factor = problem.strength / math.sqrt(problem.y.shape[1])
        return np.arange(problem.X.shape[1]), np.full(problem.X.shape[1], factor), "penalty=s sqrt(m) / m"
    if problem.groups is not None:
        starts, sizes = np.unique(problem.groups, return_index=True, return_counts=True)[1:]
        return starts, problem.strength * np.sqrt(sizes), "penalty=s sqrt(p_g)"
    p = problem.X.shape[1]
    if problem.strength is None:
        return np.arange(p), np.zeros(p), "penalty=0"
    return np.arange(p), np.broadcast_to(problem.strength, p).astype(float), "penalty=s"


def members(groups):
    """Features of each group."""
    return [np.flatnonzero(groups == number) for number in np.unique(groups)]


def refuse(problem, *what):
    """Raise Absent if the problem has something that the peer does not know."""
    has = {
        "weights": problem.weight is not None,
        "offset": problem.offset is not None,
        "outputs": problem.y.ndim == 2,
        "groups": problem.case.prior == "GroupLasso",
        "vector strengths": np.ndim(problem.strength) > 0,
    }
    if any(has[name] for name in what):
        raise Absent


def lookup(table, *key):
    """Entry of a table; raises Absent if there is none."""
    key = key if len(key) > 1 else key[0]
    if key not in table:
        raise Absent
    return table[key]


def total(problem):
    """Sum of the weights."""
    return len(problem.y) if problem.weight is None else problem.weight.sum()


def given(**options):
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def call(name, words, options):
    """A call as a person would write it."""
    parts = [words] if words else []
    parts += [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value!r}" for key, value in options.items()]
    return f"{name}({', '.join(parts)})".replace("'", '"')


ADAPTERS = {
    "scikit-learn": Adapter(fit_sklearn, "scikit-learn", ("sklearn.linear_model",)),
    "glum": Adapter(fit_glum, "glum", ("glum",)),
    "statsmodels": Adapter(
        fit_statsmodels,
        "statsmodels",
        ("statsmodels.genmod.generalized_linear_model", "statsmodels.discrete.discrete_model"),
    ),
    "skglm": Adapter(fit_skglm, "skglm", ("skglm.datafits", "skglm.penalties", "skglm.solvers")),
    "celer": Adapter(fit_celer, "celer", ("celer",)),
    "nemos": Adapter(fit_nemos, "nemos", ("nemos.glm", "nemos.observation_models", "nemos.regularizer")),
    "adelie": Adapter(fit_adelie, "adelie", ("adelie",)),
}

if __name__ == "__main__":
    serve(ADAPTERS)
