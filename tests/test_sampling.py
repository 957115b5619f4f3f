"""Draws against closed forms, quadrature and NumPyro's own MCMC."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from arviz_stats.base import array_stats
from jax.scipy.special import gammaln
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

from bayesglm import GLM, PopulationGLM
from bayesglm._diagnostics import check_run
from bayesglm.observation_models import (
    BernoulliObservations,
    GammaObservations,
    GaussianObservations,
    NegativeBinomialObservations,
    PoissonObservations,
)
from bayesglm.priors import GroupLasso

LONG = {"num_samples": 12_500, "num_warmup": 500, "num_chains": 4, "progress_bar": False, "log_likelihood": False}
LONG["posterior_predictive"] = False


def draws_of(idata):
    """Intercept and coefficients, (chain, draw, 1 + p)."""
    posterior = idata.posterior
    return np.concatenate([posterior["intercept"].values[..., None], posterior["coef"].values], axis=2)


def check_moments(idata, mean, sd, *, least_ess=20_000):
    """Means within 0.05 sd and sds within 5 %, beyond Monte Carlo error; r-hat, divergences."""
    draws = draws_of(idata)
    assert int(idata.sample_stats["diverging"].sum()) == 0
    for i in range(draws.shape[2]):
        one = draws[:, :, i]
        ess = array_stats.ess(one, chain_axis=0, draw_axis=1, method="mean")
        ess_sd = array_stats.ess((one - mean[i]) ** 2, chain_axis=0, draw_axis=1, method="mean")
        assert min(ess, ess_sd) > least_ess
        assert array_stats.rhat(one, chain_axis=0, draw_axis=1) < 1.01
        assert abs(one.mean() - mean[i]) < (0.05 + 3 / np.sqrt(ess)) * sd[i]
        assert abs(one.std() / sd[i] - 1) < 0.05 + 3 / np.sqrt(2 * ess_sd)


def gaussian_data(rng, n=80):
    X = rng.normal(size=(n, 3)) @ np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 2.0]]) + 1.0
    return X, X @ np.array([0.5, -0.4, 0.2]) + 1.0 + rng.normal(size=n) * np.sqrt(2)


def test_gaussian_with_known_variance_and_ridge_is_the_closed_form(rng):
    X, y = gaussian_data(rng)
    strength, variance = np.array([0.1, 0.4, 0.02]), 2.0
    weight = rng.integers(0, 3, len(y)).astype(float)
    model = GLM(GaussianObservations(scale=variance), regularizer="Ridge", regularizer_strength=strength)
    idata = model.sample(X, y, sample_weight=weight, **LONG)
    design = np.column_stack([np.ones(len(y)), X])
    k = weight.sum() / variance
    precision = (design.T * weight) @ design / variance + np.diag([0, *(k * strength)])
    covariance = np.linalg.inv(precision)
    mean = covariance @ (design.T @ (weight * y)) / variance
    check_moments(idata, mean, np.sqrt(np.diag(covariance)))
    np.testing.assert_allclose(model.coef_, mean[1:], atol=1e-9)  # the mode is the mean
    assert "dispersion" not in idata.posterior


def quadrature(log_density, mode, sd, points=61, width=7.0):
    """Means and sds of a density in two or three dimensions, on a grid around its mode."""
    axes = [np.linspace(m - width * s, m + width * s, points) for m, s in zip(mode, sd, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    log_prob = np.asarray(jax.lax.map(log_density, jnp.asarray(grid), batch_size=20_000))
    weight = np.exp(log_prob - log_prob.max())
    weight /= weight.sum()
    mean = weight @ grid
    return mean, np.sqrt(weight @ (grid - mean) ** 2)


PRIORS = {
    "UnRegularized": (None, None),
    "Ridge": ([0.1, 0.02], lambda w, k: -0.5 * k * (0.1 * w[0] ** 2 + 0.02 * w[1] ** 2)),
    "Lasso": ([0.1, 0.02], lambda w, k: -k * (0.1 * jnp.abs(w[0]) + 0.02 * jnp.abs(w[1]))),
    "ElasticNet": (
        ([0.1, 0.05], [0.5, 0.9]),
        lambda w, k: -k * (0.05 * jnp.abs(w[0]) + 0.025 * w[0] ** 2 + 0.045 * jnp.abs(w[1]) + 0.0025 * w[1] ** 2),
    ),
    "GroupLasso": (0.06, lambda w, k: -k * 0.06 * jnp.sqrt(2) * jnp.sqrt(w[0] ** 2 + w[1] ** 2)),
}


# Observation model, a draw of y given eta, log-likelihood by hand up to its constant, and the dispersion.
FAMILIES = {
    "Poisson": (PoissonObservations(), lambda rng, e: rng.poisson(np.exp(e)), lambda y, e: y * e - jnp.exp(e), 1.0),
    "Bernoulli": (
        BernoulliObservations(),
        lambda rng, e: rng.random(e.shape) < 1 / (1 + np.exp(-e)),
        lambda y, e: y * e - jnp.log1p(jnp.exp(e)),
        1.0,
    ),
    "Gaussian": (
        GaussianObservations(1.5),
        lambda rng, e: e + np.sqrt(1.5) * rng.normal(size=e.shape),
        lambda y, e: -((y - e) ** 2) / 3,
        1.5,
    ),
    "Gamma": (
        GammaObservations(0.5),
        lambda rng, e: rng.gamma(2.0, np.exp(e) / 2),
        lambda y, e: -2 * (y * jnp.exp(-e) + e),
        0.5,
    ),
    "NegativeBinomial": (
        NegativeBinomialObservations(0.5),
        lambda rng, e: rng.poisson(rng.gamma(2.0, np.exp(e) / 2)),
        lambda y, e: y * e - (y + 2) * jnp.log1p(jnp.exp(e) / 2),
        1.0,
    ),
}
ALWAYS = {("Poisson", "Lasso"), ("Bernoulli", "GroupLasso")}  # the other pairs only in the slow run
QUADRATURE = [
    pytest.param(family, regularizer, marks=() if (family, regularizer) in ALWAYS else pytest.mark.slow)
    for family in FAMILIES
    for regularizer in PRIORS
]


@pytest.mark.parametrize(("family", "regularizer"), QUADRATURE)
def test_posterior_is_the_one_by_quadrature(family, regularizer, rng):
    """The density is written out by hand here: likelihood times prior, weights and offset included."""
    observations, draw, log_likelihood, phi = FAMILIES[family]
    n = 60
    X = rng.normal(size=(n, 2)) @ np.array([[1, 0.5], [0, 0.8]])
    offset = 0.2 * rng.normal(size=n)
    y = draw(rng, X @ np.array([0.4, 0.1]) + 0.3 + offset).astype(float)
    weight = rng.integers(1, 3, n).astype(float)
    strength, log_prior = PRIORS[regularizer]
    link = "exp" if family == "Gamma" else None
    model = GLM(observations, link, regularizer, strength)
    idata = model.sample(X, y, sample_weight=weight, offset=offset, **LONG)
    with jax.enable_x64(True):

        def log_density(point):
            log_lik = weight @ log_likelihood(y, offset + point[0] + X @ point[1:])
            return log_lik + (0 if log_prior is None else log_prior(point[1:], weight.sum() / phi))

        rough = draws_of(idata).reshape(-1, 3)
        mean, sd = quadrature(log_density, rough.mean(0), rough.std(0))
    check_moments(idata, mean, sd)


def half_student(sigma, scale):
    """Log density of the half Student's t with 4 degrees of freedom, up to its constant."""
    return -2.5 * jnp.log1p((sigma / scale) ** 2 / 4)


def gaussian_lasso(point, x, y, k):
    sigma = jnp.exp(point[2])
    residual = (y - point[0] - x * point[1]) / sigma
    log_lik = -0.5 * residual @ residual - len(y) * point[2]
    return log_lik - 0.3 * k * jnp.abs(point[1]) + half_student(sigma, y.std()) + point[2]


def gaussian_conditional_ridge(point, x, y, k):
    """The normal prior has the variance sigma^2 / (n s), and so a normalizer that knows sigma."""
    sigma = jnp.exp(point[2])
    residual = (y - point[0] - x * point[1]) / sigma
    log_lik = -0.5 * residual @ residual - len(y) * point[2]
    log_prior = -0.5 * len(y) * 0.3 * (point[1] / sigma) ** 2 - point[2]
    return log_lik + log_prior + half_student(sigma, y.std()) + point[2]


def gamma_ridge(point, x, y, k):
    """The square root of the dispersion has a half-normal prior; its logarithm is the third coordinate."""
    root = jnp.exp(point[2])
    shape = root**-2
    eta = point[0] + x * point[1]
    log_lik = shape * (jnp.log(shape) - eta) - gammaln(shape) + (shape - 1) * jnp.log(y) - shape * y * jnp.exp(-eta)
    return jnp.sum(log_lik) - 0.15 * k * point[1] ** 2 - 0.5 * root**2 + point[2]


def gamma_reciprocal_ridge(point, x, y, k):
    """The mean is 1 / eta, and the density is 0 where eta is negative for any sample."""
    root = jnp.exp(point[2])
    shape = root**-2
    eta = point[0] + x * point[1]
    safe = jnp.where(eta > 0, eta, 1.0)
    log_lik = shape * jnp.log(shape * safe) - gammaln(shape) + (shape - 1) * jnp.log(y) - shape * y * safe
    log_lik = jnp.where(jnp.all(eta > 0), jnp.sum(log_lik), -jnp.inf)
    return log_lik - 0.15 * k * point[1] ** 2 - 0.5 * root**2 + point[2]


def negative_binomial_lasso(point, x, y, k):
    root = jnp.exp(point[2])
    a = root**2
    mean = jnp.exp(point[0] + x * point[1])
    log_lik = gammaln(y + 1 / a) - gammaln(1 / a) + y * jnp.log(a * mean) - (y + 1 / a) * jnp.log1p(a * mean)
    return jnp.sum(log_lik) - 0.3 * k * jnp.abs(point[1]) - 0.5 * root**2 + point[2]


SAMPLED_SCALE = {
    "Gaussian, Lasso": (GLM("Gaussian", None, "Lasso", 0.3), gaussian_lasso),
    "Gaussian, Ridge, conditional": (
        GLM("Gaussian", None, "Ridge", 0.3, dispersion_prior="conditional"),
        gaussian_conditional_ridge,
    ),
    "Gamma, Ridge": (GLM("Gamma", "exp", "Ridge", 0.3), gamma_ridge),
    "Gamma, Ridge, 1/x": (GLM("Gamma", None, "Ridge", 0.3), gamma_reciprocal_ridge),
    "NegativeBinomial, Lasso": (
        GLM(NegativeBinomialObservations(None), None, "Lasso", 0.3),
        negative_binomial_lasso,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLED_SCALE)
def test_posterior_with_sampled_scale_is_the_one_by_quadrature(name, rng):
    """Three dimensions: intercept, one coefficient, and the logarithm of the square root of the scale."""
    model, by_hand = SAMPLED_SCALE[name]
    n = 40
    x = rng.normal(size=n)
    mean = {"Gaus": 1 + 0.5 * x, "Gamm": np.exp(0.5 + 0.4 * x), "Nega": np.exp(1 + 0.4 * x)}[name[:4]]
    shape = 3.0
    if "1/x" in name:  # far from the boundary of the domain, where trajectories end
        mean, shape = 1 / (1 + 0.1 * x), 12.0
    y = {
        "Gaus": lambda: mean + rng.normal(size=n),
        "Gamm": lambda: rng.gamma(shape, mean / shape),
        "Nega": lambda: rng.poisson(rng.gamma(1.5, mean / 1.5)),
    }[name[:4]]().astype(float)
    idata = model.sample(x[:, None], y, **LONG)
    k = len(y) if "Neg" in name else len(y) / model.scale_[0]
    root = np.log(idata.posterior["dispersion"].values) / 2
    draws = np.concatenate([draws_of(idata), root[..., None]], axis=2)
    with jax.enable_x64(True):
        rough = draws.reshape(-1, 3)
        mean, sd = quadrature(lambda point: by_hand(point, x, y, k), rough.mean(0), rough.std(0), points=81)
    check_moments(idata, mean[:2], sd[:2])
    assert abs(root.mean() - mean[2]) < 0.08 * sd[2]
    assert abs(root.std() / sd[2] - 1) < 0.08


CASES = {
    "Poisson, container": ("Poisson", "Lasso", {"a": 0.05, "b": [0.02, 0.1, 0.0]}),
    "Bernoulli": ("Bernoulli", "ElasticNet", (0.02, 0.5)),
    "Gaussian": ("Gaussian", "GroupLasso", {"a": 0.05, "b": 0.02}),
}


@pytest.mark.parametrize(
    "name", [name if name == "Gaussian" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_draws_agree_with_plain_numpyro(name, rng):
    family, regularizer, strength = CASES[name]
    n = 150
    X = {"a": rng.normal(size=(n, 2)), "b": rng.normal(size=(n, 3)) + 0.5}
    eta = 0.5 * X["a"][:, 0] - 0.3 * X["b"][:, 1]
    y = {
        "Poisson": lambda: rng.poisson(np.exp(eta)),
        "Bernoulli": lambda: rng.random(n) < 1 / (1 + np.exp(-eta)),
        "Gaussian": lambda: eta + rng.normal(size=n),
    }[family]().astype(float)
    model = GLM(family, regularizer=regularizer, regularizer_strength=strength)
    ours = model.sample(X, y, num_samples=2500, progress_bar=False).posterior
    with jax.enable_x64(True):
        mcmc = MCMC(
            NUTS(model.numpyro_model),
            num_warmup=500, num_samples=2500, num_chains=4, chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.key(1), X, y)
        theirs = {site: np.asarray(values) for site, values in mcmc.get_samples(group_by_chain=True).items()}
    for variable in ["intercept", "coef.a", "coef.b", *(["dispersion"] if family == "Gaussian" else [])]:
        a, b = (np.asarray(source[variable]).reshape(4, 2500, -1) for source in (ours, theirs))
        for i in range(a.shape[2]):
            sd = b[:, :, i].std()
            ess = [array_stats.ess(z[:, :, i], chain_axis=0, draw_axis=1, method="mean") for z in (a, b)]
            error = sd * np.sqrt(1 / ess[0] + 1 / ess[1])
            assert abs(a[:, :, i].mean() - b[:, :, i].mean()) < 4 * error
            assert abs(a[:, :, i].std() / sd - 1) < 0.08


@pytest.mark.slow
def test_outputs_of_a_population_have_the_posteriors_of_single_models(rng):
    n = 200
    X = rng.normal(size=(n, 2))
    y = rng.poisson(np.exp(X @ np.array([[0.5, 0.0], [0.2, -0.4]]) + 0.5)).astype(float)
    run = {"num_samples": 2000, "progress_bar": False}
    together = PopulationGLM(regularizer="Ridge", regularizer_strength=[[0.1, 0.4]]).sample(X, y, **run)
    for output, strength in enumerate((0.1, 0.4)):
        alone = GLM(regularizer="Ridge", regularizer_strength=strength).sample(X, y[:, output], **run)
        one = together.posterior["coef"].sel(output=output)
        sd = alone.posterior["coef"].std(("chain", "draw"))
        assert (np.abs(one.mean(("chain", "draw")) - alone.posterior["coef"].mean(("chain", "draw"))) < 0.12 * sd).all()
        np.testing.assert_allclose(one.std(("chain", "draw")), sd, rtol=0.1)


def test_outputs_coupled_by_a_group_are_sampled_jointly(rng):
    n = 100
    X = rng.normal(size=(n, 2))
    y = X @ np.array([[0.5, 0.4], [0.0, 0.1]]) + rng.normal(size=(n, 2))
    mask = np.zeros((2, 2, 2))
    mask[[0, 1], [0, 1]] = 1
    model = PopulationGLM("Gaussian", regularizer=GroupLasso(mask), regularizer_strength=0.1)
    idata = model.sample(X, y, num_samples=2000, progress_bar=False)
    with jax.enable_x64(True):
        mcmc = MCMC(
            NUTS(model.numpyro_model),
            num_warmup=500, num_samples=2000, num_chains=4, chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.key(1), X, y)
        theirs = np.asarray(mcmc.get_samples()["coef"])
    ours = idata.posterior["coef"].values.reshape(-1, 2, 2)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.12 * theirs.std(0).min())
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.1)
    dispersion = idata.posterior["dispersion"].values
    np.testing.assert_array_equal(dispersion[..., 0], dispersion[..., 1])


def test_outputs_do_not_share_random_numbers(rng):
    """Outputs 0 and 1 are one problem, output 2 is another in a batch of its own."""
    X, y = rng.normal(size=(80, 2)), rng.poisson(1.5, (80, 3))
    mask = np.zeros((1, 2, 3))
    mask[0, :, :2] = 1
    model = PopulationGLM(regularizer=GroupLasso(mask), regularizer_strength=0.05)
    draws = model.sample(X, y, num_samples=1000, progress_bar=False).posterior["intercept"].values.reshape(-1, 3)
    correlation = np.corrcoef(draws.T)
    assert abs(correlation[0, 2]) < 0.08
    assert abs(correlation[1, 2]) < 0.08


def test_numpyro_model_reads_its_arguments_as_fit_does(rng):
    X, y = rng.normal(size=(30, 2)), rng.poisson(1.0, (30, 2))
    weight, offset = list(np.ones(30)), 0.1 * rng.normal(size=30)
    population = PopulationGLM(regularizer="Ridge").fit(X, y, offset=offset)
    both = np.stack([offset, offset], axis=1)
    sites = {"coef": population.coef_, "intercept": population.intercept_}
    one, two = (
        log_density(population.numpyro_model, (X, y), {"offset": o, "sample_weight": weight}, sites)[0]
        for o in (offset, both)
    )
    assert one == two
    single = GLM(regularizer="Ridge").fit(X, y[:, 0])
    sites = {"coef": single.coef_, "intercept": single.intercept_[0]}
    one, two = (log_density(single.numpyro_model, (pd.DataFrame(X), t), {}, sites)[0] for t in (y[:, 0], y[:, :1]))
    assert one == two
    with pytest.raises(ValueError, match=r"X must have shape \(samples, 2\)"):
        single.numpyro_model(X[:, :1])
    named = GLM(regularizer="Ridge").fit(pd.DataFrame(X, columns=["a", "b"]), y[:, 0])
    with pytest.raises(ValueError, match=r"X has the columns \['b', 'a'\]"):
        named.numpyro_model(pd.DataFrame(X, columns=["b", "a"]))
    with pytest.raises(ValueError, match="X must have the structure that the model was fitted with"):
        single.numpyro_model({"a": X})
    with pytest.raises(ValueError, match=r"offset must have shape \(30,\)"):
        single.numpyro_model(X, offset=np.ones(3))


BAD_PRIORS = [
    (GLM, {"intercept_prior": dist.HalfNormal(1.0)}, "intercept_prior must be .* real numbers"),
    (GLM, {"intercept_prior": dist.Normal(np.zeros(2), 1.0)}, r"intercept_prior must have the batch shape \(\)"),
    (PopulationGLM, {"intercept_prior": dist.Normal(np.zeros(3), 1.0)}, r"batch shape \(\) or \(2,\); got \(3,\)"),
    (GLM, {"intercept_prior": dist.MultivariateNormal(np.zeros(2), np.eye(2))}, "univariate"),
    (GLM, {"observation_model": GaussianObservations(dist.Uniform(3.0, 4.0))}, "positive numbers"),
    (GLM, {"observation_model": GaussianObservations(dist.HalfNormal(np.ones(2)))}, "one distribution"),
    (GLM, {"observation_model": GaussianObservations(-1.0)}, "positive and finite"),
]


@pytest.mark.parametrize(("cls", "arguments", "message"), BAD_PRIORS)
def test_priors_that_do_not_fit_are_refused(cls, arguments, message, rng):
    X, y = rng.normal(size=(30, 2)), np.ones((30, 2) if cls is PopulationGLM else 30)
    with pytest.raises(ValueError, match=message):
        cls(**arguments).sample(X, y, progress_bar=False)


def test_draws_that_never_move_are_reported():
    ok = np.random.default_rng(0).normal(size=(4, 500, 1))
    stats = np.zeros((4, 500), bool), np.ones((4, 500), int)
    for broken in (np.ones((4, 500, 1)), np.full((4, 500, 1), np.nan)):
        with pytest.warns(UserWarning, match="1 of 2 variables never moved"):
            check_run({"a": ok, "b": broken}, *stats, 10)


def test_held_out_outlier_does_not_stop_the_run(rng):
    X, y = rng.normal(size=(50, 2)), rng.poisson(2.0, 50)
    X[3] = 300
    weight = np.where(np.arange(50) == 3, 0.0, 1.0)
    model = GLM(regularizer="Ridge", regularizer_strength=0.01)
    idata = model.sample(X, y, sample_weight=weight, num_samples=400, progress_bar=False)
    assert idata.posterior_predictive["y"].shape == (4, 400, 49)


def test_intercept_prior_makes_boundary_data_proper(rng):
    X = rng.normal(size=(50, 2))
    model = GLM(regularizer="Ridge", regularizer_strength=0.5, intercept_prior=dist.Normal(0.0, 1.0))
    with pytest.warns(UserWarning, match="every y is 0"):
        idata = model.sample(X, np.zeros(50), num_samples=1000, progress_bar=False)
    assert -8 < float(idata.posterior["intercept"].mean()) < -1
    assert "intercept" in idata.log_prior


def test_seed_decides_the_draws(rng):
    X, y = gaussian_data(rng)
    run = {"num_samples": 400, "num_warmup": 200, "progress_bar": False}
    model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.1)
    first, again, other = (model.sample(X, y, seed=seed, **run).posterior["coef"].values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"num_samples": 20, "num_warmup": 0}, "diverged|r-hat|effective sample size"),
        ({"num_samples": 20, "num_warmup": 200}, "effective sample size falls to .*raise num_samples"),
    ],
)
def test_bad_runs_are_one_warning(run, message, rng):
    X, y = gaussian_data(rng)
    with pytest.warns(UserWarning, match=message) as caught:
        GLM("Gaussian", regularizer="Lasso", regularizer_strength=0.1).sample(X, y, progress_bar=False, **run)
    assert len(caught) == 1
