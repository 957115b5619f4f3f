"""The problems that bayesglm and its peers are to solve: data sets, and cases that name one of them.

Features are correlated, have standard deviations between 0.3 and 3 and means that are not zero, and come in four
groups of unequal size, of which some have no influence: nothing is trivial, and no package is spared the scaling.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

N_SAMPLES = 500
GROUP_SIZES = (3, 4, 6, 7)
N_OUTPUTS = 3
OVERDISPERSION = 0.5
SMALL = 0.1  # strengths, as a fraction of the one at which all coefficients vanish
GROUPWISE = {"poisson": 0.7, "gaussian, outputs": SMALL, "poisson, outputs": SMALL}  # the same for groups
ANY_GROUPWISE = 0.4
RATIO = 0.5

DEFAULT_LINKS = {
    "Gaussian": "identity",
    "Poisson": "exp",
    "Bernoulli": "logistic",
    "Gamma": "one_over_x",
    "NegativeBinomial": "exp",
}
PRIORS = ("UnRegularized", "Ridge", "Lasso", "ElasticNet", "GroupLasso")


@dataclass(frozen=True)
class Case:
    """One fit, in bayesglm's words.

    Attributes
    ----------
    data : str
        Key of `make_data`.
    family, link, prior : str
    strength : float or nested list, optional
        For ElasticNet the first of the pair; the other is `ratio`. A list is one per coefficient, (1, outputs) one
        per output or, for GroupLasso, one per group.
    ratio : float, optional
    scale : float, optional
        Overdispersion; None is learned.
    weighted, offset : bool
        Whether the weights and the offset of the data are used.
    title : str
        What is special about it.
    """

    data: str
    family: str
    link: str
    prior: str
    strength: Any = None
    ratio: float | None = None
    scale: float | None = None
    weighted: bool = False
    offset: bool = False
    title: str = ""

    def as_dict(self):
        """The case as JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Problem:
    """A case with its arrays; `weight`, `offset`, `groups` are None where they are not used.

    `groups` holds the number of the group of each coefficient, in the shape of the coefficients.
    """

    X: Any
    y: Any
    weight: Any
    offset: Any
    groups: Any
    strength: Any
    case: Case


def make_data():
    """All data sets: name to dict of X, y, weight, offset and groups."""
    rng = np.random.default_rng(7)
    X, spread = make_features(rng)
    groups = np.repeat(np.arange(len(GROUP_SIZES)), GROUP_SIZES)
    signal = (X - X.mean(0)) @ make_coef(rng, spread)
    signal *= 0.8 / signal.std()
    common = {
        "X": X,
        "groups": groups,
        "weight": rng.uniform(0.5, 2, N_SAMPLES),
        "offset": np.log(rng.uniform(0.5, 2, N_SAMPLES)),
    }
    odds = np.exp(0.4 + 1.5 * signal)
    overdispersed = rng.gamma(1 / OVERDISPERSION, OVERDISPERSION * np.exp(1 + signal))
    targets = {
        "gaussian": 1.5 + signal + rng.normal(size=N_SAMPLES),
        "poisson": rng.poisson(np.exp(0.7 + 0.7 * signal)).astype(float),
        "bernoulli": (rng.random(N_SAMPLES) < odds / (1 + odds)).astype(float),
        "gamma": rng.gamma(2.0, np.exp(0.5 + signal) / 2),
        "gamma, inverse": rng.gamma(2.0, 0.5 / (1.5 + 0.3 * signal)),
        "negative binomial": rng.poisson(overdispersed).astype(float),
    }
    data = {name: common | {"y": y} for name, y in targets.items()}
    data["antisymmetric"] = antisymmetric(X, targets["bernoulli"], groups)
    return data | make_outputs(rng, common, spread)


def make_features(rng):
    """Features (n, p) and the standard deviations that they were drawn with."""
    p = sum(GROUP_SIZES)
    correlation = 0.5 ** np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
    spread = rng.permutation(np.geomspace(0.3, 3, p))
    X = rng.normal(size=(N_SAMPLES, p)) @ np.linalg.cholesky(correlation).T
    return (X + rng.normal(size=p)) * spread, spread


def make_coef(rng, spread):
    """Coefficients of which the first and third group are not zero."""
    active = np.repeat([1.0, 0.0, 1.0, 0.0], GROUP_SIZES)
    return active * rng.choice([-1, 1], len(spread)) * rng.uniform(0.3, 1, len(spread)) / spread


def make_outputs(rng, common, spread):
    """Data sets with several outputs; groups of coefficients are those of one feature over all outputs."""
    X = common["X"]
    coef = np.stack([make_coef(rng, spread) for _ in range(N_OUTPUTS)], axis=1)
    signal = (X - X.mean(0)) @ coef
    signal *= 0.8 / signal.std(axis=0)
    rows = np.repeat(np.arange(X.shape[1])[:, None], N_OUTPUTS, axis=1)
    shared = {name: common[name] for name in ("X", "weight")} | {"groups": rows}
    return {
        "gaussian, outputs": shared | {"y": 1.5 + signal + rng.normal(size=signal.shape)},
        "poisson, outputs": shared | {"y": rng.poisson(np.exp(0.7 + 0.7 * signal)).astype(float)},
    }


def antisymmetric(X, y, groups):
    """Zeros and ones whose intercept is zero by symmetry, for packages that fit none."""
    return {"X": np.concatenate([X, -X]), "y": np.concatenate([y, 1 - y]), "groups": groups}


def make_problem(case, data):
    """A Problem from a Case and the arrays of its data set."""
    return Problem(
        X=data["X"],
        y=data["y"],
        weight=data["weight"] if case.weighted else None,
        offset=data["offset"] if case.offset else None,
        groups=data["groups"] if case.prior == "GroupLasso" else None,
        strength=np.array(case.strength) if isinstance(case.strength, list) else case.strength,
        case=case,
    )


def mask_of(groups):
    """Zeros and ones (n_groups, *coef.shape), as GroupLasso wants them, from the group of each coefficient."""
    return (groups == np.unique(groups).reshape(-1, *[1] * groups.ndim)).astype(float)


def make_cases(data):
    """All cases, families in the outer loop."""
    families = [
        ("gaussian", "Gaussian", "identity"),
        ("poisson", "Poisson", "exp"),
        ("poisson", "Poisson", "softplus"),
        ("bernoulli", "Bernoulli", "logistic"),
        ("bernoulli", "Bernoulli", "norm.cdf"),
        ("gamma", "Gamma", "exp"),
        ("gamma, inverse", "Gamma", "one_over_x"),
        ("negative binomial", "NegativeBinomial", "exp"),
    ]
    cases = []
    for name, family, link in families:
        plain = [make_case(data, name, family, link, prior) for prior in PRIORS]
        cases += plain
        if link == DEFAULT_LINKS[family] or family == "Gamma":
            weighted = [case for case in plain if case.prior in ("UnRegularized", "Ridge", "ElasticNet")]
            cases += [replace(case, weighted=True, title="sample weights") for case in weighted]
        if name in ("gaussian", "poisson") and link == DEFAULT_LINKS[family]:
            cases += [own_strengths(case, data) for case in plain if case.prior != "UnRegularized"]
    return cases + special_cases(data)


def special_cases(data):
    """Cases that only some families have."""
    flat = make_case(data, "poisson", "Poisson", "exp", "UnRegularized")
    sparse = make_case(data, "poisson", "Poisson", "exp", "Lasso")
    learned = make_case(data, "negative binomial", "NegativeBinomial", "exp", "UnRegularized")
    centered = make_case(data, "antisymmetric", "Bernoulli", "logistic", "Lasso")
    grouped = make_case(data, "gaussian, outputs", "Gaussian", "identity", "GroupLasso")
    outputs = [make_case(data, "poisson, outputs", "Poisson", "exp", prior) for prior in PRIORS]
    return [
        replace(flat, offset=True, title="offset"),
        replace(sparse, offset=True, title="offset"),
        replace(learned, scale=None, title="overdispersion learned"),
        replace(centered, title="intercept zero by symmetry"),
        replace(grouped, title=outputs_title(grouped)),
        *[replace(case, title=outputs_title(case)) for case in outputs],
        *[strengths_of_outputs(case) for case in outputs if case.prior in ("Ridge", "Lasso", "ElasticNet")],
    ]


def outputs_title(case):
    """What is special about a case with several outputs."""
    return f"{N_OUTPUTS} outputs" + (", groups across them" if case.prior == "GroupLasso" else "")


def make_case(data, name, family, link, prior):
    """The case of a data set, family and prior, at a strength at which some coefficients are zero."""
    scale = OVERDISPERSION if family == "NegativeBinomial" else None
    case = Case(name, family, link, prior, scale=scale, ratio=RATIO if prior == "ElasticNet" else None)
    if prior == "UnRegularized":
        return case
    fraction = GROUPWISE.get(name, ANY_GROUPWISE) if prior == "GroupLasso" else SMALL
    return replace(case, strength=two_digits(fraction * largest_strength(case, data[name])))


def own_strengths(case, data):
    """The same with a strength for each coefficient or, for GroupLasso, each group."""
    count = len(GROUP_SIZES) if case.prior == "GroupLasso" else data[case.data]["X"].shape[1]
    factors = np.random.default_rng(count).uniform(0.3, 2, count)
    strength = [two_digits(case.strength * factor) for factor in factors]
    title = "one strength per " + ("group" if case.prior == "GroupLasso" else "coefficient")
    return replace(case, strength=strength, title=title)


def strengths_of_outputs(case):
    """The same with a strength for each output."""
    strength = [[two_digits(case.strength * factor) for factor in np.linspace(0.5, 2, N_OUTPUTS)]]
    return replace(case, strength=strength, title=f"{N_OUTPUTS} outputs, one strength per output")


def largest_strength(case, data):
    """Strength at which all coefficients vanish: from the gradient at zero coefficients; for Ridge that of Lasso."""
    X, y = data["X"], data["y"]
    mean = y.mean(axis=0)
    gradient = (X - X.mean(0)).T @ ((y - mean) * sensitivity(case, mean)) / len(y)
    if case.prior == "GroupLasso":
        groups = [gradient[data["groups"] == group] for group in np.unique(data["groups"])]
        return max(np.linalg.norm(part) / math.sqrt(part.size) for part in groups)
    return np.abs(gradient).max() / (case.ratio or 1.0)


def sensitivity(case, mean):
    """Derivative of the mean by the linear predictor, divided by the variance."""
    canonical = {("Gaussian", "identity"), ("Poisson", "exp"), ("Bernoulli", "logistic")}
    if (case.family, case.link) in canonical:
        return np.ones_like(mean)
    formulas = {
        ("Poisson", "softplus"): -np.expm1(-mean) / mean,
        ("Bernoulli", "norm.cdf"): 1.6 * np.ones_like(mean),
        ("Gamma", "exp"): 1 / mean,
        ("Gamma", "one_over_x"): np.ones_like(mean),
        ("NegativeBinomial", "exp"): 1 / (1 + OVERDISPERSION * mean),
    }
    return formulas[case.family, case.link]


def two_digits(number):
    """The number rounded to two significant digits."""
    return float(f"{number:.1e}")
