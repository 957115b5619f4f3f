"""Fits of the same model, written in another way, are the same: for every family and regularizer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesglm import GLM

FAMILIES = {"Poisson": None, "Gaussian": None, "Bernoulli": None, "Gamma": "exp", "NegativeBinomial": None}
REGULARIZERS = ("UnRegularized", "Ridge", "Lasso", "ElasticNet", "GroupLasso")
COMBINATIONS = [
    pytest.param(family, regularizer, marks=[] if i == j < 3 else pytest.mark.slow)
    for i, family in enumerate(FAMILIES)
    for j, regularizer in enumerate(REGULARIZERS)
]
N, TWICE = 40, 25  # samples, and how many of them come twice: shapes are fixed, so that little is compiled
STRENGTHS = st.floats(0.001, 1.0)


@st.composite
def problems(draw, family):
    """X of two leaves of 2 and 3 features, y, and an offset."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = {"a": rng.normal(size=(N, 2)), "b": draw(st.floats(0.1, 10.0)) * rng.normal(size=(N, 3))}
    mean = np.exp(0.4 * X["a"][:, 0] + 0.1)
    y = {
        "Poisson": rng.poisson(mean),
        "Gaussian": rng.normal(mean),
        "Bernoulli": rng.random(N) < mean / (1 + mean),
        "Gamma": rng.gamma(2.0, mean / 2),
        "NegativeBinomial": rng.poisson(mean * rng.gamma(2.0, 0.5, N)),
    }[family].astype(float)
    return X, y, 0.3 * rng.normal(size=N)


def model(family, regularizer, strength):
    """A model; without a regularizer a strength has no place."""
    if regularizer == "UnRegularized":
        return GLM(family, FAMILIES[family])
    if regularizer == "ElasticNet":
        strength = (strength, 0.4)
    return GLM(family, FAMILIES[family], regularizer, strength)


def same(first, second):
    """Coefficients (p,) and intercepts agree."""
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def flat(fitted):
    return np.concatenate([fitted.coef_["a"], fitted.coef_["b"]]), fitted.intercept_


pytestmark = [
    pytest.mark.parametrize(("family", "regularizer"), COMBINATIONS),
    # Draws of 40 zeros and ones may be separable, of which a fit warns.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
FEW = settings(max_examples=8, deadline=None, derandomize=True)


def test_a_weight_is_a_number_of_rows(family, regularizer):
    @FEW
    @given(problems(family), STRENGTHS, st.permutations(range(N)))
    def check(problem, strength, order):
        X, y, offset = problem
        twice = np.array(order[:TWICE])
        weight = np.ones(N)
        weight[twice] = 2
        weighted = model(family, regularizer, strength).fit(X, y, sample_weight=weight, offset=offset)
        if not weighted.converged_ or abs(weighted.intercept_).max() > 20:
            return  # no finite optimum
        rows = np.concatenate([np.arange(N), twice])
        repeated = {name: leaf[rows] for name, leaf in X.items()}
        repeated = model(family, regularizer, strength).fit(repeated, y[rows], offset=offset[rows])
        same(flat(weighted), flat(repeated))
        np.testing.assert_allclose(weighted.scale_, repeated.scale_, rtol=1e-6)

    check()


def test_a_constant_in_the_offset_is_a_shift_of_the_intercept(family, regularizer):
    @FEW
    @given(problems(family), STRENGTHS, st.floats(-1.0, 1.0))
    def check(problem, strength, shift):
        X, y, offset = problem
        before = model(family, regularizer, strength).fit(X, y, offset=offset)
        if not before.converged_ or abs(before.intercept_).max() > 20:
            return
        after = model(family, regularizer, strength).fit(X, y, offset=offset + shift)
        coef, intercept = flat(after)
        same(flat(before), (coef, intercept + shift))

    check()


def test_leaves_may_come_in_any_order_and_be_split(family, regularizer):
    @FEW
    @given(problems(family), STRENGTHS)
    def check(problem, strength):
        X, y, offset = problem
        together = model(family, regularizer, strength).fit(X, y, offset=offset)
        if not together.converged_ or abs(together.intercept_).max() > 20:
            return
        swapped = model(family, regularizer, strength).fit({"a": X["b"], "b": X["a"]}, y, offset=offset)
        same(flat(together), (np.concatenate([swapped.coef_["b"], swapped.coef_["a"]]), swapped.intercept_))
        if regularizer == "GroupLasso":
            return  # a leaf is a group there
        parts = {"a": X["a"], "b": {"first": X["b"][:, :1], "rest": X["b"][:, 1:]}}
        split = model(family, regularizer, strength).fit(parts, y, offset=offset)
        b = np.concatenate([split.coef_["b"]["first"], split.coef_["b"]["rest"]])
        same(flat(together), (np.concatenate([split.coef_["a"], b]), split.intercept_))

    check()
