"""Successes among trials: as so many zeros and ones, and as statsmodels has them."""

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
import statsmodels.api as sm
from numpyro.infer.util import log_density
from scipy import stats

from bayesglm import GLM, GLMCV, PopulationGLM, load, plots, save, to_nemos

STAR = sm.datasets.star98.load_pandas()
X = STAR.exog[["LOWINC", "PERASIAN", "PERBLACK", "PERHISP"]].iloc[:60] / 100
Y = np.column_stack([STAR.endog.iloc[:60, 0], STAR.endog.iloc[:60].sum(axis=1)])


def test_without_a_regularizer_it_is_that_of_statsmodels():
    ours = GLM("Binomial").fit(X, Y)
    failures = np.column_stack([Y[:, 0], Y[:, 1] - Y[:, 0]])
    theirs = sm.GLM(failures, sm.add_constant(X), family=sm.families.Binomial()).fit(tol=1e-12)
    np.testing.assert_allclose(np.append(ours.intercept_, ours.coef_), theirs.params, rtol=1e-6)
    np.testing.assert_allclose(ours.summary()["se"], theirs.bse, rtol=1e-5)
    criteria = ours.criteria_
    np.testing.assert_allclose(criteria["deviance"], theirs.deviance, rtol=1e-8)
    np.testing.assert_allclose([criteria["log_likelihood"], criteria["aic"]], [theirs.llf, theirs.aic], rtol=1e-8)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(sm.add_constant(X)), rtol=1e-7)
    np.testing.assert_allclose(ours.score(X, Y), 1 - theirs.deviance / theirs.null_deviance, rtol=1e-6)


@pytest.mark.parametrize("regularizer", ["Ridge", "Lasso"])
def test_it_is_the_fit_to_each_trial(regularizer):
    rng = np.random.default_rng(0)
    features, trials = rng.normal(size=(40, 3)), rng.integers(0, 6, 40)
    successes = rng.binomial(trials, 0.3)
    settings = {"regularizer": regularizer, "regularizer_strength": 0.03}
    counts = GLM("Binomial", **settings).fit(features, np.column_stack([successes, trials]))
    rows = np.repeat(np.arange(40), trials)
    ones = np.concatenate([np.arange(n) < s for s, n in zip(successes, trials, strict=True)])
    each = GLM("Bernoulli", **settings).fit(features[rows], ones)
    np.testing.assert_allclose(counts.coef_, each.coef_, atol=1e-9)
    np.testing.assert_allclose(counts.intercept_, each.intercept_, atol=1e-9)
    assert counts.spec_.total == len(rows)


def test_posterior_predicts_successes(tmp_path):
    model = GLM("Binomial", regularizer="Ridge", regularizer_strength=1e-4)
    tree = model.sample(X, Y, num_samples=200, num_chains=2, progress_bar=False)
    np.testing.assert_array_equal(tree.observed_data["y"], Y[:, 0])
    np.testing.assert_array_equal(tree.constant_data["trials"], Y[:, 1])
    drawn = tree.posterior_predictive["y"].values.reshape(-1, 60)
    assert (drawn <= Y[:, 1]).all()
    np.testing.assert_allclose(drawn.mean(0), model.predict(X) * Y[:, 1], rtol=0.1)
    first = tree.posterior.isel(chain=0, draw=0)
    eta = float(first["intercept"]) + X.to_numpy() @ first["coef"].values
    exact = stats.binom.logpmf(Y[:, 0], Y[:, 1], 1 / (1 + np.exp(-eta)))
    np.testing.assert_allclose(tree.log_likelihood["y"].isel(chain=0, draw=0), exact, rtol=1e-6)
    with jax.enable_x64(True):
        sites = {"coef": model.coef_, "intercept": model.intercept_[0]}
        slope = jax.grad(lambda at: log_density(model.numpyro_model, (X, Y), {}, at)[0])(sites)
        np.testing.assert_allclose(slope["intercept"], 0, atol=1e-3)
    save(model, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(X), model.predict(X))
    axis = plots.plot_predictions(model, X, Y)
    assert "observed" in axis.get_ylabel()
    plt.close("all")


def test_folds_and_formulas():
    chosen = GLMCV(GLM("Binomial", regularizer="Ridge"), 5, progress_bar=False).fit(X, Y)
    assert chosen.best_estimator_.converged_
    data = X.assign(passed=Y[:, 0], tested=Y[:, 1])
    fitted = GLM.from_formula("passed + tested ~ LOWINC + PERASIAN", data, observation_model="Binomial")
    np.testing.assert_allclose(
        np.concatenate([*fitted.coef_.values()]), GLM("Binomial").fit(X[["LOWINC", "PERASIAN"]], Y).coef_, rtol=1e-8
    )


def test_what_is_wrong_is_told():
    with pytest.raises(ValueError, match=r"shape \(samples, 2\), successes and trials.*got \(60,\)"):
        GLM("Binomial").fit(X, Y[:, 0])
    with pytest.raises(ValueError, match=r"successes from 0 to trials.*1 of 60 samples do not.*\[3.0, 2.0\]"):
        GLM("Binomial").fit(X, np.vstack([[3, 2], Y[1:]]))
    with pytest.raises(ValueError, match="'Binomial' is for GLM"):
        PopulationGLM("Binomial").fit(X, Y)
    with pytest.raises(ValueError, match="has no trials"):
        GLM("Binomial").fit(X, 0 * Y)
    with pytest.raises(ValueError, match="which NeMoS lacks"):
        to_nemos(GLM("Binomial"))


def test_weights_are_repeated_samples():
    weight = np.arange(60) % 3
    settings = {"regularizer": "Ridge", "regularizer_strength": 1e-4}
    rows = np.repeat(np.arange(60), weight)
    weighted = GLM("Binomial", **settings).fit(X, Y, sample_weight=weight)
    repeated = GLM("Binomial", **settings).fit(X.iloc[rows], Y[rows])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-8)
    for name, value in repeated.criteria_.items():
        np.testing.assert_allclose(weighted.criteria_[name], value, rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(weighted.summary(), repeated.summary(), rtol=1e-6)
    # As in R: samples, not trials.
    np.testing.assert_allclose(
        weighted.criteria_["bic"] - weighted.criteria_["aic"], weighted.criteria_["edf"] * (np.log(weight.sum()) - 2)
    )
    tree = weighted.sample(X, Y, sample_weight=weight, num_samples=200, num_chains=2, progress_bar=False)
    seen = weight > 0
    np.testing.assert_array_equal(tree.observed_data["y"], Y[seen, 0])
    np.testing.assert_array_equal(tree.constant_data["trials"], Y[seen, 1])
    np.testing.assert_array_equal(tree.constant_data["sample_weight"], weight[seen])
    assert (tree.posterior_predictive["y"] <= Y[seen, 1]).all()
    first = tree.posterior.isel(chain=0, draw=0)
    eta = float(first["intercept"]) + X.to_numpy() @ first["coef"].values
    exact = weight * stats.binom.logpmf(Y[:, 0], Y[:, 1], 1 / (1 + np.exp(-eta)))
    np.testing.assert_allclose(tree.log_likelihood["y"].isel(chain=0, draw=0), exact[seen], rtol=1e-6)
    with jax.enable_x64(True):
        sites = {"coef": first["coef"].values, "intercept": float(first["intercept"])}
        ours = log_density(weighted.numpyro_model, (X, Y), {"sample_weight": weight}, sites)[0]
        prior = stats.norm.logpdf(sites["coef"], scale=1 / np.sqrt(1e-4 * (weight * Y[:, 1]).sum())).sum()
    np.testing.assert_allclose(ours, exact.sum() + prior, rtol=1e-6)
