"""warm_start=True: the same fit, from where the last one ended."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from bayesglm import GLM, ClassifierGLM, PopulationGLM
from bayesglm.observation_models import NegativeBinomialObservations


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize(("regularizer", "strength"), [("Ridge", 0.01), ("Lasso", 0.01), ("GroupLasso", 0.005)])
def test_the_same_fit_in_fewer_steps(kind, regularizer, strength, rng):
    X, coef = rng.normal(size=(200, 6)), rng.normal(size=6) / 2
    y = rng.poisson(np.exp(X @ coef))
    cold = GLM(regularizer=regularizer, regularizer_strength=strength).fit(kind(X), y)
    warm = GLM(regularizer=regularizer, regularizer_strength=1.1 * strength, warm_start=True).fit(kind(X), y)
    warm.set_params(regularizer_strength=strength).fit(kind(X), y)
    np.testing.assert_allclose(warm.coef_, cold.coef_, rtol=1e-7)
    np.testing.assert_allclose(warm.intercept_, cold.intercept_, rtol=1e-7)
    assert warm.n_iter_ < cold.n_iter_
    warm.fit(kind(X), y)
    np.testing.assert_allclose(warm.coef_, cold.coef_, rtol=1e-7)
    assert warm.n_iter_ <= 1


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_populations_containers_and_masks(regularizer, rng):
    X, y = {"a": rng.normal(size=(150, 2)), "b": rng.normal(size=(150, 3))}, rng.poisson(1.0, size=(150, 4))
    mask = rng.random((5, 4)) < 0.6
    settings = {"regularizer": regularizer, "regularizer_strength": 0.01}
    model = PopulationGLM(**settings, warm_start=True).fit(X, y)
    model.set_params(feature_mask={"a": mask[:2], "b": mask[2:]}).fit(X, y)
    cold = PopulationGLM(**model.get_params(deep=False)).fit(X, y)
    for leaf in X:
        np.testing.assert_allclose(model.coef_[leaf], cold.coef_[leaf], rtol=1e-6, atol=1e-9)
    assert (np.concatenate([*model.coef_.values()])[~mask] == 0).all()


def test_another_structure_starts_anew(rng):
    X, y = rng.normal(size=(100, 4)), rng.poisson(1.0, size=100)
    model = GLM(regularizer="Ridge", warm_start=True).fit(X, y)
    for other in (X[:, :3], {"a": X[:, :1], "b": X[:, 1:]}, X.astype(np.float32)):
        cold = GLM(regularizer="Ridge").fit(other, y)
        np.testing.assert_allclose(model.fit(other, y).predict(other), cold.predict(other), rtol=1e-4)


def test_a_learned_dispersion(rng):
    X = rng.normal(size=(200, 3))
    y = rng.poisson(np.exp(X[:, 0]) * rng.gamma(1.0, 1.0, 200))
    settings = {"observation_model": NegativeBinomialObservations(None), "regularizer": "Ridge"}
    cold = GLM(**settings).fit(X, y)
    warm = GLM(**settings, warm_start=True).fit(X[:150], y[:150]).fit(X, y)
    np.testing.assert_allclose(warm.coef_, cold.coef_, rtol=1e-6)
    np.testing.assert_allclose(warm.scale_, cold.scale_, rtol=1e-6)


def test_it_is_a_bool():
    with pytest.raises(ValueError, match="warm_start must be True or False; got 'no'"):
        GLM(warm_start="no").fit(np.eye(3), [1, 2, 3])


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_without_an_intercept_it_starts_without_one(regularizer, rng):
    X, y = rng.normal(size=(100, 3)), rng.poisson(2.0, size=100)
    settings = {"regularizer": regularizer, "regularizer_strength": 0.01}
    model = GLM(**settings, warm_start=True).fit(X, y).set_params(fit_intercept=False).fit(X, y)
    np.testing.assert_array_equal(model.intercept_, 0)
    np.testing.assert_allclose(model.coef_, GLM(**settings, fit_intercept=False).fit(X, y).coef_, rtol=1e-7)


def test_classes_and_responses_may_change(rng):
    X = rng.normal(size=(100, 3))
    six, pairs = rng.integers(0, 6, size=100), rng.integers(0, 3, size=(100, 2))
    model = ClassifierGLM(regularizer="Ridge", warm_start=True)
    for y in (six, pairs, pairs[::-1], six):
        cold = ClassifierGLM(regularizer="Ridge").fit(X, y)
        np.testing.assert_allclose(model.fit(X, y).coef_, cold.coef_, atol=1e-8)


@pytest.mark.filterwarnings("ignore:The fit has no finite optimum")
def test_a_hopeless_start_is_left(rng):
    """After separated classes, where the likelihood is flat; and where the mean would be negative."""
    X = rng.normal(size=(200, 2))
    y = (X[:, 0] + rng.logistic(size=200) > 0).astype(float)
    cold = GLM("Bernoulli").fit(X, y)
    warm = GLM("Bernoulli", warm_start=True).fit(1000 * X, X[:, 0] > 0).fit(X, y)
    assert warm.converged_
    np.testing.assert_allclose(warm.coef_, cold.coef_, rtol=1e-6)
    positive, counts = rng.random((200, 2)), rng.poisson(2.0, size=200)
    warm = GLM("Gaussian", "identity", warm_start=True).fit(positive, 10 * positive[:, 0] - 5)
    warm.set_params(observation_model="Poisson").fit(positive, counts)
    np.testing.assert_allclose(warm.coef_, GLM("Poisson", "identity").fit(positive, counts).coef_, atol=1e-6)


@pytest.mark.parametrize("regularizer", [None, "Ridge", "Lasso"])
@pytest.mark.parametrize("family", ["Poisson", "Gamma"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_start_where_slopes_overflow_is_no_optimum(regularizer, family, dtype):
    strength = None if regularizer is None else 0.01
    for seed in (1, 11):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(60, 3)).astype(dtype), rng.poisson(1.0, 60) + 0.5 * (family == "Gamma")
        model = GLM(family, "exp", regularizer, strength, warm_start=True).fit(X, y[::-1])
        model.fit(1000 * X, y)
        anew = GLM(family, "exp", regularizer, strength).fit(1000 * X, y)
        assert model.converged_
        np.testing.assert_allclose(
            1000 * model.coef_, 1000 * anew.coef_, atol=1e-7 if dtype == np.float64 else 5e-3
        )  # fmt: skip


def test_an_offset_that_overflows_is_told(rng):
    X, y, offset = rng.normal(size=(60, 3)), rng.poisson(1.0, 60), 400 * np.sign(rng.normal(size=60))
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        model = GLM().fit(X, y, offset=offset)
    assert not model.converged_
