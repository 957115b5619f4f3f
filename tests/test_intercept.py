"""Models without an intercept: against scikit-learn, closed forms, and models that have one."""

import jax
import numpy as np
import pytest
from numpyro import distributions as dist
from numpyro.infer.util import log_density
from sklearn.datasets import load_diabetes
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
)

import bayesglm
from bayesglm import GLM, PopulationGLM
from bayesglm.model_selection import GLMCV, approximate_loo, largest_strength, strength_path
from bayesglm.observation_models import GaussianObservations

QUIET = {"progress_bar": False}
TIGHT = {"tol": 1e-14, "max_iter": 100_000}


def make_data(n=60, p=5, seed=0, level=1.0):
    """Features that are not centered, the first constant, and y whose level they do not make."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + level
    X[:, 0] = 1.0
    return X, X @ rng.normal(size=p) * 0.5 + rng.normal(size=n) + 1


PEERS = {
    "Ridge": (0.3, lambda n: Ridge(0.3 * n, fit_intercept=False)),
    "Lasso": (0.3, lambda n: Lasso(0.3, fit_intercept=False, **TIGHT)),
    "ElasticNet": ((0.6, 0.4), lambda n: ElasticNet(alpha=0.6, l1_ratio=0.4, fit_intercept=False, **TIGHT)),
}
LONG = [pytest.param("ElasticNet", (60, 5), marks=pytest.mark.slow)]
FITS = [("Ridge", (60, 5)), ("Lasso", (60, 5)), ("Ridge", (25, 60)), ("Lasso", (100, 400)), *LONG]


@pytest.mark.parametrize(("regularizer", "shape"), FITS)
def test_gaussian_fits_are_scikit_learns(regularizer, shape):
    X, y = make_data(*shape)
    strength, peer = PEERS[regularizer]
    model = GLM(GaussianObservations(1.0), None, regularizer, strength, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(model.coef_, peer(len(y)).fit(X, y).coef_, rtol=0, atol=1e-7)
    assert model.intercept_ == 0
    assert model.converged_
    np.testing.assert_allclose(model.predict(X), X @ model.coef_)


def test_other_fits_are_scikit_learns():
    X, y = make_data()
    weight, positive = np.random.default_rng(1).uniform(0.5, 2, len(y)), y > np.median(y)
    share = weight / weight.mean()
    arguments = {"fit_intercept": False, "tol": 1e-12, "max_iter": 1000, "solver": "newton-cholesky"}
    ours = {"regularizer": "Ridge", "regularizer_strength": 0.1, "fit_intercept": False}
    peer = LogisticRegression(C=10 / len(y), **arguments).fit(X, positive, share)
    model = GLM("Bernoulli", **ours).fit(X, positive.astype(float), sample_weight=weight)
    np.testing.assert_allclose(model.coef_, peer.coef_[0], rtol=0, atol=1e-7)
    counts = np.random.default_rng(2).poisson(np.exp(0.3 * X[:, 1]))
    peer = PoissonRegressor(alpha=0.1, **arguments).fit(X, counts, weight)
    model = GLM("Poisson", **ours).fit(X, counts, sample_weight=weight)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=0, atol=1e-7)
    # A constant column without a penalty is an intercept.
    free = GLM("Poisson", regularizer="Ridge", regularizer_strength=[0.0, 0.1, 0.1, 0.1, 0.1], fit_intercept=False)
    free.fit(X, counts)
    usual = GLM("Poisson", regularizer="Ridge", regularizer_strength=0.1).fit(X[:, 1:], counts)
    np.testing.assert_allclose(free.coef_, np.r_[usual.intercept_, usual.coef_], atol=1e-9)
    np.testing.assert_allclose(free.dof_resid_, usual.dof_resid_, atol=1e-7)


def test_unpenalized_fit_is_least_squares():
    X, y = make_data()
    model = GLM("Gaussian", fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(model.coef_, LinearRegression(fit_intercept=False).fit(X, y).coef_, atol=1e-9)
    assert model.dof_resid_ == pytest.approx(55)
    covariance = model.scale_[0] * np.linalg.inv(X.T @ X)
    np.testing.assert_allclose(model.covariance_[1:, 1:], covariance, rtol=1e-8)
    assert np.isnan(model.covariance_[0]).all()
    assert np.isnan(model.covariance_[:, 0]).all()
    assert list(model.summary().index) == [f"coef[{j}]" for j in range(5)]
    assert model.criteria_["edf"] == pytest.approx(5)
    assert list(model.prior_summary().index) == ["coef", "sigma"]


@pytest.mark.parametrize("regularizer", ["Ridge", pytest.param("GroupLasso", marks=pytest.mark.slow)])
def test_symmetric_data_need_no_intercept(regularizer):
    X, y = make_data(level=0.0)
    X, y = np.r_[X, -X][:, 1:], np.r_[y, -y]
    pair = [
        GLM("Gaussian", None, regularizer, 0.1, fit_intercept=fit_intercept).fit(X, y)
        for fit_intercept in (True, False)
    ]
    np.testing.assert_allclose(pair[0].coef_, pair[1].coef_, atol=1e-8)
    assert pair[1].dof_resid_ - pair[0].dof_resid_ == pytest.approx(1)


@pytest.mark.parametrize(("regularizer", "family"), [("Ridge", "Poisson"), ("GroupLasso", "Gaussian")])
def test_mode_is_that_of_the_numpyro_model(regularizer, family):
    """The slopes of loss and penalty are minus those of the NumPyro model, which has no intercept."""
    X, y = make_data()
    y = np.abs(y.round())
    family = "Poisson" if family == "Poisson" else GaussianObservations(1.3)
    model = GLM(family, None, regularizer, 0.05, fit_intercept=False).fit(X, y)
    with jax.enable_x64(True):
        slope = jax.grad(lambda coef: log_density(model.numpyro_model, (X, y), {}, {"coef": coef})[0])(model.coef_)
    # Where a coefficient is zero the density has a kink.
    np.testing.assert_allclose(np.where(model.coef_ != 0, slope, 0.0), 0, atol=1e-6 * len(y))


def closed_form(X, y, precision, scale):
    covariance = np.linalg.inv(X.T @ X / scale + precision * np.eye(X.shape[1]))
    return covariance @ X.T @ y / scale, covariance


@pytest.mark.parametrize("shape", [(40, 4), (12, 30)])
def test_exact_draws_are_those_of_the_closed_form(shape):
    X, y = make_data(*shape)
    model = GLM(GaussianObservations(1.5), None, "Ridge", 0.2, fit_intercept=False)
    posterior = model.sample(X, y, num_samples=5000, **QUIET)
    assert posterior.sample_stats.attrs["sampler"] == "exact"
    assert "intercept" not in posterior.posterior
    mean, covariance = closed_form(X, y, 0.2 * len(y) / 1.5, 1.5)
    draws, sd = posterior.posterior["coef"].values.reshape(-1, shape[1]), np.sqrt(np.diag(covariance))
    assert (abs(draws.mean(0) - mean) / sd).max() < 0.035
    assert abs(draws.std(0) / sd - 1).max() < 0.03
    correlation = np.corrcoef(draws.T)
    np.testing.assert_allclose(correlation, covariance / sd / sd[:, None], atol=0.04)


METHODS = [("hmc", "Ridge"), ("nuts", "Ridge"), ("laplace", "Ridge"), ("hmc", "Lasso"), ("hmc", "GroupLasso")]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "regularizer"), METHODS)
@pytest.mark.parametrize("parametrization", ["direct", "mixture"])
def test_other_samplers_agree(method, regularizer, parametrization):
    """With quadrature in two dimensions."""
    X, y = make_data(40, 3)
    X = X[:, 1:]
    arguments = {"num_samples": 4000, "seed": 1, "method": method, "parametrization": parametrization} | QUIET
    model = GLM(GaussianObservations(1.5), None, regularizer, 0.2, fit_intercept=False)
    found = model.sample(X, y, **arguments).posterior["coef"].values.reshape(-1, 2)
    axis = np.linspace(-2.5, 2.5, 801)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    penalty = {"Ridge": 0.5 * (grid**2).sum(1), "Lasso": np.abs(grid).sum(1)}
    size = penalty.get(regularizer, np.sqrt(2 * (grid**2).sum(1)))
    log_prob = -(0.5 * ((y - grid @ X.T) ** 2).sum(1) + len(y) * 0.2 * size) / 1.5
    weight = np.exp(log_prob - log_prob.max())
    weight /= weight.sum()
    mean = weight @ grid
    sd = np.sqrt(weight @ (grid - mean) ** 2)
    assert (abs(found.mean(0) - mean) / sd).max() < 0.06
    assert abs(found.std(0) / sd - 1).max() < 0.06


@pytest.mark.parametrize(
    ("regularizer", "method"), [pytest.param("Ridge", "laplace", marks=pytest.mark.slow), ("Lasso", "hmc")]
)
def test_draws_have_no_intercept(regularizer, method, tmp_path):
    X, y = make_data(30, 3)
    model = GLM("Gaussian", None, regularizer, 0.05, fit_intercept=False)
    posterior = model.sample(X, y, num_samples=300, method=method, **QUIET)
    assert {"coef", "dispersion", "sigma"} == set(posterior.posterior.data_vars)
    model.posterior_predictive(X[:4], seed=1)
    mean = posterior.posterior["coef"].values @ X[:4].T
    np.testing.assert_allclose(posterior["predictions"]["mean"].values, mean, rtol=1e-12)
    model.prior_predictive(X[:4], num_samples=20)
    assert "intercept" not in posterior["prior"]
    bayesglm.save(model, tmp_path / "model")
    again = bayesglm.load(tmp_path / "model")
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_evidence_is_that_of_bayesian_ridge():
    X, y = load_diabetes(return_X_y=True)
    y = y - y.mean() + 10.0
    nothing = dict.fromkeys(["alpha_1", "alpha_2", "lambda_1", "lambda_2"], 0)
    peer = BayesianRidge(fit_intercept=False, tol=1e-14, max_iter=100_000, **nothing).fit(X, y)
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength="evidence", fit_intercept=False).fit(X, y)
    assert model.regularizer_strength_ == pytest.approx(peer.lambda_ / peer.alpha_ / len(y), rel=1e-7)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-7)


@pytest.mark.slow
def test_learned_strengths():
    X, y = make_data()
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength="learn", fit_intercept=False)
    posterior = model.sample(X, y, num_samples=500, **QUIET).posterior
    evidence = GLM("Gaussian", regularizer="Ridge", regularizer_strength="evidence", fit_intercept=False).fit(X, y)
    low, high = np.quantile(posterior["strength"].values, (0.02, 0.98))
    assert low < evidence.regularizer_strength_ < high


@pytest.mark.parametrize(("regularizer", "shape"), [("Ridge", (30, 4)), ("Ridge", (15, 25)), ("Lasso", (30, 4))])
def test_leaving_out_is_refitting(regularizer, shape):
    """Exact for Gaussian observations, but for coefficients that jump out of or into zero."""
    X, y = make_data(*shape)
    strength = 0.4
    model = GLM(GaussianObservations(1.0), None, regularizer, strength, fit_intercept=False)
    found = approximate_loo(model, X, y).predictor
    n = len(y)
    # The prior is held: the strength grows by n / (n - 1).
    refit = GLM(GaussianObservations(1.0), None, regularizer, strength * n / (n - 1), fit_intercept=False)
    for i in range(0, n, 7):
        kept = np.arange(n) != i
        assert refit.fit(X[kept], y[kept]).predict(X[i : i + 1]) == pytest.approx(found[i], abs=1e-5)


def test_paths_and_cross_validation():
    X, y = make_data(60, 8)
    model = GLM("Gaussian", regularizer="Lasso", fit_intercept=False)
    top = largest_strength(model, X, y)
    assert top == pytest.approx(np.abs(X.T @ y).max() / len(y), rel=1e-10)
    path = strength_path(model, X, y, [top * 1.001, top * 0.999, top / 10])
    assert [bool(one.coef_.any()) for one in path] == [False, True, True]
    chosen = GLMCV(model, strengths=5, progress_bar=False).fit(X, y)
    assert chosen.intercept_ == 0
    again = GLM("Gaussian", None, "Lasso", chosen.best_strength_, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(chosen.coef_, again.coef_, atol=1e-8)


def test_population_and_formula():
    X, y = make_data()
    both = np.c_[y, y[::-1]]
    model = PopulationGLM("Gaussian", regularizer="Ridge", regularizer_strength=0.1, fit_intercept=False).fit(X, both)
    one = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.1, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(model.coef_[:, 0], one.coef_, atol=1e-12)
    np.testing.assert_array_equal(model.intercept_, [0, 0])
    posterior = model.sample(X, both, num_samples=50, **QUIET).posterior
    assert posterior["coef"].dims == ("chain", "draw", "output", "feature")


def test_improper_posteriors_are_refused_without_regard_to_an_intercept():
    X, _ = make_data(20, 3)
    GLM(regularizer="Ridge", regularizer_strength=0.1, fit_intercept=False).sample(
        X, np.zeros(20), num_samples=20, method="laplace", **QUIET
    )
    with pytest.raises(ValueError, match="improper: features without a penalty separate"):
        GLM(fit_intercept=False).sample(np.abs(X), np.zeros(20), **QUIET)
    # Collinear beside an intercept, but not without one.
    X[:, 1] = 2.0 - X[:, 2]
    X = X[:, 1:]
    GLM("Gaussian", fit_intercept=False).sample(X, X[:, 0] ** 2, num_samples=20, **QUIET)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit_intercept": "no"}, "fit_intercept must be True or False; got 'no'"),
        ({"fit_intercept": 0}, "fit_intercept must be True or False; got 0"),
        ({"fit_intercept": False, "intercept_prior": dist.Normal(0, 1)}, "intercept_prior must be None where"),
    ],
)
def test_bad_arguments(settings, message):
    X, y = make_data()
    with pytest.raises(ValueError, match=message):
        GLM("Gaussian", **settings).fit(X, y)
