"""Hamiltonian Monte Carlo for posteriors that look round: trajectories of a quarter turn, all chains in step.

In the coordinates u of a `Frame` the posterior is near a standard normal one, U(u) = |u|^2 / 2 + R(u) with a small R.
Under the first part alone a trajectory is a rotation of (u, velocity), and a quarter turn ends at an independent point.
So the integrator rotates, exactly, and R kicks: where R is small, one gradient brings a nearly independent draw.

All chains of all problems make the same number of steps, so that no chain waits for another and the products with X are
those of matrices. That number is all there is to tune, besides the means and spreads of the coordinates.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._chunks import join_chunks
from bayesglm._frame import COMPILE_QUICKLY, coordinates, recenter, whiten
from bayesglm._posterior import Draws
from bayesglm._potential import idle_energy, potential, unpack

__all__ = ["run_hmc"]

# Transitions that one call of the compiled program makes at most.
CHUNK = 100
QUARTER = np.pi / 2
# Trajectories last between these multiples of a quarter turn, so that they resonate with no period of the posterior.
SHORTEST, LONGEST = 0.85, 1.25
# Transitions after which the number of steps is looked at, the largest number, and windows, in shares of what is left
# of the warm-up, after each of which coordinates are centered and scaled.
ROUND, MAX_STEPS, WINDOWS = 20, 64, (0.35, 1.0)
MAX_ENERGY_ERROR = 1000.0
# Measured: a quarter less time to compile than by default, and 6 % more to run.
COMPILE_RATHER_QUICKLY = {"xla_backend_optimization_level": 1}


class _State(NamedTuple):
    u: Any  # (B, C, D)
    key: Any  # (B, C)


class _Chunk(NamedTuple):
    """What CHUNK transitions leave, leaves (CHUNK, B, C, ...)."""

    u: Any
    potential: Any
    energy: Any
    acceptance_rate: Any
    diverging: Any


def run_hmc(
    X, weight, targets, priors, form, *, size, tuning, may_give_up, progress
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
    may_give_up : bool
        Whether to return None if trajectories of MAX_STEPS steps are still rejected too often.
    progress : callable
        Called as progress(transitions, divergences) after each chunk.

    Returns
    -------
    Draws or None
    """
    data = jax.device_put((X, weight, targets, priors))
    frames, state = _start(data, np.uint32(size.seed), num_chains=size.num_chains, form=form)

    def advance(state, frames, n_steps, count):
        """Yield states and, leaves (at most CHUNK, B, C, ...), what transitions leave, until there are `count`."""
        for first in range(0, count, CHUNK):
            length = min(CHUNK, count - first)
            state, chunk = _advance(state, data, frames, n_steps, length, form=form)
            chunk = jax.tree.map(lambda leaf: np.asarray(leaf)[:length], chunk)  # noqa: B023
            progress(length, int(chunk.diverging.sum()))
            yield state, chunk

    def warm(state, frames, n_steps, count):
        states, chunks = zip(*advance(state, frames, n_steps, count), strict=True)
        return states[-1], join_chunks(chunks, count)

    n_steps, left, accepts = 1, tuning.num_warmup, True
    # Where strengths are random the posterior is less round far out than where it is looked at.
    aim = tuning.target_accept_prob if targets.learned is None else (1 + tuning.target_accept_prob) / 2
    for share in WINDOWS:
        n_steps, state, left, accepts = _choose_steps(warm, state, frames, n_steps, left, aim)
        window = int(share * left)
        if window == 0:
            break
        state, chunk = warm(state, frames, n_steps, window)
        left -= window
        if window * size.num_chains >= ROUND:
            frames, state = _rescale(chunk.u, state, frames, form)
    if may_give_up and not accepts:
        return None
    run = advance(state, frames, n_steps, size.num_samples)
    kept = join_chunks((chunk for _, chunk in run), size.num_samples)
    return _as_draws(kept, targets, frames, n_steps, form)


def _choose_steps(warm, state, frames, n_steps, left, target_accept_prob):
    """Find the number of steps that brings most for its price among those that accept often enough in every problem.

    A trajectory of a quarter turn that is accepted is nearly independent of where it began, so that draws accepted with
    probability a are worth about a / (2 - a) independent ones.
    """

    def least(n_steps):
        # One step leaves skewed tails slowly, unless the posterior is very round.
        return target_accept_prob if n_steps > 1 else (1 + target_accept_prob) / 2

    rates: dict[int, float] = {}
    while left > 0 and n_steps not in rates:
        count = min(ROUND, left)
        state, chunk = warm(state, frames, n_steps, count)
        left -= count
        rate = float(chunk.acceptance_rate.mean((0, 2)).min())
        # What diverges now and then does so where steps are too long, however many others are accepted.
        rates[n_steps] = rate = min(rate, 0.0 if chunk.diverging[count // 2 :].any() else 1.0)
        if rate < least(n_steps):
            n_steps = min(MAX_STEPS, 2 * n_steps if rate < target_accept_prob / 2 else -(-4 * n_steps // 3))
        elif rate > (1 + target_accept_prob) / 2:
            n_steps = -(-2 * n_steps // 3)
    good = {steps: rate / (2 - rate) / steps for steps, rate in rates.items() if rate >= least(steps)}
    return max(good, key=good.__getitem__) if good else n_steps, state, left, bool(good) or not rates


def _as_draws(kept, targets, frames, n_steps, form):
    position, idle = jax.tree.map(np.asarray, _parameters(kept.u, targets, frames, form=form))
    stats = {name: np.moveaxis(leaf, 0, 2) for name, leaf in kept._asdict().items() if name != "u"}
    stats["lp"] = idle - stats.pop("potential")
    stats["step_size"] = np.full_like(stats["lp"], QUARTER / n_steps)
    stats["n_steps"] = np.full(stats["lp"].shape, n_steps)
    return Draws._make((*position, stats))


def _value_and_grad(data, frames, form, lanes):
    """Potential and gradient of positions (B, C, D)."""
    X, weight, targets, priors = data

    def one(u, target, frame):
        return potential(u, X, weight, target, priors, frame, form, lanes=lanes)

    of_chains = jax.vmap(jax.value_and_grad(one), in_axes=(0, None, None))
    return lambda u: jax.vmap(of_chains)(u, targets, frames)


@partial(jax.jit, static_argnames=("num_chains", "form"), compiler_options=COMPILE_QUICKLY)
def _start(data, seed, *, num_chains, form):
    """Frames of the problems, and the first state of every chain: a draw of the normal approximation."""
    X, weight, targets, priors = data
    frames = jax.vmap(lambda target: whiten(X, weight, target, priors, form))(targets)
    size = coordinates(jax.tree.map(lambda leaf: leaf[0], frames), form)
    # By the number of the output, so that no two problems share random numbers, in whatever batches they come.
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(targets.outputs[:, 0])
    keys = jax.vmap(lambda key: jax.random.split(key, num_chains))(keys)
    u = jax.vmap(jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), (size,), X.dtype)))(keys)
    return frames, _State(u, keys)


@partial(jax.jit, static_argnames=("form",), compiler_options=COMPILE_RATHER_QUICKLY)
def _advance(state, data, frames, n_steps, count, *, form):
    """Make `count` transitions of every chain, of `n_steps` steps each."""
    shape, dtype = state.u.shape, state.u.dtype
    value_and_grad = _value_and_grad(data, frames, form, state.key.size * data[2].outputs.shape[1])

    def trajectory(point, velocity, angle, n_steps):
        cos, sin = jnp.cos(angle), jnp.sin(angle)

        def step(_, point):
            u, _, grad, v = point
            v = v - angle / 2 * (grad - u)
            u, v = cos * u + sin * v, cos * v - sin * u
            value, grad = value_and_grad(u)
            return u, value, grad, v - angle / 2 * (grad - u)

        return jax.lax.fori_loop(0, n_steps, step, (*point, velocity))

    def random(key):
        key, *others = jax.random.split(key, 4)
        velocity = jax.random.normal(others[0], shape[2:], dtype)
        return key, velocity, *(jax.random.uniform(other, (), dtype) for other in others[1:])

    def transition(i, carry):
        key, point, chunk = carry
        # The first does not move: it only evaluates, so that the program holds the potential once.
        first = i < 0
        key, velocity, turn, threshold = jax.vmap(jax.vmap(random))(key)
        angle = jnp.where(first, 0.0, QUARTER * (SHORTEST + (LONGEST - SHORTEST) * turn) / n_steps)
        *new, v = trajectory(point, velocity, angle[..., None], jnp.where(first, 1, n_steps))
        energy = point[1] + 0.5 * jnp.sum(velocity**2, -1)
        error = new[1] + 0.5 * jnp.sum(v**2, -1) - energy
        error = jnp.where(jnp.isnan(error), jnp.inf, error)
        rate = jnp.exp(jnp.minimum(0.0, -error))
        accept = first | (threshold < rate)
        both = accept[..., None]
        point = tuple(
            jnp.where(both if leaf.ndim == 3 else accept, leaf, old) for leaf, old in zip(new, point, strict=True)
        )
        left = _Chunk(point[0], point[1], energy, rate, error > MAX_ENERGY_ERROR)
        return key, point, jax.tree.map(lambda buffer, leaf: buffer.at[i].set(leaf), chunk, left)

    number = jnp.zeros((CHUNK, *shape[:2]), dtype)
    empty = _Chunk(jnp.zeros((CHUNK, *shape), dtype), number, number, number, jnp.zeros(number.shape, bool))
    start = state.u, number[0], jnp.zeros(shape, dtype)
    key, (u, _, _), chunk = jax.lax.fori_loop(-1, count, transition, (state.key, start, empty))
    return _State(u, key), chunk


def _rescale(u, state, frames, form):
    """Frames in which draws u (S, B, C, D) have mean 0 and standard deviation 1, and the state seen from them.

    Only as far as these differ clearly: the frame knows most coordinates better than a few draws do.
    """

    def beyond(x, noise):
        return np.sign(x) * np.maximum(np.abs(x) - 2 * noise, 0.0).astype(u.dtype)

    count = u.shape[0] * u.shape[2]
    sd = u.std((0, 2))
    factor = np.where(sd > 0, np.exp(beyond(np.log(np.where(sd > 0, sd, 1.0)), count**-0.5)), 1.0).astype(u.dtype)
    mean = beyond(u.mean((0, 2)), sd * (count / 2) ** -0.5)
    # Those of strengths and of the scale, whose tails differ, stay where they are.
    mean[:, mean.shape[1] - frames.log_strength.shape[1] - form.samples_scale :] = 0.0
    return _recenter(frames, mean, factor), state._replace(u=(np.asarray(state.u) - mean[:, None]) / factor[:, None])


@partial(jax.jit, compiler_options=COMPILE_QUICKLY)
def _recenter(frames, mean, sd):
    return jax.vmap(recenter)(frames, mean, sd)


@partial(jax.jit, static_argnames=("form",), compiler_options=COMPILE_QUICKLY)
def _parameters(u, targets, frames, *, form):
    """Parameters, leaves (B, C, S, ...), at positions (S, B, C, D), and the energy of what is idle."""

    def one(u, target, frame):
        return unpack(u, target, frame, form), idle_energy(u, target, frame, form)

    each = jax.vmap(jax.vmap(one, (0, None, None)), (0, None, None))
    return jax.vmap(each)(jnp.moveaxis(u, 0, 2), targets, frames)
