"""Elastic-net and group distributions as NumPyro distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.integrate import nquad, quad

from bayesglm.distributions import ElasticNet, GroupLaplace, HalfStudentT

RATES = [(2.0, 3.0), (0.0, 3.0), (2.0, 0.0), (40.0, 0.01), (0.01, 40.0), (3000.0, 0.5), (3e4, 1e-3), (1e-6, 1e-6)]
GROUPS = [([1.5], [0]), ([0.7], [0, 0]), ([2.0, 0.5], [0, 1, 1])]


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(("l1", "l2"), RATES)
def test_elastic_net_integrates_to_one(l1, l2):
    distribution = ElasticNet(l1, l2)
    width = float(np.sqrt(distribution.variance))
    log_prob = jax.jit(distribution.log_prob)
    pieces = [
        quad(lambda b: float(jnp.exp(log_prob(b))), i * width, (i + 1) * width, epsabs=1e-13)[0] for i in range(35)
    ]
    assert abs(2 * sum(pieces) - 1) < 1e-8


@pytest.mark.parametrize(("l1", "l2"), RATES)
def test_elastic_net_variance(l1, l2):
    distribution = ElasticNet(l1, l2)
    width = float(np.sqrt(distribution.variance))
    log_prob = jax.jit(distribution.log_prob)
    integral = sum(quad(lambda u: u**2 * float(jnp.exp(log_prob(u * width))) * width, i, i + 1)[0] for i in range(45))
    assert abs(2 * integral - 1) < 1e-7


@pytest.mark.parametrize(("l1", "l2"), RATES)
def test_elastic_net_draws(l1, l2):
    distribution = ElasticNet(l1, l2)
    size = 200_000
    draws = np.asarray(jax.jit(lambda key: distribution.sample(key, (size,)))(jax.random.key(1)))
    standardized = draws / np.sqrt(distribution.variance)
    error = lambda values: 4 * values.std() / np.sqrt(size)  # noqa: E731
    assert abs(standardized.mean()) < error(standardized)
    assert abs((standardized**2).mean() - 1) < error(standardized**2)
    assert abs((draws > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(size)


def test_elastic_net_limits_are_laplace_and_normal():
    b = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(ElasticNet(2.0, 0.0).log_prob(b), dist.Laplace(0, 0.5).log_prob(b), rtol=1e-13)
    np.testing.assert_allclose(ElasticNet(2.0, 1e-12).log_prob(b), dist.Laplace(0, 0.5).log_prob(b), rtol=0, atol=1e-11)
    np.testing.assert_allclose(ElasticNet(0.0, 4.0).log_prob(b), dist.Normal(0, 0.5).log_prob(b), rtol=1e-13)


def test_elastic_net_gradients_are_finite_everywhere():
    gradient = jax.grad(lambda l1, l2, b: ElasticNet(l1, l2).log_prob(b), argnums=(0, 1, 2))
    for l1, l2 in RATES:
        for b in (0.0, 1e-3, -2.0):
            assert np.isfinite(gradient(l1, l2, b)).all()


def test_elastic_net_normalizer_in_single_precision():
    with jax.enable_x64(False):
        assert ElasticNet(3000.0, 0.5).log_normalizer.dtype == np.float32
        np.testing.assert_allclose(ElasticNet(3000.0, 0.5).log_normalizer, np.log(2 / 3000), rtol=1e-6)
        np.testing.assert_allclose(ElasticNet(3e4, 1e-3).log_normalizer, np.log(2 / 3e4), rtol=1e-6)


def test_elastic_net_shapes_jit_and_vmap():
    distribution = ElasticNet(np.ones((3, 1)), np.ones(2))
    assert distribution.batch_shape == (3, 2)
    assert distribution.event_shape == ()
    assert distribution.sample(jax.random.key(0), (5,)).shape == (5, 3, 2)
    assert distribution.to_event(1).log_prob(np.zeros((3, 2))).shape == (3,)
    outer = jax.vmap(lambda l1: ElasticNet(l1, 1.0))(jnp.arange(1.0, 4.0))
    inside = jax.jit(lambda d, b: d.log_prob(b))(outer, 0.3)
    np.testing.assert_allclose(inside, [ElasticNet(l1, 1.0).log_prob(0.3) for l1 in (1.0, 2.0, 3.0)])
    assert distribution.support is dist.constraints.real


@pytest.mark.parametrize(("rate", "groups"), GROUPS)
def test_group_laplace_integrates_to_one(rate, groups):
    rate, groups = np.array(rate), np.array(groups)
    for group, r in enumerate(rate):
        d = int((groups == group).sum())
        one = GroupLaplace(np.array([r]), np.zeros(d, int))
        log_prob = jax.jit(one.log_prob)

        def radial(length, log_prob=log_prob, d=d):
            point = np.zeros(d)
            point[0] = length
            sphere = {1: 2.0, 2: 2 * np.pi * length}[d]
            return sphere * float(jnp.exp(log_prob(point)))

        assert abs(quad(radial, 0, 60 / r, epsabs=1e-12, limit=200)[0] - 1) < 1e-8
    point = np.linspace(0.1, 0.5, len(groups))
    parts = [
        GroupLaplace(rate[[g]], np.zeros((groups == g).sum(), int)).log_prob(point[groups == g])
        for g in range(len(rate))
    ]
    np.testing.assert_allclose(GroupLaplace(rate, groups).log_prob(point), sum(parts), rtol=1e-13)


def test_group_laplace_of_three_components_integrates_to_one():
    distribution = GroupLaplace(np.array([1.3]), np.zeros(3, int))
    log_prob = jax.jit(distribution.log_prob)

    def density(r):
        return 4 * np.pi * r**2 * float(jnp.exp(log_prob(np.array([r, 0.0, 0.0]))))

    assert abs(nquad(density, [(0, 50)])[0] - 1) < 1e-8


def test_group_laplace_of_one_component_is_laplace():
    b = np.array([0.3])
    np.testing.assert_allclose(
        GroupLaplace(np.array([2.0]), np.zeros(1, int)).log_prob(b), dist.Laplace(0, 0.5).log_prob(b[0])
    )


@pytest.mark.parametrize("d", [1, 2, 5])
def test_group_laplace_draws(d):
    rate, size = 1.7, 100_000
    distribution = GroupLaplace(np.array([rate]), np.zeros(d, int))
    draws = np.asarray(distribution.sample(jax.random.key(3), (size,)))
    length = np.linalg.norm(draws, axis=1)
    assert abs(length.mean() - d / rate) < 4 * length.std() / np.sqrt(size)
    assert abs(draws.mean()) < 4 * draws.std() / np.sqrt(size * d)
    np.testing.assert_allclose(distribution.variance, (d + 1) / rate**2)
    squares = (draws**2).ravel()
    assert abs(squares.mean() - (d + 1) / rate**2) < 4 * squares.std() / np.sqrt(size)


def test_group_laplace_gradient_is_finite_at_zero_and_flat_outside_groups():
    distribution = GroupLaplace(np.array([2.0]), np.array([[0, 1], [0, 0]]))
    assert distribution.event_shape == (2, 2)
    gradient = jax.grad(distribution.log_prob)(np.zeros((2, 2)))
    assert np.isfinite(gradient).all()
    value = np.array([[0.1, 0.2], [0.3, 0.4]])
    moved = value + np.array([[0, 5.0], [0, 0]])
    assert distribution.log_prob(value) == distribution.log_prob(moved)


def test_group_laplace_shapes_jit_and_vmap():
    distribution = GroupLaplace(np.ones((4, 2)), np.array([0, 0, 1, 2]))
    assert (distribution.batch_shape, distribution.event_shape) == ((4,), (4,))
    assert distribution.sample(jax.random.key(0), (3,)).shape == (3, 4, 4)
    assert distribution.log_prob(np.ones((3, 4, 4))).shape == (3, 4)
    one = jax.jit(lambda rate, b: GroupLaplace(rate, np.array([0, 0, 1, 2])).log_prob(b))
    batched = jax.vmap(one, in_axes=(0, None))(np.arange(1.0, 9.0).reshape(4, 2), np.ones(4))
    np.testing.assert_allclose(batched, [one(r, np.ones(4)) for r in np.arange(1.0, 9.0).reshape(4, 2)])
    assert distribution.support.event_dim == 1


def test_half_student_t():
    distribution = HalfStudentT(4.0, 2.0)
    total = quad(lambda v: float(jnp.exp(distribution.log_prob(v))), 0, np.inf)[0]
    assert abs(total - 1) < 1e-7
    draws = np.asarray(distribution.sample(jax.random.key(0), (100_000,)))
    assert (draws > 0).all()
    # sqrt(v) is used for its finite variance: E|t|^(1/2) by quadrature.
    expected = quad(lambda v: np.sqrt(v) * float(jnp.exp(distribution.log_prob(v))), 0, np.inf)[0]
    assert abs(np.sqrt(draws).mean() - expected) < 4 * np.sqrt(draws).std() / np.sqrt(len(draws))
    squared = dist.TransformedDistribution(distribution, dist.transforms.PowerTransform(2.0))
    np.testing.assert_allclose(squared.log_prob(9.0), distribution.log_prob(3.0) - np.log(6.0))
