"""Draws against closed forms, quadrature and NumPyro's own MCMC."""

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from arviz_stats.base import array_stats
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

from bayesglm import GLM, PopulationGLM
from bayesglm._diagnostics import check_run
from bayesglm.observation_models import (
    GaussianObservations,
)
from bayesglm.priors import GroupLasso


def gaussian_data(rng, n=80):
    X = rng.normal(size=(n, 3)) @ np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 2.0]]) + 1.0
    return X, X @ np.array([0.5, -0.4, 0.2]) + 1.0 + rng.normal(size=n) * np.sqrt(2)


CASES = {
    "Poisson, container": ("Poisson", "Lasso", {"a": 0.05, "b": [0.02, 0.1, 0.0]}),
    "Bernoulli": ("Bernoulli", "ElasticNet", (0.02, 0.5)),
    "Gaussian": ("Gaussian", "GroupLasso", {"a": 0.05, "b": 0.02}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
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
    ours = idata.posterior["coef"].values.swapaxes(-2, -1).reshape(-1, 2, 2)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.12 * theirs.std(0).min())
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.1)
    dispersion = idata.posterior["dispersion"].values
    np.testing.assert_array_equal(dispersion[..., 0], dispersion[..., 1])


@pytest.mark.slow
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
    stats = {"diverging": np.zeros((4, 500, 1), bool), "n_steps": np.ones((4, 500, 1), int)}
    stats["energy"] = np.random.default_rng(1).normal(size=(4, 500, 1))
    for broken in (np.ones((4, 500, 1)), np.full((4, 500, 1), np.nan)):
        with pytest.warns(UserWarning, match="1 of 2 variables never moved"):
            check_run({"a": ok, "b": broken}, stats, 10)


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


@pytest.mark.parametrize("method", ["exact", "hmc", "laplace", pytest.param("nuts", marks=pytest.mark.slow)])
def test_seed_decides_the_draws(method, rng):
    X, y = gaussian_data(rng)
    run = {"num_samples": 400, "num_warmup": 200, "progress_bar": False, "method": method}
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
