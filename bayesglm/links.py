"""Inverse link functions: from the linear predictor eta to the mean.

A link also knows the logarithms of the mean and of one minus the mean, which families need and which lose
all their digits when they are computed from the mean itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtri
from jax.scipy.stats import norm

__all__ = [
    "CLOGLOG",
    "EXP",
    "IDENTITY",
    "LINKS",
    "LOGISTIC",
    "NORM_CDF",
    "ONE_OVER_X",
    "OWN_LINKS",
    "SOFTMAX",
    "SOFTPLUS",
    "Link",
    "public_address",
    "softplus",
]

# Modules in which JAX's callables are looked up by name, since most of them cannot be pickled.
PUBLIC_MODULES = {
    "jax.numpy": jnp,
    "jax.nn": jax.nn,
    "jax.scipy.special": jax.scipy.special,
    "jax.scipy.stats.norm": norm,
}
BISECTIONS = 80


@dataclass(frozen=True)
class Link:
    """An inverse link function and what families derive from it.

    Links are equal if their functions are the same objects, so that equal links share compiled programs;
    the links of this module are pickled and copied by name.

    Parameters
    ----------
    name : str
        What the user calls it.
    inverse : callable
        Mean as an increasing function of the linear predictor.
    log_mean, log_complement : callable, optional
        log(mean) and log(1 - mean) as functions of the linear predictor, where there is a better way than
        through the mean.
    forward : callable, optional
        Linear predictor as a function of the mean; by default found by bisection.
    """

    name: str
    inverse: Callable
    log_mean: Callable | None = None
    log_complement: Callable | None = None
    forward: Callable | None = None

    def __reduce__(self):
        if OWN_LINKS.get(self.name) is self:
            return _by_name, (self.name,)
        functions = (self.inverse, self.log_mean, self.log_complement, self.forward)
        return _restore, (self.name, [public_address(function) or function for function in functions])

    def log_inverse(self, eta):
        """log(mean) at eta."""
        return jnp.log(self.inverse(eta)) if self.log_mean is None else self.log_mean(eta)

    def log1m_inverse(self, eta):
        """log(1 - mean) at eta."""
        return jnp.log1p(-self.inverse(eta)) if self.log_complement is None else self.log_complement(eta)

    def predictor(self, mean):
        """Linear predictor that gives a mean; used only to start the solver."""
        if self.forward is not None:
            return self.forward(mean)

        def halve(_, bounds):
            low, high = bounds
            middle = (low + high) / 2
            below = self.inverse(middle) < mean
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.full_like(mean, -50.0), jnp.full_like(mean, 50.0)))
        return (low + high) / 2


def _by_name(name):
    return OWN_LINKS[name]


def _restore(name, functions):
    """A Link from functions and addresses of functions."""
    found = [getattr(PUBLIC_MODULES[f[0]], f[1]) if isinstance(f, tuple) else f for f in functions]
    return Link(name, *found)


def public_address(function):
    """Module and name under which JAX publishes a function, or None."""
    name = getattr(function, "__name__", None)
    if name is None:
        return None
    for module, content in PUBLIC_MODULES.items():
        if getattr(content, name, None) is function:
            return module, name
    return None


def _same(eta):
    return eta


def _log1m(eta):
    return jnp.log1p(-eta)


def _log1m_exp(eta):
    return jnp.log1p(-jnp.exp(eta))


def _log_sigmoid_minus(eta):
    return jax.nn.log_sigmoid(-eta)


def _logit(mean):
    return jnp.log(mean) - jnp.log1p(-mean)


def _log_softplus(eta):
    # softplus is exp to all digits below -40, where its logarithm would underflow.
    low = eta < -40
    return jnp.where(low, eta, jnp.log(jax.nn.softplus(jnp.where(low, 0.0, eta))))


def _inverse_softplus(mean):
    return mean + jnp.log(-jnp.expm1(-mean))


def _log_ndtr_minus(eta):
    return log_ndtr(-eta)


def _complementary_log_log(eta):
    return -jnp.expm1(-jnp.exp(eta))


def _log_complementary_log_log(eta):
    # It is exp to all digits below -40, where its logarithm would underflow.
    low = eta < -40
    return jnp.where(low, eta, jnp.log(_complementary_log_log(jnp.where(low, 0.0, eta))))


def _minus_exp(eta):
    return -jnp.exp(eta)


def _log_minus_log1m(mean):
    return jnp.log(-jnp.log1p(-mean))


def _reciprocal(x):
    return 1 / x


def _minus_log(eta):
    return -jnp.log(eta)


@jax.custom_jvp
def softplus(eta):
    """log(1 + exp(eta)); it and all its derivatives cost one exponential, where JAX's own takes three."""
    return jnp.maximum(eta, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(eta)))


@jax.custom_jvp
def _sigmoid(eta):
    small = jnp.exp(-jnp.abs(eta))
    return jnp.where(eta >= 0, 1.0, small) / (1 + small)


@softplus.defjvp
def _softplus_jvp(primals, tangents):
    return softplus(*primals), _sigmoid(*primals) * tangents[0]


@_sigmoid.defjvp
def _sigmoid_jvp(primals, tangents):
    small = jnp.exp(-jnp.abs(primals[0]))
    return _sigmoid(*primals), small / (1 + small) ** 2 * tangents[0]


IDENTITY = Link("identity", _same, jnp.log, _log1m, _same)
EXP = Link("exp", jnp.exp, _same, _log1m_exp, jnp.log)
LOGISTIC = Link("logistic", jax.nn.sigmoid, jax.nn.log_sigmoid, _log_sigmoid_minus, _logit)
SOFTPLUS = Link("softplus", jax.nn.softplus, _log_softplus, None, _inverse_softplus)
NORM_CDF = Link("norm.cdf", norm.cdf, log_ndtr, _log_ndtr_minus, ndtri)
ONE_OVER_X = Link("one_over_x", _reciprocal, _minus_log, None, _reciprocal)
CLOGLOG = Link("cloglog", _complementary_log_log, _log_complementary_log_log, _minus_exp, _log_minus_log1m)
LINKS = {link.name: link for link in (EXP, IDENTITY, LOGISTIC, SOFTPLUS, NORM_CDF, CLOGLOG, ONE_OVER_X)}
# Of the classes of categorical observations, and of nothing else.
SOFTMAX = Link("softmax", jax.nn.softmax, jax.nn.log_softmax, None, jnp.log)
OWN_LINKS = LINKS | {SOFTMAX.name: SOFTMAX}
