"""Coefficients that may not be negative: against scikit-learn and SciPy, quadrature, and NumPyro's own sampler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density
from scipy.integrate import quad
from scipy.optimize import lsq_linear, minimize, nnls
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression

import bayesglm
from bayesglm import GLM, PopulationGLM, distributions, priors
from bayesglm.model_selection import GLMCV, approximate_loo, largest_strength, strength_grid, strength_path
from bayesglm.observation_models import GaussianObservations

QUIET = {"progress_bar": False}
TIGHT = {"positive": True, "tol": 1e-14, "max_iter": 200_000}
REGULARIZERS = {None: None, "Ridge": 0.3, "Lasso": 0.1, "ElasticNet": (0.2, 0.4), "GroupLasso": 0.1}


def make_data(n=60, p=6, seed=0):
    """Features of correlation, some with negative effects."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(n, 1)) + 0.3
    return X, X @ rng.normal(size=p) * 0.7 + rng.normal(size=n)


FITS = [("Ridge", (60, 6)), ("Lasso", (60, 6)), ("Ridge", (100, 400))]
LONG = [("ElasticNet", (60, 6)), ("Ridge", (25, 60)), ("Lasso", (100, 400))]


@pytest.mark.parametrize(
    ("regularizer", "shape"), [*FITS, *(pytest.param(*one, marks=pytest.mark.slow) for one in LONG)]
)
def test_penalized_fits_are_scikit_learns(regularizer, shape):
    X, y = make_data(*shape)
    n, p = shape
    strength = REGULARIZERS[regularizer]
    model = GLM(GaussianObservations(1.0), None, regularizer, strength, positive=True).fit(X, y)
    if regularizer == "Ridge":
        # Its solver stops early: as least squares of more samples instead.
        expected = nnls(np.r_[X - X.mean(0), np.sqrt(0.3 * n) * np.eye(p)], np.r_[y - y.mean(), np.zeros(p)])[0]
    elif regularizer == "Lasso":
        expected = Lasso(0.1, **TIGHT).fit(X, y).coef_
    else:
        expected = ElasticNet(alpha=0.2, l1_ratio=0.4, **TIGHT).fit(X, y).coef_
    np.testing.assert_allclose(model.coef_, expected, rtol=0, atol=1e-7)
    assert model.converged_
    np.testing.assert_array_equal(model.coef_ == 0, expected < 1e-12)


def test_unpenalized_fits_are_scipys():
    X, y = make_data()
    model = GLM("Gaussian", positive=True).fit(X, y)
    np.testing.assert_allclose(model.coef_, LinearRegression(positive=True).fit(X, y).coef_, atol=1e-9)
    model = GLM("Gaussian", positive=True, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(model.coef_, nnls(X, y)[0], atol=1e-9)
    np.testing.assert_allclose(model.dof_resid_, 60 - (model.coef_ > 0).sum())
    some = np.arange(6) % 2 == 0
    model = GLM("Gaussian", positive=some, fit_intercept=False).fit(X, y)
    expected = lsq_linear(X, y, (np.where(some, 0, -np.inf), np.inf), tol=1e-14).x
    np.testing.assert_allclose(model.coef_, expected, atol=1e-9)
    free = GLM("Gaussian", positive=np.zeros(6, bool)).fit(X, y)
    np.testing.assert_array_equal(free.coef_, GLM("Gaussian").fit(X, y).coef_)


@pytest.mark.parametrize(("family", "regularizer"), [("Bernoulli", "Ridge"), ("Poisson", "GroupLasso")])
def test_other_families_are_a_bounded_minimizers(family, regularizer):
    X, y = make_data()
    y = (y > 0).astype(float) if family == "Bernoulli" else np.abs(y).round()
    strength = None if regularizer is None else 0.1
    some = np.arange(6) > 1
    model = GLM(family, None, regularizer, strength, positive=some).fit(X, y)

    def objective(point):
        eta = point[0] + X @ point[1:]
        loss = np.exp(eta) - y * eta if family == "Poisson" else np.logaddexp(0, eta) - y * eta
        size = {None: 0.0, "Ridge": 0.5 * point[1:] @ point[1:]}.get(regularizer, np.sqrt(6 * point[1:] @ point[1:]))
        return loss.mean() + 0.1 * size

    bounds = [(None, None)] * 3 + [(0, None)] * 4
    start = np.r_[model.intercept_, model.coef_] + 0.1
    best = minimize(objective, start, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9})
    assert objective(np.r_[model.intercept_, model.coef_]) <= best.fun + 1e-12
    np.testing.assert_allclose(model.coef_, best.x[1:], atol=1e-4)
    assert (model.coef_[some] >= 0).all()


def test_bounds_are_data(compilations):
    X, y = make_data()
    for positive in (True, np.arange(6) < 3):
        GLM("Gaussian", None, "Ridge", 0.1, positive=positive).fit(X, y)
        count = len(compilations)
    GLM("Gaussian", None, "Ridge", 0.1, positive=np.arange(6) > 3).fit(X, y)
    assert len(compilations) == count


def test_containers_and_outputs():
    X, y = make_data()
    tree = {"a": X[:, :2], "b": X[:, 2:]}
    one = GLM("Gaussian", None, "Lasso", 0.1, positive={"a": True, "b": [False, True, False, True]}).fit(tree, y)
    flat = GLM("Gaussian", None, "Lasso", 0.1, positive=[True, True, False, True, False, True]).fit(X, y)
    np.testing.assert_array_equal(np.r_[one.coef_["a"], one.coef_["b"]], flat.coef_)
    both = np.c_[y, -y]
    model = PopulationGLM("Gaussian", None, "Lasso", 0.1, positive=[[True, False]]).fit(X, both)
    alone = [GLM("Gaussian", None, "Lasso", 0.1, positive=bounds).fit(X, y) for bounds in (True, False)]
    np.testing.assert_allclose(model.coef_[:, 0], alone[0].coef_, atol=1e-12)
    np.testing.assert_allclose(model.coef_[:, 1], -alone[1].coef_, atol=1e-8)
    masked = PopulationGLM(
        "Gaussian", None, "Ridge", 0.1, positive=True, feature_mask=np.arange(12).reshape(6, 2) % 5 > 0
    )
    posterior = masked.fit(X, both).sample(X, both, num_samples=60, method="laplace", **QUIET).posterior
    draws = posterior["coef"].values
    assert np.isnan(draws[..., 0, 0]).all()
    assert np.nanmin(draws) >= 0


def bounded(prior, bounds):
    """Wrapped prior and its strength for three coefficients."""
    strength = np.array([0.3, 0.1, 0.7])
    inner = {
        priors.UnRegularized: strength * 0,
        priors.ElasticNet: (strength, np.array([0.4, 0.9, 0.5])),
        priors.GroupLasso: (np.array([0.5]), np.zeros(3, int)),
    }.get(prior, strength)
    return type(priors.nonnegative(prior())), priors.Bounded(inner, np.array(bounds))


PRIORS = [priors.UnRegularized, priors.Ridge, priors.Lasso, priors.ElasticNet, priors.GroupLasso]
BOUNDS = [[True, True, True], [True, False, True]]


@pytest.mark.parametrize(("prior", "bounds"), list(zip(PRIORS, 3 * BOUNDS, strict=False)))
def test_prox_minimizes_within_the_bounds(prior, bounds, rng):
    kind, strength = bounded(prior, bounds)
    with jax.enable_x64(True):
        for _ in range(5):
            point = rng.normal(size=3)
            best = np.asarray(kind.prox(point, strength, np.full(3, 0.8)))
            assert (best[bounds] >= 0).all()
            nearby = best + rng.normal(size=(500, 3)) * rng.choice([1e-1, 1e-3, 1e-5], size=(500, 1))
            nearby = np.where(bounds, np.maximum(nearby, 0.0), nearby)
            goal = jax.vmap(lambda w: jnp.sum((w - point) ** 2) / 1.6 + kind.penalty(w, strength))  # noqa: B023
            assert (goal(nearby) >= goal(best[None]) - 1e-13).all()


@pytest.mark.parametrize("prior", [priors.Ridge, priors.Lasso, priors.ElasticNet])
def test_density_integrates_to_one_and_has_its_moments(prior):
    kind, strength = bounded(prior, [True] * 3)
    strength = jax.tree.map(lambda leaf: leaf[0], strength)
    with jax.enable_x64(True):
        folded = kind.distribution(strength, 20.0)
        density = jax.jit(lambda w: jnp.exp(folded.log_prob(w)))
        total, mean, square = (
            quad(lambda w: w**power * float(density(w)), 0, 10, epsabs=1e-12, limit=200)[0]  # noqa: B023
            for power in range(3)
        )
        assert total == pytest.approx(1, abs=1e-9)
        assert float(folded.mean) == pytest.approx(mean, rel=1e-7)
        assert float(folded.variance) == pytest.approx(square - mean**2, rel=1e-7)


@pytest.mark.parametrize(("prior", "bounds"), list(zip(PRIORS[1:], 2 * BOUNDS, strict=True)))
def test_draws_of_the_prior_have_the_moments_of_the_density(prior, bounds):
    kind, strength = bounded(prior, bounds)
    folded = kind.distribution(strength, 20.0)
    draws = np.asarray(folded.sample(jax.random.key(0), (40_000,)))
    assert (draws[:, bounds] >= 0).all()
    np.testing.assert_allclose(draws.mean(0), folded.mean, atol=0.02 * draws.std(0).max())
    np.testing.assert_allclose(draws.var(0), folded.variance, rtol=0.05)
    assert folded.support(draws).all()


@pytest.mark.parametrize("ratio", [1e-3, 1.0, 30.0, 49.0, 51.0, 1e4])
def test_mean_size_of_elastic_net(ratio):
    with jax.enable_x64(True):
        net = distributions.ElasticNet(ratio, 1.0)
        scale = min(1.0, 1 / ratio)
        density = jax.jit(lambda w: jnp.exp(net.log_prob(w)))
        found = 2 * quad(lambda w: w * scale**2 * float(density(w * scale)), 0, 40, epsabs=1e-14)[0]
        assert float(net.mean_size) == pytest.approx(found, rel=2e-7)


@pytest.mark.parametrize("regularizer", ["Ridge", "GroupLasso"])
def test_mode_is_that_of_the_numpyro_model(regularizer):
    """Where coefficients are positive the density is level; where they are zero it falls."""
    X, y = make_data()
    model = GLM("Poisson", None, regularizer, 0.1, positive=[True] * 5 + [False]).fit(X, np.abs(y.round()))
    point = {"coef": model.coef_, "intercept": model.intercept_[0]}
    with jax.enable_x64(True):
        slope = jax.grad(lambda at: log_density(model.numpyro_model, (X, np.abs(y.round())), {}, at)[0])(point)
    slope = np.asarray(slope["coef"])
    zero = model.coef_ == 0
    assert zero.any()
    assert not zero.all()
    np.testing.assert_allclose(slope[~zero], 0, atol=1e-6)
    assert (slope[zero] <= 1e-6).all()


def quadrature(X, y, penalty):
    """Means and standard deviations of two coefficients that may not be negative."""
    axis = (np.arange(500) + 0.5) / 500 * 3.5
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    log_prob = -0.5 * ((y - grid @ X.T) ** 2).sum(1) - len(y) * penalty(grid)
    weight = np.exp(log_prob - log_prob.max())
    weight /= weight.sum()
    mean = weight @ grid
    return mean, np.sqrt(weight @ (grid - mean) ** 2)


PENALTIES = {
    None: (None, lambda w: 0.0),
    "Ridge": (0.3, lambda w: 0.15 * (w**2).sum(1)),
    "Lasso": (0.3, lambda w: 0.3 * w.sum(1)),
    "ElasticNet": ((0.5, 0.4), lambda w: (0.5 * (0.4 * w + 0.3 * w**2)).sum(1)),
    "GroupLasso": (0.3, lambda w: 0.3 * np.sqrt(2) * np.sqrt((w**2).sum(1))),
}
TRUTHS = {"inside": (0.6, 0.3), "at one bound": (0.3, -0.4), "at both": (-0.3, -0.3)}


def check_draws(posterior, X, y, penalty, tolerance):
    draws = posterior.posterior["coef"].values.reshape(-1, 2)
    mean, sd = quadrature(X, y, penalty)
    assert (draws >= 0).all()
    assert (abs(draws.mean(0) - mean) / sd).max() < tolerance
    assert abs(draws.std(0) / sd - 1).max() < tolerance


def small_data(truth):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 2)) + 0.5
    X[:, 1] += 0.5 * X[:, 0]
    return X, X @ np.array(truth) + rng.normal(size=20)


def test_posterior_is_that_of_quadrature():
    X, y = small_data(TRUTHS["inside"])
    model = GLM(GaussianObservations(1.0), None, "Ridge", 0.3, positive=True, fit_intercept=False)
    posterior = model.sample(X, y, num_samples=3000, **QUIET)
    assert posterior.sample_stats.attrs["sampler"] == "hmc"
    check_draws(posterior, X, y, PENALTIES["Ridge"][1], 0.06)


WAYS = [("hmc", "direct"), ("hmc", "mixture"), ("nuts", "direct")]


@pytest.mark.slow
@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS.keys())
@pytest.mark.parametrize("regularizer", PENALTIES)
@pytest.mark.parametrize(("method", "parametrization"), WAYS)
def test_posteriors_are_those_of_quadrature(truth, regularizer, method, parametrization):
    X, y = small_data(truth)
    strength, penalty = PENALTIES[regularizer]
    model = GLM(GaussianObservations(1.0), None, regularizer, strength, positive=True, fit_intercept=False)
    options = {"num_samples": 10_000, "method": method, "parametrization": parametrization} | QUIET
    check_draws(model.sample(X, y, **options), X, y, penalty, 0.05)


def test_laplace_draws_are_those_of_quadrature_near_the_bounds():
    X, y = small_data(TRUTHS["at one bound"])
    regularizer, (strength, penalty) = "Lasso", PENALTIES["Lasso"]
    model = GLM(GaussianObservations(1.0), None, regularizer, strength, positive=True, fit_intercept=False)
    check_draws(model.sample(X, y, num_samples=4000, method="laplace", **QUIET), X, y, penalty, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("positive", [True, [True, True, False, False, True, True]], ids=["all", "some"])
@pytest.mark.parametrize("family", ["Gaussian", "Poisson"])
def test_posteriors_are_those_of_numpyros_own_sampler(regularizer, positive, family):
    X, y = make_data(40)
    y = y if family == "Gaussian" else np.abs(y.round())
    model = GLM(family, None, regularizer, REGULARIZERS[regularizer], positive=positive)
    ours = model.sample(X, y, num_samples=4000, **QUIET).posterior
    with jax.enable_x64(True):
        chain = MCMC(
            NUTS(model.numpyro_model, target_accept_prob=0.95),
            num_warmup=2000, num_samples=8000, num_chains=2, chain_method="sequential", progress_bar=False,
        )  # fmt: skip
        chain.run(jax.random.key(1), X, y)
        theirs = chain.get_samples()
    for name in ("coef", "intercept"):
        mine = ours[name].values.reshape(-1, *ours[name].shape[2:])
        other = np.asarray(theirs[name])
        assert (abs(mine.mean(0) - other.mean(0)) / other.std(0)).max() < 0.1
        assert abs(mine.std(0) / other.std(0) - 1).max() < 0.1
    assert (np.asarray(theirs["coef"])[:, np.broadcast_to(positive, 6)] >= 0).all()


def test_leaving_out_is_refitting():
    """Exact for Gaussian observations, but for coefficients that jump out of or into zero."""
    X, y = make_data(30)
    found = approximate_loo(GLM(GaussianObservations(1.0), None, "Ridge", 0.3, positive=True), X, y)
    refit = GLM(GaussianObservations(1.0), None, "Ridge", 0.3 * 30 / 29, positive=True)
    for i in range(30):
        kept = np.arange(30) != i
        assert refit.fit(X[kept], y[kept]).predict(X[i : i + 1]) == pytest.approx(found.predictor[i], abs=1e-6)


def test_inference_is_given_selection():
    X, y = make_data()
    model = GLM("Gaussian", None, "Ridge", 0.1, positive=True).fit(X, y)
    kept = model.coef_ > 0
    assert kept.any()
    assert not kept.all()
    table = model.summary()
    assert table.columns.name == "given selection"
    np.testing.assert_array_equal(np.isfinite(table["se"].values[1:]), kept)
    part = GLM("Gaussian", None, "Ridge", 0.1).fit(X[:, kept], y)
    np.testing.assert_allclose(model.coef_[kept], part.coef_, atol=1e-8)
    np.testing.assert_allclose(model.scale_, part.scale_, rtol=1e-7)
    np.testing.assert_allclose(np.asarray(model.standard_errors_)[kept], part.standard_errors_, rtol=1e-6)


def test_priors_have_their_names():
    X, y = make_data()
    named = {"Ridge": "HalfNormal(scale=", "Lasso": "Exponential(rate=", "ElasticNet": "abs ElasticNet(l1="}
    for regularizer, name in named.items():
        model = GLM("Poisson", None, regularizer, positive=[True, False] * 3, fit_intercept=False)
        model.fit(0.1 * X, np.abs(y.round()))
        table = model.prior_summary()
        assert table["prior"].iloc[0].startswith(name)
        assert list(table["feature"])[:2] == ["0, 2, 4", "1, 3, 5"]
    draws = model.prior_predictive(0.1 * X[:3], num_samples=4000)["prior"]["coef"].values[0]
    np.testing.assert_allclose(draws.std(0)[:2], table["sd"].iloc[:2], rtol=0.08)
    assert GLM(positive=True).fit(X, np.abs(y.round())).prior_summary()["prior"].iloc[0] == "flat on [0, inf)"


def test_paths_cross_validation_and_files(tmp_path):
    X, y = make_data()
    model = GLM("Gaussian", regularizer="Lasso", positive=True)
    top = largest_strength(model, X, y)
    assert top == pytest.approx(((X - X.mean(0)).T @ y).max() / len(y), rel=1e-9)
    path = strength_path(model, X, y, [top * 1.001, top * 0.999])
    assert [bool(one.coef_.any()) for one in path] == [False, True]
    assert len(strength_grid(GLM("Gaussian", regularizer="Ridge", positive=True), X, y, 3)) == 3
    chosen = GLMCV(model, strengths=4, progress_bar=False).fit(X, y).best_estimator_
    assert (chosen.coef_ >= 0).all()
    chosen.sample(X, y, num_samples=50, method="laplace", **QUIET)
    bayesglm.save(chosen, tmp_path / "model")
    again = bayesglm.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(X), chosen.predict(X))
    assert again.prior_summary().equals(chosen.prior_summary())
    again.posterior_predictive(X[:2])


def test_impropriety_knows_the_bounds():
    X, y = make_data(30, 2)
    arguments = {"num_samples": 30, "method": "laplace"} | QUIET
    # The same feature twice: neither can grow against the other for ever.
    GLM(GaussianObservations(1.0), positive=True).sample(X[:, [0, 0]], y, **arguments)
    for columns, positive in ((np.c_[X[:, 0], -X[:, 0]], True), (X[:, [0, 0]], [True, False])):
        with pytest.raises(ValueError, match="posterior is improper: the 2 features without a penalty have rank 1"):
            GLM(GaussianObservations(1.0), positive=positive).sample(columns, y, **arguments)
    # A feature that separates the classes the wrong way round harms nothing.
    x = np.linspace(-1, 1, 30)[:, None]
    GLM("Bernoulli", positive=True).sample(x, (x[:, 0] < 0).astype(float), **arguments)
    with pytest.raises(ValueError, match="posterior is improper: features without a penalty separate"):
        GLM("Bernoulli", positive=True).sample(x, (x[:, 0] > 0).astype(float), **arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"positive": "yes"}, "positive must be True or False, or an array or tree like X of such; got 'yes'"),
        ({"positive": [True, False]}, r"positive must be one bool or an array of shape \(6,\); got shape \(2,\)"),
        ({"positive": 2.0}, "positive must be True or False, or an array or tree like X of such; got 2.0"),
        ({"positive": {"a": True}}, "positive must be a .* like X|positive must be True or False"),
        ({"positive": True, "solver_name": "Newton"}, "needs a smooth regularizer"),
        (
            {"positive": True, "regularizer": "Ridge", "regularizer_strength": "evidence"},
            "must be numbers where positive",
        ),
        ({"positive": True, "regularizer": "Lasso", "regularizer_strength": "learn"}, "must be numbers where positive"),
    ],
)
def test_bad_arguments(settings, message):
    X, y = make_data()
    with pytest.raises(ValueError, match=message):
        GLM("Gaussian", **settings).fit(X, y)


def test_no_exact_draws():
    X, y = make_data()
    with pytest.raises(ValueError, match="method 'exact' needs .* coefficients of any sign"):
        GLM("Gaussian", regularizer="Ridge", positive=True).sample(X, y, method="exact")
