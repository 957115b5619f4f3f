"""Newton's method for smooth penalties, with few passes over X.

Minimizes, for every output o at once and each on its own,

    F(w, b) = sum_i share_i loss(y_i, offset_i + b + (x_i - mean) w) + sum_j s_j w_j^2 / 2.

Value and gradient come from one pass over X, block by block, each block centered and used twice while it is in
cache; X is never copied. Steps are those of L-BFGS around a Hessian that is factorized now and then: that of all
samples where that is cheap (then every step is Newton's), otherwise that of some. With more features than samples the
factorization is that of the samples' matrix (Woodbury's identity), where every coefficient has a strength.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from bayesglm._passes import (
    blocks,
    curvature_of_steps,
    expected_curvature,
    hessian_with_intercept,
    moments,
    positive,
    value_and_slope,
    weighted_gram,
)

__all__ = ["SmoothSolution", "minimize_smooth"]

# Samples whose Hessian stands for that of all: so many per feature, and at least so many.
SAMPLES_PER_FEATURE, LEAST_SAMPLES = 40, 2000
# Features up to which a new Hessian of all samples in each step costs less than the steps that it saves.
ALWAYS_NEWTON = 48
MEMORY = 6
# Samples up to which a triangular matrix is inverted at once.
LARGEST_TRIANGLE = 256
SMALLEST_STEP = 2.0**-40
EXTRA_PASSES = 60
# A step that leaves more than this of the residual calls for a new Hessian, as long as the optimum is far: near it,
# the Hessian changes little, and the past steps tell more.
SLOW, FAR = 0.3, 0.01


class SmoothSolution(NamedTuple):
    """Result of `minimize_smooth` for m outputs."""

    coef: Any  # (p, m)
    intercept: Any  # (m,)
    residual: Any  # (m,) largest violation of optimality, a correlation
    n_iter: Any  # (m,)
    converged: Any  # (m,)
    trace: Any  # (m,) effective degrees of freedom without the intercept
    pivot: Any  # (m,) near 0 where coefficients are not determined


class _Point(NamedTuple):
    position: Any  # (1 + p, m) intercept of centered features, then coefficients
    value: Any  # (m,)
    noise: Any  # (m,) rounding error of the value
    rms: Any  # (m,) root mean square of the loss's slopes
    grad: Any  # (1 + p, m)


class _State(NamedTuple):
    point: Any
    trial: Any  # (1 + p, m) where to look next
    direction: Any  # (1 + p, m)
    length: Any  # (m,)
    expected: Any  # (m,) slope of F along the direction
    factor: Any
    rounding: Any  # (m,) rounding error of the gradient
    steps: Any  # (MEMORY, 1 + p, m)
    changes: Any  # (MEMORY, 1 + p, m) of the gradient along the steps
    residual: Any  # (m,)
    goal: Any  # (m,) residual at which to stop: the tolerance, or what rounding allows
    n_iter: Any  # (m,)
    n_passes: Any
    done: Any  # (m,)


def minimize_smooth(
    X, y, share, offset, strength, free, start, *, loss, mean, canonical, tol, max_iter, dual, alike, n_paths, trace,
    fit_intercept,
):  # fmt: skip
    """Minimize the penalized loss of each output.

    Parameters
    ----------
    X : (n, p)
    y, offset : (n, m)
    share : (n,), sums to 1
    strength : (p, m)
    free : (p, m) bool
        Coefficients that are not held at zero.
    start : pair of coef (p, m) and intercept (m,), of features as they come
    loss, mean : callable
        loss(y, eta) and mean(eta), elementwise.
    canonical : bool
        Whether the expected second derivatives of the loss are those that it has.
    tol : float
        Largest residual at which to stop.
    max_iter : int
    dual : bool
        Whether to factorize a matrix of the samples rather than of the features.
    alike : bool
        Whether the outputs have the same free coefficients, and strengths that are the same up to a factor.
    n_paths : int
        Outputs o, o + n_paths, o + 2 n_paths ... differ in their strengths alone; each such path shares a Hessian.
    trace : {"exact", "cheap", "none"}
        Whether the trace is that at the mode, over all samples; or so only where every Hessian is over all samples,
        and otherwise that of the last Hessian of the solver; or NaN.
    fit_intercept : bool
        Whether there is an intercept; otherwise it is 0, and features are not centered.

    Returns
    -------
    SmoothSolution
    """
    n, p = X.shape
    eps = jnp.finfo(X.dtype).eps
    center, square = moments(X, share, centered=fit_intercept)
    moves = free & (square > 0)[:, None]
    chosen = None if dual else _chosen_samples(share, p)
    some, some_share, some_y, some_offset = (
        (X, share, y, offset) if chosen is None else (X[chosen], share[chosen], y[chosen], offset[chosen])
    )
    some_share = some_share / jnp.sum(some_share)
    if not dual:
        some = some - center
    shares = n_paths < y.shape[1]
    always = chosen is None and p <= ALWAYS_NEWTON and not shares
    kernels = _kernels(X, center, strength, moves, alike) if dual else None

    def evaluate(trial):
        value, noise, mean_square, slopes = _sweep(X, center, y, share, offset, trial, loss)
        pull = jnp.where(moves, strength * trial[1:], 0.0)
        value = value + 0.5 * jnp.sum(pull * trial[1:], 0)
        grad = jnp.concatenate([slopes[:1] * fit_intercept, jnp.where(moves, slopes[1:] + pull, 0.0)])
        return _Point(trial, value, noise, jnp.sqrt(mean_square), grad)

    def curvature_at(position, *, expected):
        eta = some_offset + position[0] + (_product(X, center, position[1:]) if dual else some @ position[1:])
        if expected or canonical:
            curvature = expected_curvature(loss, mean, eta)
        else:
            curvature = curvature_of_steps(loss, mean, some_y, eta)
        curvature = jnp.where(some_share[:, None] > 0, some_share[:, None] * curvature, 0.0)
        return curvature, eps * jnp.sum(curvature * (1 + jnp.abs(eta)), 0)

    def factorize(position, *, expected=False):
        curvature, rounding = curvature_at(position, expected=expected)
        if dual:
            return _dual_factor(X, center, curvature, kernels, strength, moves, fit_intercept), rounding
        if shares:
            curvature = curvature.reshape(len(curvature), -1, n_paths).mean(1)
        hessians = _hessians(some, curvature) if chosen is None else _rough_hessians(some, curvature, square)
        return _primal_factor(hessians, strength, moves, fit_intercept), rounding

    def solve(factor, right):
        return _dual_solve(X, center, factor, right) if dual else _primal_solve(factor, right)

    def violation(point):
        scale = positive(jnp.concatenate([jnp.ones(1, X.dtype), jnp.sqrt(square)])[:, None] * positive(point.rms))
        # Where slopes are so large that their squares overflow, the optimum is far.
        return jnp.where(jnp.isfinite(point.rms), jnp.max(jnp.abs(point.grad) / scale, 0), jnp.inf)

    def look(state):
        """Evaluate the trial of each output; go on from there, or go back half the way."""
        seen = evaluate(state.trial)
        first = state.n_passes == 0
        bound = state.point.value + 1e-4 * state.length * jnp.minimum(state.expected, 0.0)
        falls = jnp.isfinite(seen.value) & (seen.value <= bound + seen.noise + state.point.noise)
        falls = (falls | first) & ~state.done
        point = jax.tree.map(lambda new, old: jnp.where(falls, new, old), seen, state.point)
        n_iter = state.n_iter + (falls & ~first)
        residual = violation(point)
        steps, changes = state.steps, state.changes
        if not always:
            pushed = falls & ~first
            steps = _push(steps, point.position - state.point.position, pushed)
            changes = _push(changes, point.grad - state.point.grad, pushed)
        stuck = ~falls & (state.length < SMALLEST_STEP)
        slow = (residual > FAR) & ((state.length < 1) | (residual > SLOW * state.residual))
        settled = (residual <= state.goal) & ~first
        done = state.done | stuck | settled | (n_iter >= max_iter)
        renew = first | (jnp.any(falls & slow & ~done) if not always else jnp.any(falls & ~done))
        factor, rounding = jax.lax.cond(
            renew, lambda: factorize(point.position), lambda: (state.factor, state.rounding)
        )
        # A curvature that overflows says nothing of rounding.
        rounding = jnp.where(jnp.isfinite(rounding), rounding, 0.0)
        goal = jnp.maximum(tol, 8 * (rounding / positive(point.rms) + eps))
        done = done | (residual <= goal)
        if not always:
            steps, changes = (jnp.where(renew, 0.0, history) for history in (steps, changes))
        ahead = -_quasi_newton(partial(solve, factor), point.grad, steps, changes)
        direction = jnp.where(falls, ahead, state.direction)
        length = jnp.where(falls, 1.0, state.length / 2).astype(X.dtype)
        return _State(
            point=point,
            trial=point.position + length * direction,
            direction=direction,
            length=length,
            expected=jnp.sum(point.grad * direction, 0),
            factor=factor,
            rounding=rounding,
            steps=steps,
            changes=changes,
            residual=residual,
            goal=goal,
            n_iter=n_iter,
            n_passes=state.n_passes + 1,
            done=done,
        )

    def unfinished(state):
        return ~jnp.all(state.done) & (state.n_passes < max_iter + EXTRA_PASSES)

    m = y.shape[1]
    zero = jnp.zeros(m, X.dtype)
    position = jnp.concatenate([(start[1] + center @ start[0])[None], start[0]])
    nowhere = jnp.zeros_like(position)
    history = jnp.zeros((0 if always else MEMORY, *position.shape), X.dtype)
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(factorize, position))
    begin = _State(
        point=_Point(position, zero + jnp.inf, zero, zero, nowhere),
        trial=position,
        direction=nowhere,
        length=zero + 1,
        expected=zero,
        factor=blank[0],
        rounding=blank[1],
        steps=history,
        changes=history,
        residual=zero + jnp.inf,
        goal=zero,
        n_iter=jnp.zeros(m, int),
        n_passes=jnp.zeros((), int),
        done=jnp.zeros(m, bool),
    )
    end = jax.lax.while_loop(unfinished, look, begin)
    where = end.point.position
    if dual and trace == "none":
        freedom, pivot = jnp.full(m, jnp.nan, X.dtype), jnp.ones(m, X.dtype)
    elif dual:
        curvature = curvature_at(where, expected=True)[0]
        moved = jnp.any(jnp.abs(curvature - end.factor[0] ** 2) > 1e-9 * end.factor[0] ** 2)
        factor = jax.lax.cond(moved, lambda: factorize(where, expected=True)[0], lambda: end.factor)
        freedom, pivot = _dual_trace(factor, strength, moves), jnp.ones(m, X.dtype)
    elif trace == "none":
        freedom, pivot = jnp.full(m, jnp.nan, X.dtype), _smallest_pivot(end.factor[1])
    elif trace == "cheap" and chosen is not None:
        factor = end.factor if canonical else factorize(where, expected=True)[0]
        freedom, pivot = _primal_trace(factor, fit_intercept)
    elif chosen is None and not shares:
        freedom, pivot = _primal_trace(factorize(where, expected=True)[0], fit_intercept)
    else:
        hessians = _all_hessians(X, center, y, share, offset, where, loss, mean)
        freedom, pivot = _primal_trace(_primal_factor(hessians, strength, moves, fit_intercept), fit_intercept)
    constant = jnp.any(free & ~moves & (strength == 0), 0)
    return SmoothSolution(
        coef=where[1:],
        intercept=where[0] - center @ where[1:],
        residual=end.residual,
        n_iter=end.n_iter,
        converged=(end.residual <= end.goal) & jnp.isfinite(end.point.value),
        trace=freedom,
        pivot=jnp.where(constant, 0.0, pivot),
    )


def _sweep(X, center, y, share, offset, position, loss):
    """Mean loss of each output, its rounding error, the mean square of its slopes, and the gradient (1 + p, m)."""

    def visit(carry, block, rows, fresh):
        y, share, offset = rows
        weight = jnp.where(fresh, share, 0.0)[:, None]
        block = block - center
        eta = offset + position[0] + block @ position[1:]
        value, slope = value_and_slope(loss, y, eta)
        value, slope = (jnp.where(weight > 0, weight * z, 0.0) for z in (value, slope))
        square = jnp.sum(jnp.where(weight > 0, slope**2 / positive(weight), 0.0), 0)
        slopes = jnp.concatenate([jnp.sum(slope, 0)[None], (slope.T @ block).T])
        parts = jnp.sum(value, 0), jnp.sum(jnp.abs(value), 0), square, slopes
        return jax.tree.map(jnp.add, carry, parts)

    zero = jnp.zeros(y.shape[1], X.dtype)
    start = zero, zero, zero, jnp.zeros_like(position)
    value, size, square, slopes = blocks(X, start, visit, y, share, offset)
    return value, 16 * jnp.finfo(X.dtype).eps * size, square, slopes


def _chosen_samples(share, p):
    """Samples of positive weight that stand for all, spread over them without a period; None for all."""
    n, size = len(share), max(LEAST_SAMPLES, SAMPLES_PER_FEATURE * p)
    if 2 * size >= n:
        return None
    seen = jnp.nonzero(share > 0, size=n, fill_value=0)[0]
    count = jnp.sum(share > 0)
    # Multiples of the golden ratio fill the unit interval evenly, however many samples there are.
    place = (jnp.arange(size, dtype=share.dtype) * 0.6180339887) % 1.0
    return seen[jnp.minimum((place * count).astype(int), count - 1)]


def _hessians(X, curvature):
    """Second derivatives of the loss of each output by (intercept, coefficients), shape (m, 1 + p, 1 + p)."""
    return jax.lax.map(lambda column: hessian_with_intercept(X, column), curvature.T)


def _rough_hessians(X, curvature, square):
    """`_hessians` of some samples, that stand for those of all, in single precision.

    They are lifted where these samples saw less of a feature than all samples would.
    """
    unit = jnp.sqrt(positive(square))
    units = jnp.concatenate([jnp.ones(1, X.dtype), unit])
    features = jnp.concatenate([jnp.ones((len(X), 1), X.dtype), X / unit], 1).astype(jnp.float32)

    def one(column):
        total = jnp.sum(column)
        share = (column / positive(total)).astype(jnp.float32)
        hessian = total * units * units[:, None] * ((features * share[:, None]).T @ features)
        usual = square * total
        lift = 0.01 * usual + jnp.maximum(0.5 * usual - jnp.diagonal(hessian)[1:], 0.0)
        return hessian + jnp.diag(jnp.concatenate([jnp.zeros(1, lift.dtype), lift]))

    return jax.lax.map(one, curvature.T)


def _all_hessians(X, center, y, share, offset, position, loss, mean):
    """`_hessians` of all samples, in one pass."""

    def visit(carry, block, rows, fresh):
        share, offset = rows
        block = block - center
        eta = offset + position[0] + block @ position[1:]
        weight = jnp.where(fresh, share, 0.0)[:, None]
        curvature = jnp.where(weight > 0, weight * expected_curvature(loss, mean, eta), 0.0)
        return carry + _hessians(block, curvature)

    width = len(position)
    return blocks(X, jnp.zeros((y.shape[1], width, width), X.dtype), visit, share, offset)


def _primal_factor(hessians, strength, moves, fit_intercept):
    """Roots of the diagonals, Cholesky factors of the scaled Hessians of F, and the scaled Hessians of the loss.

    Output o has Hessian o modulo their number.
    """

    def one(problem):
        path, strength, moves = problem
        moves = jnp.concatenate([jnp.full(1, fit_intercept), moves])
        bend = jnp.concatenate([jnp.zeros(1, hessians.dtype), strength])
        hessian = jnp.where(moves[:, None] & moves, hessians[path], 0.0)
        root = jnp.sqrt(positive(jnp.where(moves, jnp.diagonal(hessian) + bend, 1.0)))
        scaled = hessian / root / root[:, None]
        jitter = 4 * len(root) * jnp.finfo(root.dtype).eps
        lower = _cholesky(scaled + jnp.diag(jnp.where(moves, bend / root**2 + jitter, 1.0)))
        return root, lower, scaled

    paths = jnp.arange(strength.shape[1]) % len(hessians)
    return jax.lax.map(one, (paths, strength.T, moves.T))


def _cholesky(matrix):
    return jax.lax.linalg.cholesky(matrix, symmetrize_input=False)


def _solve_each(lower, right):
    """Solutions (m, k) of systems with Cholesky factors (m, k, k); one by one, which on a CPU is twice as fast."""
    return jax.lax.map(lambda part: cho_solve((part[0], True), part[1]), (lower, right))


def _primal_solve(factor, right):
    root, lower, _ = factor
    scaled = right.T / root
    return (_solve_each(lower, scaled) / root).T


def _primal_trace(factor, fit_intercept):
    """Effective degrees of freedom of the coefficients of each output, and the smallest squared pivot."""

    def one(problem):
        lower, scaled = problem
        return jnp.trace(cho_solve((lower, True), scaled)) - fit_intercept

    return jax.lax.map(one, factor[1:]), _smallest_pivot(factor[1])


def _smallest_pivot(lower):
    return jnp.min(jnp.diagonal(lower, axis1=1, axis2=2), 1) ** 2


def _kernels(X, center, strength, moves, alike):
    """X diag(1 / strength) X' of the centered features, shape (outputs or 1, n, n), and a factor for each output."""
    inverse = _inverse(strength, moves)
    weights = inverse[:, :1] if alike else inverse
    largest = jnp.argmax(weights[:, 0])
    factor = inverse[largest] / positive(weights[largest]) if alike else jnp.ones_like(inverse[0])
    return jax.lax.map(lambda weight: weighted_gram(X, weight, len(X), center), weights.T), factor


def _product(X, center, coef):
    """Centered features times coefficients."""
    return X @ coef - center @ coef


def _transposed_product(X, center, slope):
    # Several times faster than X.T @ slope on a CPU.
    return (slope.T @ X).T - center[:, None] * jnp.sum(slope, 0)


def _inverse(strength, moves):
    return jnp.where(moves, 1 / positive(strength), 0.0)


def _dual_factor(X, center, curvature, kernels, strength, moves, fit_intercept):
    """What `_dual_solve` needs: A = S + X' C X is inverted by Woodbury's identity, the intercept bordered to it.

    Without an intercept the border is zero.
    """
    root = jnp.sqrt(curvature)
    kernels, factor = kernels

    def one(part):
        output, root, factor = part
        kernel = kernels[output] if len(kernels) > 1 else kernels[0]
        return _cholesky(jnp.eye(len(X), dtype=X.dtype) + kernel * (factor * root) * root[:, None])

    lower = jax.lax.map(one, (jnp.arange(len(factor)), root.T, factor))
    inverse = _inverse(strength, moves)
    cross = jnp.where(moves & fit_intercept, _transposed_product(X, center, curvature), 0.0)
    held = _woodbury(X, center, (root, lower, inverse), cross)
    left = jnp.sum(curvature, 0) - jnp.sum(cross * held, 0)
    return root, lower, inverse, cross, held, left


def _woodbury(X, center, parts, right):
    root, lower, inverse = parts
    scaled = inverse * right
    inner = root * _product(X, center, scaled)
    inner = _solve_each(lower, inner.T).T
    return scaled - inverse * _transposed_product(X, center, root * inner)


def _dual_solve(X, center, factor, right):
    *parts, cross, held, left = factor
    free = _woodbury(X, center, parts, right[1:])
    intercept = (right[0] - jnp.sum(cross * free, 0)) / left
    return jnp.concatenate([intercept[None], free - held * intercept])


def _dual_trace(factor, strength, moves):
    """Effective degrees of freedom of the coefficients of each output."""
    _, lower, _, _, held, left = factor

    n = lower.shape[1]
    return (
        n - jax.lax.map(lambda low: jnp.sum(_inverse_of_lower(low) ** 2), lower) - jnp.sum(strength * held**2, 0) / left
    )


def _inverse_of_lower(lower):
    """Inverse of a lower triangular matrix, by halves: a third of the work of solving for the identity."""
    n = len(lower)
    if n <= LARGEST_TRIANGLE:
        return solve_triangular(lower, jnp.eye(n, dtype=lower.dtype), lower=True)
    half = n // 2
    first, last = _inverse_of_lower(lower[:half, :half]), _inverse_of_lower(lower[half:, half:])
    return jnp.block([[first, jnp.zeros((half, n - half), lower.dtype)], [-last @ lower[half:, :half] @ first, last]])


def _push(history, new, where):
    """History with a new entry, for the outputs where there is one."""
    return jnp.where(where, jnp.concatenate([history[1:], new[None]]), history)


def _quasi_newton(solve, grad, steps, changes):
    """Inverse Hessian times gradient: `solve`, corrected by the past changes of the gradient (L-BFGS)."""
    if len(steps) == 0:
        return solve(grad)
    product = jnp.sum(steps * changes, 1)
    inverse = jnp.where(product > 0, 1 / positive(product), 0.0)

    def back(grad, pair):
        step, change, inverse = pair
        weight = inverse * jnp.sum(step * grad, 0)
        return grad - weight * change, weight

    def forth(result, pair):
        step, change, inverse, weight = pair
        return result + step * (weight - inverse * jnp.sum(change * result, 0)), None

    grad, weights = jax.lax.scan(back, grad, (steps, changes, inverse), reverse=True)
    return jax.lax.scan(forth, solve(grad), (steps, changes, inverse, weights))[0]
