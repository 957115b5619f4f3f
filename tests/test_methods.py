"""The ways to sample: what they return, when they are chosen, what they warn of; and their parts."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats

from bayesglm import GLM, PopulationGLM, _hmc
from bayesglm._diagnostics import convergence
from bayesglm._exact import Conjugate, draw_conjugate
from bayesglm._posterior import Form, Target, log_likelihood
from bayesglm.links import EXP
from bayesglm.observation_models import (
    BernoulliObservations,
    GammaObservations,
    GaussianObservations,
    NegativeBinomialObservations,
    PoissonObservations,
)
from bayesglm.priors import Ridge

QUIET = {"progress_bar": False, "log_likelihood": False, "posterior_predictive": False}


def counts(rng, n=200, p=3):
    X = rng.normal(size=(n, p))
    return X, rng.poisson(np.exp(0.4 * X[:, 0]))


def sampler_of(idata):
    return idata["sample_stats"].attrs["sampler"]


@pytest.mark.parametrize(
    ("arguments", "sampler"),
    [
        ({"observation_model": "Gaussian", "regularizer": "Ridge"}, "exact"),
        ({"observation_model": "Gaussian"}, "exact"),
        ({"observation_model": "Gaussian", "intercept_prior": dist.Normal(0, 1)}, "exact"),
        ({"observation_model": "Gaussian", "intercept_prior": dist.Cauchy(0, 1)}, "hmc"),
        pytest.param(
            {
                "observation_model": "Gaussian",
                "regularizer": "Ridge",
                "intercept_prior": dist.Normal(0, 1),
                "dispersion_prior": "conditional",
            },
            "hmc",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"observation_model": "Gaussian", "regularizer": "Lasso", "regularizer_strength": 0.01},
            "hmc",
            marks=pytest.mark.slow,
        ),
        ({"observation_model": "Poisson", "regularizer": "Ridge"}, "hmc"),
    ],
)
def test_auto_is_exact_where_that_is_possible(arguments, sampler, rng):
    X, y = counts(rng)
    assert sampler_of(GLM(**arguments).sample(X, y.astype(float), **QUIET)) == sampler


@pytest.mark.parametrize("method", [pytest.param("auto", marks=pytest.mark.slow), "hmc"])
def test_auto_turns_to_nuts_where_no_number_of_steps_is_accepted(method, rng, monkeypatch):
    monkeypatch.setattr(_hmc, "MAX_STEPS", 1)
    X, y = counts(rng)
    model = GLM(regularizer="Lasso", regularizer_strength=0.1)
    idata = model.sample(X, y, method=method, target_accept_prob=0.99, num_warmup=200, **QUIET)
    assert sampler_of(idata) == {"auto": "nuts", "hmc": "hmc"}[method]
    assert ("tree_depth" in idata["sample_stats"]) == (method == "auto")


@pytest.mark.parametrize("regularizer", ["Lasso", pytest.param("GroupLasso", marks=pytest.mark.slow)])
def test_variances_of_mixtures_are_not_returned(regularizer, rng):
    X, y = counts(rng)
    model = GLM(regularizer=regularizer, regularizer_strength=0.05)
    trees = [model.sample(X, y, parametrization=kind, **QUIET) for kind in ("direct", "mixture")]
    direct, mixture = trees
    assert list(direct.posterior.data_vars) == list(mixture.posterior.data_vars)
    assert direct.posterior.sizes == mixture.posterior.sizes
    assert list(direct.children) == list(mixture.children)
    sd = direct.posterior["coef"].std(("chain", "draw"))
    difference = direct.posterior["coef"].mean(("chain", "draw")) - mixture.posterior["coef"].mean(("chain", "draw"))
    assert (abs(difference) < 0.15 * sd).all()
    log_prior = [tree["log_prior"]["coef"] for tree in trees]
    assert abs(float(log_prior[0].mean() - log_prior[1].mean())) < 0.15 * float(log_prior[0].std())


def test_laplace_warns_where_it_is_far_from_the_posterior(rng):
    X = rng.normal(size=(30, 60))
    y = rng.random(30) < 0.5
    model = GLM("Bernoulli", regularizer="Lasso", regularizer_strength=0.02)
    with pytest.warns(UserWarning, match=r"k-hat .*method='auto'"):
        idata = model.sample(X, y, method="laplace", **QUIET)
    assert idata["sample_stats"].attrs["pareto_khat"] > 0.7


def test_laplace_of_a_population_reports_the_worst_output(rng):
    X, _ = counts(rng)
    y = rng.poisson(1.0, (len(X), 3))
    idata = PopulationGLM(regularizer="Ridge", regularizer_strength=0.1).sample(X, y, method="laplace", **QUIET)
    facts = idata["sample_stats"].attrs
    assert facts["pareto_khat"] < 0.5
    assert 2000 < facts["importance_ess"] <= 4000
    assert idata.posterior["coef"].shape == (4, 1000, 3, 3)
    assert "lp" in idata["sample_stats_output"]


@pytest.mark.parametrize("method", ["hmc", pytest.param("nuts", marks=pytest.mark.slow)])
def test_an_interrupt_keeps_what_was_drawn(method, rng, monkeypatch):
    from bayesglm import _sampling

    class Impatient:
        """A progress bar whose user gives up."""

        def __init__(self, **_):
            self.count = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def update(self, transitions):
            self.count += transitions
            if self.count > 700:
                raise KeyboardInterrupt

        def set_postfix(self, **_):
            pass

    monkeypatch.setattr(_sampling, "tqdm", Impatient)
    X, y = counts(rng)
    model = GLM(regularizer="Ridge", regularizer_strength=0.1)
    with pytest.warns(UserWarning, match=r"Interrupted: \d+ of 1000 draws"):
        idata = model.sample(X, y, method=method, num_warmup=200, num_samples=1000)
    assert 300 <= idata.posterior.sizes["draw"] < 600
    with pytest.raises(KeyboardInterrupt):
        model.sample(X, y, method=method, num_warmup=900, num_samples=1000)


def test_another_warmup_or_acceptance_compiles_nothing(rng, compilations):
    X, y = counts(rng)
    model = GLM(regularizer="Ridge", regularizer_strength=0.1)
    model.sample(X, y, method="hmc", num_samples=300, **QUIET)
    first = len(compilations)
    model.sample(X, y, method="hmc", num_samples=300, num_warmup=60, target_accept_prob=0.9, **QUIET)
    assert len(compilations) == first


@pytest.mark.parametrize("persistence", [0.0, 0.6, 0.95, -0.5])
def test_convergence_is_what_arviz_computes(persistence, rng):
    draws = rng.normal(size=(4, 500, 5))
    for i in range(1, 500):
        draws[:, i] += persistence * draws[:, i - 1]
    draws[:, :, 1] = np.round(draws[:, :, 1])  # ties
    draws[0, :, 2] += 0.5
    rhat, bulk, tail = convergence(draws)
    axes = {"chain_axis": 0, "draw_axis": 1}
    each = [draws[:, :, i] for i in range(5)]
    np.testing.assert_allclose(rhat, [array_stats.rhat(one, **axes) for one in each], rtol=1e-12)
    # ArviZ makes the sequence of pairs decrease from each pair to the next, here it is kept below all before.
    np.testing.assert_allclose(bulk, [array_stats.ess(one, method="bulk", **axes) for one in each], rtol=0.01)
    expected = [array_stats.ess(one, method="tail", prob=(0.05, 0.95), **axes) for one in each]
    np.testing.assert_allclose(tail, expected, rtol=0.01)


FAMILIES = {
    "Poisson": (PoissonObservations, EXP, 1.0),
    "Bernoulli": (BernoulliObservations, BernoulliObservations.default_link, 1.0),
    "Gaussian": (GaussianObservations, GaussianObservations.default_link, 1.7),
    "Gamma": (GammaObservations, EXP, 0.6),
    "NegativeBinomial": (NegativeBinomialObservations, EXP, 0.8),
}


@pytest.mark.parametrize("lanes", [1, 50_000])
@pytest.mark.parametrize("name", FAMILIES)
def test_likelihood_in_blocks_is_the_sum_and_its_derivatives(name, lanes, rng):
    """With many lanes the samples are visited in blocks; weights may be zero."""
    family, link, scale = FAMILIES[name]
    n, p, m = 57, 3, 2
    X = rng.normal(size=(n, p))
    y = np.clip(rng.poisson(1.0, (n, m)), 0, 1) if name == "Bernoulli" else rng.poisson(2.0, (n, m)) + (name == "Gamma")
    weight = rng.integers(0, 3, n).astype(float)
    offset = 0.1 * rng.normal(size=(n, m))
    with jax.enable_x64(True):
        form = Form(family, link, Ridge, samples_scale=True, conditional_prior=False)
        target = Target(*[None] * 12)._replace(y=jnp.asarray(y, float), offset=jnp.asarray(offset))
        ours = log_likelihood(jnp.asarray(X), jnp.asarray(weight), target, form, lanes)

        def plain(coef, intercept, scale):
            eta = offset + intercept + X @ coef
            terms = family.nll(y, eta, link, scale) / family.phi(scale) + family.log_normalizer(y, scale)
            return -jnp.sum(weight[:, None] * terms)

        point = 0.2 * rng.normal(size=(p, m)), 0.1 * rng.normal(size=m), jnp.asarray(scale)
        point = tuple(map(jnp.asarray, point))
        np.testing.assert_allclose(ours(*point), plain(*point), rtol=1e-12)
        pairs = zip(jax.grad(ours, (0, 1, 2))(*point), jax.grad(plain, (0, 1, 2))(*point), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_weak_priors_do_not_cost_the_exact_draws_their_digits(rng):
    """Features in units that differ by 1e8, and prior precisions next to nothing: the least-squares solution."""
    X = rng.normal(size=(40, 4)) * [1e-4, 1.0, 1e4, 1.0]
    y = X @ [1e4, 1.0, 1e-4, -1.0] + rng.normal(size=40)
    precision = np.full(4, 1e-12)
    model = Conjugate(X, y, np.ones(40), precision, None, follows=False, scale=1.0, log_prior=None)
    coef, intercept, _, _ = draw_conjugate(model, 40_000, rng)
    design = np.column_stack([np.ones(40), X])
    covariance = np.linalg.inv(design.T @ design + np.diag([0, *precision]))
    mean = covariance @ design.T @ y
    draws = np.column_stack([intercept, coef])
    np.testing.assert_allclose((draws.mean(0) - mean) / np.sqrt(np.diag(covariance)), 0, atol=0.03)
    np.testing.assert_allclose(draws.std(0), np.sqrt(np.diag(covariance)), rtol=0.02)


def test_exact_log_density_is_that_of_the_model(rng):
    """Up to a constant: log likelihood plus log prior, in log(dispersion)."""
    X, y = rng.normal(size=(30, 2)), rng.normal(size=30)
    for arguments in ({}, {"dispersion_prior": "conditional"}, {"intercept_prior": dist.Normal(0.0, 1.0)}):
        model = GLM("Gaussian", regularizer="Ridge", regularizer_strength=0.3, **arguments)
        idata = model.sample(X, y, num_samples=50, progress_bar=False)
        total = idata["log_likelihood"]["y"].sum("obs") + sum(idata["log_prior"].data_vars.values())
        total = total + np.log(idata.posterior["dispersion"])
        assert float((total - idata["sample_stats"]["lp"]).std()) < 1e-8


def test_sampling_keeps_masked_coefficients_out_of_the_density(rng):
    """Coordinates of masked coefficients are standard normal and move nothing."""
    X = rng.normal(size=(60, 2))
    y = rng.poisson(1.0, (60, 2))
    model = PopulationGLM(regularizer="Lasso", regularizer_strength=0.05, feature_mask=[[1, 0], [1, 1]])
    for parametrization in ("direct", "mixture"):
        coef = model.sample(X, y, method="hmc", parametrization=parametrization, **QUIET).posterior["coef"].values
        assert np.isnan(coef[:, :, 1, 0]).all()
        assert np.isfinite(coef[:, :, :, 1]).all()


@pytest.mark.parametrize("unit", [1e-8, 1e7])
def test_features_of_other_units_keep_the_row_space_exact(unit, rng):
    """One of 40 features of 20 samples is nearly flat, or nearly zero; against the closed form."""
    n, p, strength = 20, 40, 0.05
    X = rng.normal(size=(n, p))
    y = X[:, 0] + X[:, 1] + rng.normal(size=n)
    X[:, 0] *= unit
    model = GLM(GaussianObservations(scale=1.0), regularizer="Ridge", regularizer_strength=strength)
    posterior = model.sample(X, y, num_samples=5000, **QUIET).posterior
    design = np.column_stack([np.ones(n), X])
    size = np.append(1.0, 1 / np.linalg.norm(X, axis=0))
    precision = np.append(0.0, np.full(p, n * strength))
    covariance = np.linalg.inv(size[:, None] * (design.T @ design + np.diag(precision)) * size)
    sd, mean = np.sqrt(np.diag(covariance)) * size, size * (covariance @ (size * (design.T @ y)))
    draws = np.column_stack([posterior["intercept"].values.ravel(), posterior["coef"].values.reshape(-1, p)])
    np.testing.assert_allclose((draws.mean(0) - mean) / sd, 0, atol=0.035)
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.03)


@pytest.mark.parametrize(("level", "dtype"), [(1.0, "float32"), (1e5, "float64")])
def test_large_counts_are_sampled_in_double_precision(level, dtype, rng):
    X = rng.normal(size=(80, 3)).astype(np.float32)
    y = rng.poisson(level * np.exp(0.1 * X[:, 0]))
    idata = GLM(regularizer="Ridge", regularizer_strength=0.1).sample(X, y, progress_bar=False)
    assert sampler_of(idata) == "hmc"
    assert idata.posterior["coef"].dtype == dtype
    assert len(np.unique(idata["sample_stats"]["lp"])) > 3000


def test_few_draws_of_laplace_are_chosen_from_many(rng):
    X, y = counts(rng)
    model = GLM(regularizer="Ridge", regularizer_strength=0.1)
    idata = model.sample(X, y, method="laplace", num_samples=2, num_chains=2, **QUIET)
    assert idata.posterior["coef"].shape == (2, 2, 3)
    assert idata["sample_stats"].attrs["pareto_khat"] < 0.7


def test_means_outside_the_domain_are_refused(rng):
    X = rng.normal(size=(15, 3))
    y = rng.gamma(3, 1 / 3, 15)
    model = GLM("Gamma", regularizer="Lasso", regularizer_strength=0.1)
    model.fit(X, y)
    offset = np.where(np.arange(15) < 3, -50.0, 0.0)
    with pytest.raises(ValueError, match="mean outside .* inverse link 'one_over_x'"):
        model.sample(X, y, offset=offset, progress_bar=False)
