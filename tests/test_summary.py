"""Inference at the mode against statsmodels, closed forms and the Laplace sampler."""

import pickle

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from bayesglm import GLM, PopulationGLM
from bayesglm.observation_models import GaussianObservations, NegativeBinomialObservations

STACKLOSS = sm.datasets.stackloss.load_pandas()
LOG = sm.families.links.Log()
FAMILIES = {
    "Poisson": (None, sm.families.Poisson()),
    "Gaussian": (None, sm.families.Gaussian()),
    "Gamma": ("exp", sm.families.Gamma(LOG)),
    "NegativeBinomial": (None, sm.families.NegativeBinomial(alpha=1.0)),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weighted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_unpenalized_fits_have_the_errors_and_criteria_of_statsmodels(family, weighted):
    link, theirs = FAMILIES[family]
    X, y = STACKLOSS.exog, STACKLOSS.endog
    weight = np.arange(len(y)) % 3 + 1.0 if weighted else None
    model = GLM(family, link).fit(X, y, sample_weight=weight)
    result = sm.GLM(y, sm.add_constant(X), family=theirs, freq_weights=weight).fit(tol=1e-14, maxiter=200)
    table = model.summary(information="expected")
    np.testing.assert_allclose(table["se"], result.bse, rtol=1e-6)
    np.testing.assert_allclose(table.iloc[:, 2:4], result.conf_int(), rtol=1e-5)
    found = model.criteria_
    assert found["edf"] == pytest.approx(4, abs=1e-8)
    assert found["deviance"] == pytest.approx(result.deviance, rel=1e-8)
    estimated = family in ("Gaussian", "Gamma")
    if family != "Gamma":  # there statsmodels takes Pearson's dispersion, where R and we take deviance / n
        assert found["log_likelihood"] == pytest.approx(result.llf, rel=1e-8)
        assert found["aic"] == pytest.approx(result.aic + 2 * estimated, rel=1e-8)


def test_gamma_criteria_are_those_of_its_likelihood():
    X, y = STACKLOSS.exog, STACKLOSS.endog
    model = GLM("Gamma", "exp").fit(X, y)
    mean, phi = model.predict(X), model.criteria_["deviance"] / len(y)
    from scipy.stats import gamma

    log_likelihood = gamma.logpdf(y, 1 / phi, scale=phi * mean).sum()
    assert model.criteria_["log_likelihood"] == pytest.approx(log_likelihood)
    assert model.criteria_["aic"] == pytest.approx(-2 * log_likelihood + 2 * 5)
    assert model.criteria_["bic"] == pytest.approx(-2 * log_likelihood + np.log(len(y)) * 5)


def test_ridge_covariance_in_closed_form():
    X, y = STACKLOSS.exog.to_numpy(), STACKLOSS.endog.to_numpy()
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=[0.1, 0.0, 3.0]).fit(X, y)
    design = np.column_stack([np.ones(len(y)), X])
    hessian = design.T @ design + len(y) * np.diag([0, 0.1, 0.0, 3.0])
    np.testing.assert_allclose(model.covariance_, model.scale_ * np.linalg.inv(hessian), rtol=1e-8)
    edf = np.trace(np.linalg.solve(hessian, design.T @ design))
    assert model.criteria_["edf"] == pytest.approx(edf)
    assert model.dof_resid_[0] == pytest.approx(len(y) - edf)
    np.testing.assert_allclose(model.standard_errors_, np.sqrt(np.diag(model.covariance_))[1:])
    # The prior's precision is k s = W s / dispersion.
    k = len(y) / model.scale_[0]
    np.testing.assert_allclose(model.summary()["prior_sd"], [np.inf, (k * 0.1) ** -0.5, np.inf, (k * 3.0) ** -0.5])


def test_lasso_speaks_of_the_selected_coefficients_alone():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    y = rng.poisson(np.exp(X @ [0.5, 0, 0, -0.3]))
    model = GLM(regularizer="Lasso", regularizer_strength=0.1).fit(X, y)
    chosen = model.coef_ != 0
    assert chosen.tolist() == [True, False, False, True]
    table = model.summary()
    assert table.columns.name == "given selection"
    assert np.isnan(table["se"].iloc[1:]).tolist() == (~chosen).tolist()
    design = np.column_stack([np.ones(len(y)), X[:, chosen]])
    hessian = (design * model.predict(X)[:, None]).T @ design
    np.testing.assert_allclose(table["se"].dropna(), np.sqrt(np.diag(np.linalg.inv(hessian))), rtol=1e-6)
    assert model.criteria_["edf"] == pytest.approx(3)


def test_groups_across_outputs_bend_together():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 3))
    y = rng.poisson(np.exp(X @ [[0.5, 0.4], [0.2, 0.1], [0.0, 0.0]]))
    mask = np.zeros((2, 3, 2))
    mask[0, :2], mask[1, 2] = 1, 1
    from bayesglm.priors import GroupLasso

    model = PopulationGLM(regularizer=GroupLasso(mask), regularizer_strength=0.05).fit(X, y)
    W, rate = len(y), 0.05 * 2
    block = model.coef_[:2]
    norm = np.linalg.norm(block)
    ray = block.ravel() / norm
    mean = model.predict(X)
    active = model.coef_[2].any()
    assert not active
    hessian = np.zeros((6, 6))  # intercepts, then coefficients (feature, output)
    for output in range(2):
        rows = [output, 2 + output, 4 + output]
        design = np.column_stack([np.ones(W), X[:, :2]])
        hessian[np.ix_(rows, rows)] = (design * mean[:, [output]]).T @ design
    hessian[2:, 2:] += W * rate / norm * (np.eye(4) - np.outer(ray, ray))
    errors = np.sqrt(np.diag(np.linalg.inv(hessian)))[2:].reshape(2, 2)
    np.testing.assert_allclose(model.standard_errors_[:2], errors, rtol=1e-6)
    assert np.isnan(model.standard_errors_[2]).all()
    assert model.summary().index.tolist()[:3] == ["intercept[0]", "coef[0, 0]", "coef[0, 1]"]


def test_it_is_what_the_laplace_sampler_draws_from():
    rng = np.random.default_rng(2)
    X = {"a": rng.normal(size=(400, 2)), "b": rng.normal(size=(400, 1))}
    y = rng.poisson(np.exp(0.3 * X["a"][:, 0]))
    model = GLM(regularizer="Ridge", regularizer_strength={"a": 0.1, "b": 0.0})
    tree = model.sample(X, y, method="laplace", num_samples=2000, progress_bar=False)
    table = model.summary()
    assert table.index.tolist() == ["intercept", "coef.a[0]", "coef.a[1]", "coef.b[0]"]
    drawn = tree.posterior["coef.a"].std(("chain", "draw")).values
    np.testing.assert_allclose(model.standard_errors_["a"], drawn, rtol=0.05)


def test_population_criteria_are_those_of_its_outputs():
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(100, 3)), rng.gamma(2.0, size=(100, 2))
    together = PopulationGLM("Gamma", "exp", "Ridge", 0.1, feature_mask=[[1, 1], [1, 0], [1, 1]]).fit(X, y)
    alone = GLM("Gamma", "exp", "Ridge", 0.1).fit(X[:, [0, 2]], y[:, 1])
    for name, value in alone.criteria_.items():
        assert together.criteria_[name][1] == pytest.approx(value), name
    assert len(together.summary()) == 4 + 3
    kept = together.covariance_[1][np.ix_([0, 1, 3], [0, 1, 3])]
    np.testing.assert_allclose(kept, alone.covariance_, rtol=1e-6)


def test_fixed_and_learned_second_parameters_count_right():
    rng = np.random.default_rng(4)
    X, y = rng.normal(size=(300, 2)), rng.negative_binomial(2, 0.4, size=300)
    fixed = GLM(NegativeBinomialObservations(0.7)).fit(X, y).criteria_
    learned = GLM(NegativeBinomialObservations(None)).fit(X, y).criteria_
    assert fixed["aic"] == pytest.approx(-2 * fixed["log_likelihood"] + 2 * 3)
    assert learned["aic"] == pytest.approx(-2 * learned["log_likelihood"] + 2 * 4)
    assert learned["log_likelihood"] > fixed["log_likelihood"]
    known = GLM(GaussianObservations(scale=4.0)).fit(X, y)
    from scipy.stats import norm

    expected = norm.logpdf(y, known.predict(X), 2.0).sum()
    assert known.criteria_["log_likelihood"] == pytest.approx(expected)
    assert known.criteria_["aic"] == pytest.approx(-2 * expected + 2 * 3)


def test_fits_without_noise():
    x = np.arange(10.0)[:, None]
    model = GLM("Gaussian").fit(x, 2 * x[:, 0] + 1)
    assert (model.summary()["se"] < 1e-10).all()
    model = GLM("Gaussian", regularizer="Ridge").fit(x, np.zeros(10))
    with pytest.raises(ValueError, match="scale_ is 0: the fit leaves no residuals"):
        model.summary()


def test_learned_strengths_leave_the_dispersion_of_the_fit():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    y = X @ rng.normal(size=5) + rng.normal(size=60) * 0.3
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength="learn")
    model.sample(X, y, num_samples=500, num_chains=2, progress_bar=False)
    refit = GLM("Gaussian", regularizer="Ridge", regularizer_strength=model.regularizer_strength_).fit(X, y)
    np.testing.assert_allclose(model.standard_errors_, refit.standard_errors_, rtol=1e-6)


def test_bad_input_and_missing_data_are_told():
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(50, 2)), rng.poisson(1.0, size=50)
    model = GLM()
    assert not hasattr(model, "covariance_")
    with pytest.raises(NotFittedError, match="not fitted"):
        model.summary()
    model.fit(X, y)
    with pytest.raises(ValueError, match="level must be a number between 0 and 1; got 95"):
        model.summary(level=95)
    with pytest.raises(ValueError, match="information"):
        model.summary(information="fisher")
    with pytest.raises(NotFittedError, match="no longer has the data"):
        pickle.loads(pickle.dumps(model)).summary()
    for change in (lambda: X.__imul__(3), lambda: rng.shuffle(X), lambda: X.__iadd__(0.5)):
        model.fit(X, y)
        assert len(model.summary()) == 3
        change()
        with pytest.raises(ValueError, match="no longer those of the fit"):
            model.summary()
    twice = np.column_stack([X[:, 0], X[:, 0]])
    with pytest.warns(match="one of many"):
        model.fit(twice, y)
    with pytest.raises(ValueError, match="The mode has no covariance"):
        model.summary()


def test_an_output_without_an_optimum_has_no_errors():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 2)), rng.poisson(1.0, size=(100, 3))
    y[:, 1] = 0
    with pytest.warns(ConvergenceWarning, match="output 1; 1 of 3 are affected"):
        model = PopulationGLM(regularizer="Ridge", regularizer_strength=0.1).fit(X, y)
    errors = model.standard_errors_
    assert np.isnan(errors[:, 1]).all()
    other = PopulationGLM(regularizer="Ridge", regularizer_strength=0.1).fit(X, y[:, [0, 2]])
    np.testing.assert_allclose(errors[:, [0, 2]], other.standard_errors_, rtol=1e-6)
    assert np.isnan(model.criteria_["edf"][1])
    assert model.summary()["se"].isna().sum() == 3
    with pytest.warns(ConvergenceWarning):
        alone = GLM(regularizer="Ridge", regularizer_strength=0.1).fit(X, y[:, 1])
    with pytest.raises(ValueError, match="The fit has no finite optimum, and no curvature there, for every y is 0"):
        alone.summary()
