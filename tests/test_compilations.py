"""Compile once: strengths, data, seeds and instances are arguments of compiled programs."""

import jax
import numpy as np
import pytest

from bayesglm import GLM, GLMCV, PopulationGLM

RUN = {"num_samples": 60, "num_warmup": 40, "num_chains": 2, "progress_bar": False}


def test_the_counter_counts(compilations):
    jax.jit(lambda x: x + 1.2345)(np.ones(7))
    assert compilations


@pytest.mark.parametrize("regularizer", ["UnRegularized", "Ridge", "Lasso", "ElasticNet", "GroupLasso"])
def test_refits_do_not_compile(seed, compilations, regularizer):
    def fit(strength, y, weight=None):
        strength = None if regularizer == "UnRegularized" else strength
        return GLM(regularizer=regularizer, regularizer_strength=strength).fit(seed["X"], y, sample_weight=weight)

    fit(0.1, seed["y"])
    first = len(compilations)
    fit(0.2, seed["y"])
    fit({"f1": 0.3, "f2": 0.1}, seed["y"][::-1])
    fit(0.0, seed["y"], np.arange(500.0))
    assert len(compilations) == first


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_folds_do_not_compile_after_the_first(seed, compilations, regularizer):
    X = np.concatenate([seed["X"]["f1"], seed["X"]["f2"]], axis=1)
    GLMCV(GLM(regularizer=regularizer), [0.1, 0.01], cv=2, progress_bar=False).fit(X, seed["y"])
    first = len(compilations)
    GLMCV(GLM(regularizer=regularizer), [0.3, 0.03], cv=5, progress_bar=False).fit(X, seed["y"][::-1])
    assert len(compilations) == first


def test_learning_a_strength_does_not_compile_at_each_step(seed, compilations):
    strength = {"f1": "evidence", "f2": "evidence"}
    GLM(regularizer="Ridge", regularizer_strength=strength).fit(seed["X"], seed["y"])
    first = len(compilations)
    GLM(regularizer="Ridge", regularizer_strength=strength).fit(seed["X"], seed["y"][::-1])
    assert len(compilations) == first


def test_refits_of_populations_do_not_compile(seed, compilations):
    Y = np.stack([seed["y"], 2 * seed["y"]], axis=1)
    PopulationGLM(regularizer="Lasso", regularizer_strength=0.1).fit(seed["X"], Y)
    first = len(compilations)
    PopulationGLM(regularizer="Lasso", regularizer_strength={"f1": [[0.1, 0.2]], "f2": 0.0}).fit(seed["X"], Y[::-1])
    assert len(compilations) == first


@pytest.mark.filterwarnings("ignore:The posterior draws need a second look")
def test_second_sample_does_not_compile(seed, compilations):
    one = GLM(regularizer="Ridge", regularizer_strength=0.1)
    one.sample(seed["X"], seed["y"], **RUN)
    one.predict(seed["X"])
    first = len(compilations)
    other = GLM(regularizer="Ridge", regularizer_strength={"f1": [0.1, 0.2, 0.3, 0.1, 0.1], "f2": 0.4})
    draws = other.sample(seed["X"], seed["y"][::-1], seed=3, target_accept_prob=0.9, **RUN)
    other.fit(seed["X"], seed["y"]).predict(seed["X"])
    assert len(compilations) == first
    assert draws.posterior.sizes["draw"] == 60


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_folds_of_several_lengths_share_a_program(regularizer, compilations, rng):
    X, y = rng.normal(size=(256, 3)), rng.poisson(1.0, size=256)
    model = GLM(regularizer=regularizer, regularizer_strength=0.01)
    fit = model.fit(X[:200], y[:200])
    coef, score = fit.coef_, fit.score(X[:50], y[:50])
    first = len(compilations)
    for n in (256, 140, 199, 201):
        model.fit(X[:n], y[:n]).score(X[: n // 4], y[: n // 4])
    assert len(compilations) == first
    # Rows of weight 0 in place of those that are compiled for.
    weight = np.append(np.ones(200), np.zeros(56))
    np.testing.assert_allclose(model.fit(X, y, sample_weight=weight).coef_, coef, rtol=1e-9)
    assert model.score(X[:50], y[:50]) == pytest.approx(score)
