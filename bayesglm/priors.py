"""Regularizers, each a penalty and the prior that it is.

With k = W / dispersion (W the sum of the sample weights), ``exp(-k * penalty)`` is the prior's density up to
a constant that the distribution supplies:

==============  ========================================  =================================================
regularizer     penalty                                   prior of a coefficient
==============  ========================================  =================================================
`UnRegularized` 0                                         flat
`Ridge`         sum s w^2 / 2                             Normal(0, 1 / sqrt(k s))
`Lasso`         sum s abs(w)                              Laplace(0, 1 / (k s))
`ElasticNet`    sum s (r abs(w) + (1 - r) w^2 / 2)        density ~ exp(-k s (r abs(w) + (1 - r) w^2 / 2))
`GroupLasso`    sum over groups s_g sqrt(p_g) norm2(w_g)  density ~ exp(-k s_g sqrt(p_g) norm2(w_g))
==============  ========================================  =================================================

Each class is one room: the formulas stand side by side and speak of an array of coefficients of any shape.
Coefficients that may not be negative have the same penalty, and the density twice as large on the other half: see
`nonnegative`.

`strength` is an array of that shape for `Ridge` and `Lasso`, a pair of them (strength, ratio) for
`ElasticNet`, and (s_g sqrt(p_g) of each group, group of each coefficient) for `GroupLasso`. Strength 0 is flat.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from bayesglm._groups import group_norms, group_sizes, spread
from bayesglm._numpyro import dist, own_dist

__all__ = ["ElasticNet", "GroupLasso", "Lasso", "Ridge", "UnRegularized"]


class Mixing(NamedTuple):
    """A prior as a scale mixture of normals, at k = 1.

    L variances v have densities proportional to ``v^((d - 1) / 2) (1 + c v)^(-1/2) exp(-a^2 v / 2)``; given its v, a
    coefficient is Normal(0, sqrt(v / (1 + c v))).
    """

    index: Any  # of the shape of the coefficients: whose variance each has; L: no prior
    size: Any  # (L,) d, the number of coefficients that share a variance
    slope: Any  # (L,) a; 0: no prior
    bend: Any  # (L,) c


class _Penalty:
    """What all penalties share."""

    smooth: ClassVar[bool]
    has_bounds: ClassVar[bool] = False

    @classmethod
    def is_flat(cls, strength):
        """Which coefficients have a flat prior."""
        raise NotImplementedError

    @classmethod
    def has_kink(cls, strength):
        """Which coefficients the penalty may hold at zero."""
        flat = cls.is_flat(strength)
        return jnp.zeros_like(flat) if cls.smooth else ~flat

    @staticmethod
    def outward(grad, strength):
        """Sign of changes of the loss's gradient that drive coefficients away from zero."""
        return jnp.sign(grad)


class _Separable(_Penalty):
    """What penalties share that are a sum over coefficients."""

    separable: ClassVar[bool] = True

    @staticmethod
    def rows(strength, features):
        """Strength of some features."""
        return jax.tree.map(lambda leaf: leaf[features], strength)

    @staticmethod
    def times(strength, factor):
        """Strength of `factor` times the penalty."""
        return strength * factor

    @staticmethod
    def common(metric, strength):
        """Metric in which `prox` may be taken: any."""
        return metric


@dataclass(frozen=True)
class UnRegularized(_Separable):
    """No penalty: a flat prior."""

    smooth: ClassVar[bool] = True
    has_mixing: ClassVar[bool] = False

    @staticmethod
    def penalty(coef, strength):
        """Zero."""
        return jnp.zeros((), coef.dtype)

    @staticmethod
    def prox(coef, strength, step):
        """Return `coef`: nothing pulls on it."""
        return coef

    @staticmethod
    def face(coef, near, strength):
        """Point of the face of the penalty that `near` lies on, as close to `coef` as possible: `coef`."""
        return coef

    @staticmethod
    def curvature(coef, strength, sd):
        """Zero."""
        return jnp.zeros_like(coef)

    @staticmethod
    def is_flat(strength):
        """Which coefficients have a flat prior: all."""
        return jnp.ones_like(strength, bool)

    @staticmethod
    def distribution(strength, k):
        """Flat density; a draw, where one is asked for, is standard normal."""
        return dist.Normal(jnp.zeros_like(strength), 1.0).mask(False).to_event(jnp.ndim(strength))


@dataclass(frozen=True)
class Ridge(_Separable):
    """Sum of s w^2 / 2: a normal prior of precision k s."""

    smooth: ClassVar[bool] = True
    has_mixing: ClassVar[bool] = False

    @staticmethod
    def penalty(coef, strength):
        """Penalty, a scalar."""
        return 0.5 * jnp.sum(strength * coef**2)

    @staticmethod
    def prox(coef, strength, step):
        """Minimizer over w of (w - coef)^2 / (2 step) + penalty(w)."""
        return coef / (1 + step * strength)

    @staticmethod
    def face(coef, near, strength):
        """Point of the face of the penalty that `near` lies on, as close to `coef` as possible: `coef`."""
        return coef

    @staticmethod
    def curvature(coef, strength, sd):
        """Curvature of the penalty, averaged over a posterior of standard deviation `sd`."""
        return strength

    @staticmethod
    def threshold(grad, curvature, strength):
        """Factors of the penalty at which coefficients are shrunk to a hundredth.

        Parameters
        ----------
        grad, curvature : array of the shape of the coefficients
            Of the loss where those with a penalty are zero.
        """
        return jnp.where(strength > 0, 99 * curvature / jnp.where(strength > 0, strength, 1.0), 0.0)

    @staticmethod
    def is_flat(strength):
        """Which coefficients have a flat prior."""
        return strength == 0

    @staticmethod
    def distribution(strength, k):
        """Prior with density proportional to exp(-k penalty)."""
        proper, rate = _proper(k * strength)
        return dist.Normal(0.0, 1 / jnp.sqrt(rate)).mask(proper).to_event(jnp.ndim(strength))


@dataclass(frozen=True)
class Lasso(_Separable):
    """Sum of s abs(w): a Laplace prior of scale 1 / (k s)."""

    smooth: ClassVar[bool] = False
    has_mixing: ClassVar[bool] = True

    @staticmethod
    def penalty(coef, strength):
        """Penalty, a scalar."""
        return jnp.sum(strength * jnp.abs(coef))

    @staticmethod
    def prox(coef, strength, step):
        """Minimizer over w of (w - coef)^2 / (2 step) + penalty(w): the soft threshold."""
        return jnp.sign(coef) * jnp.maximum(jnp.abs(coef) - step * strength, 0.0)

    @staticmethod
    def face(coef, near, strength):
        """Stop at the kink at zero: coefficients whose sign is no longer that of `near` become zero."""
        return jnp.where((coef * near >= 0) | Lasso.is_flat(strength), coef, 0.0)

    @staticmethod
    def curvature(coef, strength, sd):
        """Curvature of the quadratic that touches the penalty at the typical size of the coefficient."""
        return strength / jnp.sqrt(coef**2 + sd**2)

    @staticmethod
    def threshold(grad, curvature, strength):
        """Factors of the penalty from which on coefficients are zero, where `grad` is that of the loss at zero."""
        return jnp.where(strength > 0, jnp.abs(grad) / jnp.where(strength > 0, strength, 1.0), 0.0)

    @staticmethod
    def is_flat(strength):
        """Which coefficients have a flat prior."""
        return strength == 0

    @staticmethod
    def mixing(strength):
        """Prior as a scale mixture: exponential variances."""
        return _mixing_of_each(strength, jnp.zeros_like(strength))

    @staticmethod
    def distribution(strength, k):
        """Prior with density proportional to exp(-k penalty)."""
        proper, rate = _proper(k * strength)
        return dist.Laplace(0.0, 1 / rate).mask(proper).to_event(jnp.ndim(strength))


@dataclass(frozen=True)
class ElasticNet(_Separable):
    """Sum of s (r abs(w) + (1 - r) w^2 / 2), 0 < r <= 1: between `Ridge` and `Lasso`."""

    smooth: ClassVar[bool] = False
    has_mixing: ClassVar[bool] = True

    @staticmethod
    def times(strength, factor):
        """Strength of `factor` times the penalty."""
        size, ratio = strength
        return size * factor, ratio

    @staticmethod
    def penalty(coef, strength):
        """Penalty, a scalar."""
        size, ratio = strength
        return jnp.sum(size * (ratio * jnp.abs(coef) + 0.5 * (1 - ratio) * coef**2))

    @staticmethod
    def prox(coef, strength, step):
        """Minimizer over w of (w - coef)^2 / (2 step) + penalty(w): threshold, then shrink."""
        size, ratio = strength
        return Ridge.prox(Lasso.prox(coef, size * ratio, step), size * (1 - ratio), step)

    @staticmethod
    def face(coef, near, strength):
        """Stop at the kink at zero: coefficients whose sign is no longer that of `near` become zero."""
        return jnp.where((coef * near >= 0) | ElasticNet.is_flat(strength), coef, 0.0)

    @staticmethod
    def curvature(coef, strength, sd):
        """Sum of the curvatures of the two parts."""
        size, ratio = strength
        return Lasso.curvature(coef, size * ratio, sd) + size * (1 - ratio)

    @staticmethod
    def threshold(grad, curvature, strength):
        """Factors of the penalty from which on coefficients are zero, where `grad` is that of the loss at zero."""
        size, ratio = strength
        return Lasso.threshold(grad, curvature, size * ratio)

    @staticmethod
    def is_flat(strength):
        """Which coefficients have a flat prior."""
        return strength[0] == 0

    @staticmethod
    def mixing(strength):
        """Prior as a scale mixture (1 + c v tilts the exponential variances)."""
        size, ratio = strength
        return _mixing_of_each(size * ratio, size * (1 - ratio))

    @staticmethod
    def distribution(strength, k):
        """Prior with density proportional to exp(-k penalty)."""
        size, ratio = strength
        proper, rate = _proper(k * size)
        elastic = own_dist.ElasticNet(rate * ratio, rate * (1 - ratio))
        return elastic.mask(proper).to_event(jnp.ndim(size))


@dataclass(frozen=True, eq=False)  # a mask may be an array, which has neither a hash nor one truth value
class GroupLasso(_Penalty):
    """Sum over groups of s_g sqrt(p_g) norm2(w_g): keeps or drops whole groups.

    Parameters
    ----------
    mask : array_like or tree of array_like, optional
        Zeros and ones of shape (n_groups, *coef.shape), or a tree like X with leaves
        (n_groups, *leaf's coef.shape). A coefficient may be in one group at most; those in none are flat.
        Groups may span leaves and outputs. Default: one group per leaf and output.
    """

    mask: Any = None
    smooth: ClassVar[bool] = False
    has_mixing: ClassVar[bool] = True
    separable: ClassVar[bool] = False

    @staticmethod
    def penalty(coef, strength):
        """Penalty, a scalar; a group that spans leaves or outputs has one joint norm."""
        rate, groups = strength
        return jnp.sum(rate * group_norms(coef, groups, rate.shape[-1]))

    @staticmethod
    def prox(coef, strength, step):
        """Minimizer over w of |w - coef|^2 / (2 step) + penalty(w); `step` is constant within groups."""
        rate, groups = strength
        norms = spread(group_norms(coef, groups, rate.shape[-1]), groups, 1.0)
        threshold = step * spread(rate, groups, 0.0)
        keep = norms > threshold
        return jnp.where(keep | (threshold == 0), coef * (1 - threshold / jnp.where(keep, norms, 1.0)), 0.0)

    @staticmethod
    def face(coef, near, strength):
        """Point of the face of the penalty that `near` lies on, as close to `coef` as possible: `coef`."""
        return coef

    @staticmethod
    def times(strength, factor):
        """Strength of `factor` times the penalty."""
        rate, groups = strength
        return rate * factor, groups

    @staticmethod
    def rows(strength, features):
        """Strength of some features; the others are taken to be zero."""
        rate, groups = strength
        return rate, groups[features]

    @staticmethod
    def common(metric, strength):
        """Metric in which `prox` may be taken: constant within groups, the largest value in each."""
        size, groups = strength
        largest = jnp.zeros(size.shape[-1] + 1, metric.dtype).at[groups].max(metric)
        return jnp.where(groups < size.shape[-1], largest[groups], metric)

    @staticmethod
    def curvature(coef, strength, sd):
        """Curvature of the quadratic that touches the penalty at the typical length of the group."""
        rate, groups = strength
        norms = group_norms(jnp.sqrt(coef**2 + sd**2), groups, rate.shape[-1])
        return spread(rate / jnp.where(norms > 0, norms, 1.0), groups, 0.0)

    @staticmethod
    def threshold(grad, curvature, strength):
        """Factors of the penalty from which on groups are zero, where `grad` is that of the loss at zero."""
        rate, groups = strength
        norms = group_norms(grad, groups, rate.shape[-1])
        return spread(jnp.where(rate > 0, norms / jnp.where(rate > 0, rate, 1.0), 0.0), groups, 0.0)

    @staticmethod
    def is_flat(strength):
        """Which coefficients have a flat prior: those in no group or in one of strength 0."""
        size, groups = strength
        return spread(size == 0, groups, True)

    @staticmethod
    def mixing(strength):
        """Prior as a scale mixture: one gamma-distributed variance per group."""
        rate, groups = strength
        size = group_sizes(groups, rate.shape[-1]).astype(rate.dtype)
        return Mixing(groups, size, rate, jnp.zeros_like(rate))

    @staticmethod
    def distribution(strength, k):
        """Prior with density proportional to exp(-k penalty)."""
        rate, groups = strength
        proper, safe = _proper(k * rate)
        groups = jnp.where(spread(proper, groups, False), groups, rate.shape[-1])
        return own_dist.GroupLaplace(safe, groups)


class Bounded(NamedTuple):
    """Strength of a penalty some of whose coefficients may not be negative."""

    strength: Any  # as the penalty takes it
    bounded: Any  # of the shape of the coefficients: which may not be negative


class _Nonnegative:
    """A penalty on coefficients some of which may not be negative: their zero is a kink, whatever the penalty.

    Its `strength` is a `Bounded`, so that which coefficients are bounded is data. Samplers see a coefficient as the
    absolute value of one that may be negative and has the penalty's own, symmetric prior.
    """

    inner: ClassVar[Any]
    smooth: ClassVar[bool] = False
    has_bounds: ClassVar[bool] = True

    @classmethod
    def penalty(cls, coef, strength):
        """Penalty, a scalar; of coefficients within the bounds."""
        return cls.inner.penalty(coef, strength.strength)

    @classmethod
    def prox(cls, coef, strength, step):
        """Minimizer over w within the bounds of |w - coef|^2 / (2 step) + penalty(w)."""
        return cls.inner.prox(_clip(coef, strength), strength.strength, step)

    @classmethod
    def face(cls, coef, near, strength):
        """Point of the face of the penalty that `near` lies on, as close to `coef` as possible, within the bounds."""
        return _clip(cls.inner.face(coef, near, strength.strength), strength)

    @classmethod
    def common(cls, metric, strength):
        """Metric in which `prox` may be taken."""
        return cls.inner.common(metric, strength.strength)

    @classmethod
    def rows(cls, strength, features):
        """Strength of some features."""
        return Bounded(cls.inner.rows(strength.strength, features), strength.bounded[features])

    @classmethod
    def times(cls, strength, factor):
        """Strength of `factor` times the penalty."""
        return Bounded(cls.inner.times(strength.strength, factor), strength.bounded)

    @classmethod
    def curvature(cls, coef, strength, sd):
        """Curvature of the penalty, as far as it is not that of the bounds."""
        return cls.inner.curvature(coef, strength.strength, sd)

    @classmethod
    def threshold(cls, grad, curvature, strength):
        """Factors of the penalty from which on coefficients are zero, or, without a kink, shrunk to a hundredth."""
        return cls.inner.threshold(-_clip(-grad, strength), curvature, strength.strength)

    @classmethod
    def is_flat(cls, strength):
        """Which coefficients have a flat prior, within their bounds."""
        return cls.inner.is_flat(strength.strength)

    @classmethod
    def has_kink(cls, strength):
        """Which coefficients the penalty or their bound may hold at zero."""
        return cls.inner.has_kink(strength.strength) | strength.bounded

    @classmethod
    def outward(cls, grad, strength):
        """Sign of changes of the loss's gradient that drive coefficients away from zero."""
        return jnp.where(strength.bounded, -1.0, cls.inner.outward(grad, strength.strength))

    @classmethod
    def mixing(cls, strength):
        """Symmetric prior as a scale mixture."""
        return cls.inner.mixing(strength.strength)

    @staticmethod
    def fold(coef, strength):
        """Coefficients that those which may be negative stand for."""
        return jnp.where(strength.bounded, jnp.abs(coef), coef)

    @classmethod
    def distribution(cls, strength, k):
        """Prior with density proportional to exp(-k penalty) within the bounds."""
        return own_dist.Folded(cls.inner.distribution(strength.strength, k), strength.bounded)


def _clip(coef, strength):
    return jnp.where(strength.bounded, jnp.maximum(coef, 0.0), coef)


class NonnegativeUnRegularized(_Nonnegative, UnRegularized):
    """No penalty, some coefficients bounded: a flat prior on [0, inf)."""

    inner = UnRegularized


class NonnegativeRidge(_Nonnegative, Ridge):
    """Ridge, some coefficients bounded: a half-normal prior."""

    inner = Ridge


class NonnegativeLasso(_Nonnegative, Lasso):
    """Lasso, some coefficients bounded: an exponential prior."""

    inner = Lasso


class NonnegativeElasticNet(_Nonnegative, ElasticNet):
    """ElasticNet, some coefficients bounded."""

    inner = ElasticNet


class NonnegativeGroupLasso(_Nonnegative, GroupLasso):
    """GroupLasso, some coefficients bounded."""

    inner = GroupLasso


NONNEGATIVE: dict[type, type] = {
    kind.inner: kind
    for kind in (
        NonnegativeUnRegularized,
        NonnegativeRidge,
        NonnegativeLasso,
        NonnegativeElasticNet,
        NonnegativeGroupLasso,
    )
}


def nonnegative(prior):
    """Regularizer of the same penalty for coefficients some of which may not be negative."""
    return NONNEGATIVE[type(prior)](**{field.name: getattr(prior, field.name) for field in fields(prior)})


def bound(strength, bounded):
    """Strength as the prior takes it where some coefficients may not be negative; `bounded` is None if all may be."""
    return strength if bounded is None else Bounded(strength, bounded)


def _mixing_of_each(slope, bend):
    """Mixing with a variance per coefficient."""
    index = jnp.arange(slope.size).reshape(slope.shape)
    return Mixing(index, jnp.ones(slope.size, slope.dtype), slope.ravel(), bend.ravel())


def _proper(rate):
    """Where the rate is positive, and the rate with ones elsewhere, so that no formula divides by zero."""
    proper = rate > 0
    return proper, jnp.where(proper, rate, 1.0)
