"""Observation models: the family of y given the linear predictor eta.

Each class is one room of formulas. ``log p(y | eta) = -nll / phi - log_normalizer``, where `nll` is the negative
log-likelihood at unit dispersion without the terms that do not depend on eta. `scale` is a family's second
parameter: phi for Gaussian and Gamma, the overdispersion for NegativeBinomial, whose phi is 1 like that of the
families without a second parameter.

==============================  ==========================================================  =========  =============
observation model               nll                                                         scale      inverse link
==============================  ==========================================================  =========  =============
`PoissonObservations`           mu - y log mu                                                          exp
`GaussianObservations`          (y - mu)^2 / 2                                              variance   identity
`BernoulliObservations`         -y log mu - (1 - y) log(1 - mu)                                        logistic
`BinomialObservations`          that of Bernoulli, y the share of successes                            logistic
`GammaObservations`             y / mu + log mu                                             1 / shape  one_over_x
`NegativeBinomialObservations`  (y + 1/a) log(1 + a mu) - y log(a mu), variance mu + a mu^2  a          exp
`CategoricalObservations`       -sum over classes of y log mu                                          softmax
==============================  ==========================================================  =========  =============

`joint` families have one linear predictor per class, along the last axis of y, eta and mu; their nll is that of each
class, whose sum is that of the sample. All others are elementwise.

Every nll is linear in y up to a term free of eta, or has a second derivative free of y; hence its second
derivative at y = mu is the expected (Fisher) curvature.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, xlogy

from bayesglm._numpyro import dist, own_dist
from bayesglm.links import EXP, IDENTITY, LOGISTIC, ONE_OVER_X, SOFTMAX, Link, softplus

__all__ = [
    "BernoulliObservations",
    "BinomialObservations",
    "CategoricalObservations",
    "GammaObservations",
    "GaussianObservations",
    "NegativeBinomialObservations",
    "PoissonObservations",
    "is_canonical",
]

LARGEST_MEAN = 9e18


def is_canonical(family, link):
    """Whether the second derivative of the nll of a family is the expected one, whatever y is."""
    return link == family.default_link and not family.scale_shapes_mean


@dataclass(frozen=True)
class PoissonObservations:
    """Counts with mean mu and variance mu."""

    default_link: ClassVar[Link] = EXP
    scale: ClassVar[float] = 1.0
    joint: ClassVar[bool] = False
    counts_trials: ClassVar[bool] = False
    scale_shapes_mean: ClassVar[bool] = False
    is_discrete: ClassVar[bool] = True
    is_count: ClassVar[bool] = True
    reports_sigma: ClassVar[bool] = False
    domain: ClassVar[str] = "numbers >= 0"
    mean_domain: ClassVar[tuple[float, float]] = (0.0, np.inf)

    @staticmethod
    def phi(scale):
        """Dispersion, the divisor of nll: one."""
        return scale**0

    @staticmethod
    def nll(y, eta, link, scale):
        """Negative log-likelihood of each sample, without log(y!); infinite where the mean is negative."""
        mean = link.inverse(eta)
        seen = jnp.where(y > 0, eta, link.predictor(jnp.ones((), eta.dtype)))  # y = 0 may have mean 0
        return jnp.where(mean >= 0, mean - y * link.log_inverse(seen), jnp.inf)

    @staticmethod
    def log_normalizer(y, scale):
        """log(y!)."""
        return gammaln(y + 1)

    @staticmethod
    def saturated_nll(y, scale):
        """Smallest nll that any mean gives y, for the deviance."""
        return y - xlogy(y, y)

    @staticmethod
    def unit_variance(mean, scale):
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
    def draw(rng, mean, scale):
        """Random y of the shape of `mean`, from a NumPy generator."""
        return _poisson(rng, mean)

    @staticmethod
    def distribution(eta, link, scale):
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
    joint: ClassVar[bool] = False
    counts_trials: ClassVar[bool] = False
    scale_shapes_mean: ClassVar[bool] = False
    is_discrete: ClassVar[bool] = False
    is_count: ClassVar[bool] = False
    reports_sigma: ClassVar[bool] = True
    domain: ClassVar[str] = "real numbers"
    mean_domain: ClassVar[tuple[float, float]] = (-np.inf, np.inf)

    @staticmethod
    def phi(scale):
        """Dispersion, the divisor of nll: the scale."""
        return scale

    @staticmethod
    def nll(y, eta, link, scale):
        """Half the squared residual of each sample."""
        return 0.5 * (y - link.inverse(eta)) ** 2

    @staticmethod
    def log_normalizer(y, scale):
        """log(2 pi scale) / 2."""
        return 0.5 * jnp.log(2 * jnp.pi * scale) * jnp.ones_like(y)

    @staticmethod
    def saturated_nll(y, scale):
        """Smallest nll that any mean gives y, for the deviance: zero."""
        return jnp.zeros_like(y)

    @staticmethod
    def unit_variance(mean, scale):
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
    def draw(rng, mean, scale):
        """Random y of the shape of `mean`, from a NumPy generator."""
        return rng.normal(mean, np.sqrt(scale)).astype(mean.dtype)

    @staticmethod
    def distribution(eta, link, scale):
        """NumPyro distribution of y."""
        return dist.Normal(link.inverse(eta), jnp.sqrt(scale))

    @staticmethod
    def scale_prior(spread):
        """Prior of the variance: sqrt(variance) ~ HalfStudentT(4), scaled by the standard deviation of y."""
        return _squared(own_dist.HalfStudentT(4.0, spread))


@dataclass(frozen=True)
class BernoulliObservations:
    """Zeros and ones with mean mu."""

    default_link: ClassVar[Link] = LOGISTIC
    scale: ClassVar[float] = 1.0
    joint: ClassVar[bool] = False
    counts_trials: ClassVar[bool] = False
    scale_shapes_mean: ClassVar[bool] = False
    is_discrete: ClassVar[bool] = True
    is_count: ClassVar[bool] = False
    reports_sigma: ClassVar[bool] = False
    domain: ClassVar[str] = "zeros and ones"
    mean_domain: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @staticmethod
    def phi(scale):
        """Dispersion, the divisor of nll: one."""
        return scale**0

    @staticmethod
    def nll(y, eta, link, scale):
        """Cross-entropy of each sample."""
        if link == LOGISTIC:
            return softplus(eta) - y * eta
        # A mean that rounds to 0 or 1 is no impossible one where y is just that.
        middle = link.predictor(jnp.full((), 0.5, eta.dtype))
        yes = link.log_inverse(jnp.where(y > 0, eta, middle))
        no = link.log1m_inverse(jnp.where(y < 1, eta, middle))
        return -y * yes - (1 - y) * no

    @staticmethod
    def log_normalizer(y, scale):
        """Zero."""
        return jnp.zeros_like(y)

    @staticmethod
    def saturated_nll(y, scale):
        """Smallest nll that any mean gives y, for the deviance: zero."""
        return jnp.zeros_like(y)

    @staticmethod
    def unit_variance(mean, scale):
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
    def draw(rng, mean, scale):
        """Random y of the shape of `mean`, from a NumPy generator."""
        return (rng.random(mean.shape) < mean).astype(np.int8)

    @staticmethod
    def distribution(eta, link, scale):
        """NumPyro distribution of y."""
        if link == LOGISTIC:
            return dist.Bernoulli(logits=eta)
        return dist.Bernoulli(probs=link.inverse(eta))


@dataclass(frozen=True)
class BinomialObservations:
    """Successes among a number of trials with mean mu each.

    y is the share of successes, and the trials are weights: so many Bernoulli observations.
    """

    default_link: ClassVar[Link] = LOGISTIC
    scale: ClassVar[float] = 1.0
    joint: ClassVar[bool] = False
    counts_trials: ClassVar[bool] = True
    scale_shapes_mean: ClassVar[bool] = False
    is_discrete: ClassVar[bool] = True
    is_count: ClassVar[bool] = False
    reports_sigma: ClassVar[bool] = False
    domain: ClassVar[str] = "shares from 0 to 1"
    mean_domain: ClassVar[tuple[float, float]] = (0.0, 1.0)

    phi = staticmethod(BernoulliObservations.phi)
    nll = staticmethod(BernoulliObservations.nll)
    log_normalizer = staticmethod(BernoulliObservations.log_normalizer)
    unit_variance = staticmethod(BernoulliObservations.unit_variance)

    @staticmethod
    def saturated_nll(y, scale):
        """Smallest nll that any mean gives y, for the deviance."""
        return -xlogy(y, y) - xlogy(1 - y, 1 - y)

    @staticmethod
    def log_choose(y, trials):
        """Logarithm of the binomial coefficient, what samples add to their log-likelihoods."""
        successes = y * trials
        return gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1)

    @staticmethod
    def outside(y):
        """Where y cannot be an observation of this family."""
        return (y < 0) | (y > 1)

    @staticmethod
    def recession(y):
        """Direction of eta (-1, 0 or 1) in which the nll of each sample falls for ever; 0: there is none."""
        return np.where(y == 0, -1, np.where(y == 1, 1, 0))

    @staticmethod
    def draw(rng, mean, scale, trials=1):
        """Random successes, of one trial if nothing else is said, of the shape of `mean`, from a NumPy generator."""
        return rng.binomial(np.broadcast_to(trials, mean.shape), mean)

    @staticmethod
    def distribution(eta, link, scale, trials=1):
        """NumPyro distribution of the successes."""
        if link == LOGISTIC:
            return dist.Binomial(trials, logits=eta)
        return dist.Binomial(trials, probs=link.inverse(eta))


@dataclass(frozen=True)
class CategoricalObservations:
    """One of several classes, with probabilities mu; y is one where the class is and zero elsewhere."""

    default_link: ClassVar[Link] = SOFTMAX
    scale: ClassVar[float] = 1.0
    joint: ClassVar[bool] = True
    counts_trials: ClassVar[bool] = False
    scale_shapes_mean: ClassVar[bool] = False
    is_discrete: ClassVar[bool] = True
    is_count: ClassVar[bool] = False
    reports_sigma: ClassVar[bool] = False
    domain: ClassVar[str] = "labels"
    mean_domain: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @staticmethod
    def phi(scale):
        """Dispersion, the divisor of nll: one."""
        return scale**0

    @staticmethod
    def nll(y, eta, link, scale):
        """Cross-entropy, what each class contributes to it."""
        return -jnp.where(y > 0, y, 0.0) * jnp.where(y > 0, link.log_inverse(eta), 0.0)

    @staticmethod
    def log_normalizer(y, scale):
        """Zero."""
        return jnp.zeros_like(y)

    @staticmethod
    def saturated_nll(y, scale):
        """Smallest nll that any mean gives y, for the deviance: zero."""
        return jnp.zeros_like(y)

    @staticmethod
    def unit_variance(mean, scale):
        """Variance of each class's indicator."""
        return mean * (1 - mean)

    @staticmethod
    def draw(rng, mean, scale):
        """Random class of each sample, as its number, from a NumPy generator; the last axis of `mean` is gone."""
        steps = np.cumsum(mean, axis=-1)
        return (rng.random(mean.shape[:-1])[..., None] > steps[..., :-1] / steps[..., -1:]).sum(-1)

    @staticmethod
    def distribution(eta, link, scale):
        """NumPyro distribution of the number of the class."""
        return dist.Categorical(logits=eta)


@dataclass(frozen=True)
class GammaObservations:
    """Positive numbers with mean mu and variance phi mu^2.

    Parameters
    ----------
    scale : float or NumPyro distribution, optional
        The dispersion phi, one over the shape, if it is known, or its prior. By default it is estimated by
        `fit`, and sampled under sqrt(phi) ~ HalfNormal(1).
    """

    scale: Any = None

    default_link: ClassVar[Link] = ONE_OVER_X
    joint: ClassVar[bool] = False
    counts_trials: ClassVar[bool] = False
    scale_shapes_mean: ClassVar[bool] = False
    is_discrete: ClassVar[bool] = False
    is_count: ClassVar[bool] = False
    reports_sigma: ClassVar[bool] = False
    domain: ClassVar[str] = "numbers > 0"
    mean_domain: ClassVar[tuple[float, float]] = (0.0, np.inf)

    @staticmethod
    def phi(scale):
        """Dispersion, the divisor of nll: the scale."""
        return scale

    @staticmethod
    def nll(y, eta, link, scale):
        """y / mu + log mu of each sample; infinite where the mean is not positive."""
        mean = link.inverse(eta)
        inside = mean > 0
        safe = jnp.where(inside, eta, link.predictor(jnp.ones((), eta.dtype)))
        return jnp.where(inside, y / link.inverse(safe) + link.log_inverse(safe), jnp.inf)

    @staticmethod
    def log_normalizer(y, scale):
        """log(gamma(shape)) - shape log(shape) - (shape - 1) log(y)."""
        shape = 1 / scale
        return gammaln(shape) - shape * jnp.log(shape) - (shape - 1) * jnp.log(y)

    @staticmethod
    def saturated_nll(y, scale):
        """Smallest nll that any mean gives y, for the deviance."""
        return 1 + jnp.log(y)

    @staticmethod
    def unit_variance(mean, scale):
        """Variance at unit dispersion."""
        return mean**2

    @staticmethod
    def outside(y):
        """Where y cannot be an observation of this family."""
        return y <= 0

    @staticmethod
    def recession(y):
        """Direction of eta in which the nll of each sample falls for ever: there is none."""
        return np.zeros(y.shape, int)

    @staticmethod
    def draw(rng, mean, scale):
        """Random y of the shape of `mean`, from a NumPy generator."""
        return rng.gamma(1 / np.asarray(scale), mean * scale).astype(mean.dtype)

    @staticmethod
    def distribution(eta, link, scale):
        """NumPyro distribution of y."""
        return dist.Gamma(1 / scale, 1 / (scale * link.inverse(eta)))

    @staticmethod
    def scale_prior(spread):
        """Prior of the dispersion: its square root ~ HalfNormal(1), whatever the spread of y."""
        return _squared(dist.HalfNormal(jnp.ones_like(spread)))


@dataclass(frozen=True)
class NegativeBinomialObservations:
    """Counts with mean mu and variance mu + scale mu^2.

    Parameters
    ----------
    scale : float, None or NumPyro distribution
        The overdispersion. A number is fixed. None is learned: `fit` maximizes the likelihood over it, and
        `sample` draws it under sqrt(scale) ~ HalfNormal(1). A distribution is its prior in `sample`.
    """

    scale: Any = 1.0

    default_link: ClassVar[Link] = EXP
    joint: ClassVar[bool] = False
    counts_trials: ClassVar[bool] = False
    scale_shapes_mean: ClassVar[bool] = True
    is_discrete: ClassVar[bool] = True
    is_count: ClassVar[bool] = True
    reports_sigma: ClassVar[bool] = False
    domain: ClassVar[str] = "numbers >= 0"
    mean_domain: ClassVar[tuple[float, float]] = (0.0, np.inf)

    @staticmethod
    def phi(scale):
        """Dispersion, the divisor of nll: one."""
        return scale**0

    @staticmethod
    def nll(y, eta, link, scale):
        """Negative log-likelihood of each sample, without the gamma functions of y and scale."""
        odds = jnp.log(scale) + link.log_inverse(eta)
        # (y + 1 / a) log(1 + a mu) - y log(a mu), without the difference of large numbers.
        return y * softplus(-odds) + softplus(odds) / scale

    @staticmethod
    def log_normalizer(y, scale):
        """Minus the logarithm of the binomial coefficient."""
        return gammaln(1 / scale) + gammaln(y + 1) - gammaln(y + 1 / scale)

    @staticmethod
    def saturated_nll(y, scale):
        """Smallest nll that any mean gives y, for the deviance."""
        return (y + 1 / scale) * jnp.log1p(scale * y) - xlogy(y, scale * y)

    @staticmethod
    def unit_variance(mean, scale):
        """Variance of y."""
        return mean + scale * mean**2

    @staticmethod
    def outside(y):
        """Where y cannot be an observation of this family."""
        return y < 0

    @staticmethod
    def recession(y):
        """Direction of eta (-1 or 0) in which the nll of each sample falls for ever; 0: there is none."""
        return np.where(y == 0, -1, 0)

    @staticmethod
    def draw(rng, mean, scale):
        """Random y of the shape of `mean`, from a NumPy generator."""
        return _poisson(rng, rng.gamma(1 / np.asarray(scale), mean * scale))

    @staticmethod
    def distribution(eta, link, scale):
        """NumPyro distribution of y."""
        return dist.NegativeBinomial2(link.inverse(eta), 1 / scale)

    @staticmethod
    def scale_prior(spread):
        """Prior of the overdispersion: its square root ~ HalfNormal(1), whatever the spread of y."""
        return _squared(dist.HalfNormal(jnp.ones_like(spread)))


def _poisson(rng, mean):
    """Poisson draws; means beyond the integers that NumPy can draw are cut off there, rather than raise."""
    return rng.poisson(np.clip(np.nan_to_num(mean, nan=0.0), 0.0, LARGEST_MEAN))


def _squared(distribution):
    """Distribution of the square of a positive variable."""
    return dist.TransformedDistribution(distribution, dist.transforms.PowerTransform(2.0))
