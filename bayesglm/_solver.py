"""Proximal Newton method for penalized losses of a linear predictor.

Minimizes, over an array of coefficients w (p, m) and intercepts b (m,), with weights that sum to 1,

    F(w, b) = sum_i weight_i sum_o loss(y_io, offset_io + b_o + x_i w_o) + penalty(w).

Each step replaces the loss by its quadratic model with Fisher curvature, profiles the intercepts out, solves
the penalized quadratic problem (`smooth_step`: one Cholesky factorization; `composite_step`: accelerated
proximal steps that find which coefficients are zero, alternating with Newton steps on the others), and goes
back along the way until F falls. Everything is invariant to the scale of the features, so nothing needs to
be standardized: factorizations are scaled to a unit diagonal, and the residual is the correlation, in
absolute value, of each feature with the residuals (beyond what the penalty takes up).

The module knows nothing of families and priors but four functions: loss, mean, and a prior's penalty and prox.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

__all__ = ["Solution", "centered", "expand", "gram_with_intercept", "minimize", "trace_of_hat", "weighted_gram"]

MAX_HALVINGS = 40
INNER_ROUNDS = 50
PROX_STEPS = 15
SHORTER_STEPS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01)


class Solution(NamedTuple):
    """Result of `minimize`; the intercept belongs to the features as they were passed."""

    coef: Any  # (p, m)
    intercept: Any  # (m,)
    value: Any  # objective F
    residual: Any  # largest violation of optimality, a correlation
    n_iter: Any
    converged: Any


class _State(NamedTuple):
    coef: Any
    intercept: Any
    value: Any
    noise: Any  # rounding error of value
    slope: Any  # (n, m) weight * derivative of the loss
    curvature: Any  # (n, m) weight * expected second derivative
    grad: Any  # (p, m)
    residual: Any
    tol: Any
    n_iter: Any
    stuck: Any


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
    mean_correction = weight @ deviation  # a second pass removes the rounding error of the first
    deviation = deviation - mean_correction
    square = weight @ deviation**2
    varies = jnp.sqrt(square) > 8 * jnp.finfo(X.dtype).eps * jnp.abs(mean)
    return jnp.where(varies, deviation, 0.0), mean + mean_correction, jnp.where(varies, square, 0.0)


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


def weighted_gram(X, curvature):
    """Second derivatives of the loss, intercepts profiled out.

    Returns
    -------
    gram : (m, p, p)
    cross : (p, m)
        Derivatives by coefficient and intercept.
    total : (m,)
        Second derivative by the intercept.
    """
    full = gram_with_intercept(X, curvature)
    total, cross = full[:, 0, 0], full[:, 0, 1:]
    profiled = full[:, 1:, 1:] - cross[:, :, None] * cross[:, None, :] / _positive(total)[:, None, None]
    return profiled, cross.T, total


def minimize(X, square, y, weight, offset, strength, intercept, *, loss, mean, prior, tol, max_iter):
    """Minimize the penalized loss from coefficients zero.

    Parameters
    ----------
    X, square : (n, p), (p,)
        Features and their mean squares, as from `centered`.
    y, offset : (n, m)
    weight : (n,), sums to 1
    strength : pytree
        What `prior` takes.
    intercept : (m,)
        Where to start.
    loss, mean : callable
        loss(y, eta) and mean(eta), elementwise.
    prior : object with penalty, prox, is_flat and smooth
    tol : float
        Largest residual at which to stop.
    max_iter : int

    Returns
    -------
    Solution
    """
    step_rule = smooth_step if prior.smooth else composite_step
    coef = jnp.zeros((X.shape[1], y.shape[1]), X.dtype)
    column = weight[:, None]

    def objective(coef, eta):
        terms = column * loss(y, eta)
        return jnp.sum(terms) + prior.penalty(coef, strength), jnp.sum(jnp.abs(terms))

    def evaluate(coef, intercept, n_iter, stuck):
        eta = offset + intercept + X @ coef
        value, slope, curvature = expand(loss, mean, y, eta)
        rms = jnp.sqrt(jnp.sum(column * slope**2))
        rounding = jnp.finfo(X.dtype).eps * jnp.sum(column * (curvature * (1 + jnp.abs(eta)) + jnp.abs(slope)))
        slope, curvature = column * slope, column * curvature
        grad = X.T @ slope
        terms = column * value
        size = jnp.sum(jnp.abs(terms))
        noise = 16 * jnp.finfo(X.dtype).eps * size
        scale = jnp.sqrt(square)[:, None] * _positive(rms)
        metric = _metric(square[:, None] * jnp.sum(curvature, 0), strength, prior)
        violation = optimality(coef, grad, strength, metric, prior) / _positive(scale)
        residual = jnp.maximum(jnp.max(violation), jnp.max(jnp.abs(slope.sum(0))) / _positive(rms))
        reachable = jnp.maximum(tol, 8 * rounding / _positive(rms))
        value = jnp.sum(terms) + prior.penalty(coef, strength)
        return _State(
            coef, intercept, value, noise, slope, curvature, grad, residual, reachable, n_iter, stuck
        )

    def step(state):
        gram, cross, total = weighted_gram(X, state.curvature)
        slope = state.slope.sum(0)
        profiled = state.grad - cross * slope / _positive(total)
        rms = jnp.sqrt(jnp.sum(state.slope**2 / _positive(column)))
        scale = jnp.sqrt(square)[:, None] * _positive(rms)
        target = step_rule(gram, profiled, state.coef, strength, scale, state.residual, state.tol, prior)
        move = target - state.coef
        move_intercept = -(slope + jnp.sum(cross * move, 0)) / _positive(total)
        eta = offset + state.intercept + X @ state.coef
        along = X @ move + move_intercept
        penalty = prior.penalty(state.coef, strength)
        expected = jnp.sum(state.grad * move) + slope @ move_intercept + prior.penalty(target, strength) - penalty

        def too_far(carry):
            length, value, noise = carry
            falls = value <= state.value + 1e-4 * length * jnp.minimum(expected, 0.0) + noise + state.noise
            return ~falls & (length > 2.0**-MAX_HALVINGS)

        def halve(carry):
            length = carry[0] / 2
            value, size = objective(state.coef + length * move, eta + length * along)
            return length, value, 16 * jnp.finfo(X.dtype).eps * size

        value, size = objective(target, eta + along)
        one = jnp.ones((), X.dtype)
        length, _, _ = jax.lax.while_loop(
            too_far, halve, (one, value, 16 * jnp.finfo(X.dtype).eps * size)
        )
        stuck = length <= 2.0**-MAX_HALVINGS
        coef = jnp.where(length == 1, target, state.coef + length * move)
        return evaluate(
            jnp.where(stuck, state.coef, coef),
            jnp.where(stuck, state.intercept, state.intercept + length * move_intercept),
            state.n_iter + 1,
            stuck,
        )

    def unfinished(state):
        return (state.residual > state.tol) & ~state.stuck & (state.n_iter < max_iter)

    start = evaluate(coef, intercept, jnp.zeros((), int), jnp.zeros((), bool))
    end = jax.lax.while_loop(unfinished, step, start)
    return Solution(end.coef, end.intercept, end.value, end.residual, end.n_iter, end.residual <= end.tol)


def optimality(coef, grad, strength, metric, prior):
    """How far each coefficient is from satisfying its optimality condition, in units of the gradient."""
    return jnp.abs(coef - prior.prox(coef - grad / metric, strength, 1 / metric)) * metric


def smooth_step(gram, grad, coef, strength, scale, residual, tol, prior):
    """Minimizer of the quadratic model plus a smooth, quadratic penalty."""
    hessian = _block_diagonal(gram) + jnp.diag(prior.curvature(coef, strength, 0.0).ravel())
    gradient = grad + jax.grad(prior.penalty)(coef, strength)
    everything = jnp.ones(coef.size, bool)
    return coef - solve_active(hessian, gradient.ravel(), everything).reshape(coef.shape)


def composite_step(gram, grad, coef, strength, scale, residual, tol, prior):
    """Minimizer of the quadratic model plus a penalty with kinks, to a fraction of the present residual."""
    hessian = _block_diagonal(gram)
    shape = coef.shape

    def gradient(w):
        return grad + (hessian @ (w - coef).ravel()).reshape(shape)

    diagonal = jnp.diagonal(hessian).reshape(shape)
    metric = _metric(diagonal, strength, prior)
    root = jnp.sqrt(metric).ravel()
    # The largest row sum bounds the largest eigenvalue of the scaled Hessian.
    metric = metric * jnp.maximum(jnp.max(jnp.sum(jnp.abs(hessian / root / root[:, None]), 1)), 1.0)

    def violation(w):
        return jnp.max(optimality(w, gradient(w), strength, metric, prior) / _positive(scale))

    def prox_step(_, carry):
        w, ahead, momentum = carry
        new = prior.prox(ahead - gradient(ahead) / metric, strength, 1 / metric)
        restart = jnp.sum(metric * (ahead - new) * (new - w)) > 0
        grown = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        ahead = jnp.where(restart, new, new + (momentum - 1) / grown * (new - w))
        return new, ahead, jnp.where(restart, 1.0, grown)

    def newton_on_support(w):
        active = ((w != 0) | prior.is_flat(strength)).ravel()
        slope = (gradient(w) + jax.grad(prior.penalty)(w, strength)).ravel()
        bend = jax.hessian(prior.penalty)(w, strength).reshape(w.size, w.size)
        direction = -solve_active(hessian + bend, slope, active)
        lengths = jnp.array((0.0, *SHORTER_STEPS), w.dtype)
        linear = jnp.sum(jnp.where(active, gradient(w).ravel(), 0.0) * direction)
        square = direction @ hessian @ direction
        direction = direction.reshape(shape)
        penalties = jax.vmap(lambda t: prior.penalty(w + t * direction, strength))(lengths)
        change = lengths * linear + 0.5 * lengths**2 * square + (penalties - penalties[0])
        best = jnp.argmin(jnp.where(jnp.isnan(change), jnp.inf, change))
        return w + lengths[best] * direction

    def round_(carry):
        w, _, rounds = carry
        w, _, _ = jax.lax.fori_loop(0, PROX_STEPS, prox_step, (w, w, jnp.ones((), w.dtype)))
        w = newton_on_support(w)
        return w, violation(w), rounds + 1

    goal = jnp.maximum(0.01 * residual, 0.1 * tol)
    start = coef, jnp.full((), jnp.inf, coef.dtype), jnp.zeros((), int)
    w, _, _ = jax.lax.while_loop(lambda c: (c[1] > goal) & (c[2] < INNER_ROUNDS), round_, start)
    return w


def solve_active(hessian, right, active):
    """Solve hessian x = right over the active components; the others are 0.

    The matrix is scaled to a unit diagonal, and a jitter at the level of rounding makes singular systems
    solvable; one step of refinement takes the jitter's effect back where the system is regular.
    """
    scaled, root, factor = _factorize(hessian, active)
    right = jnp.where(active, right / root, 0.0)
    x = cho_solve(factor, right)
    x = x + cho_solve(factor, right - scaled @ x)
    return jnp.where(active, x / root, 0.0)


def trace_of_hat(gram, coef, strength, prior):
    """Effective degrees of freedom of the coefficients of each output, shape (m,).

    Trace of the hat matrix over the coefficients that are not zero, the curvature of the penalty included.
    """
    hessian = _block_diagonal(gram)
    active = ((coef != 0) | prior.is_flat(strength) | prior.smooth).ravel()
    bend = jax.hessian(prior.penalty)(coef, strength).reshape(coef.size, coef.size)
    _, root, factor = _factorize(hessian + bend, active)
    keep = active[:, None] & active
    scaled = jnp.where(keep, hessian / root / root[:, None], 0.0)
    return jnp.diagonal(cho_solve(factor, scaled)).reshape(coef.shape).sum(0)


def _factorize(hessian, active):
    """Matrix scaled to a unit diagonal over the active components, the scale, and the Cholesky factor."""
    root = jnp.sqrt(_positive(jnp.where(active, jnp.diagonal(hessian), 1.0)))
    scaled = jnp.where(active[:, None] & active, hessian / root / root[:, None], 0.0)
    jitter = jnp.where(active, 4 * len(active) * jnp.finfo(hessian.dtype).eps, 1.0)
    return scaled, root, cho_factor(scaled + jnp.diag(jitter), lower=True)


def _metric(diagonal, strength, prior):
    """Positive metric in which the prox is taken; one value for coefficients that are shrunk together."""
    return prior.common(_positive(diagonal), strength)


def _block_diagonal(blocks):
    """Block-diagonal matrix over coefficients in the order (feature, output)."""
    m, p, _ = blocks.shape
    if m == 1:
        return blocks[0]
    full = jnp.zeros((p, m, p, m), blocks.dtype)
    outputs = jnp.arange(m)
    full = full.at[:, outputs, :, outputs].set(blocks)
    return full.reshape(p * m, p * m)


def _positive(x):
    """x, with 1 in place of what is not positive, for divisions."""
    return jnp.where(x > 0, x, 1.0)
