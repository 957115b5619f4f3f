"""What the packages are timed on: data of the size that makes a fit slow, and who competes on it.

Features are drawn column by column, each correlated with the one before; all have mean zero and variance one, so that
no package suffers from units.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from problems import Case, antisymmetric, largest_strength, two_digits

SEED = 11


class Task(NamedTuple):
    """One thing to time: the fits at all strengths of `path`, one after the other.

    Attributes
    ----------
    title : str
    data : dict
        X, y and, for GroupLasso, groups.
    case : Case
        Its strength is replaced by those of `path`.
    path : list
        Strengths, each a number or a nested list.
    another : float or nested list, optional
        Where it is given, a new process times the fit at this strength as its second one.
    """

    title: str
    data: dict
    case: Case
    path: list
    another: Any = None


class Workload(NamedTuple):
    """A section of the page.

    Attributes
    ----------
    title : str
    make : callable
        make(scale) -> iterator of Task.
    contenders : tuple of str
        Keys of `contenders.CONTENDERS` besides bayesglm.
    mirrored : tuple of str
        Those that fit no intercept and compete only where symmetry makes it zero.
    """

    title: str
    make: Callable
    contenders: tuple
    mirrored: tuple = ()


def scaled(scale, *counts):
    """Sizes times the scale, but 5 at least."""
    return [max(5, round(scale * count)) for count in counts]


def make_features(rng, n, p, correlation):
    """Features (n, p) of which neighbours have this correlation."""
    columns = rng.normal(size=(p, n))
    for j in range(1, p):
        columns[j] *= np.sqrt(1 - correlation**2)
        columns[j] += correlation * columns[j - 1]
    return np.ascontiguousarray(columns.T)


def make_signal(rng, X, active, n_outputs=None):
    """Linear predictors of variance one in which `active` features have a part."""
    shape = (X.shape[1],) if n_outputs is None else (X.shape[1], n_outputs)
    coef = np.zeros(shape)
    chosen = rng.choice(X.shape[1], min(max(active, 1), X.shape[1]), replace=False)
    coef[chosen] = rng.normal(size=(len(chosen), *shape[1:]))
    signal = X @ coef
    return signal / signal.std(axis=0)


def draw(rng, family, signal):
    """Observations with this linear predictor, up to a factor and an intercept."""
    if family == "Gaussian":
        return signal + rng.normal(size=signal.shape)
    if family == "Bernoulli":
        return (rng.random(signal.shape) < 1 / (1 + np.exp(-2 * signal))).astype(float)
    return rng.poisson(np.exp(0.5 * signal - 0.5)).astype(float)


def make_data(family, n, p, correlation, active, n_outputs=None):
    """Features and observations."""
    rng = np.random.default_rng(SEED)
    X = make_features(rng, n, p, correlation)
    return {"X": X, "y": draw(rng, family, make_signal(rng, X, active, n_outputs))}


def poisson_ridge(scale):
    """Many samples, few features."""
    n, p = scaled(scale, 100_000, 200)
    yield Task(shape(n, p), make_data("Poisson", n, p, 0.5, p), Case("", "Poisson", "exp", "Ridge"), [1e-3])


def logistic_ridge(scale):
    """Many samples, few features."""
    n, p = scaled(scale, 100_000, 200)
    yield Task(shape(n, p), make_data("Bernoulli", n, p, 0.5, p), Case("", "Bernoulli", "logistic", "Ridge"), [1e-3])


def gaussian_ridge(scale):
    """More features than samples, five strengths."""
    n, p = scaled(scale, 2000, 11_983)
    data = make_data("Gaussian", n, p, 0.5, p // 10)
    path = np.geomspace(0.1, 1000, 5).tolist()
    yield Task(f"{shape(n, p)}, strengths 0.1 to 1000", data, Case("", "Gaussian", "identity", "Ridge"), path)


def gaussian_lasso(scale):
    """More features than samples, neighbours much alike; up to some 1700 active."""
    n, p = scaled(scale, 2000, 11_983)
    data = make_data("Gaussian", n, p, 0.9, n // 10)
    case = Case("", "Gaussian", "identity", "Lasso")
    yield from at_fractions(shape(n, p), data, case, (0.5, 0.2, 0.1, 0.05, 0.02))


def logistic_lasso(scale):
    """More features than samples, few and many active; and once the samples with their mirror images."""
    n, p = scaled(scale, 2000, 10_000)
    case = Case("", "Bernoulli", "logistic", "Lasso")
    data = make_data("Bernoulli", n, p, 0.5, n // 40)
    yield from at_fractions(shape(n, p), data, case, (0.28, 0.12))
    half = make_data("Bernoulli", n // 2, p, 0.5, n // 40)
    mirrored = antisymmetric(half["X"], half["y"], None)
    yield from at_fractions(f"{shape(n, p)}, mirrored", mirrored, replace(case, data="antisymmetric"), (0.28,))


def poisson_groups(scale):
    """Groups of ten features, of which one in ten has an influence."""
    (count,) = scaled(scale, 50)
    n = scaled(scale, 50_000)[0]
    rng = np.random.default_rng(SEED)
    X = make_features(rng, n, 10 * count, 0.5)
    signal = make_signal(rng, X[:, : 10 * max(1, count // 10)], 10 * count)
    data = {"X": X, "y": draw(rng, "Poisson", signal), "groups": np.repeat(np.arange(count), 10)}
    yield from at_fractions(
        f"{shape(*X.shape)}, {count} groups", data, Case("", "Poisson", "exp", "GroupLasso"), (0.1,)
    )


def population_ridge(scale):
    """Many outputs, each with its own strength."""
    n, p, m = scaled(scale, 20_000, 100, 100)
    data = make_data("Poisson", n, p, 0.5, p, m)
    path = [[np.geomspace(1e-4, 1e-2, m).tolist()]]
    yield Task(f"{shape(n, p)}, {m} outputs", data, Case("", "Poisson", "exp", "Ridge"), path)


def small_ridge(scale):
    """A small fit, which is mostly the start of the process; of one size whatever the scale."""
    data = make_data("Poisson", 500, 7, 0.5, 7)
    yield Task(shape(500, 7), data, Case("", "Poisson", "exp", "Ridge"), [1e-2], 3e-2)


def at_fractions(title, data, case, fractions):
    """Tasks at fractions of the strength at which all coefficients vanish."""
    largest = largest_strength(case, data)
    for fraction in fractions:
        yield Task(
            f"{title}, strength {fraction:g} of the largest useful", data, case, [two_digits(fraction * largest)]
        )


def shape(n, p):
    """Size of the features, for people to read."""
    return f"{n} x {p}"


SMOOTH = ("scikit-learn lbfgs", "scikit-learn newton-cholesky", "glum", "nemos")
WORKLOADS = {
    "poisson-ridge": Workload("Poisson, Ridge", poisson_ridge, SMOOTH),
    "logistic-ridge": Workload("Bernoulli, Ridge", logistic_ridge, SMOOTH),
    "gaussian-ridge": Workload("Gaussian, Ridge, five strengths", gaussian_ridge, ("scikit-learn", "nemos")),
    "gaussian-lasso": Workload("Gaussian, Lasso", gaussian_lasso, ("skglm", "celer", "scikit-learn", "adelie")),
    "logistic-lasso": Workload("Bernoulli, Lasso", logistic_lasso, ("adelie", "skglm", "nemos"), ("celer",)),
    "poisson-groups": Workload("Poisson, GroupLasso", poisson_groups, ("adelie", "skglm", "nemos")),
    "population-ridge": Workload(
        "Poisson, Ridge, one strength per output", population_ridge, ("scikit-learn lbfgs", "nemos", "glum")
    ),
    "small-ridge": Workload("Poisson, Ridge, small", small_ridge, ("nemos", "scikit-learn lbfgs", "glum")),
}
