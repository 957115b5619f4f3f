"""Modes under penalties with kinks of problems with many features or samples.

Most coefficients are zero at the mode. So a working set of features is solved for, again and again, each time with
those that violate optimality in the full problem; only to find these is all of X read. Where many do at first, a
larger strength, at which few do, comes first and is halved from time to time: so the set grows no larger than it must.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._composite import minimize, optimality
from bayesglm._map import Mode, pearson, start_of_intercept
from bayesglm._passes import (
    correlate,
    expected_curvature,
    joint_curvature,
    moments,
    own_curvature,
    positive,
    value_and_slope,
)
from bayesglm._quadratic import trace_of_hat
from bayesglm._sparse_composite import minimize_sparse
from bayesglm._sparse_matrix import SparseMatrix
from bayesglm.observation_models import is_canonical

__all__ = ["find_sparse_modes"]

# Sizes of the working set are this times a power of 4, or beyond the second number multiples of its half: few, so that
# few programs are compiled.
SMALLEST_WIDTH, LARGE_WIDTH = 64, 1024
# Features that the working set may hold at first; later it may hold twice those that are not zero, but at most so many
# more.
FIRST_ROOM, MOST_NEW = 256, 512
# Features that violate optimality at the start beyond which a larger strength comes first.
CROWD = 1024
# For each feature that is needed, so many are taken: some that are not needed yet will be.
SPARE = 1.25
# Features are missing as long as those that violate optimality are not few beside those that are not zero.
FEW_NEW = 1.05
# While features are missing, the residual falls to this share before the next look.
COARSE = 0.1
MAX_LOOKS = 100
# Coefficients of classes that are solved for at once: a matrix of that size is 2 GB.
MOST_OF_CLASSES = 2**14
LARGEST_FACTOR = 2.0**40
# Features and samples that are gathered at once.
BLOCK, CHUNK = 64, 128


class _Features(NamedTuple):
    X: Any  # (n, p)
    share: Any  # (n,) of each sample, sums to 1
    center: Any  # (p,) means
    square: Any  # (p,) mean squares around the means


class _Problem(NamedTuple):
    y: Any  # (n, m)
    offset: Any  # (n, m)
    strength: Any  # as the prior takes it
    free: Any  # (p, m)
    scale: Any  # ()


class _Point(NamedTuple):
    coef: Any  # (p, m)
    intercept: Any  # (m,) for centered features
    eta: Any  # (n, m)
    slope: Any  # (n, m) share * derivative of the loss
    rms: Any  # () root mean square of the derivatives
    total: Any  # (m,) sums of share * curvature


def find_sparse_modes(
    X, weight, y, offset, strength, free, scale, start, tol, max_iter, *,
    family, link, prior, exact_trace, fit_intercept,
):  # fmt: skip
    """Penalized fits of a batch of problems, one after the other.

    Parameters are those of `find_modes`, and one more.

    Parameters
    ----------
    exact_trace : bool
        Whether the effective degrees of freedom must be those at the mode, rather than shortly before it.

    Returns
    -------
    Mode
    """
    share = weight / weight.sum()
    parts = {"family": family, "link": link}
    problems, begins = [], []
    for b in range(len(scale)):
        problem = _Problem(y[b], offset[b], jax.tree.map(lambda leaf: leaf[b], strength), free[b], scale[b])  # noqa: B023
        problems.append(problem)
        begins.append(_begin(X, share, problem, start[0][b], start[1][b], fit_intercept, **parts))
    center, square, grads = _survey(
        X, share, jnp.concatenate([begin.slope for begin in begins], 1), centered=fit_intercept
    )
    features = _Features(X, share, center, square)
    grads = jnp.split(grads, len(scale), 1)
    settings = {"tol": tol, "max_iter": max_iter, "prior": prior, "exact_trace": exact_trace} | parts
    settings["fit_intercept"] = fit_intercept
    modes = []
    for problem, begin, grad in zip(problems, begins, grads, strict=True):
        point = begin._replace(intercept=begin.intercept + np.asarray(center) @ begin.coef)
        modes.append(_solve(features, weight, problem, point, grad, **settings))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *modes)


def _begin(X, share, problem, coef, intercept, fit_intercept, *, family, link):
    """Point to start from; its intercept is that of features as they come."""
    if np.isnan(intercept).any():
        intercept = np.asarray(start_of_intercept(problem.y, problem.offset, share, link, fit_intercept))
    active = np.flatnonzero(coef.any(1))
    moved = X @ coef if isinstance(X, SparseMatrix) else np.asarray(X[:, active]) @ coef[active] if active.size else 0
    eta = problem.offset + intercept + moved
    return _Point(coef, intercept, eta, *_slopes(share, problem.y, eta, problem.scale, family=family, link=link))


def _solve(features, weight, problem, point, grad, *, tol, max_iter, family, link, prior, exact_trace, fit_intercept):
    """Mode of one problem."""
    parts = {"family": family, "link": link}
    part, n_iter, goal = None, 0, tol

    def judge(factor):
        penalized = prior.times(problem.strength, factor), problem.free
        here = grad, features.square, point.slope, point.rms, point.total, point.coef
        return _judge(*here, *penalized, prior=prior, fit_intercept=fit_intercept)

    factor = 1.0
    while (np.asarray(judge(factor)[0]) > 0).sum() > CROWD and factor < LARGEST_FACTOR:
        factor *= 2
    # A bound at zero without a kink of the penalty lets as many go at any strength.
    factor = factor if factor < LARGEST_FACTOR else 1.0
    for _ in range(MAX_LOOKS):
        violation, urgency, residual = map(np.asarray, judge(factor))
        if part is not None and factor == 1 and (residual <= goal or not part.converged):
            break
        rows, count, all_in = _choose(point.coef.any(1), violation, urgency)
        if family.joint and len(rows) * problem.y.shape[1] > MOST_OF_CLASSES:
            raise ValueError(
                f"regularizer_strength leaves more than {MOST_OF_CLASSES} coefficients of classes that may not be "
                "zero, and so many are solved for at once: use a larger one, or Ridge, which has no such limit."
            )
        # Features are missing at first; once none is, go all the way, for a look costs about as much as some steps.
        to_end = factor == 1 and all_in and (part is not None or count == len(violation))
        aim = tol if to_end else max(tol, COARSE * residual)
        stronger = problem._replace(strength=prior.times(problem.strength, factor))
        start = point.coef[rows], point.intercept
        solve = minimize_sparse if isinstance(features.X, SparseMatrix) else _solve_part
        # Steps that overflow are taken back.
        with np.errstate(over="ignore", invalid="ignore"):
            part = solve(
                features, stronger, rows, count, start, aim, max_iter,
                prior=prior, exact_trace=exact_trace, fit_intercept=fit_intercept, **parts,
            )  # fmt: skip
        coef = np.zeros_like(point.coef)
        coef[rows[:count]] = np.asarray(part.coef)[:count]
        slopes = _slopes(features.share, problem.y, part.eta, problem.scale, **parts)
        point = _Point(coef, np.asarray(part.intercept), part.eta, *slopes)
        grad = _correlate(features.X, features.center, point.slope)
        n_iter, goal = n_iter + int(part.n_iter), max(tol, float(part.floor))
        factor = max(factor / 2, 1.0)
    trace, pivot, statistic = _describe(part, rows, count, problem, weight, prior=prior, **parts)
    return Mode(
        coef=point.coef,
        intercept=point.intercept - np.asarray(features.center) @ point.coef,
        residual=float(residual),
        n_iter=n_iter,
        converged=bool(residual <= goal),
        pivot=pivot,
        edf=fit_intercept + trace,
        pearson=statistic,
    )


def _choose(active, violation, urgency):
    """Features to solve for: those that are not zero, those that violate optimality, and those about to.

    Returns
    -------
    rows : numpy.ndarray of int
        Features, padded to one of few lengths.
    count : int
        How many of them count.
    all_in : bool
        Whether there was room for all that violate optimality, and these are so few that hardly more will follow.
    """
    urgency = np.where(active, np.inf, urgency)
    needed, wanted = int((active | (violation > 0)).sum()), int((urgency > 0).sum())
    n_active = int(active.sum())
    room = min(max(FIRST_ROOM, n_active + min(n_active, MOST_NEW)), len(active))
    width = SMALLEST_WIDTH
    while width < min(needed, room):
        width = 4 * width if width < LARGE_WIDTH else width + LARGE_WIDTH // 2
    width = min(width, len(active))
    count = max(min(wanted, room, width, round(SPARE * needed)), 1)
    rows = np.zeros(width, int)
    rows[:count] = np.sort(np.argpartition(-urgency, count - 1)[:count])
    return rows, count, needed <= min(count, FEW_NEW * n_active + SMALLEST_WIDTH)


def _survey(X, share, slope, *, centered):
    """Mean and mean square of each feature, and products of the centered features with `slope`."""
    if not isinstance(X, SparseMatrix):
        return _moments(X, share, slope, centered=centered)
    center, square = X.moments(share, centered=centered)
    return center, square, X.correlate(center, slope)


def _correlate(X, center, slope):
    return X.correlate(center, slope) if isinstance(X, SparseMatrix) else _products(X, center, slope)


_moments, _products = jax.jit(moments, static_argnames="centered"), jax.jit(correlate)


@partial(jax.jit, static_argnames=("family", "link"))
def _slopes(share, y, eta, scale, *, family, link):
    """The last three fields of a point."""
    loss = partial(family.nll, link=link, scale=scale)
    slope = value_and_slope(loss, y, eta, joint=family.joint)[1]
    if family.joint:
        curvature = own_curvature(joint_curvature(link.inverse, eta))
    else:
        curvature = expected_curvature(loss, link.inverse, eta)
    # What overflows must not meet a weight of 0.
    slope, curvature = (jnp.where(share[:, None] > 0, z, 0.0) for z in (slope, curvature))
    rms = positive(jnp.sqrt(jnp.sum(share @ slope**2)))
    return share[:, None] * slope, rms, share @ curvature


@partial(jax.jit, static_argnames=("prior", "fit_intercept"))
def _judge(grad, square, slope, rms, total, coef, strength, free, *, prior, fit_intercept):
    """How far a point is from the optimum.

    Returns
    -------
    violation : (p,)
        Of the optimality condition of each feature, a correlation.
    urgency : (p,)
        What the violation may become while the largest one is worked off.
    residual : ()
        The largest violation, that of the intercepts included.
    """
    grad = jnp.where(free & (square > 0)[:, None], grad, 0.0)

    def violations(grad):
        return jnp.max(optimality(coef, grad, strength, square, rms, total, prior), 1)

    violation = violations(grad)
    residual = jnp.maximum(jnp.max(violation), jnp.max(jnp.abs(slope.sum(0))) / rms * fit_intercept)
    # Where slopes are so large that their squares overflow, the optimum is far.
    residual = jnp.where(jnp.isfinite(rms), residual, jnp.inf)
    scale = jnp.sqrt(square)[:, None] * rms
    return violation, violations(grad + prior.outward(grad, strength) * residual * scale), residual


@partial(jax.jit, static_argnames=("family", "link", "prior", "exact_trace", "fit_intercept"))
def _solve_part(
    features, problem, rows, count, start, tol, max_iter, *, family, link, prior, exact_trace, fit_intercept
):
    """Solution for the first `count` features of `rows`, the others being zero."""
    y, offset, strength, free, scale = problem
    counts = jnp.arange(len(rows)) < count
    gathered, square = _gather(features, rows, count), jnp.where(counts, features.square[rows], 0.0)
    penalized = prior.rows(strength, rows), free[rows] & counts[:, None]
    start = jnp.where(counts[:, None], start[0], 0.0), start[1]
    return minimize(
        gathered, square, count, y, features.share, offset, *penalized, start,
        joint=family.joint, canonical=is_canonical(family, link),
        loss=partial(family.nll, link=link, scale=scale), mean=link.inverse, prior=prior,
        tol=tol, max_iter=max_iter, exact_gram=exact_trace, fit_intercept=fit_intercept,
    )  # fmt: skip


def _gather(features, rows, count):
    """Centered features `rows`, transposed; what follows the first `count` is hardly read."""
    X, _, center, square = features
    width, n = len(rows), len(X)
    rows = jnp.pad(rows, (0, -width % BLOCK))
    chunk = min(CHUNK, n)
    blocks = -(-count // BLOCK)

    def step(i, gathered):
        first = jnp.minimum(i // blocks * chunk, n - chunk)
        some = jax.lax.dynamic_slice_in_dim(rows, i % blocks * BLOCK, BLOCK)
        part = jax.lax.dynamic_slice_in_dim(X, first, chunk)[:, some]
        part = jnp.where(square[some] > 0, part - center[some], 0.0).T
        return jax.lax.dynamic_update_slice(gathered, part, (i % blocks * BLOCK, first))

    gathered = jax.lax.fori_loop(0, -(-n // chunk) * blocks, step, jnp.zeros((len(rows), n), X.dtype))
    return gathered if width == len(rows) else gathered[:width]


@partial(jax.jit, static_argnames=("family", "link", "prior"))
def _describe(part, rows, count, problem, weight, *, family, link, prior):
    """Trace, pivot and Pearson's statistic of a solution."""
    free = problem.free[rows] & (jnp.arange(len(rows)) < count)[:, None]
    trace, pivot = trace_of_hat(part.hessian.gram, part.coef, prior.rows(problem.strength, rows), free, prior)
    return trace, pivot, pearson(problem.y, part.eta, weight, problem.scale, family, link)
