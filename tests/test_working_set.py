"""Large problems under penalties with kinks, and paths of strengths."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import ElasticNet, Lasso

from bayesglm import GLM, PopulationGLM, strength_path
from bayesglm._design import ALIGNMENT, read_design
from bayesglm._fitting import SMALL_SIZE
from bayesglm._problem import on_device
from bayesglm.priors import GroupLasso


@pytest.fixture(scope="module")
def wide():
    """More features than samples, neighbours much alike, in units that differ."""
    rng = np.random.default_rng(3)
    n, p = 300, 4000
    X = rng.normal(size=(n, p))
    for j in range(1, p):
        X[:, j] += 0.7 * X[:, j - 1]
    X = 5 + X * np.exp(rng.normal(size=p))
    assert X.size > SMALL_SIZE
    signal = (X[:, ::400] - X[:, ::400].mean(0)) @ rng.normal(size=10)
    return X, 1 + 2 * signal / signal.std() + rng.normal(size=n)


@pytest.fixture(scope="module")
def tall():
    """More samples than there is need for."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(30_000, 40))
    return X, rng.poisson(np.exp(0.3 * X[:, 0] - 0.2 * X[:, 7] - 0.5)).astype(float)


def largest(X, y):
    """Strength at which all coefficients of a Gaussian Lasso vanish."""
    return np.abs((X - X.mean(0)).T @ (y - y.mean())).max() / len(y)


@pytest.mark.parametrize("fraction", [0.1, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.5, 0.01))])
def test_lasso_of_many_features_equals_sklearn(wide, fraction):
    X, y = wide
    strength = fraction * largest(X, y)
    ours = GLM("Gaussian", regularizer="Lasso", regularizer_strength=strength).fit(X, y)
    theirs = Lasso(alpha=strength, tol=1e-13, max_iter=10**6).fit(X, y)
    assert ours.converged_
    scale = X.std(0) / y.std()
    np.testing.assert_allclose(ours.coef_ * scale, theirs.coef_ * scale, atol=1e-6)
    np.testing.assert_array_equal(ours.coef_ != 0, theirs.coef_ != 0)


def test_nothing_to_do_is_done_at_once(wide):
    X, y = wide
    model = GLM("Gaussian", regularizer="Lasso", regularizer_strength=1.01 * largest(X, y)).fit(X, y)
    assert not model.coef_.any()
    assert model.converged_
    assert model.n_iter_ <= 1
    np.testing.assert_allclose(model.intercept_, y.mean())


def test_too_few_iterations_are_told(wide):
    X, y = wide
    model = GLM("Poisson", regularizer="Lasso", regularizer_strength=1e-3, solver_kwargs={"maxiter": 1})
    with pytest.warns(match="did not converge"):
        model.fit(X, np.round(np.abs(y)))
    assert not model.converged_


def test_elastic_net_of_many_features_equals_sklearn(wide):
    X, y = wide
    strength = 0.1 * largest(X, y)
    ours = GLM("Gaussian", regularizer="ElasticNet", regularizer_strength=(strength, 0.5)).fit(X, y)
    theirs = ElasticNet(alpha=strength, l1_ratio=0.5, tol=1e-13, max_iter=10**6).fit(X, y)
    np.testing.assert_allclose(ours.coef_ * X.std(0), theirs.coef_ * X.std(0), atol=1e-6)


def test_groups_of_many_features_satisfy_the_optimality_conditions(wide):
    X, y = wide
    groups = np.repeat(np.arange(400), 10)
    mask = (groups == np.arange(400)[:, None]).astype(float)
    mean = X.mean(0)
    grads = (X - mean).T @ (y - y.mean()) / len(y)
    strength = 0.2 * max(np.linalg.norm(grads[groups == g]) for g in range(400)) / np.sqrt(10)
    model = GLM("Gaussian", regularizer=GroupLasso(mask), regularizer_strength=strength).fit(X, y)
    grad = (X - mean).T @ (model.predict(X) - y) / len(y)
    rate = strength * np.sqrt(10)
    kept = 0
    for g in range(400):
        w, slope = model.coef_[groups == g], grad[groups == g]
        if w.any():
            kept += 1
            np.testing.assert_allclose(slope, -rate * w / np.linalg.norm(w), atol=1e-7 * rate)
        else:
            assert np.linalg.norm(slope) <= rate
    assert 5 < kept < 400


@pytest.mark.slow
def test_many_samples_are_as_good_as_few_of_weight(tall):
    X, y = tall
    weight = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    offset = 0.1 * X[:, 3]
    rows = np.repeat(np.arange(len(y)), weight.astype(int))
    model = GLM(regularizer="Lasso", regularizer_strength=0.01)
    weighted = model.fit(X, y, sample_weight=weight, offset=offset).coef_
    repeated = model.fit(X[rows], y[rows], offset=offset[rows]).coef_
    np.testing.assert_allclose(weighted, repeated, atol=1e-9)
    assert 1 < (weighted != 0).sum() < 40


def test_coefficients_without_a_strength_stay_in_the_working_set(wide):
    X, y = wide
    strength = np.full(X.shape[1], 0.3 * largest(X, y))
    strength[-5:] = 0
    model = GLM("Gaussian", regularizer="Lasso", regularizer_strength=strength).fit(X, y)
    assert model.converged_
    assert (model.coef_[-5:] != 0).all()
    np.testing.assert_allclose((y - model.predict(X)) @ (X[:, -5:] - X[:, -5:].mean(0)) / len(y), 0, atol=1e-9)


def test_outputs_of_a_population_are_fitted_each_on_its_own(wide):
    X, y = wide
    Y = np.stack([y, y[::-1], 3 * y], axis=1)
    mask = np.ones((X.shape[1], 3))
    mask[:2000, 1] = 0
    strength = 0.2 * largest(X, y)
    options = {"observation_model": "Gaussian", "regularizer": "Lasso"}
    together = PopulationGLM(**options, regularizer_strength=[[strength] * 3], feature_mask=mask).fit(X, Y)
    assert not together.coef_[:2000, 1].any()
    alone = GLM(**options, regularizer_strength=strength).fit(X, 3 * y)
    np.testing.assert_allclose(together.coef_[:, 2], alone.coef_, atol=1e-9)


def test_single_precision_is_enough_for_many_features(wide):
    X, y = wide
    model = GLM("Gaussian", regularizer="Lasso", regularizer_strength=0.2 * largest(X, y))
    double = model.fit(X, y).coef_
    single = model.fit(X.astype(np.float32), y).coef_
    assert single.dtype == np.float32
    np.testing.assert_allclose(single * X.std(0), double * X.std(0), atol=1e-4)


PATHS = {
    "Ridge, many features": ("wide", "Gaussian", "Ridge", [1e4, 1e5, 3e4]),
    "Ridge, differing by more than a factor": ("wide", "Gaussian", "Ridge", [1e5, 1e5 * np.linspace(1, 2, 4000)]),
    "Lasso, many features": ("wide", "Gaussian", "Lasso", [0.1, 0.5, 0.2]),
    "ElasticNet twice, many features": ("wide", "Poisson", "ElasticNet", [(0.3, 0.3), (0.3, 0.3)]),
    "Ridge, many samples": ("tall", "Poisson", "Ridge", [0.1, 1e-3]),
    "ElasticNet, many samples": ("tall", "Poisson", "ElasticNet", [(0.1, 0.5), (0.01, 0.9)]),
    "GroupLasso, few samples": ("few", "Bernoulli", "GroupLasso", [0.01, 0.1]),
    "learned overdispersion": ("few", "NegativeBinomial", "Lasso", [0.01, 0.1]),
}


# The others take long, and are in the command of slow checks.
OFTEN = ("Ridge, differing by more than a factor", "Lasso, many features")


@pytest.mark.parametrize(
    "case", [case if case in OFTEN else pytest.param(case, marks=pytest.mark.slow) for case in PATHS]
)
def test_a_path_equals_its_fits_one_by_one(wide, tall, case):
    from bayesglm.observation_models import NegativeBinomialObservations

    name, family, prior, strengths = PATHS[case]
    X, y = wide if name == "wide" else tall
    X, y = (X[:400], y[:400]) if name == "few" else (X, y)
    y = np.minimum(y, 1) if family == "Bernoulli" else np.round(np.abs(y)) if family == "Poisson" else y
    family = NegativeBinomialObservations(None) if family == "NegativeBinomial" else family
    model = GLM(family, regularizer=prior, regularizer_strength=7.0)
    path = strength_path(model, X, y, strengths)
    assert model.regularizer_strength == 7.0
    assert "coef_" not in vars(model)
    for strength, fitted in zip(strengths, path, strict=True):
        alone = GLM(family, regularizer=prior, regularizer_strength=strength).fit(X, y)
        np.testing.assert_array_equal(fitted.regularizer_strength, strength)
        np.testing.assert_allclose(fitted.coef_ * X.std(0), alone.coef_ * X.std(0), atol=1e-7)
        np.testing.assert_allclose(fitted.intercept_, alone.intercept_, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(fitted.scale_, alone.scale_, rtol=1e-6)
        # Where the scale does not rest on it, the trace of large fits is that of a step shortly before the last.
        approximate = prior == "ElasticNet" and name != "few"
        np.testing.assert_allclose(fitted.dof_resid_, alone.dof_resid_, rtol=1e-3 if approximate else 1e-6)


def test_a_path_of_a_population(tall):
    X, y = tall[0][:500], np.stack([tall[1][:500], tall[1][500:1000]], axis=1)
    one, two = strength_path(PopulationGLM(regularizer="Ridge"), X, y, [0.1, [[0.2, 0.3]]])
    alone = PopulationGLM(regularizer="Ridge", regularizer_strength=[[0.2, 0.3]]).fit(X, y)
    np.testing.assert_allclose(two.coef_, alone.coef_, atol=1e-9)
    assert one.coef_.shape == (40, 2)


def test_a_path_needs_strengths(tall):
    with pytest.raises(ValueError, match="strengths is empty"):
        strength_path(GLM(regularizer="Ridge"), *tall, [])
    with pytest.raises(ValueError, match="strengths must be a list"):
        strength_path(GLM(regularizer="Ridge"), *tall, 0.1)
    with pytest.raises(ValueError, match="strengths must be a list"):
        strength_path(GLM(regularizer="Ridge"), *tall, {"a": 0.1})
    with pytest.raises(ValueError, match=r"strengths\[1\]: .* must not be negative"):
        strength_path(GLM(regularizer="Ridge"), *tall, [0.1, -1.0])


def test_large_refits_do_not_compile(wide, compilations):
    X, y = wide
    model = GLM("Gaussian", regularizer="Lasso", regularizer_strength=0.3 * largest(X, y))
    model.fit(X, y)
    first = len(compilations)
    model.set_params(regularizer_strength=0.31 * largest(X, y)).fit(X, y)
    model.fit(X, y[::-1])
    assert len(compilations) == first


def test_an_aligned_array_is_shared_and_others_are_copied():
    with jax.enable_x64(True):
        room = np.zeros(1000 * 8 + ALIGNMENT, np.uint8)
        start = -room.ctypes.data % ALIGNMENT
        aligned = room[start : start + 8000].view(np.float64).reshape(100, 10)
        shifted = room[start + 8 : start + 7208].view(np.float64).reshape(90, 10)
        assert on_device(aligned).unsafe_buffer_pointer() == aligned.ctypes.data
        assert on_device(shifted).unsafe_buffer_pointer() != shifted.ctypes.data
        shifted[...] = np.arange(900).reshape(90, 10)
        np.testing.assert_array_equal(on_device(shifted), shifted)
        np.testing.assert_array_equal(on_device(aligned[:, ::2]), aligned[:, ::2])


def test_leaves_are_put_together_where_they_can_be_shared():
    leaves = {"a": np.arange(6.0).reshape(3, 2), "b": np.arange(3, dtype=np.float32)[:, None]}
    matrix, _ = read_design(leaves)
    np.testing.assert_array_equal(matrix, [[0, 1, 0], [2, 3, 1], [4, 5, 2]])
    assert matrix.dtype == np.float64
    assert matrix.ctypes.data % ALIGNMENT == 0
