"""Priors of penalized GLMs that NumPyro does not have, as NumPyro distributions.

The first two are the normalized densities whose negative logarithm is a penalty:

=============  =======================================  ==========================================
distribution   density                                  normalizer
=============  =======================================  ==========================================
`ElasticNet`   exp(-l1 abs(b) - l2 b^2 / 2)             sqrt(2 pi / l2) erfcx(l1 / sqrt(2 l2))
`GroupLaplace` exp(-rate norm2(b)), b of d components   2^d pi^((d-1)/2) gamma((d+1)/2) / rate^d
=============  =======================================  ==========================================

The normalizers matter as soon as a rate is itself random. `HalfStudentT` is the default prior of a standard
deviation, `Folded` that of coefficients which may not be negative.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import erfcx, gammaln
from numpyro import distributions as dist  # in these words: ArviZ may have put a stand-in for NumPyro in place
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform, biject_to
from numpyro.distributions.util import promote_shapes, validate_sample
from numpyro.util import is_prng_key

from bayesglm._groups import group_norms, group_sizes, spread

__all__ = ["ElasticNet", "Folded", "GroupLaplace", "HalfStudentT"]


class ElasticNet(dist.Distribution):
    """Elastic-net distribution, density proportional to ``exp(-l1 |b| - l2 b**2 / 2)``.

    ``l2 = 0`` is the Laplace distribution of scale ``1 / l1``; ``l1 = 0`` is the normal distribution of
    precision ``l2``. At least one of the two must be positive.

    Parameters
    ----------
    l1, l2 : array_like
        Rates, not negative; they broadcast to the batch shape. Units: 1 / b and 1 / b**2.

    Notes
    -----
    The normalizer uses the scaled complementary error function, which neither overflows nor cancels for
    any ratio of the rates. Source: Hans (2011), "Elastic net regression modeling with the orthant normal
    prior", JASA 106.
    """

    arg_constraints = {"l1": constraints.nonnegative, "l2": constraints.nonnegative}
    support = constraints.real
    reparametrized_params: list[str] = []

    def __init__(self, l1=1.0, l2=1.0, *, validate_args=None):
        self.l1, self.l2 = promote_shapes(l1, l2)
        batch_shape = jnp.broadcast_shapes(jnp.shape(l1), jnp.shape(l2))
        super().__init__(batch_shape=batch_shape, validate_args=validate_args)

    @property
    def log_normalizer(self):
        """Logarithm of the integral of the unnormalized density, of the batch shape."""
        has_l1, has_l2 = self.l1 > 0, self.l2 > 0
        l1 = jnp.where(has_l1, self.l1, 1.0)
        l2 = jnp.where(has_l2, self.l2, 1.0)
        ratio = jnp.where(has_l1, l1, 0.0) / jnp.sqrt(2 * l2)
        both = 0.5 * jnp.log(2 * jnp.pi / l2) + jnp.log(erfcx(ratio))
        return jnp.where(has_l2, both, jnp.log(2.0) - jnp.log(l1))

    @validate_sample
    def log_prob(self, value):
        """Log density at ``value``, of shape ``sample_shape + batch_shape``."""
        return -self.l1 * jnp.abs(value) - 0.5 * self.l2 * value**2 - self.log_normalizer

    def sample(self, key, sample_shape=()):
        """Exact draws: rejection from an exponential, accepted with probability above 0.76."""
        assert is_prng_key(key)
        shape = self.shape(sample_shape)
        dtype = jnp.result_type(self.l1, self.l2, float)
        rate = jnp.broadcast_to((self.l1 + jnp.sqrt(self.l1**2 + 4 * self.l2)) / 2, shape).astype(dtype)
        key_sign, key_size = jax.random.split(key)

        def propose(state):
            key, size, done = state
            key, key_proposal, key_accept = jax.random.split(key, 3)
            proposal = jax.random.exponential(key_proposal, shape, dtype) / rate
            log_accept = -0.5 * self.l2 * (proposal - 1 / rate) ** 2
            accept = jnp.log(jax.random.uniform(key_accept, shape, dtype)) <= log_accept
            return key, jnp.where(done, size, proposal), done | accept

        start = key_size, jnp.zeros(shape, dtype), jnp.zeros(shape, bool)
        _, size, _ = jax.lax.while_loop(lambda state: ~jnp.all(state[2]), propose, start)
        return jnp.where(jax.random.bernoulli(key_sign, shape=shape), size, -size)

    @property
    def mean(self):
        """Zero, of the batch shape."""
        return jnp.zeros(self.batch_shape)

    @property
    def variance(self):
        """Variance, of the batch shape."""
        has_l2 = self.l2 > 0
        l2 = jnp.where(has_l2, self.l2, 1.0)
        l1 = jnp.where(has_l2 | (self.l1 > 0), self.l1, 1.0)
        # |b| is a normal around -l1/l2 cut off at 0; with z = l1/sqrt(l2) its second moment is
        # (1 + z^2 - z h(z)) / l2, h the hazard of the standard normal.
        z = l1 / jnp.sqrt(l2)
        hazard = jnp.sqrt(2 / jnp.pi) / erfcx(z / jnp.sqrt(2.0))
        # The closed form cancels for large z, where |b| is nearly exponential of rate l1.
        safe = jnp.where(z > 0, z, 1.0)
        series = 2 / safe**2 * (1 - 5 / safe**2 + 37 / safe**4)
        scaled = jnp.where(z > 50.0, series, 1 + z**2 - z * hazard)
        laplace = 2 / jnp.where(has_l2, 1.0, l1) ** 2
        return jnp.broadcast_to(jnp.where(has_l2, scaled / l2, laplace), self.batch_shape)

    @property
    def mean_size(self):
        """Mean of the absolute value, of the batch shape."""
        has_l2 = self.l2 > 0
        l2 = jnp.where(has_l2, self.l2, 1.0)
        l1 = jnp.where(has_l2 | (self.l1 > 0), self.l1, 1.0)
        # |b| is a normal around -l1/l2 cut off at 0: its mean is (h(z) - z) / sqrt(l2), which cancels for large z.
        z = l1 / jnp.sqrt(l2)
        hazard = jnp.sqrt(2 / jnp.pi) / erfcx(z / jnp.sqrt(2.0))
        safe = jnp.where(z > 0, z, 1.0)
        series = (1 - 2 / safe**2 + 10 / safe**4) / safe
        scaled = jnp.where(z > 50.0, series, hazard - z)
        laplace = 1 / jnp.where(has_l2, 1.0, l1)
        return jnp.broadcast_to(jnp.where(has_l2, scaled / jnp.sqrt(l2), laplace), self.batch_shape)


class GroupLaplace(dist.Distribution):
    """Joint distribution of coefficients in groups, density proportional to ``exp(-sum_g rate_g |b_g|_2)``.

    A group of one component is a Laplace distribution of scale ``1 / rate``. A group of d components has
    ``|b_g|`` distributed as Gamma(d, rate) and a direction uniform on the sphere. This is not the symmetric
    multivariate Laplace distribution of Kotz, whose density is unbounded at zero for d > 1.

    Parameters
    ----------
    rate : array_like, shape (..., n_groups)
        Positive rates, units 1 / b; leading axes are the batch shape.
    groups : array_like of int
        Group of each component; its shape is the event shape. Components with the value ``n_groups``
        belong to no group: their density is flat (improper), and `sample` draws them from the standard
        normal distribution, as NumPyro's masked distributions do.

    Notes
    -----
    Source: Kyung, Gill, Ghosh and Casella (2010), "Penalized regression, standard errors, and Bayesian
    lassos", Bayesian Analysis 5.
    """

    arg_constraints = {"rate": constraints.independent(constraints.positive, 1), "groups": constraints.dependent}
    reparametrized_params = ["rate"]
    pytree_data_fields = ("rate", "groups")

    def __init__(self, rate, groups, *, validate_args=None):
        self.rate, self.groups = jnp.asarray(rate), jnp.asarray(groups)
        super().__init__(batch_shape=jnp.shape(rate)[:-1], event_shape=jnp.shape(groups), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        """Real arrays of the event shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def n_groups(self):
        """Number of groups."""
        return jnp.shape(self.rate)[-1]

    @property
    def sizes(self):
        """Number of components of each group, shape (n_groups,)."""
        return group_sizes(self.groups, self.n_groups)

    @property
    def log_normalizer(self):
        """Logarithm of the integral of the unnormalized density, of the batch shape."""
        size = self.sizes.astype(jnp.result_type(float))
        volume = size * jnp.log(2.0) + (size - 1) / 2 * jnp.log(jnp.pi) + gammaln((size + 1) / 2)
        return jnp.sum(volume - size * jnp.log(self.rate), -1)

    @validate_sample
    def log_prob(self, value):
        """Log density at ``value`` (..., *event_shape); zero groups have gradient zero."""
        norms = group_norms(value, self.groups, self.n_groups)
        return -jnp.sum(self.rate * norms, -1) - self.log_normalizer

    def sample(self, key, sample_shape=()):
        """Exact draws: a Gamma-distributed length and a uniform direction for each group."""
        assert is_prng_key(key)
        key_length, key_direction = jax.random.split(key)
        shape = self.shape(sample_shape)
        normal = jax.random.normal(key_direction, shape, self.rate.dtype)
        norms = group_norms(normal, self.groups, self.n_groups)
        length = jax.random.gamma(key_length, jnp.maximum(self.sizes, 1).astype(self.rate.dtype), norms.shape)
        stretch = length / (self.rate * jnp.where(norms > 0, norms, 1.0))
        return normal * spread(stretch, self.groups, 1.0)

    @property
    def mean(self):
        """Zero, of the batch and event shape."""
        return jnp.zeros(self.shape())

    @property
    def variance(self):
        """Variance of each component, (d + 1) / rate**2; infinite for components in no group."""
        variance = (self.sizes + 1) / self.rate**2
        return spread(variance, self.groups, jnp.inf)

    @property
    def mean_size(self):
        """Mean of the absolute value of each component; infinite for components in no group."""
        size = self.sizes.astype(jnp.result_type(float))
        share = jnp.exp(gammaln(jnp.maximum(size, 1) / 2) - gammaln((size + 1) / 2)) / jnp.sqrt(jnp.pi)
        return spread(size / self.rate * share, self.groups, jnp.inf)


class _NonnegativeWhere(constraints.Constraint):
    """Real numbers, some of which are not negative."""

    def __init__(self, bounded):
        self.bounded = bounded
        super().__init__()

    def __call__(self, x):
        """Whether each number is what it may be."""
        return ~self.bounded | (x >= 0)

    def feasible_like(self, prototype):
        """Ones."""
        return jnp.ones_like(prototype)

    def tree_flatten(self):
        """Flatten for JAX."""
        return (self.bounded,), (("bounded",), {})

    def eq(self, other, static=False):
        """Whether both bound the same numbers."""
        return isinstance(other, _NonnegativeWhere) and bool(jnp.array_equal(self.bounded, other.bounded))


class _ExpWhere(Transform):
    """Exponential function of those numbers that may not be negative; the others stay."""

    def __init__(self, bounded):
        self.bounded = bounded

    @property
    def codomain(self):
        """Where the result lies."""
        return _NonnegativeWhere(self.bounded)

    def __call__(self, x):
        return jnp.where(self.bounded, jnp.exp(jnp.where(self.bounded, x, 0.0)), x)

    def _inverse(self, y):
        return jnp.where(self.bounded, jnp.log(jnp.where(self.bounded, y, 1.0)), y)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        """Logarithm of the derivative."""
        return jnp.where(self.bounded, x, 0.0)

    def tree_flatten(self):
        """Flatten for JAX."""
        return (self.bounded,), (("bounded",), {})

    def eq(self, other, static=False):
        """Whether both are the same function."""
        return isinstance(other, _ExpWhere) and bool(jnp.array_equal(self.bounded, other.bounded))


@biject_to.register(_NonnegativeWhere)
def _bijection(constraint):
    return _ExpWhere(constraint.bounded)


class Folded(dist.Distribution):
    """Distribution of real numbers, some of them replaced by their absolute values.

    Parameters
    ----------
    base_dist : Distribution
        Symmetric in each of those numbers, such as Normal, Laplace, `ElasticNet` and `GroupLaplace`: the density is
        then the same where they are not negative, but for a factor 2 for each.
    bounded : array_like of bool
        Which numbers; its shape is the event shape.
    """

    arg_constraints = {"bounded": constraints.dependent}
    pytree_data_fields = ("base_dist", "bounded")

    def __init__(self, base_dist, bounded, *, validate_args=None):
        self.base_dist, self.bounded = base_dist, jnp.asarray(bounded)
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        """Real arrays of the event shape, some of whose numbers are not negative."""
        return constraints.independent(_NonnegativeWhere(self.bounded), len(self.event_shape))

    @validate_sample
    def log_prob(self, value):
        """Log density at ``value``, whose bounded numbers are not negative."""
        return self.base_dist.log_prob(value) + jnp.log(2.0) * jnp.sum(self.bounded)

    def sample(self, key, sample_shape=()):
        """Draws of the base, some numbers made positive."""
        draws = self.base_dist.sample(key, sample_shape)
        return jnp.where(self.bounded, jnp.abs(draws), draws)

    @property
    def mean(self):
        """Mean of each number."""
        return jnp.where(self.bounded, _mean_size(self.base_dist), self.base_dist.mean)

    @property
    def variance(self):
        """Variance of each number."""
        return self.base_dist.variance - jnp.where(self.bounded, _mean_size(self.base_dist), 0.0) ** 2


def _mean_size(base):
    """Mean of the absolute value of each number."""
    if isinstance(base, dist.Independent | dist.MaskedDistribution):
        return _mean_size(base.base_dist)
    if isinstance(base, dist.Normal):
        return base.scale * jnp.sqrt(2 / jnp.pi)
    return base.scale if isinstance(base, dist.Laplace) else base.mean_size


class HalfStudentT(dist.Distribution):
    """Absolute value of a Student's t variable, a weakly informative prior of standard deviations.

    Parameters
    ----------
    df, scale : array_like
        Degrees of freedom and scale, both positive.
    """

    arg_constraints = {"df": constraints.positive, "scale": constraints.positive}
    support = constraints.positive
    reparametrized_params = ["scale"]

    def __init__(self, df, scale=1.0, *, validate_args=None):
        self.df, self.scale = promote_shapes(df, scale)
        batch_shape = jnp.broadcast_shapes(jnp.shape(df), jnp.shape(scale))
        super().__init__(batch_shape=batch_shape, validate_args=validate_args)

    @validate_sample
    def log_prob(self, value):
        """Log density at ``value`` > 0."""
        return jnp.log(2.0) + dist.StudentT(self.df, 0.0, self.scale).log_prob(value)

    def sample(self, key, sample_shape=()):
        """Absolute values of draws of Student's t."""
        return jnp.abs(dist.StudentT(self.df, 0.0, self.scale).expand(self.batch_shape).sample(key, sample_shape))
