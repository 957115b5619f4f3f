"""Inverse link functions: from the linear predictor eta to the mean.

A link also knows the logarithms of the mean and of one minus the mean, which families need and which lose
all their digits when they are computed from the mean itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

__all__ = ["EXP", "IDENTITY", "LOGISTIC", "Link"]


@dataclass(frozen=True)
class Link:
    """An inverse link function and what families derive from it.

    Parameters
    ----------
    name : str
        What the user calls it.
    inverse : callable
        Mean as a function of the linear predictor.
    log_inverse, log_complement : callable
        log(mean) and log(1 - mean) as functions of the linear predictor.
    forward : callable
        Linear predictor as a function of the mean.
    """

    name: str
    inverse: Callable
    log_inverse: Callable
    log_complement: Callable
    forward: Callable


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


IDENTITY = Link("identity", _same, jnp.log, _log1m, _same)
EXP = Link("exp", jnp.exp, _same, _log1m_exp, jnp.log)
LOGISTIC = Link("logistic", jax.nn.sigmoid, jax.nn.log_sigmoid, _log_sigmoid_minus, _logit)
