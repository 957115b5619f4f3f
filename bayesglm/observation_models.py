"""Observation models: the family of y given the linear predictor eta.

Each class is one room of formulas. With phi the dispersion, ``log p(y | eta) = -nll / phi - log_normalizer``,
where `nll` is the negative log-likelihood at unit dispersion without the terms that do not depend on eta:

=======================  ============================================  ============  ==================
observation model        nll                                           dispersion    default inverse link
=======================  ============================================  ============  ==================
`PoissonObservations`    mu - y log mu                                 1             exp
`GaussianObservations`   (y - mu)^2 / 2                                variance      identity
`BernoulliObservations`  -y log mu - (1 - y) log(1 - mu)               1             logistic
=======================  ============================================  ============  ==================

Every nll is linear in y up to a term free of eta, or has a second derivative free of y; hence its second
derivative at y = mu is the expected (Fisher) curvature.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln, xlogy

from bayesglm.distributions import HalfStudentT
from bayesglm.links import EXP, IDENTITY, LOGISTIC, Link

__all__ = ["BernoulliObservations", "GaussianObservations", "PoissonObservations"]


@dataclass(frozen=True)
class PoissonObservations:
    """Counts with mean mu and variance mu."""

    default_link: ClassVar[Link] = EXP
    has_dispersion: ClassVar[bool] = False
    is_count: ClassVar[bool] = True
    reports_sigma: ClassVar[bool] = False
    domain: ClassVar[str] = "numbers >= 0"

    @staticmethod
    def nll(y, eta, link):
        """Negative log-likelihood of each sample, without log(y!)."""
        return link.inverse(eta) - y * link.log_inverse(eta)

    @staticmethod
    def log_normalizer(y, phi):
        """log(y!)."""
        return gammaln(y + 1)

    @staticmethod
    def saturated_nll(y):
        """Smallest nll that any mean gives y, for the deviance."""
        return y - xlogy(y, y)

    @staticmethod
    def unit_variance(mean):
        """Variance at unit dispersion."""
        return mean

    @staticmethod
    def outside(y):
        """Where y cannot be an observation of this family."""
        return y < 0

    @staticmethod
    def recession(y):
        """Direction of eta (-1, 0 or 1) in which the nll of each sample falls for ever; 0: there is none."""
        return np.where(y == 0, -1, 0)

    @staticmethod
    def draw(rng, mean, phi):
        """Random y of the shape of `mean`, from a NumPy generator."""
        return rng.poisson(mean)

    @staticmethod
    def distribution(eta, link, phi):
        """NumPyro distribution of y."""
        return dist.Poisson(link.inverse(eta))


@dataclass(frozen=True)
class GaussianObservations:
    """Real numbers with mean mu and a common variance.

    Parameters
    ----------
    scale : float or NumPyro distribution, optional
        The variance, if it is known, or its prior. By default it is estimated by `fit`, and sampled under
        sqrt(variance) ~ HalfStudentT(4 degrees of freedom, scale sd(y)).
    """

    scale: Any = None

    default_link: ClassVar[Link] = IDENTITY
    has_dispersion: ClassVar[bool] = True
    is_count: ClassVar[bool] = False
    reports_sigma: ClassVar[bool] = True
    domain: ClassVar[str] = "real numbers"

    @staticmethod
    def nll(y, eta, link):
        """Half the squared residual of each sample."""
        return 0.5 * (y - link.inverse(eta)) ** 2

    @staticmethod
    def log_normalizer(y, phi):
        """log(2 pi phi) / 2."""
        return 0.5 * jnp.log(2 * jnp.pi * phi) * jnp.ones_like(y)

    @staticmethod
    def saturated_nll(y):
        """Smallest nll that any mean gives y, for the deviance: zero."""
        return jnp.zeros_like(y)

    @staticmethod
    def unit_variance(mean):
        """Variance at unit dispersion: one."""
        return jnp.ones_like(mean)

    @staticmethod
    def outside(y):
        """Where y cannot be an observation of this family: nowhere."""
        return np.zeros(y.shape, bool)

    @staticmethod
    def recession(y):
        """Direction of eta in which the nll of each sample falls for ever: there is none."""
        return np.zeros(y.shape, int)

    @staticmethod
    def draw(rng, mean, phi):
        """Random y of the shape of `mean`, from a NumPy generator."""
        return rng.normal(mean, np.sqrt(phi)).astype(mean.dtype)

    @staticmethod
    def distribution(eta, link, phi):
        """NumPyro distribution of y."""
        return dist.Normal(link.inverse(eta), jnp.sqrt(phi))

    @staticmethod
    def dispersion_prior(spread):
        """Prior of the variance: sqrt(variance) ~ HalfStudentT(4), scaled by the standard deviation of y."""
        sigma = HalfStudentT(4.0, spread)
        return dist.TransformedDistribution(sigma, dist.transforms.PowerTransform(2.0))


@dataclass(frozen=True)
class BernoulliObservations:
    """Zeros and ones with mean mu."""

    default_link: ClassVar[Link] = LOGISTIC
    has_dispersion: ClassVar[bool] = False
    is_count: ClassVar[bool] = False
    reports_sigma: ClassVar[bool] = False
    domain: ClassVar[str] = "zeros and ones"

    @staticmethod
    def nll(y, eta, link):
        """Cross-entropy of each sample."""
        return -y * link.log_inverse(eta) - (1 - y) * link.log1m_inverse(eta)

    @staticmethod
    def log_normalizer(y, phi):
        """Zero."""
        return jnp.zeros_like(y)

    @staticmethod
    def saturated_nll(y):
        """Smallest nll that any mean gives y, for the deviance: zero."""
        return jnp.zeros_like(y)

    @staticmethod
    def unit_variance(mean):
        """Variance of y."""
        return mean * (1 - mean)

    @staticmethod
    def outside(y):
        """Where y cannot be an observation of this family."""
        return (y != 0) & (y != 1)

    @staticmethod
    def recession(y):
        """Direction of eta (-1 or 1) in which the nll of each sample falls for ever."""
        return np.where(y == 0, -1, 1)

    @staticmethod
    def draw(rng, mean, phi):
        """Random y of the shape of `mean`, from a NumPy generator."""
        return (rng.random(mean.shape) < mean).astype(np.int8)

    @staticmethod
    def distribution(eta, link, phi):
        """NumPyro distribution of y."""
        if link == LOGISTIC:
            return dist.Bernoulli(logits=eta)
        return dist.Bernoulli(probs=link.inverse(eta))
