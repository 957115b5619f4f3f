"""Strengths that are random variables: against closed forms, quadrature, other samplers, and their own prior."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy import stats

from bayesglm import GLM, PopulationGLM
from bayesglm._frame import coordinates, whiten
from bayesglm._hyperpriors import fit_at_medians, start_of_sampler
from bayesglm._potential import potential, unpack
from bayesglm._sampling import targets_of
from bayesglm.observation_models import GaussianObservations, NegativeBinomialObservations
from bayesglm.priors import GroupLasso

QUIET = {"progress_bar": False, "log_likelihood": False, "posterior_predictive": False}
WIDE = dist.LogNormal(-2.0, 1.5)


def two_leaves(rng, n=60):
    return {"a": rng.normal(size=(n, 3)) + 1, "b": rng.normal(size=(n, 4))}


def draws_of(model, *arguments, **options):
    return model.sample(*arguments, **QUIET | options).posterior


CASES = {
    "Ridge": ("Poisson", "Ridge", {"a": WIDE, "b": "learn"}),
    "Ridge, shared": ("Poisson", "Ridge", {"a": WIDE, "b": WIDE}),
    "Ridge, per feature": ("Bernoulli", "Ridge", {"a": WIDE.expand([3]), "b": [0.1, WIDE, 0.0, "learn"]}),
    "Ridge, sampled dispersion": ("Gaussian", "Ridge", {"a": "learn", "b": 0.1}),
    "Lasso": ("Poisson", "Lasso", {"a": WIDE, "b": "learn"}),
    "ElasticNet": (NegativeBinomialObservations(), "ElasticNet", ({"a": WIDE, "b": "learn"}, 0.4)),
    "GroupLasso": ("Poisson", "GroupLasso", {"a": WIDE, "b": "learn"}),
    "GroupLasso, mask": (
        "Poisson",
        GroupLasso({"a": [[1, 1, 0], [0, 0, 0]], "b": [[1, 0, 0, 0], [0, 1, 1, 0]]}),
        WIDE.expand([2]),
    ),
}


POPULATIONS = {
    "shared": ("Poisson", "Ridge", {"a": WIDE, "b": 0.3}),
    "per output": ("Gaussian", "Ridge", {"a": WIDE.expand([1, 2]), "b": 0.3}),
    "per output, some": ("Poisson", "Lasso", {"a": [[0.1, "learn"]], "b": 0.3}),
    "groups": ("Poisson", "GroupLasso", {"a": WIDE.expand([1, 2]), "b": "learn"}),
}


def make_y(family, X, rng):
    eta = 0.3 * X["a"][:, 0] + 0.2 * X["b"][:, 1]
    if family == "Gaussian":
        return eta + rng.normal(size=len(eta))
    return rng.binomial(1, 1 / (1 + np.exp(-eta))) if family == "Bernoulli" else rng.poisson(np.exp(eta))


def own_density(start, values, rng):
    """Log density of all problems at random coordinates, in the variables of the NumPyro model, and these."""
    spec, data = start.spec, start.data
    coef, intercept, scale = np.empty(spec.free.shape), np.empty(len(spec.k)), np.array(spec.scale)
    strength, total = np.empty(len(values)), 0.0
    for target in targets_of(start, values):
        for b in range(len(target.k)):
            one = jax.tree.map(lambda leaf: leaf[b], target)  # noqa: B023
            frame = whiten(data.X, data.weight, one, spec.priors, spec.form)

            def parameters(u, one=one, frame=frame):
                place = unpack(u, one, frame, spec.form)
                parts = [place.coef.ravel(), place.intercept, jnp.log(place.strength)]
                return jnp.concatenate(parts + [jnp.log(place.scale)[None]] * spec.form.samples_scale)

            u = jnp.asarray(rng.normal(size=coordinates(frame, spec.form)))
            place = unpack(u, one, frame, spec.form)
            mine = one.learned.label < len(values)
            coef[:, one.outputs], intercept[one.outputs] = place.coef, place.intercept
            strength[one.learned.label[mine]] = place.strength[mine]
            total -= potential(u, data.X, data.weight, one, spec.priors, frame, spec.form)
            total -= jnp.linalg.slogdet(jax.jacobian(parameters)(u))[1]
            # Coordinates that fill up are standard normal; strengths and scales are sampled as logarithms.
            total += 0.5 * jnp.sum(jnp.log(place.strength[~mine]) ** 2) - jnp.sum(jnp.log(place.strength[mine]))
            if spec.form.samples_scale:
                total -= jnp.log(place.scale)
                scale[one.outputs] = place.scale
    return total, coef, intercept, scale, strength


def check_density(model, X, y, weight, rng):
    """The density in the sampler's coordinates is the NumPyro model's, with the determinant of the map to these."""
    setup, base, unknowns = model._read_all(X, y, weight, None)
    with jax.enable_x64(True):
        fitted, medians = fit_at_medians(setup, base, unknowns)
        model._set_fitted(fitted, None)
        start, values = start_of_sampler(setup, fitted, unknowns, medians)
        spec, differences = start.spec, []
        for _ in range(3):
            own, coef, intercept, scale, strength = own_density(start, values, rng)
            sites = {"coef": coef, "intercept": intercept, "dispersion": scale}
            if not spec.population:
                sites = {"coef": coef[:, 0], "intercept": intercept[0], "dispersion": scale[0]}
            if not spec.form.samples_scale:
                del sites["dispersion"]
            first = 0
            for site, prior in zip(spec.hyper.names, spec.hyper.distributions, strict=True):
                last = first + int(np.prod(prior.batch_shape))
                sites[site] = strength[first:last].reshape(prior.batch_shape)
                first = last
            differences.append(own - log_density(model.numpyro_model, (X, y), {"sample_weight": weight}, sites)[0])
    np.testing.assert_allclose(differences, differences[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_sampled_density_is_the_numpyro_models(name, rng):
    family, regularizer, strength = CASES[name]
    X = two_leaves(rng)
    model = GLM(family, regularizer=regularizer, regularizer_strength=strength, intercept_prior=dist.Normal(0.0, 2.0))
    check_density(model, X, make_y(family, X, rng), rng.integers(1, 3, 60), rng)


@pytest.mark.parametrize("name", POPULATIONS)
def test_sampled_density_of_a_population_is_the_numpyro_models(name, rng):
    family, regularizer, strength = POPULATIONS[name]
    X = two_leaves(rng)
    y = np.stack([make_y(family, X, rng), make_y(family, X, rng)], axis=1)
    model = PopulationGLM(family, regularizer=regularizer, regularizer_strength=strength)
    check_density(model, X, y, rng.integers(1, 3, 60), rng)


def test_gaussian_strengths_are_those_of_the_closed_form(rng):
    """The coefficients integrated out by linear algebra, the strengths on a grid."""
    X = two_leaves(rng)
    y = X["a"] @ [0.8, -0.4, 0.1] + 0.1 * X["b"] @ rng.normal(size=4) + rng.normal(size=60)
    hyper = {"a": dist.LogNormal(-2.0, 1.5), "b": dist.HalfNormal(0.5)}
    model = GLM(GaussianObservations(scale=1.0), regularizer="Ridge", regularizer_strength=hyper)
    posterior = draws_of(model, X, y, num_samples=10_000)
    contrasts = np.linalg.qr(np.c_[np.ones(60), np.eye(60)[:, 1:]])[0][:, 1:]
    grid, log_prob, means = np.linspace(-12, 6, 91), np.empty((91, 91)), np.empty((91, 91, 3))
    inner = {leaf: contrasts.T @ (X[leaf] @ X[leaf].T) @ contrasts / 60 for leaf in "ab"}
    for i, a in enumerate(grid):
        for j, b in enumerate(grid):
            covariance = np.eye(59) + inner["a"] / np.exp(a) + inner["b"] / np.exp(b)
            solved = np.linalg.solve(covariance, contrasts.T @ y)
            log_prob[i, j] = -0.5 * (contrasts.T @ y) @ solved - 0.5 * np.linalg.slogdet(covariance)[1] + a + b
            means[i, j] = X["a"].T @ contrasts @ solved / np.exp(a) / 60
    for axis, leaf in enumerate("ab"):
        log_prob += np.expand_dims(np.asarray(hyper[leaf].log_prob(np.exp(grid))), 1 - axis)
    weight = np.exp(log_prob - log_prob.max())
    weight /= weight.sum()
    for axis, leaf in enumerate("ab"):
        mean = weight.sum(1 - axis) @ grid
        sd = np.sqrt(weight.sum(1 - axis) @ (grid - mean) ** 2)
        draws = np.log(posterior[f"strength.{leaf}"].values)
        assert abs(draws.mean() - mean) < 0.05 * sd
        assert draws.std() == pytest.approx(sd, rel=0.05)
    exact = np.einsum("ij,ijk->k", weight, means)
    np.testing.assert_allclose(posterior["coef.a"].mean(("chain", "draw")), exact, atol=0.01)


QUADRATURE = [
    ("Ridge", 1, "hmc", "auto"),
    ("Lasso", 1, "hmc", "mixture"),
    ("Lasso", 1, "hmc", "direct"),
    ("Lasso", 1, "nuts", "mixture"),
    ("ElasticNet", 1, "hmc", "mixture"),
    ("ElasticNet", 1, "hmc", "direct"),
    ("GroupLasso", 2, "hmc", "mixture"),
    ("GroupLasso", 2, "hmc", "direct"),
]


ALWAYS = QUADRATURE[1:3]


# Where the data dominate, mixtures diverge now and then.
@pytest.mark.filterwarnings("ignore:The posterior draws need a second look")
@pytest.mark.parametrize(
    ("regularizer", "p", "method", "parametrization"),
    [case if case in ALWAYS else pytest.param(*case, marks=pytest.mark.slow) for case in QUADRATURE],
)
def test_moments_are_those_of_quadrature(regularizer, p, method, parametrization, rng):
    """Of coefficients and the logarithm of the strength, integrated over a grid with the NumPyro model's density."""
    X = rng.normal(size=(30, p)) + 0.5
    y = rng.poisson(np.exp(0.5 + 0.4 * X[:, 0]))
    hyper = dist.LogNormal(-2.0, 1.0)
    model = GLM(regularizer=regularizer, regularizer_strength=hyper, intercept_prior=dist.Normal(0.0, 1.0))
    posterior = draws_of(
        model, X, y, num_samples=40_000, method=method, parametrization=parametrization, target_accept_prob=0.9
    )
    assert float(model.posterior_.sample_stats["diverging"].mean()) < 1e-3
    draws = np.concatenate([
        posterior["intercept"].values[..., None], posterior["coef"].values, np.log(posterior["strength"].values)[..., None]
    ], -1).reshape(-1, p + 2)  # fmt: skip
    center, spread = draws.mean(0), draws.std(0)
    axes = [c + s * np.linspace(-6, 6, 61 if p == 1 else 35) for c, s in zip(center, spread, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, p + 2)

    def log_prob(point):
        sites = {"intercept": point[0], "coef": point[1:-1], "strength": jnp.exp(point[-1])}
        return log_density(model.numpyro_model, (X, y), {}, sites)[0] + point[-1]

    with jax.enable_x64(True):
        values = np.asarray(jax.lax.map(log_prob, jnp.asarray(grid), batch_size=20_000))
    weight = np.exp(values - values.max())
    weight /= weight.sum()
    mean = weight @ grid
    sd = np.sqrt(weight @ (grid - mean) ** 2)
    np.testing.assert_allclose((center - mean) / sd, 0, atol=0.04)
    np.testing.assert_allclose(spread / sd, 1, atol=0.03)
