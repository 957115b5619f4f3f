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
`strength` is an array of that shape for `Ridge` and `Lasso`, a pair of them (strength, ratio) for
`ElasticNet`, and (s_g sqrt(p_g) of each group, group of each coefficient) for `GroupLasso`. Strength 0 is flat.
"""

from dataclasses import dataclass
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


class _Separable:
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
class GroupLasso:
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


def _mixing_of_each(slope, bend):
    """Mixing with a variance per coefficient."""
    index = jnp.arange(slope.size).reshape(slope.shape)
    return Mixing(index, jnp.ones(slope.size, slope.dtype), slope.ravel(), bend.ravel())


def _proper(rate):
    """Where the rate is positive, and the rate with ones elsewhere, so that no formula divides by zero."""
    proper = rate > 0
    return proper, jnp.where(proper, rate, 1.0)
