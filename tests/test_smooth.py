"""Fits of smooth penalties by a Hessian of some samples, and by a matrix of the samples where features are many."""

import numpy as np
import pytest
from sklearn.linear_model import GammaRegressor, LogisticRegression, PoissonRegressor
from sklearn.linear_model import Ridge as RidgeRegressor

from bayesglm import GLM, PopulationGLM
from bayesglm._smooth import LEAST_SAMPLES, SAMPLES_PER_FEATURE

N = 2 * LEAST_SAMPLES + 500  # enough that not all samples make the Hessian
STRENGTH = 0.01


def draw(family, eta, rng):
    return {
        "Poisson": lambda: rng.poisson(np.exp(eta)),
        "Bernoulli": lambda: rng.random(eta.shape) < 1 / (1 + np.exp(-eta)),
        "Gaussian": lambda: eta + rng.normal(size=eta.shape),
        "Gamma": lambda: rng.gamma(2.0, np.exp(eta) / 2),
    }[family]().astype(float)


def peer(family, n):
    exact = {"solver": "newton-cholesky", "tol": 1e-12}
    return {
        "Poisson": PoissonRegressor(alpha=STRENGTH, **exact),
        "Gamma": GammaRegressor(alpha=STRENGTH, **exact),
        "Bernoulli": LogisticRegression(C=1 / (n * STRENGTH), **exact),
        "Gaussian": RidgeRegressor(alpha=n * STRENGTH, solver="cholesky"),
    }[family]


def model_of(family):
    return GLM(family, "exp" if family == "Gamma" else None, "Ridge", STRENGTH)


@pytest.mark.parametrize("family", ["Poisson", "Bernoulli", "Gaussian", "Gamma"])
@pytest.mark.parametrize("order", ["as drawn", pytest.param("sorted by y", marks=pytest.mark.slow)])
def test_many_samples_agree_with_scikit_learn(family, order, rng):
    X = rng.normal(size=(N, 4)) @ (np.eye(4) + 0.7 * np.eye(4, k=1)) * [1e-2, 1, 30, 1] + [0, 5, 100, 0]
    rare = np.zeros((N, 1))
    rare[[17, 1234, 4242]] = 1.0  # a feature that the chosen samples may not show
    X = np.hstack([X, rare])
    eta = (X - X.mean(0)) @ [20, 0.3, -0.01, 0.2, 1.0]
    y = draw(family, eta, rng)
    if order == "sorted by y":
        X, y = X[np.argsort(y)], np.sort(y)
    model = model_of(family).fit(X, y)
    theirs = peer(family, N).fit(X, y)
    assert model.converged_
    np.testing.assert_allclose(model.coef_, np.ravel(theirs.coef_), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, theirs.intercept_, rtol=1e-6)
    design = (X - X.mean(0)) / X.std(0)
    mean = model.predict(X)
    curvature = {"Poisson": mean, "Bernoulli": mean * (1 - mean)}.get(family, np.ones(N))
    full = np.column_stack([np.ones(N), design])
    hessian = (full.T * curvature) @ full / N
    bend = np.diag([0.0, *(STRENGTH / X.std(0) ** 2)])
    edf = np.trace(np.linalg.solve(hessian + bend, hessian))
    # By all samples where the dispersion rests on it.
    np.testing.assert_allclose(N - model.dof_resid_[0], edf, rtol=1e-6 if family in ("Gaussian", "Gamma") else 0.1)


@pytest.mark.parametrize("seen", [12, N // 10])
def test_weights_choose_among_many_samples(seen, rng):
    """Weights that leave out most of the samples, as the folds of a cross-validation may, or nearly all."""
    X = rng.normal(size=(N, 3))
    y = draw("Poisson", X @ [0.5, -0.2, 0.1], rng)
    for _ in range(4):
        weight = np.zeros(N)
        weight[rng.choice(N, seen, replace=False)] = rng.integers(1, 3, seen)
        model = GLM(regularizer="Ridge", regularizer_strength=STRENGTH).fit(X, y, sample_weight=weight)
        theirs = peer("Poisson", N).fit(X, y, sample_weight=weight)
        assert model.converged_
        np.testing.assert_allclose(model.coef_, theirs.coef_, rtol=1e-6, atol=1e-8)


def test_outputs_of_many_samples_are_fits_of_their_own(rng):
    X = rng.normal(size=(N, 3))
    y = draw("Poisson", X @ np.array([[0.5, 0.0, 1.0], [0.2, 0.3, -1.0], [0.0, 0.0, 0.5]]), rng)
    strength = [[0.001, 0.1, 1.0]]
    together = PopulationGLM(regularizer="Ridge", regularizer_strength=strength).fit(X, y)
    assert together.converged_
    for output, s in enumerate(strength[0]):
        alone = GLM(regularizer="Ridge", regularizer_strength=s).fit(X, y[:, output])
        np.testing.assert_allclose(together.coef_[:, output], alone.coef_, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("family", ["Poisson", pytest.param("Bernoulli", marks=pytest.mark.slow), "Gaussian"])
def test_more_features_than_samples_agree_with_scikit_learn(family, rng):
    n, p = 60, 90
    X = rng.normal(size=(n, p)) + 2.0
    y = draw(family, 0.2 * (X[:, :5] - 2).sum(1), rng)
    weight = rng.integers(1, 4, n).astype(float)
    model = model_of(family).set_params(regularizer_strength=0.1).fit(X, y, sample_weight=weight)
    theirs = peer(family, n)
    alpha = {"C": 1 / (weight.sum() * 0.1)} if family == "Bernoulli" else {"alpha": 0.1}
    theirs.set_params(**(alpha if family != "Gaussian" else {"alpha": 0.1 * weight.sum()}))
    theirs.fit(X, y, sample_weight=weight)
    assert model.converged_
    np.testing.assert_allclose(model.coef_, np.ravel(theirs.coef_), atol=1e-8)
    mean = model.predict(X)
    curvature = {"Poisson": mean, "Bernoulli": mean * (1 - mean)}.get(family, np.ones(n)) * weight / weight.sum()
    full = np.column_stack([np.ones(n), X])
    hessian = (full.T * curvature) @ full
    edf = np.trace(np.linalg.solve(hessian + np.diag([0.0] + [0.1] * p), hessian))
    np.testing.assert_allclose(weight.sum() - model.dof_resid_[0], edf, rtol=1e-7)


def test_more_features_than_samples_with_strengths_of_their_own(rng):
    """Strengths by coefficient and output, and a mask: the optimality conditions are written out here."""
    n, p = 40, 60
    X = rng.normal(size=(n, p))
    y = draw("Poisson", 0.3 * X[:, :2], rng)
    strength = rng.uniform(0.05, 0.5, (p, 2))
    mask = (rng.random((p, 2)) < 0.8).astype(int)
    model = PopulationGLM(regularizer="Ridge", regularizer_strength=strength, feature_mask=mask).fit(X, y)
    assert model.converged_
    residual = model.predict(X) - y
    np.testing.assert_allclose(residual.mean(0), 0, atol=1e-8)
    np.testing.assert_allclose(mask * (X.T @ residual / n + strength * model.coef_), 0, atol=1e-8)
    np.testing.assert_array_equal(model.coef_[mask == 0], 0)


def test_a_flat_coefficient_among_many_features(rng):
    X = rng.normal(size=(40, 60))
    y = draw("Gaussian", X[:, 0] + X[:, 1], rng)
    strength = np.full(60, 0.3)
    strength[0] = 0.0
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=strength).fit(X, y)
    residual = model.predict(X) - y
    np.testing.assert_allclose(X.T @ residual / 40 + strength * model.coef_, 0, atol=1e-9)


def test_the_sizes_here_take_the_other_routes():
    assert 2 * max(LEAST_SAMPLES, SAMPLES_PER_FEATURE * 5) < N
