"""The mode against scikit-learn at tight tolerance."""

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.datasets import load_breast_cancer, load_diabetes

from bayesglm import GLM, PopulationGLM

TIGHT = {"tol": 1e-10, "max_iter": 100_000}


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return 20 * X, y / 50


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return ((X - X.mean(0)) / X.std(0))[:, :10], y


def counts(diabetes):
    X, y = diabetes
    return X, np.round(2 * y)


def agree(ours, theirs, tolerance=1e-6):
    np.testing.assert_allclose(ours.coef_, theirs.coef_.ravel(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=0, atol=tolerance)


@pytest.mark.parametrize("strength", [0.5, 0.05, 0.001])
def test_lasso(diabetes, strength):
    ours = GLM("Gaussian", regularizer="Lasso", regularizer_strength=strength).fit(*diabetes)
    theirs = linear_model.Lasso(alpha=strength, **TIGHT).fit(*diabetes)
    agree(ours, theirs)
    np.testing.assert_array_equal(ours.coef_ == 0, theirs.coef_ == 0)


@pytest.mark.parametrize("strength", [0.5, 0.05])
@pytest.mark.parametrize("ratio", [0.2, 0.9])
def test_elastic_net(diabetes, strength, ratio):
    ours = GLM("Gaussian", regularizer="ElasticNet", regularizer_strength=(strength, ratio)).fit(*diabetes)
    agree(ours, linear_model.ElasticNet(alpha=strength, l1_ratio=ratio, **TIGHT).fit(*diabetes))


def test_ridge_with_weights(diabetes, rng):
    X, y = diabetes
    weight = rng.uniform(0.5, 2, len(y))
    ours = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.3).fit(X, y, sample_weight=weight)
    agree(ours, linear_model.Ridge(alpha=0.3 * weight.sum(), tol=1e-12).fit(X, y, sample_weight=weight))


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_poisson(diabetes, strength):
    X, y = counts(diabetes)
    ours = GLM(regularizer="Ridge", regularizer_strength=strength).fit(X, y)
    theirs = linear_model.PoissonRegressor(alpha=strength, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    agree(ours, theirs.fit(X, y))
    np.testing.assert_allclose(ours.score(X, y), theirs.score(X, y), rtol=1e-8)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)


def test_poisson_of_rates_with_exposure_weights(diabetes, rng):
    """Fractional y are a quasi-likelihood, as in scikit-learn's exposure example."""
    X, y = counts(diabetes)
    exposure = rng.uniform(0.2, 1, len(y))
    ours = GLM(regularizer="Ridge", regularizer_strength=0.1).fit(X, y / exposure, sample_weight=exposure)
    theirs = linear_model.PoissonRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    agree(ours, theirs.fit(X, y / exposure, sample_weight=exposure))


@pytest.mark.parametrize("strength", [0.1, 0.001])
def test_logistic_ridge(cancer, strength):
    X, y = cancer
    theirs = linear_model.LogisticRegression(C=1 / (strength * len(y)), solver="newton-cholesky", tol=1e-10)
    agree(GLM("Bernoulli", regularizer="Ridge", regularizer_strength=strength).fit(X, y), theirs.fit(X, y))


@pytest.mark.parametrize("strength", [0.1, 0.01])
def test_logistic_lasso(cancer, strength):
    X, y = cancer
    theirs = linear_model.LogisticRegression(
        C=1 / (strength * len(y)), l1_ratio=1.0, solver="saga", tol=1e-10, max_iter=200_000
    )
    ours = GLM("Bernoulli", regularizer="Lasso", regularizer_strength=strength).fit(X, y)
    agree(ours, theirs.fit(X, y))


def test_group_across_outputs_is_the_multi_task_lasso(diabetes, rng):
    X, y = diabetes
    Y = np.stack([y, y[::-1] + X[:, 2], X[:, 3] * 0.5 + y], axis=1)
    mask = np.zeros((10, 10, 3))
    mask[np.arange(10), np.arange(10)] = 1
    # Their penalty has no square root of the group size, ours sqrt(3).
    ours = PopulationGLM("Gaussian", regularizer=group_lasso(mask), regularizer_strength=0.2 / np.sqrt(3)).fit(X, Y)
    theirs = linear_model.MultiTaskLasso(alpha=0.2, **TIGHT).fit(X, Y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_.T, rtol=0, atol=1e-6)
    assert 0 < (ours.coef_ == 0).sum() < 30
    assert len(set(ours.scale_)) == 1


def group_lasso(mask):
    from bayesglm.priors import GroupLasso

    return GroupLasso(mask)


def test_gaussian_score_is_r2(diabetes):
    X, y = diabetes
    ours = GLM("Gaussian").fit(X, y)
    np.testing.assert_allclose(ours.score(X, y), linear_model.LinearRegression().fit(X, y).score(X, y), rtol=1e-9)
