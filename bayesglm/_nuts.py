"""NUTS over batches of posteriors: NumPyro's kernel inside two jitted programs.

Data, strengths, priors and seeds are arguments of the programs: only new shapes, another num_warmup or
max_tree_depth compile. The
program `_advance` makes a fixed number of transitions of all chains of all problems; the loop over it runs
in Python, where a progress bar can look on.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.infer.hmc import hmc

from bayesglm._posterior import idle_log_density, log_density, unpack, whiten

__all__ = ["Draws", "run_nuts"]

CHUNK = 50


class Draws(NamedTuple):
    """Draws of B problems with C chains of S draws; leaves (B, C, S, ...)."""

    coef: Any  # (..., p, m)
    intercept: Any  # (..., m)
    scale: Any  # (...)
    potential: Any
    energy: Any
    acceptance_rate: Any
    step_size: Any
    n_steps: Any
    diverging: Any


def run_nuts(
    X, weight, targets, intercept_prior, scale_prior, form, *,
    num_samples, num_warmup, num_chains, seed, target_accept_prob, max_tree_depth, progress,
):  # fmt: skip
    """Sample a batch of posteriors.

    Parameters
    ----------
    X, weight : (n, p), (n,)
    targets : Target
        Leaves with a leading axis of B problems.
    intercept_prior, scale_prior : NumPyro distribution or None
    form : Form
    progress : callable
        Called as progress(transitions, divergences) after each chunk.

    Returns
    -------
    Draws
        NumPy arrays.
    """
    tuning = (num_warmup, max_tree_depth)
    data = jax.device_put((X, weight, targets, intercept_prior, scale_prior, target_accept_prob))
    # By the number of the output, so that no two problems share random numbers, in whatever batches they come.
    key = jax.random.key(seed)
    keys = jax.vmap(lambda output: jax.random.split(jax.random.fold_in(key, output), num_chains))(targets.outputs[:, 0])
    frames, state = _start(data, keys, form=form, tuning=tuning)
    total = num_warmup + num_samples
    chunks = []
    for first in range(0, total, CHUNK):
        state, draws = _advance(state, data, frames, form=form, tuning=tuning)
        last = min(first + CHUNK, total)
        kept = jax.tree.map(lambda leaf: np.asarray(leaf[:, max(num_warmup - first, 0) : last - first]), draws)  # noqa: B023
        chunks.append(kept)
        progress(last - first, int(kept.diverging.sum()))
    return jax.tree.map(lambda *parts: np.swapaxes(np.concatenate(parts, axis=1), 1, 2), *chunks)


def _kernel(form, tuning, target_accept_prob):
    """NumPyro's NUTS: the functions that start a chain and that make a transition, given the data."""

    def potential_given(X, weight, target, intercept_prior, scale_prior, frame):
        def potential(u):
            position = unpack(u, target, frame, form)
            log_prob = log_density(position, X, weight, target, intercept_prior, scale_prior, form)
            return -log_prob - idle_log_density(u, target)

        return potential

    num_warmup, max_tree_depth = tuning
    init, step = hmc(potential_fn_gen=potential_given, algo="NUTS")
    start = partial(init, num_warmup=num_warmup, target_accept_prob=target_accept_prob, max_tree_depth=max_tree_depth)
    return start, step


@partial(jax.jit, static_argnames=("form", "tuning"))
def _start(data, keys, *, form, tuning):
    """Frames of the problems, and the first state of every chain: a draw of the normal approximation."""
    X, weight, targets, intercept_prior, scale_prior, target_accept_prob = data
    start, _ = _kernel(form, tuning, target_accept_prob)

    def one_problem(target, keys):
        frame = whiten(X, weight, target, intercept_prior, form)
        size = frame.center.size + form.samples_scale

        def one_chain(key):
            key_position, key_chain = jax.random.split(key)
            u = jax.random.normal(key_position, (size,), X.dtype)
            arguments = (X, weight, target, intercept_prior, scale_prior, frame)
            return start(u, rng_key=key_chain, model_args=arguments)

        return frame, jax.vmap(one_chain)(keys)

    return jax.vmap(one_problem)(targets, keys)


@partial(jax.jit, static_argnames=("form", "tuning"))
def _advance(state, data, frames, *, form, tuning):
    """Make CHUNK transitions of every chain; draws have leaves (B, CHUNK, C, ...)."""
    X, weight, targets, intercept_prior, scale_prior, target_accept_prob = data
    start, step = _kernel(form, tuning, target_accept_prob)

    def one_problem(problem):
        state, target, frame = problem
        arguments = (X, weight, target, intercept_prior, scale_prior, frame)
        # NumPyro's kernel keeps its adaptation schedule in a closure that only starting a chain fills.
        jax.eval_shape(lambda u: start(u, model_args=arguments), jax.tree.map(lambda leaf: leaf[0], state.z))

        def one_chain(chain):
            new = step(chain, model_args=arguments)
            position = unpack(new.z, target, frame, form)
            return new, Draws(
                position.coef,
                position.intercept,
                position.scale,
                new.potential_energy + idle_log_density(new.z, target),
                new.energy,
                new.accept_prob,
                new.adapt_state.step_size,
                new.num_steps,
                new.diverging,
            )

        return jax.lax.scan(lambda chains, _: jax.vmap(one_chain)(chains), state, length=CHUNK)

    # Trajectories of problems differ in length: a processor does not wait for the longest, an accelerator does.
    together = 1 if jax.default_backend() == "cpu" else len(targets.k)
    return jax.lax.map(one_problem, (state, targets, frames), batch_size=together)
