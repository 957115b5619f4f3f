"""NUTS over batches of posteriors: NumPyro's kernel inside two jitted programs.

Data, strengths, priors and seeds are arguments of the programs: only new shapes, another num_warmup or max_tree_depth
compile. The program `_advance` makes a fixed number of transitions of all chains of all problems; the loop over it runs
in Python, where a progress bar can look on.
"""

from functools import partial

import jax
import numpy as np
from numpyro.infer.hmc import hmc

from bayesglm._chunks import join_chunks
from bayesglm._frame import COMPILE_QUICKLY, coordinates, whiten
from bayesglm._posterior import Draws
from bayesglm._potential import idle_energy, potential, unpack

__all__ = ["run_nuts"]

CHUNK = 50


def run_nuts(
    X, weight, targets, priors, form, *, size, tuning, max_tree_depth, progress
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
    tuning : Tuning
    max_tree_depth : int
    progress : callable
        Called as progress(transitions, divergences) after each chunk.

    Returns
    -------
    Draws
        NumPy arrays.
    """
    num_warmup, num_samples = tuning.num_warmup, size.num_samples
    static = (num_warmup, max_tree_depth)
    data = jax.device_put((X, weight, targets, priors, tuning.target_accept_prob))
    # By the number of the output, so that no two problems share random numbers, in whatever batches they come.
    key, outputs = jax.random.key(size.seed), targets.outputs[:, 0]
    keys = jax.vmap(lambda output: jax.random.split(jax.random.fold_in(key, output), size.num_chains))(outputs)
    frames, state = _start(data, keys, form=form, tuning=static)

    def chunks(state):
        total = num_warmup + num_samples
        for first in range(0, total, CHUNK):
            state, draws = _advance(state, data, frames, form=form, tuning=static)
            kept = slice(max(num_warmup - first, 0), min(CHUNK, total - first))
            draws = jax.tree.map(lambda leaf: np.asarray(leaf)[:, kept].swapaxes(0, 1), draws)  # noqa: B023
            progress(min(CHUNK, total - first), int(draws.stats["diverging"].sum()))
            yield draws

    draws = join_chunks(chunks(state), num_samples)
    return jax.tree.map(lambda leaf: np.moveaxis(leaf, 0, 2), draws)


def _kernel(form, tuning, target_accept_prob):
    """NumPyro's NUTS: the functions that start a chain and that make a transition, given the data."""

    def potential_given(X, weight, target, priors, frame):
        return lambda u: potential(u, X, weight, target, priors, frame, form)

    num_warmup, max_tree_depth = tuning
    init, step = hmc(potential_fn_gen=potential_given, algo="NUTS")
    start = partial(init, num_warmup=num_warmup, target_accept_prob=target_accept_prob, max_tree_depth=max_tree_depth)
    return start, step


@partial(jax.jit, static_argnames=("form", "tuning"), compiler_options=COMPILE_QUICKLY)
def _start(data, keys, *, form, tuning):
    """Frames of the problems, and the first state of every chain: a draw of the normal approximation."""
    X, weight, targets, priors, target_accept_prob = data
    start, _ = _kernel(form, tuning, target_accept_prob)

    def one_problem(target, keys):
        frame = whiten(X, weight, target, priors, form)
        size = coordinates(frame, form)

        def one_chain(key):
            key_position, key_chain = jax.random.split(key)
            u = jax.random.normal(key_position, (size,), X.dtype)
            arguments = (X, weight, target, priors, frame)
            return start(u, rng_key=key_chain, model_args=arguments)

        return frame, jax.vmap(one_chain)(keys)

    return jax.vmap(one_problem)(targets, keys)


@partial(jax.jit, static_argnames=("form", "tuning"))
def _advance(state, data, frames, *, form, tuning):
    """Make CHUNK transitions of every chain; draws have leaves (B, CHUNK, C, ...)."""
    X, weight, targets, priors, target_accept_prob = data
    start, step = _kernel(form, tuning, target_accept_prob)

    def one_problem(problem):
        state, target, frame = problem
        arguments = (X, weight, target, priors, frame)
        # NumPyro's kernel keeps its adaptation schedule in a closure that only starting a chain fills.
        jax.eval_shape(lambda u: start(u, model_args=arguments), jax.tree.map(lambda leaf: leaf[0], state.z))

        def one_chain(chain):
            new = step(chain, model_args=arguments)
            position = unpack(new.z, target, frame, form)
            stats = {
                "lp": idle_energy(new.z, target, frame, form) - new.potential_energy,
                "energy": new.energy,
                "acceptance_rate": new.accept_prob,
                "step_size": new.adapt_state.step_size,
                "n_steps": new.num_steps,
                "diverging": new.diverging,
            }
            return new, Draws._make((*position, stats))

        return jax.lax.scan(lambda chains, _: jax.vmap(one_chain)(chains), state, length=CHUNK)

    # Trajectories of problems differ in length: a processor does not wait for the longest, an accelerator does.
    together = 1 if jax.default_backend() == "cpu" else len(targets.k)
    return jax.lax.map(one_problem, (state, targets, frames), batch_size=together)
