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


@pytest.mark.parametrize(
    "name",
    [
        *list(CASES)[::6],
        *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name not in list(CASES)[::6]),
    ],
)
def test_sampled_density_is_the_numpyro_models(name, rng):
    family, regularizer, strength = CASES[name]
    X = two_leaves(rng)
    model = GLM(family, regularizer=regularizer, regularizer_strength=strength, intercept_prior=dist.Normal(0.0, 2.0))
    check_density(model, X, make_y(family, X, rng), rng.integers(1, 3, 60), rng)


@pytest.mark.parametrize(
    "name", [name if i == 0 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(POPULATIONS)]
)
def test_sampled_density_of_a_population_is_the_numpyro_models(name, rng):
    family, regularizer, strength = POPULATIONS[name]
    X = two_leaves(rng)
    y = np.stack([make_y(family, X, rng), make_y(family, X, rng)], axis=1)
    model = PopulationGLM(family, regularizer=regularizer, regularizer_strength=strength)
    check_density(model, X, y, rng.integers(1, 3, 60), rng)


@pytest.mark.slow
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


ALWAYS = QUADRATURE[1:2]


@pytest.mark.parametrize(
    ("regularizer", "p", "method", "parametrization"),
    [case if case in ALWAYS else pytest.param(*case, marks=pytest.mark.slow) for case in QUADRATURE],
)
def test_moments_are_those_of_quadrature(regularizer, p, method, parametrization, rng):
    """Of coefficients and the logarithm of the strength, integrated over a grid with the NumPyro model's density."""
    # A mixture is for data that say little.
    n = 30 if parametrization != "mixture" else 8
    X = rng.normal(size=(n, p)) + 0.5
    y = rng.poisson(np.exp(0.4 * X[:, 0]))
    hyper = dist.LogNormal(-1.0, 1.0)
    model = GLM(regularizer=regularizer, regularizer_strength=hyper, intercept_prior=dist.Normal(0.0, 1.0))
    posterior = draws_of(
        model, X, y, num_samples=40_000, method=method, parametrization=parametrization, target_accept_prob=0.9
    )
    ends = posterior["intercept"].values, np.log(posterior["strength"].values)
    draws = np.concatenate([ends[0][..., None], posterior["coef"].values, ends[1][..., None]], -1).reshape(-1, p + 2)
    center, spread = draws.mean(0), draws.std(0)
    axes = [c + s * np.linspace(-6, 6, 61 if p == 1 else 41) for c, s in zip(center, spread, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, p + 2)
    # A stronger prior is a narrower one: so is the grid.
    narrow = 2 / (1 + np.exp(grid[:, -1:] - center[-1]))
    grid[:, 1:-1] *= narrow

    def log_prob(point):
        sites = {"intercept": point[0], "coef": point[1:-1], "strength": jnp.exp(point[-1])}
        return log_density(model.numpyro_model, (X, y), {}, sites)[0] + point[-1]

    with jax.enable_x64(True):
        values = np.asarray(jax.lax.map(log_prob, jnp.asarray(grid), batch_size=20_000)) + p * np.log(narrow[:, 0])
    weight = np.exp(values - values.max())
    weight /= weight.sum()
    mean = weight @ grid
    sd = np.sqrt(weight @ (grid - mean) ** 2)
    np.testing.assert_allclose((center - mean) / sd, 0, atol=0.04)
    np.testing.assert_allclose(spread / sd, 1, atol=0.03)


def test_one_object_is_one_variable_and_strengths_are_named_by_their_place(rng):
    X = two_leaves(rng)
    y = make_y("Poisson", X, rng)
    both = {"a": WIDE, "b": WIDE}
    model = GLM(regularizer="Ridge", regularizer_strength=both)
    posterior = draws_of(model, X, y)
    np.testing.assert_array_equal(posterior["strength.a"], posterior["strength.b"])
    assert list(model.posterior_["log_prior"]) == ["coef", "strength.a"]
    density = stats.lognorm(1.5, scale=np.exp(-2.0)).logpdf(posterior["strength.a"].values)
    np.testing.assert_allclose(model.posterior_["log_prior"]["strength.a"], density, rtol=1e-6, atol=1e-6)
    assert model.regularizer_strength_ == pytest.approx(
        dict.fromkeys("ab", float(posterior["strength.a"].median())), rel=1e-6
    )
    apart = {"a": [WIDE, 0.1, dist.HalfNormal(1.0)], "b": 0.2}
    posterior = draws_of(GLM(regularizer="Ridge", regularizer_strength=apart), X, y)
    assert posterior["strength.a"].dims == ("chain", "draw", "a_feature")
    assert np.isnan(posterior["strength.a"][..., 1]).all()
    assert not np.isnan(posterior["strength.a"][..., [0, 2]]).any()
    assert "strength.b" not in posterior
    whole = draws_of(GLM(regularizer="GroupLasso", regularizer_strength=WIDE.expand([2])), X, y)
    assert whole["strength"].dims == ("chain", "draw", "group")


def test_learn_is_half_normal_on_the_scale_of_the_prior(rng):
    """At which the linear predictor's part varies as y does, whatever the units."""
    X = {"a": rng.normal(size=(200, 4)), "b": 1000 * rng.normal(size=(200, 3))}
    y = 5 * (X["a"] @ rng.normal(size=4) + rng.normal(size=200))
    for regularizer, power in (("Ridge", -0.5), ("Lasso", -1.0)):
        model = GLM("Gaussian", regularizer=regularizer, regularizer_strength=dict.fromkeys("ab", "learn"))
        model.sample(X, y, num_samples=2000, **QUIET)
        spec = model.spec_
        for leaf, prior in zip("ab", spec.hyper.distributions, strict=True):
            expected = y.std() / np.sqrt(X[leaf].var(0).sum())
            scale = (spec.k[0] * np.asarray(prior.sample(jax.random.key(0), (20_000,)))) ** power
            check = stats.kstest(scale, stats.halfnorm(scale=expected).cdf)
            assert check.pvalue > 1e-3


@pytest.mark.slow
def test_outputs_with_strengths_of_their_own_are_models_of_their_own(rng):
    X = two_leaves(rng, 80)
    y = np.stack([make_y("Gaussian", X, rng), 3 * make_y("Gaussian", X, rng)], axis=1)
    each = {"a": [["learn", "learn"]], "b": 0.1}
    together = draws_of(
        PopulationGLM("Gaussian", regularizer="Ridge", regularizer_strength=each), X, y, num_samples=4000
    )
    assert together["strength.a"].dims == ("chain", "draw", "output")
    for output in range(2):
        alone = draws_of(
            GLM("Gaussian", regularizer="Ridge", regularizer_strength={"a": "learn", "b": 0.1}),
            X, y[:, output], num_samples=4000,
        )  # fmt: skip
        for name in ("strength.a", "sigma"):
            one, other = np.log(alone[name].values), np.log(together[name][..., output].values)
            assert abs(one.mean() - other.mean()) < 0.08 * one.std()
            assert one.std() == pytest.approx(other.std(), rel=0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The posterior draws need a second look")
def test_more_features_than_samples_are_sampled_in_the_row_spaces_of_their_strengths(rng, monkeypatch):
    X = {"a": rng.normal(size=(25, 60)), "b": rng.normal(size=(25, 40)), "c": rng.normal(size=(25, 2))}
    y = rng.poisson(np.exp(0.2 * X["a"][:, :5].sum(1) + 0.3 * X["c"][:, 0]))
    strength = {"a": WIDE, "b": WIDE, "c": 0.1}

    def moments():
        model = GLM(regularizer="Ridge", regularizer_strength=strength | {"b": dist.LogNormal(-1.0, 1.0)})
        posterior = draws_of(model, X, y, num_samples=4000)
        values = [np.log(posterior[name].values) for name in ("strength.a", "strength.b")]
        values += [posterior["coef.a"][..., :3].values, posterior["coef.b"][..., :3].values, posterior["coef.c"].values]
        values = np.concatenate([value.reshape(16_000, -1) for value in values], axis=1)
        return values.mean(0), values.std(0)

    mean, sd = moments()
    monkeypatch.setattr("bayesglm._engines._sees_row_space", lambda data, form: False)
    other_mean, other_sd = moments()
    np.testing.assert_allclose((mean - other_mean) / sd, 0, atol=0.08)
    np.testing.assert_allclose(sd / other_sd, 1, atol=0.08)


@pytest.mark.slow
def test_strengths_of_a_simulation_are_recovered(rng):
    """Two leaves of 60 features whose true strengths have the ratio 100."""
    X = {leaf: rng.normal(size=(3000, 60)) for leaf in "ab"}
    coef = {"a": 0.15 * rng.normal(size=60), "b": 0.015 * rng.normal(size=60)}
    y = rng.poisson(np.exp(0.5 + X["a"] @ coef["a"] + X["b"] @ coef["b"]))
    model = GLM(regularizer="Ridge", regularizer_strength=dict.fromkeys("ab", "learn"))
    posterior = draws_of(model, X, y)
    truth = {leaf: 1 / (3000 * (coef[leaf] ** 2).mean()) for leaf in "ab"}
    ratio = posterior["strength.b"] / posterior["strength.a"]
    assert 0.5 < float(ratio.median()) / (truth["b"] / truth["a"]) < 2
    for leaf in "ab":
        low, high = np.quantile(posterior[f"strength.{leaf}"], [0.005, 0.995])
        assert low < truth[leaf] < high


def test_prior_draws_and_summary_show_random_strengths(rng):
    X = two_leaves(rng)
    y = make_y("Poisson", X, rng)
    strength = {"a": WIDE, "b": dist.HalfNormal(0.5)}
    model = GLM(regularizer="Ridge", regularizer_strength=strength, intercept_prior=dist.Normal(0.0, 1.0))
    draws_of(model, X, y)
    prior = model.prior_predictive(X, num_samples=4000)["prior"]
    assert stats.kstest(np.log(prior["strength.a"].values[0]), stats.norm(-2.0, 1.5).cdf).pvalue > 1e-3
    standardized = prior["coef.a"].values[0] * np.sqrt(60 * prior["strength.a"].values[0])[:, None]
    assert stats.kstest(standardized.ravel(), stats.norm.cdf).pvalue > 1e-3
    summary = model.prior_summary(X)
    assert "LogNormal(loc=-2, scale=1.5)" in summary["strength"].iloc[0]
    assert "HalfNormal(scale=0.5)" in summary["strength"].iloc[1]


@pytest.mark.filterwarnings("ignore:The posterior draws need a second look")
def test_another_hyperprior_does_not_compile(rng, compilations):
    X = two_leaves(rng)
    y = make_y("Poisson", X, rng)
    short = {"num_samples": 60, "num_warmup": 40, "num_chains": 2, "method": "hmc"}
    draws_of(GLM(regularizer="Ridge", regularizer_strength={"a": WIDE, "b": "learn"}), X, y, **short)
    first = len(compilations)
    other = {"a": dist.LogNormal(-1.0, 1.0), "b": "learn"}
    draws_of(GLM(regularizer="Ridge", regularizer_strength=other), X, y[::-1], seed=3, **short)
    assert len(compilations) == first


M = np.random.default_rng(0).normal(size=(30, 3))
COUNTS = np.random.default_rng(1).poisson(1.0, 30)


@pytest.mark.parametrize(
    ("strength", "regularizer", "options", "pattern"),
    [
        (dist.Normal(0.0, 1.0), "Ridge", {}, "regularizer_strength.*positive numbers; got Normal"),
        (dist.HalfNormal(1.0).expand([2]), "Ridge", {}, r"array of shape \(3,\); got shape \(2,\)"),
        ([dist.HalfNormal(1.0).expand([2]), 0.1, 0.1], "Ridge", {}, r"batch shape \(2,\); expected \(\)"),
        ((0.1, dist.HalfNormal(1.0)), "ElasticNet", {}, "ratio.*must be numbers"),
        ([dist.HalfNormal(1.0), "evidence", 0.1], "Ridge", {}, "both 'evidence' and random strengths"),
        ("learn", "Ridge", {"method": "laplace"}, "'laplace' does not sample strengths"),
        ("learn", "Ridge", {"method": "exact"}, "'exact'"),
        ("learned", "Ridge", {}, "'evidence', 'learn' or a distribution; got 'learned'"),
    ],
)
def test_bad_random_strengths(strength, regularizer, options, pattern):
    with pytest.raises(ValueError, match=pattern):
        GLM(regularizer=regularizer, regularizer_strength=strength).sample(M, COUNTS, **QUIET, **options)


def test_evidence_is_known_by_its_letters_and_not_by_its_object():
    spelled = "".join(["evi", "dence"])
    _, _, unknowns = GLM(regularizer="Ridge", regularizer_strength=spelled)._read_all(M, COUNTS, None, None)
    assert unknowns.kinds == ("evidence",)
    assert not unknowns.are_random


@pytest.mark.parametrize("strength", ["learn", dist.HalfNormal(1.0)])
def test_fit_refuses_random_strengths(strength):
    with pytest.raises(ValueError, match="for `sample` only: `fit` needs numbers or 'evidence'"):
        GLM(regularizer="Ridge", regularizer_strength=strength).fit(M, COUNTS)


def test_outputs_with_dispersions_of_their_own_share_no_strength():
    y = np.random.default_rng(2).normal(size=(30, 2))
    with pytest.raises(ValueError, match=r"\[\['learn'\] \* 2\]"):
        PopulationGLM("Gaussian", regularizer="Ridge", regularizer_strength="learn").sample(M, y, **QUIET)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The posterior draws need a second look")
def test_strengths_are_calibrated():
    """Simulation-based calibration: the rank of the strength that made the data is uniform among its draws."""
    rng = np.random.default_rng(3)
    hyper, n = dist.LogNormal(-2.5, 1.0), 80
    X = rng.normal(size=(n, 10))
    for regularizer in ("Ridge", "Lasso"):
        model = GLM(
            "Bernoulli", regularizer=regularizer, regularizer_strength=hyper, intercept_prior=dist.Normal(0.0, 1.0)
        )
        ranks = []
        for simulation in range(200):
            strength, intercept = np.exp(-2.5 + rng.normal()), rng.normal()
            if regularizer == "Ridge":
                coef = rng.normal(size=10) / np.sqrt(n * strength)
            else:
                coef = rng.laplace(size=10) / (n * strength)
            y = rng.binomial(1, 1 / (1 + np.exp(-intercept - X @ coef)))
            if y.min() == y.max():
                continue
            draws = draws_of(model, X, y, seed=simulation, num_samples=1000)["strength"].values.ravel()
            ranks.append((draws < strength).mean())
        assert stats.kstest(ranks, "uniform").pvalue > 0.01
