"""Proximal Newton method for losses of a linear predictor under penalties with kinks.

Minimizes, over an array of coefficients w (p, m) and intercepts b (m,), with weights that sum to 1,

    F(w, b) = sum_i weight_i sum_o loss(y_io, offset_io + b_o + x_i w_o) + penalty(w).

Each step replaces the loss by its quadratic model with Fisher curvature, profiles the intercepts out, solves
the penalized quadratic problem (`composite_step`: accelerated proximal steps that find which coefficients are
zero, alternating with Newton steps on the others), and goes back along the way until F falls. Everything is
invariant to the scale of the features, so nothing needs to be standardized: factorizations are scaled to a unit
diagonal, and the residual is the correlation, in absolute value, of each feature with the derivatives of the
loss (beyond what the penalty takes up).

The module knows nothing of families and priors but the functions it is given.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

__all__ = [
    "Solution",
    "centered",
    "expand",
    "gram_with_intercept",
    "minimize",
    "profiled_gram",
    "support",
    "trace_of_hat",
]

MAX_HALVINGS = 40
MAX_ROUNDS = 50
PROX_STEPS = 15
STEP_LENGTHS = (0.0, 1.0, 0.5, 0.25, 0.1, 0.03, 0.01)


class Solution(NamedTuple):
    """Result of `minimize`."""

    coef: Any  # (p, m)
    intercept: Any  # (m,)
    residual: Any  # largest violation of optimality, a correlation
    n_iter: Any
    converged: Any
    overflow: Any  # whether it stopped because more than `width` features have coefficients that are not zero


class _State(NamedTuple):
    coef: Any
    intercept: Any
    eta: Any  # (n, m)
    value: Any  # F
    noise: Any  # rounding error of F
    slope: Any  # (n, m) weight * derivative of the loss
    curvature: Any  # (n, m) weight * expected second derivative
    grad: Any  # (p, m)
    scale: Any  # (p, m) gradient of a feature that correlates perfectly with the derivatives
    urgency: Any  # (p,) order in which features enter the working set
    residual: Any
    goal: Any  # residual at which to stop: the tolerance, or what rounding allows
    n_iter: Any
    stuck: Any
    overflow: Any


def centered(X, weight):
    """Subtract the weighted mean from each feature; constant features become exactly zero.

    Returns
    -------
    X : (n, p)
    mean : (p,)
    square : (p,)
        Weighted mean square of the centered feature.
    """
    mean = weight @ X
    deviation = X - mean
    correction = weight @ deviation  # a second pass removes the rounding error of the first
    deviation = deviation - correction
    square = weight @ deviation**2
    varies = jnp.sqrt(square) > 8 * jnp.finfo(X.dtype).eps * jnp.abs(mean)
    return jnp.where(varies, deviation, 0.0), mean + correction, jnp.where(varies, square, 0.0)


def expand(loss, mean, y, eta):
    """Value, slope and expected curvature of the loss in eta, elementwise.

    The loss is linear in y, or has a second derivative free of y, so its second derivative at y = mean is
    its expected second derivative.
    """

    def slope(at, e):
        return jax.jvp(lambda x: loss(at, x), (e,), (jnp.ones_like(e),))[1]

    expected = jax.lax.stop_gradient(mean(eta))
    curvature = jax.jvp(lambda e: slope(expected, e), (eta,), (jnp.ones_like(eta),))[1]
    return loss(y, eta), slope(y, eta), curvature


def gram_with_intercept(X, curvature):
    """Second derivatives of the loss by (intercept, coefficients) of each output, shape (m, 1 + p, 1 + p)."""

    def block(column):
        cross = X.T @ column
        gram = (X * column[:, None]).T @ X
        return jnp.block([[jnp.sum(column)[None, None], cross[None]], [cross[:, None], gram]])

    return jnp.stack([block(curvature[:, o]) for o in range(curvature.shape[1])])


def profiled_gram(X, curvature, free):
    """Second derivatives of the loss by the free coefficients, intercepts profiled out.

    Returns
    -------
    gram : (m, p, p)
    cross : (p, m)
        Derivatives by coefficient and intercept.
    total : (m,)
        Second derivative by the intercept.
    """
    full = gram_with_intercept(X, curvature)
    total, cross = full[:, 0, 0], jnp.where(free.T, full[:, 0, 1:], 0.0)
    gram = jnp.where(free.T[:, :, None] & free.T[:, None], full[:, 1:, 1:], 0.0)
    gram = gram - cross[:, :, None] * cross[:, None, :] / _positive(total)[:, None, None]
    return gram, cross.T, total


def minimize(X, square, y, weight, offset, strength, free, start, *, loss, mean, prior, tol, max_iter, width):
    """Minimize the penalized loss.

    Parameters
    ----------
    X, square : (n, p), (p,)
        Features and their mean squares, as from `centered`.
    y, offset : (n, m)
    weight : (n,), sums to 1
    strength : pytree
        What `prior` takes.
    free : (p, m) bool
        Coefficients that are not held at zero.
    start : pair of coef (p, m) and intercept (m,)
    loss, mean : callable
        loss(y, eta) and mean(eta), elementwise.
    prior : class with penalty, prox, common, curvature, is_flat, rows and smooth
    tol : float
        Largest residual at which to stop.
    max_iter : int
    width : int
        Size of the working set: each step moves at most so many features, those that are not zero or violate
        their optimality condition most. p for smooth penalties.

    Returns
    -------
    Solution
    """
    eps = jnp.finfo(X.dtype).eps
    column = weight[:, None]

    def objective(coef, eta):
        """F, infinite where eta is, and its rounding error."""
        terms = column * loss(y, eta)
        value = jnp.sum(terms) + prior.penalty(coef, strength)
        return jnp.where(jnp.isfinite(jnp.sum(eta)), value, jnp.inf), 16 * eps * jnp.sum(jnp.abs(terms))

    def evaluate(coef, intercept, n_iter, stuck):
        eta = offset + intercept + X @ coef
        _, slope, curvature = expand(loss, mean, y, eta)
        rms = _positive(jnp.sqrt(jnp.sum(column * slope**2)))
        rounding = eps * jnp.sum(column * (curvature * (1 + jnp.abs(eta)) + jnp.abs(slope)))
        slope, curvature = column * slope, column * curvature
        grad = jnp.where(free, X.T @ slope, 0.0)
        scale = jnp.sqrt(square)[:, None] * rms
        metric = prior.common(_positive(square[:, None] * jnp.sum(curvature, 0)), strength)
        violation = jnp.max(optimality(coef, grad, strength, metric, prior) / _positive(scale), axis=1)
        residual = jnp.maximum(jnp.max(violation), jnp.max(jnp.abs(slope.sum(0))) / rms)
        active = jnp.any(support(coef, strength, free, prior), axis=1)
        urgency = jnp.where(active, jnp.inf, violation)
        goal = jnp.maximum(tol, 8 * rounding / rms)
        value, noise = objective(coef, eta)
        # Room must be left for features that are to enter.
        overflow = (jnp.sum(active) > 0.75 * width) & (width < len(square))
        return _State(
            coef=coef,
            intercept=intercept,
            eta=eta,
            value=value,
            noise=noise,
            slope=slope,
            curvature=curvature,
            grad=grad,
            scale=scale,
            urgency=urgency,
            residual=residual,
            goal=goal,
            n_iter=n_iter,
            stuck=stuck,
            overflow=overflow,
        )

    def step(state):
        rows = jnp.arange(width) if width == len(square) else jax.lax.top_k(state.urgency, width)[1]
        features, strengths, free_rows = X[:, rows], prior.rows(strength, rows), free[rows]
        gram, cross, total = profiled_gram(features, state.curvature, free_rows)
        slope = state.slope.sum(0)
        profiled = state.grad[rows] - cross * slope / _positive(total)
        inner_goal = jnp.maximum(0.01 * state.residual, 0.1 * state.goal)
        arguments = gram, profiled, state.coef[rows], strengths, free_rows, state.scale[rows], inner_goal
        part = composite_step(*arguments, prior)
        move = part - state.coef[rows]
        move_intercept = -(slope + jnp.sum(cross * move, 0)) / _positive(total)
        along = features @ move + move_intercept
        target = state.coef.at[rows].set(part)
        expected = jnp.sum(state.grad[rows] * move) + slope @ move_intercept
        expected += prior.penalty(target, strength) - prior.penalty(state.coef, strength)
        move = target - state.coef

        def too_far(carry):
            length, value, noise = carry
            falls = value <= state.value + 1e-4 * length * jnp.minimum(expected, 0.0) + noise + state.noise
            return ~(falls & jnp.isfinite(value)) & (length > 2.0**-MAX_HALVINGS)

        def halve(carry):
            length = carry[0] / 2
            return length, *objective(state.coef + length * move, state.eta + length * along)

        full = jnp.ones((), X.dtype), *objective(target, state.eta + along)
        length, _, _ = jax.lax.while_loop(too_far, halve, full)
        stuck = length <= 2.0**-MAX_HALVINGS
        coef = jnp.where(length == 1, target, state.coef + length * move)  # target holds the exact zeros
        intercept = state.intercept + length * move_intercept
        # A step that went nowhere may hold NaN.
        coef, intercept = jnp.where(stuck, state.coef, coef), jnp.where(stuck, state.intercept, intercept)
        return evaluate(coef, intercept, state.n_iter + 1, stuck)

    def unfinished(state):
        return (state.residual > state.goal) & ~state.stuck & ~state.overflow & (state.n_iter < max_iter)

    first = evaluate(start[0], start[1], jnp.zeros((), int), jnp.zeros((), bool))
    end = jax.lax.while_loop(unfinished, step, first)
    converged = (end.residual <= end.goal) & ~end.overflow & jnp.isfinite(end.value)
    return Solution(end.coef, end.intercept, end.residual, end.n_iter, converged, end.overflow)


def support(coef, strength, free, prior):
    """Which coefficients are held at zero neither by `free` nor by a kink of the penalty."""
    return free & ((coef != 0) | prior.is_flat(strength) | prior.smooth)


def optimality(coef, grad, strength, metric, prior):
    """How far each coefficient is from satisfying its optimality condition, in units of the gradient."""
    return jnp.abs(coef - prior.prox(coef - grad / metric, strength, 1 / metric)) * metric


def composite_step(gram, grad, coef, strength, free, scale, goal, prior):
    """Minimizer of the quadratic model plus a penalty with kinks, up to a residual of `goal`."""
    hessian = _block_diagonal(gram)
    shape = coef.shape

    def gradient(w):
        return grad + (hessian @ (w - coef).ravel()).reshape(shape)

    metric = prior.common(_positive(jnp.diagonal(hessian).reshape(shape)), strength)
    root = jnp.sqrt(metric).ravel()
    # The largest row sum bounds the largest eigenvalue of the Hessian in this metric.
    metric = metric * jnp.maximum(jnp.max(jnp.sum(jnp.abs(hessian / root / root[:, None]), 1)), 1.0)

    def prox_step(_, carry):
        w, ahead, momentum = carry
        new = prior.prox(ahead - gradient(ahead) / metric, strength, 1 / metric)
        restart = jnp.sum(metric * (ahead - new) * (new - w)) > 0
        grown = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        ahead = jnp.where(restart, new, new + (momentum - 1) / grown * (new - w))
        return new, ahead, jnp.where(restart, 1.0, grown)

    def newton_on_support(w):
        active = support(w, strength, free, prior).ravel()
        slope = jnp.where(active, gradient(w).ravel(), 0.0)
        bend = jax.hessian(prior.penalty)(w, strength).reshape(w.size, w.size)
        pull = jax.grad(prior.penalty)(w, strength).ravel()
        direction = -solve_active(hessian + bend, slope + pull, active)
        # Where coefficients reach zero: the only useful lengths if more are active than the data determine.
        reached = jnp.sort(jnp.where(w.ravel() * direction < 0, -w.ravel() / direction, jnp.inf))
        reached = reached[jnp.array([2**i - 1 for i in range(w.size.bit_length())])] * (1 + 8 * jnp.finfo(w.dtype).eps)
        lengths = jnp.concatenate([jnp.array(STEP_LENGTHS, w.dtype), jnp.where(reached < jnp.inf, reached, 0.0)])
        moves = jax.vmap(lambda t: prior.face(w + t * direction.reshape(shape), w, strength) - w)(lengths)
        flat = moves.reshape(len(lengths), -1)
        change = flat @ gradient(w).ravel() + 0.5 * jnp.sum(flat @ hessian * flat, 1)
        change = change + jax.vmap(lambda move: prior.penalty(w + move, strength))(moves)
        best = jnp.argmin(jnp.where(jnp.isnan(change), jnp.inf, change))
        return w + moves[best]

    def one_round(carry):
        w, _, rounds = carry
        w, _, _ = jax.lax.fori_loop(0, PROX_STEPS, prox_step, (w, w, jnp.ones((), w.dtype)))
        w = newton_on_support(w)
        violation = jnp.max(optimality(w, gradient(w), strength, metric, prior) / _positive(scale))
        return w, violation, rounds + 1

    start = coef, jnp.full((), jnp.inf, coef.dtype), jnp.zeros((), int)
    return jax.lax.while_loop(lambda c: (c[1] > goal) & (c[2] < MAX_ROUNDS), one_round, start)[0]


def solve_active(hessian, right, active):
    """Solve hessian x = right over the active components; the others are 0.

    One step of refinement takes the jitter's effect back where the system is regular.
    """
    scaled, root, factor = _factorize(hessian, active)
    right = jnp.where(active, right / root, 0.0)
    x = cho_solve(factor, right)
    x = x + cho_solve(factor, right - scaled @ x)
    return jnp.where(active, x / root, 0.0)


def trace_of_hat(gram, coef, strength, free, prior):
    """Effective degrees of freedom of the coefficients of each output, and how well they are determined.

    Returns
    -------
    trace : (m,)
        Trace of the hat matrix over the coefficients that are not zero, the penalty's curvature included.
    pivot : ()
        Smallest squared pivot of the Hessian scaled to a unit diagonal; near 0 if it is singular.
    """
    hessian = _block_diagonal(gram)
    active = support(coef, strength, free, prior).ravel()
    bend = jax.hessian(prior.penalty)(coef, strength).reshape(coef.size, coef.size)
    _, root, factor = _factorize(hessian + bend, active)
    scaled = jnp.where(active[:, None] & active, hessian / root / root[:, None], 0.0)
    trace = jnp.diagonal(cho_solve(factor, scaled)).reshape(coef.shape).sum(0)
    return trace, jnp.min(jnp.diagonal(factor[0])) ** 2


def _factorize(hessian, active):
    """Matrix scaled to a unit diagonal over the active components, the scale, and the Cholesky factor.

    A jitter at the level of rounding makes singular systems solvable.
    """
    root = jnp.sqrt(_positive(jnp.where(active, jnp.diagonal(hessian), 1.0)))
    scaled = jnp.where(active[:, None] & active, hessian / root / root[:, None], 0.0)
    jitter = jnp.where(active, 4 * len(active) * jnp.finfo(hessian.dtype).eps, 1.0)
    return scaled, root, cho_factor(scaled + jnp.diag(jitter), lower=True)


def _block_diagonal(blocks):
    """Block-diagonal matrix over coefficients in the order (feature, output)."""
    m, p, _ = blocks.shape
    if m == 1:
        return blocks[0]
    outputs = jnp.arange(m)
    full = jnp.zeros((p, m, p, m), blocks.dtype).at[:, outputs, :, outputs].set(blocks)
    return full.reshape(p * m, p * m)


def _positive(x):
    """x, with 1 in place of what is not positive, for divisions."""
    return jnp.where(x > 0, x, 1.0)
