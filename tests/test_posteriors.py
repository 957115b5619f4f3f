"""Every way to sample, against closed forms and quadrature, for every observation model and prior."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats
from jax.scipy.special import gammaln

from bayesglm import GLM, PopulationGLM
from bayesglm.observation_models import (
    BernoulliObservations,
    GammaObservations,
    GaussianObservations,
    NegativeBinomialObservations,
    PoissonObservations,
)

# Method, parametrization and draws per chain that hold some 20 000 effective ones.
WAYS = {
    "hmc": ("hmc", "direct", 50_000),
    "hmc, mixture": ("hmc", "mixture", 50_000),
    "nuts": ("nuts", "direct", 40_000),
    "nuts, mixture": ("nuts", "mixture", 40_000),
    "laplace": ("laplace", "auto", 50_000),
    "exact": ("exact", "auto", 10_000),
}


def run(way):
    """Arguments of a long run."""
    method, parametrization, num_samples = WAYS[way]
    options = {"method": method, "parametrization": parametrization, "num_samples": num_samples}
    if method in ("hmc", "nuts"):
        options["target_accept_prob"] = 0.95 if parametrization == "mixture" else 0.85
    return options | {"progress_bar": False, "log_likelihood": False, "posterior_predictive": False}


def draws_of(idata):
    """Intercept, coefficients and, where it is sampled, log(dispersion) / 2; (chain, draw, variable)."""
    posterior = idata.posterior
    parts = [posterior["intercept"].values[..., None], posterior["coef"].values]
    if "dispersion" in posterior:
        parts.append(np.log(posterior["dispersion"].values)[..., None] / 2)
    return np.concatenate(parts, axis=2)


def check_moments(idata, mean, sd, *, least_ess=20_000, mixture=False):
    """Means within 0.03 sd and sds within 3 %, beyond three Monte Carlo errors; k-hat, r-hat, divergences."""
    draws, stats = draws_of(idata), idata.sample_stats
    if "diverging" in stats:
        # Where the data dominate, mixtures diverge now and then.
        assert float(stats["diverging"].mean()) <= (1e-3 if mixture else 0)
    assert stats.attrs.get("pareto_khat", 0) < 0.7
    for i in range(draws.shape[2]):
        one = draws[:, :, i]
        both = [
            array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean") for values in (one, (one - mean[i]) ** 2)
        ]
        ess, ess_sd = (min(size, stats.attrs.get("importance_ess", np.inf)) for size in both)
        assert min(ess, ess_sd) > least_ess
        assert array_stats.rhat(one, chain_axis=0, draw_axis=1) < 1.01
        assert abs(one.mean() - mean[i]) < (0.03 + 3 / np.sqrt(ess)) * sd[i]
        assert abs(one.std() / sd[i] - 1) < 0.03 + 3 / np.sqrt(2 * ess_sd)


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


def ways(regularizer, family=None):
    """The ways that apply."""
    kinks = regularizer in ("Lasso", "ElasticNet", "GroupLasso")
    return [
        way
        for way in WAYS
        if (kinks or "mixture" not in way) and (way != "exact" or (family == "Gaussian" and not kinks))
    ]


ALWAYS = {
    ("Poisson", "Lasso", "hmc"),
    ("Gaussian", "Ridge", "exact"),
    ("NegativeBinomial", "ElasticNet", "hmc, mixture"),
}
QUADRATURE = [
    pytest.param(family, regularizer, way, marks=() if (family, regularizer, way) in ALWAYS else pytest.mark.slow)
    for family in FAMILIES
    for regularizer in PRIORS
    for way in ways(regularizer, family)
]


@pytest.mark.filterwarnings("ignore:The posterior draws need a second look. .* diverged")
@pytest.mark.parametrize(("family", "regularizer", "way"), QUADRATURE)
def test_posterior_is_the_one_by_quadrature(family, regularizer, way, rng):
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
    idata = model.sample(X, y, sample_weight=weight, offset=offset, **run(way))
    with jax.enable_x64(True):

        def log_density(point):
            log_lik = weight @ log_likelihood(y, offset + point[0] + X @ point[1:])
            return log_lik + (0 if log_prior is None else log_prior(point[1:], weight.sum() / phi))

        rough = draws_of(idata).reshape(-1, 3)
        mean, sd = quadrature(log_density, rough.mean(0), rough.std(0))
    check_moments(idata, mean, sd, mixture="mixture" in way)


def half_student(sigma, scale):
    """Log density of the half Student's t with 4 degrees of freedom, up to its constant."""
    return -2.5 * jnp.log1p((sigma / scale) ** 2 / 4)


def gaussian_lasso(point, x, y, k):
    sigma = jnp.exp(point[2])
    residual = (y - point[0] - x * point[1]) / sigma
    log_lik = -0.5 * residual @ residual - len(y) * point[2]
    return log_lik - 0.3 * k * jnp.abs(point[1]) + half_student(sigma, y.std()) + point[2]


def gaussian_ridge(point, x, y, k):
    sigma = jnp.exp(point[2])
    residual = (y - point[0] - x * point[1]) / sigma
    log_lik = -0.5 * residual @ residual - len(y) * point[2]
    return log_lik - 0.15 * k * point[1] ** 2 + half_student(sigma, y.std()) + point[2]


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
    "Gaussian, Ridge": (GLM("Gaussian", None, "Ridge", 0.3), gaussian_ridge),
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


SCALE_WAYS = [
    pytest.param(name, way, marks=() if (name, way) == ("Gaussian, Ridge, conditional", "exact") else pytest.mark.slow)
    for name in SAMPLED_SCALE
    for way in ways(name.split(", ")[1], name.split(", ")[0])
]


@pytest.mark.filterwarnings("ignore:The posterior draws need a second look. .* diverged")
@pytest.mark.parametrize(("name", "way"), SCALE_WAYS)
def test_posterior_with_sampled_scale_is_the_one_by_quadrature(name, way, rng):
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
    idata = model.sample(x[:, None], y, **run(way))
    k = len(y) if "Neg" in name else len(y) / model.scale_[0]
    with jax.enable_x64(True):
        rough = draws_of(idata).reshape(-1, 3)
        # The overdispersion may be zero: its logarithm has a long left tail.
        points, width = (141, 16.0) if "Neg" in name else (81, 7.0)
        mean, sd = quadrature(
            lambda point: by_hand(point, x, y, k), rough.mean(0), rough.std(0), points=points, width=width
        )
    check_moments(idata, mean, sd, mixture="mixture" in way)


@pytest.mark.parametrize("way", ["exact", "hmc", pytest.param("nuts", marks=pytest.mark.slow), "laplace"])
def test_gaussian_with_known_variance_and_ridge_is_the_closed_form(way, rng):
    X = rng.normal(size=(80, 3)) @ np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 2.0]]) + 1.0
    y = X @ np.array([0.5, -0.4, 0.2]) + 1.0 + rng.normal(size=80) * np.sqrt(2)
    strength, variance = np.array([0.1, 0.4, 0.02]), 2.0
    weight = rng.integers(0, 3, len(y)).astype(float)
    model = GLM(GaussianObservations(scale=variance), regularizer="Ridge", regularizer_strength=strength)
    idata = model.sample(X, y, sample_weight=weight, **run(way))
    mean, covariance = normal_posterior(X, y, weight, strength * weight.sum() / variance, variance, 0.0)
    check_moments(idata, mean, np.sqrt(np.diag(covariance)))
    np.testing.assert_allclose(model.coef_, mean[1:], atol=1e-9)  # the mode is the mean
    assert "dispersion" not in idata.posterior


def normal_posterior(X, y, weight, precision, variance, intercept_precision):
    """Mean and covariance of intercept and coefficients."""
    design = np.column_stack([np.ones(len(y)), X])
    prior = np.diag([intercept_precision, *precision])
    covariance = np.linalg.inv((design.T * weight) @ design / variance + prior)
    return covariance @ (design.T @ (weight * y)) / variance, covariance


@pytest.mark.parametrize("intercept_prior", [None, dist.Normal(0.0, 0.7)])
@pytest.mark.parametrize("way", ["exact", pytest.param("hmc", marks=pytest.mark.slow), "laplace"])
def test_more_features_than_samples(way, intercept_prior, rng):
    """In the row space; a feature without a prior, constant and duplicated features, two equal samples."""
    n, p, variance = 12, 30, 0.5
    X = rng.normal(size=(n, p))
    X[:, 3], X[:, 4], X[1] = 1.0, X[:, 5], X[0]
    y = X[:, 0] + rng.normal(size=n)
    weight = rng.integers(1, 3, n).astype(float)
    strength = np.where(np.arange(p) == 7, 0.0, 0.05 + 0.1 * rng.random(p))
    family = GaussianObservations(scale=variance)
    model = GLM(family, None, "Ridge", strength, intercept_prior=intercept_prior)
    idata = model.sample(X, y, sample_weight=weight, **run(way))
    precision = strength * weight.sum() / variance
    known = 0.0 if intercept_prior is None else 0.7**-2
    mean, covariance = normal_posterior(X, y, weight, precision, variance, known)
    check_moments(idata, mean, np.sqrt(np.diag(covariance)))
    flat = draws_of(idata).reshape(-1, 1 + p)
    scaled = np.cov(flat.T) / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    expected = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(scaled, expected, atol=0.05)


@pytest.mark.slow
def test_row_space_of_counts_is_the_posterior_of_all_coefficients(rng):
    """Poisson, five samples and eight features, against NumPyro's kernel in all eight coordinates."""
    from numpyro.infer import MCMC, NUTS

    X = rng.normal(size=(5, 8))
    y = rng.poisson(np.exp(X[:, 0]))
    model = GLM("Poisson", None, "Ridge", 0.3)
    idata = model.sample(X, y, **run("hmc"))
    with jax.enable_x64(True):
        mcmc = MCMC(
            NUTS(model.numpyro_model),
            num_warmup=1000, num_samples=15_000, num_chains=4, chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.key(1), X, y)
        theirs = mcmc.get_samples()
    theirs = np.column_stack([theirs["intercept"], theirs["coef"]])
    ours = draws_of(idata).reshape(-1, 9)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.05 * theirs.std(0).min())
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.04)


def test_exact_draws_of_a_population_have_their_own_priors_masks_and_scales(rng):
    X = rng.normal(size=(50, 3))
    y = X @ rng.normal(size=(3, 2)) + rng.normal(size=(50, 2)) * [1.0, 3.0]
    mask = np.array([[1, 1], [1, 0], [1, 1]])
    model = PopulationGLM("Gaussian", None, "Ridge", [[0.1, 0.5]], feature_mask=mask)
    exact, chain = (model.sample(X, y, **run(way)).posterior for way in ("exact", "hmc"))
    for name in ("coef", "intercept", "sigma"):
        one, other = (tree[name].values.reshape(-1, *tree[name].shape[2:]) for tree in (exact, chain))
        sd = other.std(0)
        np.testing.assert_allclose((one.mean(0) - other.mean(0)) / sd, np.where(np.isnan(sd), np.nan, 0.0), atol=0.06)
        np.testing.assert_allclose(one.std(0), sd, rtol=0.05)
    assert np.isnan(exact["coef"].values[:, :, 1, 1]).all()
