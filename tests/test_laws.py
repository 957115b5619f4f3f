"""Laws that every prior, and every pair of family and prior, obeys."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy.integrate import quad

from bayesglm import GLM, PopulationGLM, priors
from bayesglm._posterior import Position, Target
from bayesglm._posterior import log_density as own_log_density
from bayesglm._problem import make_batches
from bayesglm.links import Link

K = 37.0
COEF = np.array([0.7, -0.3, 0.05, 0.0, 0.4])
SCALAR = np.full(5, 0.3)
EACH = np.array([0.1, 0.7, 0.3, 0.2, 0.4])
ZEROS = np.array([0.1, 0.0, 0.3, 0.2, 0.0])
RATIO = np.array([0.5, 0.3, 1.0, 0.9, 0.1])
IDS = np.array([0, 1, 0, 2, 1])  # group 2 is the last id: coefficient 3 is in no group


@dataclass
class Instance:
    prior: type
    strength: object

    def __repr__(self):
        return f"{self.prior.__name__}-{np.round(np.atleast_1d(self.strength[0]), 2).tolist()}"


INSTANCES = [
    Instance(priors.UnRegularized, np.zeros(5)),
    *[Instance(p, s) for p in (priors.Ridge, priors.Lasso) for s in (SCALAR, EACH, ZEROS)],
    *[Instance(priors.ElasticNet, (s, RATIO)) for s in (SCALAR, EACH, ZEROS)],
    *[Instance(priors.GroupLasso, (np.array(s), IDS)) for s in ([0.3, 0.3], [0.1, 0.7], [0.2, 0.0])],
]


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("case", INSTANCES, ids=repr)
def test_penalty_is_minus_log_density_up_to_its_constant(case, rng):
    distribution = case.prior.distribution(case.strength, K)
    points = [COEF, np.zeros(5), rng.normal(size=5)]
    sums = [float(distribution.log_prob(w) + K * case.prior.penalty(w, case.strength)) for w in points]
    np.testing.assert_allclose(sums, sums[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", INSTANCES, ids=repr)
def test_prox_minimizes(case, rng):
    strength, step = case.strength, case.prior.common(np.array([0.5, 2.0, 1.0, 0.3, 4.0]), case.strength)
    point = jnp.array(rng.normal(size=5))

    def goal(w):
        return jnp.sum((w - point) ** 2 / (2 * step)) + case.prior.penalty(w, strength)

    best = case.prior.prox(point, strength, step)
    for size in (1e-1, 1e-3, 1e-5):
        nearby = best + size * rng.normal(size=(200, 5))
        assert (jax.vmap(goal)(nearby) >= goal(best) - 1e-14).all()
    zeroed = jax.tree.map(lambda s: s * 0 if s.dtype.kind == "f" else s, strength)
    np.testing.assert_array_equal(case.prior.prox(point, zeroed, step), point)


@pytest.mark.parametrize("case", INSTANCES, ids=repr)
def test_flat_means_no_penalty(case):
    flat = np.asarray(case.prior.is_flat(case.strength))
    gradient = jax.grad(case.prior.penalty)(jnp.full(5, 0.5), case.strength)
    np.testing.assert_array_equal(np.asarray(gradient) == 0, flat)


@pytest.mark.parametrize("case", INSTANCES, ids=repr)
def test_curvature_touches_the_penalty_from_above(case, rng):
    """A quadratic of this curvature through the same slope lies above a penalty with kinks; Ridge's is its own."""
    curvature = case.prior.curvature(jnp.array(COEF), case.strength, jnp.zeros(5))
    curvature = jnp.where(jnp.isfinite(curvature), curvature, 1e12)
    move = jnp.array(rng.normal(size=5)) * (COEF != 0)
    if case.prior is priors.GroupLasso:
        move = move * (IDS != 1)
    slope = jax.grad(case.prior.penalty)(jnp.array(COEF), case.strength)
    model = case.prior.penalty(COEF, case.strength) + slope @ move + 0.5 * curvature @ move**2
    assert model >= case.prior.penalty(COEF + move, case.strength) - 1e-12


@pytest.mark.parametrize("prior", [priors.Ridge, priors.Lasso, priors.ElasticNet])
@pytest.mark.parametrize("strength", [0.02, 0.3, 5.0])
def test_separable_prior_densities_integrate_to_one(prior, strength):
    value = np.array([strength])
    distribution = prior.distribution((value, np.array([0.4])) if prior is priors.ElasticNet else value, K)
    log_prob = jax.jit(distribution.log_prob)
    width = float(np.sqrt(distribution.variance[0]))
    pieces = [
        quad(lambda b: float(jnp.exp(log_prob(np.array([b])))), i * width, (i + 1) * width, epsabs=1e-13)[0]
        for i in range(35)
    ]
    assert abs(2 * sum(pieces) - 1) < 1e-8


@pytest.mark.parametrize("prior", [priors.Ridge, priors.Lasso, priors.ElasticNet, priors.GroupLasso])
def test_prior_draws_have_the_moments_of_the_density(prior):
    strength = {priors.ElasticNet: (EACH, RATIO), priors.GroupLasso: (np.array([0.1, 0.7]), IDS)}.get(prior, EACH)
    distribution = prior.distribution(strength, K)
    size = 100_000
    draws = np.asarray(distribution.sample(jax.random.key(5), (size,)))
    proper = np.isfinite(distribution.variance)
    z = (draws / np.sqrt(distribution.variance))[:, proper]
    assert (np.abs(z.mean(0)) < 4 * z.std(0) / np.sqrt(size)).all()
    assert (np.abs((z**2).mean(0) - 1) < 4 * (z**2).std(0) / np.sqrt(size)).all()


FAMILIES = ["Poisson", "Gaussian", "Bernoulli", "Gamma", "NegativeBinomial"]
STRENGTHS = {
    "UnRegularized": {"none": None},
    "Ridge": {
        "scalar": 0.1,
        "each": {"a": [0.1, 0.3], "b": [0.2, 0.5, 0.1]},
        "zeros": {"a": 0.0, "b": [0.2, 0.0, 0.1]},
    },
    "Lasso": {
        "scalar": 0.1,
        "each": {"a": [0.1, 0.3], "b": [0.2, 0.5, 0.1]},
        "zeros": {"a": 0.0, "b": [0.2, 0.0, 0.1]},
    },
    "ElasticNet": {
        "scalar": (0.1, 0.5),
        "each": ({"a": [0.1, 0.3], "b": 0.2}, {"a": 0.5, "b": [0.2, 0.5, 1.0]}),
        "zeros": ({"a": 0.0, "b": [0.2, 0.0, 0.1]}, 0.3),
    },
    "GroupLasso": {"scalar": 0.1, "each": [0.1, 0.3], "zeros": {"a": 0.0, "b": 0.3}},
}
PAIRS = [(f, r, s) for f in FAMILIES for r, forms in STRENGTHS.items() for s in forms]
# The other pairs take long, and are in the command of slow checks.
OFTEN = [pair for pair in PAIRS if pair[0] == "Poisson" or pair[2] in ("none", "zeros")]
MASK = {"a": [[1, 0], [0, 1]], "b": [[1, 0, 1], [0, 1, 0]]}


def make_data(family, rng, n=60):
    X = {"a": rng.normal(size=(n, 2)), "b": rng.normal(size=(n, 3)) + 0.3}
    eta = 0.4 * X["a"][:, 0] - 0.5 * X["b"][:, 2]
    y = {
        "Poisson": lambda: rng.poisson(np.exp(eta)),
        "Gaussian": lambda: eta + rng.normal(size=n),
        "Bernoulli": lambda: rng.random(n) < 1 / (1 + np.exp(-eta)),
        "Gamma": lambda: rng.gamma(2.0, 0.5 * np.exp(eta)),
        "NegativeBinomial": lambda: rng.poisson(rng.gamma(2.0, 0.5 * np.exp(eta))),
    }[family]().astype(float)
    weight = rng.integers(0, 4, n).astype(float)
    return X, y, weight, 0.3 * rng.normal(size=n)


def make_model(family, cls=GLM, **arguments):
    """A model of the family; Gamma with the exp link, under which any coefficients give a positive mean."""
    return cls(family, inverse_link_function="exp" if family == "Gamma" else None, **arguments)


def check_two_readings(model, X, y, weight, offset, rng):
    """k * gradient of the objective is minus the gradient of the NumPyro model's log density."""
    spec = model.spec_
    matrix = np.concatenate(list(X.values()), axis=1)
    total = weight.sum()
    strength = spec.strength
    population = y.ndim == 2
    weight_column = weight[:, None] / total
    link: Link = spec.form.link
    shape = (matrix.shape[1], len(spec.k))

    def objective(coef, intercept):
        eta = offset.reshape(len(y), -1) + intercept + matrix @ coef
        nll = spec.form.family.nll(y.reshape(len(y), -1), eta, link, spec.scale)
        # Uncoupled outputs have their own k, and the penalty is a sum over them.
        return jnp.sum(weight_column * nll, 0), spec.form.prior.penalty(coef, strength)

    coef = rng.normal(size=shape)
    intercept = rng.normal(size=shape[1])
    k = spec.k

    def reading_one(coef, intercept):
        loss, penalty = objective(coef, intercept)
        assert len(set(k.tolist())) == 1 or not population
        return k[0] * (jnp.sum(loss) + penalty)

    def reading_two(coef, intercept):
        sites = {"coef": coef if population else coef[:, 0], "intercept": intercept if population else intercept[0]}
        if spec.form.samples_scale:
            sites["dispersion"] = spec.scale if population else spec.scale[0]
        arguments = {"sample_weight": weight, "offset": offset}
        return -log_density(model.numpyro_model, (X, y), arguments, sites)[0]

    for one, two in zip(
        jax.grad(reading_one, argnums=(0, 1))(coef, intercept),
        jax.grad(reading_two, argnums=(0, 1))(coef, intercept),
        strict=True,
    ):
        scale = np.abs(one).max()
        np.testing.assert_allclose(np.asarray(one) / scale, np.asarray(two) / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("family", "regularizer", "form"),
    [pair if pair in OFTEN else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS],
)
def test_objective_and_numpyro_model_are_the_same(family, regularizer, form, rng):
    X, y, weight, offset = make_data(family, rng)
    model = make_model(family, regularizer=regularizer, regularizer_strength=STRENGTHS[regularizer][form])
    model.fit(X, y, sample_weight=weight, offset=offset)
    check_two_readings(model, X, y, weight, offset, rng)


@pytest.mark.parametrize("family", FAMILIES)
def test_two_readings_agree_for_groups_across_leaves_and_outputs(family, rng):
    X, y, weight, offset = make_data(family, rng)
    model = make_model(family, regularizer=priors.GroupLasso(MASK), regularizer_strength=[0.1, 0.3])
    check_two_readings(model.fit(X, y, sample_weight=weight, offset=offset), X, y, weight, offset, rng)
    both = {leaf: np.stack([np.array(m)] * 2, axis=-1) for leaf, m in MASK.items()}
    population = make_model(family, PopulationGLM, regularizer=priors.GroupLasso(both), regularizer_strength=[0.1, 0.3])
    y = np.stack([y, y[::-1]], axis=1)
    offset = np.stack([offset, offset], axis=1)
    population.fit(X, y, sample_weight=weight, offset=offset)
    check_two_readings(population, X, y, weight, offset, rng)


@pytest.mark.parametrize(("family", "regularizer", "form"), [pair for pair in PAIRS if pair[2] in ("none", "zeros")])
def test_sampled_density_is_the_numpyro_models(family, regularizer, form, rng):
    """The density that NUTS climbs differs from the NumPyro model's by a constant."""
    X, y, weight, offset = make_data(family, rng)
    model = make_model(family, regularizer=regularizer, regularizer_strength=STRENGTHS[regularizer][form])
    fitted = model._fit(*model._read_all(X, y, weight, offset))
    spec, data = fitted.spec, fitted.data
    batch = jax.tree.map(lambda leaf: leaf[0], make_batches(data, spec.strength, spec.free)[0])
    target = Target(
        batch.outputs,
        batch.y,
        batch.offset,
        batch.strength,
        spec.total,
        spec.k[0],
        spec.scale[0],
        spec.y_spread[0],
        None,
        None,
        batch.free,
        np.ones((1, 1), bool),
    )
    differences = []
    for _ in range(3):
        coef, intercept = rng.normal(size=(5, 1)), rng.normal(size=1)
        dispersion = float(rng.uniform(0.5, 2)) if spec.form.samples_scale else 1.0
        own = own_log_density(Position(coef, intercept, dispersion), data.X, weight, target, spec.priors, spec.form)
        sites = {"coef": coef[:, 0], "intercept": intercept[0]}
        if spec.form.samples_scale:
            sites["dispersion"] = dispersion
            own = own - np.log(dispersion)  # its variable is the logarithm
        arguments = {"sample_weight": weight, "offset": offset}
        differences.append(own - log_density(model.numpyro_model, (X, y), arguments, sites)[0])
    np.testing.assert_allclose(differences, differences[0], rtol=0, atol=1e-9)
