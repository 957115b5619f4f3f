"""Grids, cross-validation and leave-one-out against loops over single fits."""

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, TimeSeriesSplit, cross_val_score

from bayesglm import GLM, GLMCV, PopulationGLM, approximate_loo, largest_strength, strength_grid, strength_path

X, Y = load_diabetes(return_X_y=True)
LEAVES = {"body": X[:, :4], "blood": X[:, 4:]}
COUNTS = np.random.default_rng(1).poisson(np.exp(0.5 + 8 * X[:, 2] - 6 * X[:, 4]))


@pytest.mark.parametrize(
    "regularizer", ["Lasso", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ElasticNet", "GroupLasso"))]
)
def test_largest_strength_is_where_coefficients_begin(regularizer):
    base = GLM("Poisson", regularizer=regularizer, solver_kwargs={"tol": 1e-9})
    strength = largest_strength(base, LEAVES, COUNTS)
    grid = strength_grid(base, LEAVES, COUNTS, 2, smallest=0.99)
    assert grid[0] == strength
    at, below = strength_path(base, LEAVES, COUNTS, [_times(strength, 1 + 1e-6), grid[1]])
    assert not any(leaf.any() for leaf in at.coef_.values())
    assert any(leaf.any() for leaf in below.coef_.values())


def test_largest_strength_of_each_leaf():
    base = GLM("Poisson", regularizer="Lasso", solver_kwargs={"tol": 1e-9})
    largest = largest_strength(base, LEAVES, COUNTS, per_leaf=True)
    for leaf in LEAVES:
        others = dict.fromkeys(LEAVES, 100.0)
        above, below = strength_path(
            base, LEAVES, COUNTS, [others | {leaf: largest[leaf] * factor} for factor in (1 + 1e-6, 0.99)]
        )
        assert not above.coef_[leaf].any()
        assert below.coef_[leaf].any()


def test_largest_ridge_strength_leaves_no_coefficient_more_than_a_hundredth():
    base = GLM("Gaussian", regularizer="Ridge")
    strength = largest_strength(base, X, Y)
    one = strength_path(base, X, Y, [strength])[0]
    freedom = len(Y) - one.dof_resid_[0] - 1
    assert 0 < freedom < 0.01 * X.shape[1] * 1.0001


def test_path_over_strengths_of_very_different_curvature_converges():
    features, classes = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    base, grid = GLM("Bernoulli", regularizer="Ridge"), np.geomspace(1, 1e-6, 12)
    path = strength_path(base, features, classes, grid)
    assert all(model.converged_ for model in path)
    alone = GLM("Bernoulli", regularizer="Ridge", regularizer_strength=grid[-1]).fit(features, classes)
    np.testing.assert_allclose(path[-1].coef_, alone.coef_, rtol=1e-6, atol=1e-6)


def test_grid_keeps_the_proportions_of_leaves():
    base = GLM("Gaussian", regularizer="Ridge", regularizer_strength={"body": 1.0, "blood": [3.0] * 6})
    grid = strength_grid(base, LEAVES, Y, 5)
    assert len(grid) == 5
    for strength in grid:
        np.testing.assert_allclose(strength["blood"], 3 * strength["body"] * np.ones(6))


@pytest.mark.parametrize(
    ("family", "y", "regularizer"),
    [
        ("Gaussian", Y, "Ridge"),
        pytest.param("Poisson", COUNTS, "Lasso", marks=pytest.mark.slow),
        pytest.param("Poisson", COUNTS, "GroupLasso", marks=pytest.mark.slow),
    ],
)
def test_folds_score_as_a_loop_does(family, y, regularizer):
    base = GLM(family, regularizer=regularizer, solver_kwargs={"tol": 1e-9})
    grid = strength_grid(base, X, y, 6, smallest=1e-3)
    found = GLMCV(base, grid, cv=KFold(4), progress_bar=False).fit(X, y)
    loop = GridSearchCV(base, {"regularizer_strength": grid}, cv=KFold(4), return_train_score=True).fit(X, y)
    np.testing.assert_allclose(found.mean_scores_, loop.cv_results_["mean_test_score"], atol=1e-7)
    np.testing.assert_allclose(found.train_scores_.mean(1), loop.cv_results_["mean_train_score"], atol=1e-7)
    assert found.best_index_ == loop.best_index_
    np.testing.assert_allclose(found.coef_, loop.best_estimator_.coef_, atol=1e-6 * np.abs(found.coef_).max())
    np.testing.assert_allclose(found.predict(X), loop.predict(X), rtol=1e-6)


def test_folds_by_other_splitters_scorers_weights_and_offsets():
    base = GLM("Poisson", regularizer="Ridge", regularizer_strength=0.01)
    groups = np.arange(len(Y)) % 7
    weight = np.random.default_rng(0).integers(0, 3, len(Y)).astype(float)
    offset = np.linspace(-1, 1, len(Y))
    by_group = GLMCV(base, [0.01, 1.0], cv=GroupKFold(3), progress_bar=False)
    by_group.fit(X, COUNTS, groups=groups, sample_weight=weight, offset=offset)
    train, test = next(GroupKFold(3).split(X, COUNTS, groups))
    one = GLM("Poisson", regularizer="Ridge", regularizer_strength=0.01)
    one.fit(X[train], COUNTS[train], sample_weight=weight[train], offset=offset[train])
    expected = one.score(X[test], COUNTS[test], sample_weight=weight[test], offset=offset[test])
    assert by_group.validation_scores_[0, 0] == pytest.approx(expected, abs=1e-5)
    in_time = GLMCV(base, [0.01], cv=TimeSeriesSplit(3), scoring="neg_mean_absolute_error", progress_bar=False)
    in_time.fit(X, COUNTS)
    expected = cross_val_score(base, X, COUNTS, cv=TimeSeriesSplit(3), scoring="neg_mean_absolute_error")
    np.testing.assert_allclose(in_time.validation_scores_[0], expected, rtol=1e-3)


def test_trees_populations_and_likelihoods():
    outputs = np.stack([COUNTS, COUNTS[::-1]], 1)
    base = PopulationGLM("Poisson", regularizer="Ridge", regularizer_strength={"body": 1.0, "blood": 2.0})
    found = GLMCV(base, 4, cv=3, scoring="log-likelihood", progress_bar=False).fit(LEAVES, outputs)
    assert found.validation_scores_.shape == (4, 3)
    assert found.best_strength_ == found.strengths_[found.best_index_]
    assert found.coef_["blood"].shape == (6, 2)
    assert found.score(LEAVES, outputs) == found.best_estimator_.score(LEAVES, outputs)


@pytest.mark.slow
def test_one_standard_error_takes_the_strongest_nearby():
    y = load_breast_cancer().target
    features = load_breast_cancer().data[:, :5]
    base = GLM("Bernoulli", regularizer="Lasso")
    plain = GLMCV(base, 12, progress_bar=False).fit(features, y)
    simple = GLMCV(base, 12, one_standard_error=True, progress_bar=False).fit(features, y)
    assert simple.best_index_ < plain.best_index_
    floor = plain.mean_scores_[plain.best_index_] - plain.standard_errors_[plain.best_index_]
    assert simple.mean_scores_[simple.best_index_] >= floor > simple.mean_scores_[simple.best_index_ - 1]


@pytest.mark.slow
def test_a_sample_that_would_overflow_in_its_fold_is_scored_not_fitted():
    features = np.r_[np.random.default_rng(0).normal(size=(40, 1)), [[1e4]]]
    y = np.r_[np.random.default_rng(1).poisson(np.exp(features[:40, 0])), 1]
    for regularizer in ("Ridge", "Lasso"):
        base = GLM("Poisson", regularizer=regularizer)
        fold = [(np.arange(40), np.array([40])), (np.arange(1, 41), np.array([0]))]
        found = GLMCV(base, [0.01, 1e4], cv=fold, progress_bar=False)
        found.fit(features, y)
        assert np.isfinite(found.train_scores_).all()
        alone = GLM("Poisson", regularizer=regularizer, regularizer_strength=0.01).fit(features[:40], y[:40])
        assert found.train_scores_[0, 0] == pytest.approx(alone.score(features[:40], y[:40]), abs=1e-6)


SIZE = 80
DESIGN = np.random.default_rng(3).normal(size=(SIZE, 6))
ETA = 0.3 + DESIGN @ [0.6, -0.4, 0.3, 0, 0, 0]
_rng = np.random.default_rng(4)
OBSERVED = {
    "Poisson": _rng.poisson(np.exp(ETA)),
    "Gaussian": ETA + _rng.normal(size=SIZE),
    "Bernoulli": _rng.binomial(1, 1 / (1 + np.exp(-ETA))),
    "Gamma": _rng.gamma(2, np.exp(ETA) / 2),
    "NegativeBinomial": _rng.poisson(np.exp(ETA) * _rng.gamma(2, 0.5, size=SIZE)),
}
STRENGTHS = {"Ridge": 0.1, "Lasso": 0.03, "ElasticNet": (0.05, 0.5), "GroupLasso": 0.03}
OFTEN = [("Bernoulli", "Ridge"), ("Poisson", "ElasticNet")]


@pytest.mark.parametrize(
    ("family", "regularizer"),
    [
        pytest.param(family, regularizer, marks=[] if (family, regularizer) in OFTEN else pytest.mark.slow)
        for family in OBSERVED
        for regularizer in STRENGTHS
    ],
)
def test_leave_one_out_is_that_of_refits(family, regularizer):
    """To 5 % of what leaving out costs; exactly where the loss is quadratic."""
    y, strength = OBSERVED[family], STRENGTHS[regularizer]
    design = dict(zip("abc", np.split(DESIGN, 3, axis=1), strict=True)) if regularizer == "GroupLasso" else DESIGN
    link = "exp" if family == "Gamma" else None
    base = GLM(family, link, regularizer=regularizer, regularizer_strength=strength, solver_kwargs={"tol": 1e-9})
    found = approximate_loo(base, design, y)
    held = _times(strength, SIZE / (SIZE - 1))
    refit = GLM(family, link, regularizer=regularizer, regularizer_strength=held, solver_kwargs={"tol": 1e-9})
    mean = np.empty(SIZE)
    for out in range(SIZE):
        refit.fit(design, y, sample_weight=np.arange(SIZE) != out)
        mean[out] = refit.predict(design)[out]
    base.fit(design, y)
    everyone = base._read(design, y, None, None)
    exact = _score_of_means(base, mean, everyone.data.y)
    train = base.score(design, y, score_type="log-likelihood")
    gap = abs(found.score("log-likelihood") - exact) / (train - exact)
    assert gap < (1e-6 if family == "Gaussian" else 0.05)


def _score_of_means(model, mean, y):
    """Mean log-likelihood of given means at the dispersion of a fit."""
    from bayesglm.links import IDENTITY

    family, scale = model.spec_.form.family, model.spec_.scale
    with jax.enable_x64(True):
        nll = np.asarray(family.nll(y[:, 0], mean, IDENTITY, scale)) / np.asarray(family.phi(scale))
        return float(-np.mean(nll + np.asarray(family.log_normalizer(y[:, 0], scale))))


def test_leave_one_out_with_more_features_than_samples():
    rng = np.random.default_rng(0)
    wide, y = rng.normal(size=(30, 50)), rng.normal(size=30)
    base = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.5)
    found = approximate_loo(base, wide, y)
    for out in (0, 7):
        refit = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.5 * 30 / 29)
        refit.fit(wide, y, sample_weight=np.arange(30) != out)
        assert found.mean[out] == pytest.approx(refit.predict(wide)[out], rel=1e-7)


@pytest.mark.slow
def test_weights_of_leave_one_out_are_repeated_rows():
    weight = np.random.default_rng(0).integers(1, 4, SIZE)
    base = GLM(regularizer="Lasso", regularizer_strength=0.03, solver_kwargs={"tol": 1e-9})
    once = approximate_loo(base, DESIGN, OBSERVED["Poisson"], sample_weight=weight)
    rows = np.repeat(np.arange(SIZE), weight)
    repeated = approximate_loo(base, DESIGN[rows], OBSERVED["Poisson"][rows])
    np.testing.assert_allclose(once.mean[rows], repeated.mean, rtol=1e-5)
    assert once.score() == pytest.approx(repeated.score(), abs=1e-6)


def test_strength_chosen_by_leave_one_out():
    base = GLM("Gaussian", regularizer="Ridge")
    found = GLMCV(base, 8, cv="loo", progress_bar=False).fit(X, Y)
    exact = GLMCV(base, found.strengths_, cv=KFold(len(Y)), scoring="neg_mean_squared_error", progress_bar=False)
    exact.fit(X, Y)
    assert abs(found.best_index_ - exact.best_index_) <= 1
    assert found.validation_scores_.shape == (8, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strengths": []}, "strengths is empty"),
        ({"strengths": [-1.0]}, r"strengths\[0\]: regularizer_strength must not be negative"),
        ({"strengths": 0}, "strengths, if it is a number, must be an integer of at least 1; got 0"),
        ({"cv": "leave"}, "cv must be 'loo'"),
        ({"cv": "loo", "scoring": "r2"}, "cv must be 'loo'"),
        ({"cv": "loo", "strengths": [1.0], "one_standard_error": True}, "at least two folds"),
        ({"estimator": GLM("Gaussian")}, "has no regularizer"),
        ({"estimator": "Ridge"}, "estimator must be a GLM, PopulationGLM or ClassifierGLM; got 'Ridge'"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    arguments = {"estimator": GLM("Gaussian", regularizer="Ridge"), "strengths": 3, "progress_bar": False} | arguments
    with pytest.raises(ValueError, match=message):
        GLMCV(**arguments).fit(X, Y)


def test_what_cannot_be_searched_is_told():
    ridge = GLM("Gaussian", regularizer="Ridge")
    with pytest.raises(ValueError, match="for `sample` only"):
        approximate_loo(clone(ridge).set_params(regularizer_strength="learn"), X, Y)
    with pytest.raises(ValueError, match="regularizer_strength is 0 everywhere"):
        strength_grid(clone(ridge).set_params(regularizer_strength=0.0), X, Y)
    with pytest.raises(ValueError, match=r"^regularizer_strength must be numbers here; got 'evidence'"):
        strength_grid(clone(ridge).set_params(regularizer_strength="evidence"), X, Y)
    with pytest.raises(ValueError, match="model must be a GLM, PopulationGLM or ClassifierGLM; got <class"):
        strength_path(GLM, X, Y, [1.0])
    with pytest.raises(ValueError, match="one_standard_error must be True or False; got 'yes'"):
        GLMCV(ridge, [1.0], one_standard_error="yes").fit(X, Y)
    assert repr(approximate_loo(ridge, X, Y)) == "LeaveOneOut(predictor and mean of shape (442,))"


def test_not_fitted():
    with pytest.raises(NotFittedError, match="call fit first"):
        GLMCV(GLM(regularizer="Ridge")).predict(X)


def _times(strength, factor):
    return (strength[0] * factor, strength[1]) if isinstance(strength, tuple) else strength * factor


def test_a_search_tells_what_its_fit_does(rng):
    frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=["a", "b"])
    y = rng.poisson(1.0, size=(60, 2))
    search = GLMCV(PopulationGLM(regularizer="Ridge"), [0.1, 1.0], cv=3, progress_bar=False).fit(frame, y)
    assert search.feature_names_in_.tolist() == ["a", "b"]
    assert search.n_features_in_ == 2
    assert search.score(frame, y, multioutput="raw_values").shape == (2,)
    assert not hasattr(search.fit(frame.to_numpy(), y), "feature_names_in_")
