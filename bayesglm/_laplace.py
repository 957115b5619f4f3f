"""Draws from the normal approximation at the mode, corrected by Pareto-smoothed importance weights.

The weights of Vehtari, Simpson, Gelman, Yao and Gabry (Pareto smoothed importance sampling, 2024). Their tail's shape,
k-hat, says whether the approximation is close enough: up to 0.5 it is, above 0.7 the draws cannot be trusted.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats

from bayesglm._frame import coordinates, whiten
from bayesglm._posterior import Draws
from bayesglm._potential import idle_energy, potential, unpack

__all__ = ["run_laplace"]

# Draws that are weighed at least: fewer have no tail to be smoothed.
LEAST = 1000
# Linear predictors that one step computes at a time.
BLOCK = 2_000_000


def run_laplace(
    X, weight, targets, priors, form, *, size, progress
):  # fmt: skip
    """Sample a batch of posteriors.

    Parameters
    ----------
    X, weight : (n, p), (n,)
    targets : Target
        Leaves with a leading axis of B problems.
    priors : Priors
    form : Form
    size : Size
    progress : callable
        Called as progress(draws, 0) at the end.

    Returns
    -------
    Draws
        Of equal weight: those of large importance are there several times, in random order.
    khat : (B,)
    effective : (B,)
        Effective number of draws, one over the sum of squared weights, at most the number of draws.
    """
    data = jax.device_put((X, weight, targets, priors))
    key = jax.random.key(size.seed)
    keys = jax.vmap(partial(jax.random.fold_in, key))(targets.outputs[:, 0])
    wanted = size.num_samples * size.num_chains
    count = max(wanted, LEAST)
    rows = max(1, min(count, BLOCK // targets.y[0].size))
    # Blocks of equal size, some draws more than wanted: those are left out.
    length = -(-count // -(-count // rows))
    position, log_prob, log_weight = _draw(data, keys, form=form, shape=(-(-count // length), length))
    log_weight = np.asarray(log_weight, float)[:, :count]
    log_weight = np.where(np.isfinite(log_weight), log_weight, -1e300)
    # ArviZ means the weights of leave-one-out: it changes the sign.
    smooth, khat = array_stats.psislw(-log_weight)
    # The smoothing has nothing to fit where the approximation is exact.
    smooth, khat = np.where(np.isnan(khat[:, None]), log_weight, smooth), np.where(np.isnan(khat), 0.0, khat)
    share = np.exp(smooth - smooth.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    rng = np.random.default_rng(size.seed)
    chosen = np.stack([_resample(each, wanted, rng) for each in share]).reshape(-1, size.num_chains, size.num_samples)

    def pick(leaf):
        return np.stack([np.asarray(one)[rows] for one, rows in zip(leaf, chosen, strict=True)])

    progress(size.num_samples, 0)
    draws = Draws._make((*jax.tree.map(pick, position), {"lp": pick(log_prob)}))
    return draws, np.asarray(khat), np.minimum(1 / (share**2).sum(1), wanted)


def _resample(share, wanted, rng):
    """Indices of draws, each as often as its share of the weight says, in random order."""
    places = (np.arange(wanted) + rng.random()) / wanted
    chosen = np.searchsorted(np.cumsum(share), places * (1 - 1e-12))
    return rng.permutation(np.minimum(chosen, len(share) - 1))


@partial(jax.jit, static_argnames=("form", "shape"))
def _draw(data, keys, *, form, shape):
    """Parameters (B, S, ...) of draws from the normal approximation, log densities and log importance weights."""
    X, weight, targets, priors = data
    lanes = shape[1] * targets.outputs.shape[1]

    def one_problem(problem):
        target, key = problem
        frame = whiten(X, weight, target, priors, form)

        def block(key):
            u = jax.random.normal(key, (shape[1], coordinates(frame, form)), X.dtype)
            of_one = partial(
                potential, X=X, weight=weight, target=target, priors=priors, frame=frame, form=form, lanes=lanes
            )
            log_prob = -jax.vmap(of_one)(u)
            position = jax.vmap(lambda u: unpack(u, target, frame, form))(u)
            idle = jax.vmap(lambda u: idle_energy(u, target, frame, form))(u)
            return position, log_prob + idle, log_prob + 0.5 * jnp.sum(u**2, 1)

        found = jax.lax.map(block, jax.random.split(key, shape[0]))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)

    return jax.lax.map(one_problem, (targets, keys))
