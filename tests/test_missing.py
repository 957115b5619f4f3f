"""nan_policy="drop": the fit of the samples that are complete."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpyro import distributions as dist
from scipy import sparse
from sklearn.model_selection import cross_val_score

from bayesglm import GLM, GLMCV, ClassifierGLM, PopulationGLM, plots, strength_path


@pytest.fixture
def data(rng):
    """X, y, weights and offsets, each with one missing entry or two, and which samples are complete."""
    X, y = rng.normal(size=(80, 3)), rng.poisson(1.0, size=80).astype(float)
    weight, offset = rng.integers(1, 4, 80).astype(float), 0.1 * rng.normal(size=80)
    X[3, 1] = X[5, 0] = X[5, 2] = y[10] = weight[20] = offset[30] = np.nan
    kept = np.ones(80, bool)
    kept[[3, 5, 10, 20, 30]] = False
    return X, y, weight, offset, kept


@pytest.mark.parametrize("kind", [np.asarray, np.float32, sparse.csr_array, lambda X: {"a": X[:, :1], "b": X[:, 1:]}])
@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_samples_with_a_missing_entry_are_left_out(data, kind, regularizer):
    X, y, weight, offset, kept = data
    settings = {"regularizer": regularizer, "regularizer_strength": 0.02}
    model = GLM(**settings, nan_policy="drop").fit(kind(X), y, sample_weight=weight, offset=offset)
    part = GLM(**settings).fit(kind(X[kept]), y[kept], sample_weight=weight[kept], offset=offset[kept])
    rtol = 1e-4 if kind is np.float32 else 1e-8
    for mine, theirs in zip(*(np.concatenate([*c.values()] if isinstance(c, dict) else [c])[None] for c in (
        model.coef_, part.coef_)), strict=True):  # fmt: skip
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=1e-8)
    np.testing.assert_allclose(model.dof_resid_, part.dof_resid_, rtol=rtol)
    assert model.n_samples_dropped_ == 5
    assert part.n_samples_dropped_ == 0
    assert model.score(kind(X), y, sample_weight=weight, offset=offset) == pytest.approx(
        part.score(kind(X[kept]), y[kept], sample_weight=weight[kept], offset=offset[kept]), rel=1e-4
    )
    mean = model.predict(kind(X), offset=offset)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(mean)), [3, 5, 30])
    np.testing.assert_allclose(mean[kept], part.predict(kind(X[kept]), offset=offset[kept]), rtol=rtol)


@pytest.mark.parametrize("family", ["Gaussian", "Bernoulli", "Gamma"])
def test_families(data, family, rng):
    X, y, *_, kept = data
    y = {"Gaussian": y, "Bernoulli": np.where(np.isnan(y), y, y > 1), "Gamma": y + 1}[family]
    kept = ~np.isnan(X).any(1) & ~np.isnan(y)
    link = "exp" if family == "Gamma" else None
    model = GLM(family, link, "Ridge", 0.1, nan_policy="drop").fit(X, y)
    part = GLM(family, link, "Ridge", 0.1).fit(X[kept], y[kept])
    np.testing.assert_allclose(model.coef_, part.coef_, rtol=1e-7)
    np.testing.assert_allclose(model.scale_, part.scale_)
    for kind in (None, "log-likelihood"):
        assert model.score(X, y, score_type=kind) == pytest.approx(part.score(X[kept], y[kept], score_type=kind))


def test_a_sample_that_one_output_lacks_is_left_out_of_all(data):
    X, y, *_ = data
    many = np.stack([y, np.nan_to_num(y), np.arange(80.0)], axis=1)
    many[70, 2] = np.nan
    model = PopulationGLM(regularizer="Ridge", nan_policy="drop").fit(X, many)
    kept = ~np.isnan(X).any(1) & ~np.isnan(many).any(1)
    np.testing.assert_allclose(model.coef_, PopulationGLM(regularizer="Ridge").fit(X[kept], many[kept]).coef_)
    assert model.n_samples_dropped_ == 4


def test_draws_keep_the_numbers_of_the_rows(data):
    X, y, weight, offset, kept = data
    model = GLM(regularizer="Ridge", nan_policy="drop")
    options = {"method": "laplace", "num_samples": 50, "num_chains": 1, "progress_bar": False}
    tree = model.sample(X, y, sample_weight=weight, offset=offset, **options)
    np.testing.assert_array_equal(tree.observed_data.coords["obs"], np.flatnonzero(kept))
    np.testing.assert_array_equal(tree.observed_data["y"], y[kept])
    assert model.n_samples_dropped_ == 5


def test_a_fit_with_missing_entries_compiles_nothing_anew(data, compilations):
    X, y, *_ = data
    model = GLM(regularizer="Ridge", nan_policy="drop")
    model.fit(np.nan_to_num(X), np.nan_to_num(y))
    before = len(compilations)
    model.fit(X, y)
    assert len(compilations) == before


def test_paths_and_folds(data):
    X, y, *_ = data
    model = GLM(regularizer="Ridge", nan_policy="drop")
    assert [each.n_samples_dropped_ for each in strength_path(model, X, y, [0.1, 1.0])] == [3, 3]
    for scoring in (None, "neg_mean_poisson_deviance"):
        search = GLMCV(model, 3, cv=4, scoring=scoring, progress_bar=False).fit(X, y)
        assert np.isfinite(search.mean_scores_).all()
        assert search.best_estimator_.n_samples_dropped_ == 3
    assert np.isfinite(cross_val_score(model, X, y, cv=3)).all()


def test_formulas(rng):
    frame = pd.DataFrame({"plan": rng.choice(["a", "b", "c"], 60), "age": rng.uniform(20, 60, 60)})
    frame["visits"] = rng.poisson(1.0, 60).astype(float)
    frame["unused"] = np.nan
    frame.loc[4, "plan"] = None
    frame.loc[8, "age"] = np.nan
    frame.loc[9, "visits"] = np.nan
    frame.loc[9, "plan"] = "seen only here"
    frame.index = frame.index + 100
    kept = ~np.isin(np.arange(60), [4, 8, 9])
    formula = "visits ~ 0 + plan + poly(age, 2)"
    settings = {"regularizer": "Ridge", "regularizer_strength": 0.1}
    model = GLM.from_formula(formula, frame, **settings, nan_policy="drop")
    part = GLM.from_formula(formula, frame[kept], **settings)
    for leaf in model.coef_:
        np.testing.assert_allclose(model.coef_[leaf], part.coef_[leaf], rtol=1e-7)
    assert model.n_samples_dropped_ == 3
    assert model.score(frame) == pytest.approx(part.score(frame[kept]))
    new = frame.drop(columns="visits")
    new.loc[109, "plan"] = "a"
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(model.predict(new))), [4, 8])
    np.testing.assert_allclose(model.predict(new)[kept], part.predict(new[kept]))
    with pytest.raises(ValueError, match="null"):
        part.predict(new)


def test_what_is_not_left_out_is_refused(data):
    X, y, weight, *_ = data
    with pytest.raises(ValueError, match="X has 3 NaN"):
        GLM().fit(X, y)
    with pytest.raises(ValueError, match=r"nan_policy must be one of \('raise', 'drop'\); got 'omit'"):
        GLM(nan_policy="omit").fit(X, y)
    with pytest.raises(ValueError, match="nan_policy must be"):
        GLM(nan_policy=None).fit(X, y)
    drop = GLM(regularizer="Ridge", nan_policy="drop")
    endless = X.copy()
    endless[7, 2] = np.inf
    with pytest.raises(ValueError, match=r"X has 1 infinite entry, the first at \(7, 2\)"):
        drop.fit(endless, y)
    with pytest.raises(ValueError, match="y has 1 infinite entry, the first at 0"):
        drop.fit(X, np.where(np.arange(80) == 0, np.inf, y))
    with pytest.raises(ValueError, match="y must hold numbers >= 0.* 77 of"):
        drop.fit(X, np.where(np.arange(80) > 2, -1.0, y))
    with pytest.raises(ValueError, match="sample_weight must not be negative; the smallest is -3"):
        drop.fit(X, y, sample_weight=-weight)
    with pytest.raises(ValueError, match="nan_policy='drop' leaves no sample"):
        drop.fit(X * np.nan, y)
    drop.fit(X, y)
    with pytest.raises(ValueError, match="nan_policy='drop' leaves no sample to score"):
        drop.score(X, y * np.nan)


@pytest.mark.parametrize("kind", ["string", "boolean", "category", "datetime64[s]"])
def test_missing_labels_of_pandas(kind, rng):
    X = rng.normal(size=(60, 2))
    is_large = X[:, 0] + rng.normal(size=60) > 0
    y = pd.Series(np.where(is_large, "2020-01-01", "2021-01-01") if kind != "boolean" else is_large).astype(kind)
    lost = y.copy()
    lost[3] = None
    with pytest.raises(ValueError, match="y has missing labels"):
        ClassifierGLM(regularizer="Ridge").fit(X, lost)
    model = ClassifierGLM(regularizer="Ridge", nan_policy="drop").fit(X, lost)
    kept = np.arange(60) != 3
    np.testing.assert_allclose(model.coef_, ClassifierGLM(regularizer="Ridge").fit(X[kept], y[kept]).coef_, atol=1e-8)
    assert model.score(X, lost) == model.score(X[kept], y[kept]) > 0.5


@pytest.mark.parametrize("several", [False, True])
def test_draws_of_incomplete_samples_are_missing(data, several):
    X, y, *_ = data
    y = np.stack([y, y[::-1]], 1) if several else y
    model = (PopulationGLM if several else GLM)(
        regularizer="Ridge", regularizer_strength=0.1, nan_policy="drop", intercept_prior=dist.Normal()
    )
    model.sample(X, y, num_samples=20, num_chains=1, method="laplace", progress_bar=False)
    lost, whole = np.isnan(X).any(1), np.nan_to_num(X)
    drawn, mean = model.simulate(0, X)
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(model.predict(X)))
    np.testing.assert_allclose(mean[~lost], model.predict(whole)[~lost])
    ahead = model.posterior_predictive(X).predictions
    np.testing.assert_array_equal(np.isnan(ahead["y"].values).reshape(20, 80, -1).all((0, 2)), lost)
    np.testing.assert_allclose(
        ahead["mean"].values[:, :, ~lost], model.posterior_predictive(whole).predictions["mean"].values[:, :, ~lost]
    )
    assert np.isnan(model.prior_predictive(X)["prior_predictive"]["y"].values[:, :, lost]).all()
    effect, same = model.prior_summary(X), model.prior_summary(X[~lost])
    np.testing.assert_array_equal(effect["sd_of_effect"], same["sd_of_effect"])


def test_samples_without_a_label_are_told(data):
    X, y, *_ = data
    model = ClassifierGLM("Ridge", 0.1, nan_policy="drop").fit(X, np.where(np.isnan(y), "none", "some"))
    for values in (model.predict_proba(X), model.predict_log_proba(X), model.decision_function(X)[:, None]):
        np.testing.assert_array_equal(np.isnan(values).any(1), np.isnan(X).any(1))
    for call in (model.predict, lambda X: model.simulate(0, X)):
        with pytest.raises(ValueError, match="lack an entry in 2 samples, the first at 3, which have no label then"):
            call(X)


def test_predictions_are_drawn_of_what_is_known(data, rng):
    X, *_ = data
    y = np.column_stack([rng.integers(0, 4, 80), np.full(80, 3)]).astype(float)
    y[5] = np.nan
    model = GLM("Binomial", regularizer="Ridge", regularizer_strength=0.1, nan_policy="drop")
    model.sample(X, y, num_samples=20, num_chains=1, method="laplace", progress_bar=False)
    known = ~np.isnan(X).any(1) & ~np.isnan(y).any(1)
    axis = plots.plot_predictions(model, X, y, kind="time")
    lines = {line.get_label(): line.get_ydata() for line in axis.get_lines()}
    np.testing.assert_array_equal(np.isnan(lines["observed"]), np.isnan(y).any(1))
    np.testing.assert_array_equal(np.isnan(lines["predicted mean"]), np.isnan(X).any(1))
    axis = plots.plot_predictions(model, X, y)
    assert max(len(dots.get_offsets()) for dots in axis.collections if len(dots.get_offsets())) <= known.sum()
    plt.close("all")
