"""Proximal Newton method for losses of a linear predictor under penalties with kinks.

Minimizes, over coefficients w (p, m) of some features and intercepts b (m,), with weights that sum to 1,

    F(w, b) = sum_i weight_i sum_o loss(y_io, offset_io + b_o + x_i w_o) + penalty(w).

Each step replaces the loss by its quadratic model with Fisher curvature, profiles the intercepts out, solves
the penalized quadratic problem, and goes back along the way until F falls. The Hessian of an earlier step serves
again as long as the residual falls fast. The quadratic problem is solved by passes over the coefficients that find
which are zero (coordinate descent, or accelerated proximal steps where the penalty couples coefficients) and, if
these take long, Newton steps on the others.

Everything is invariant to the scale of the features, so nothing needs to be standardized: factorizations are scaled
to a unit diagonal, and the residual is the correlation, in absolute value, of each feature with the derivatives of
the loss (beyond what the penalty takes up).

The module knows nothing of families and priors but the functions it is given. Features come transposed, since it
is by feature that they are read.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from bayesglm._passes import expected_curvature, positive, value_and_slope, weighted_gram

__all__ = ["Solution", "minimize", "optimality", "support", "trace_of_hat"]

MAX_HALVINGS = 40
MAX_ROUNDS = 50
STEP_LENGTHS = (0.0, 1.0, 0.5, 0.25, 0.1, 0.03, 0.01)
# The Hessian is renewed after a step that leaves more than this of the residual.
SLOW = 0.2
# Coefficients beyond which factorizations come in several sizes.
LARGE = 512
# Passes over the coefficients before a Newton step: a factorization costs that many, more or less.
LEAST_PASSES, PASSES_PER_FEATURE = 15, 1 / 256


class Solution(NamedTuple):
    """Result of `minimize`."""

    coef: Any  # (p, m)
    intercept: Any  # (m,)
    eta: Any  # (n, m)
    slope: Any  # (n, m) weight * derivative of the loss
    residual: Any  # largest violation of optimality, a correlation
    floor: Any  # residual that rounding allows
    n_iter: Any
    converged: Any
    gram: Any  # (m, p, p) second derivatives of the loss, intercepts profiled out, at the end or shortly before


class _Hessian(NamedTuple):
    gram: Any  # (m, p, p) intercepts profiled out
    cross: Any  # (p, m) derivatives by coefficient and intercept
    total: Any  # (m,) by the intercept
    curvature: Any  # (n, m) of which these are sums


class _Next(NamedTuple):
    coef: Any
    intercept: Any
    hessian: Any
    before: Any  # residual of the state before
    length: Any  # of the step
    n_iter: Any
    stuck: Any
    goes_on: Any


class _State(NamedTuple):
    coef: Any
    intercept: Any
    eta: Any  # (n, m)
    value: Any  # F
    noise: Any  # rounding error of F
    slope: Any  # (n, m) weight * derivative of the loss
    curvature: Any  # (n, m) weight * expected second derivative
    grad: Any  # (p, m)
    rms: Any  # root mean square of the loss's derivatives
    residual: Any
    floor: Any  # residual that rounding allows
    hessian: Any
    renew: Any  # whether the Hessian is too old
    n_iter: Any
    stuck: Any


def minimize(
    X, square, count, y, weight, offset, strength, free, start, *, loss, mean, prior, tol, max_iter, exact_gram
):
    """Minimize the penalized loss.

    Parameters
    ----------
    X, square : (p, n), (p,)
        Centered features, transposed, and their mean squares.
    count : int
        How many features there are; those after them are not free.
    y, offset : (n, m)
    weight : (n,), sums to 1
    strength : pytree
        What `prior` takes.
    free : (p, m) bool
        Coefficients that are not held at zero.
    start : pair of coef (p, m) and intercept (m,)
    loss, mean : callable
        loss(y, eta) and mean(eta), elementwise.
    prior : class with penalty, prox, common, is_flat, smooth and separable
    tol : float
        Largest residual at which to stop.
    max_iter : int
    exact_gram : bool
        Whether the second derivatives that are returned must be those at the minimum.

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

    def evaluate(at):
        coef, intercept, hessian, before, length, n_iter, stuck, _ = at
        eta = offset + intercept + (coef.T @ X).T
        slope, curvature = value_and_slope(loss, y, eta)[1], expected_curvature(loss, mean, eta)
        rms = positive(jnp.sqrt(jnp.sum(column * slope**2)))
        rounding = eps * jnp.sum(column * (curvature * (1 + jnp.abs(eta)) + jnp.abs(slope)))
        slope, curvature = column * slope, column * curvature
        grad = jnp.where(free, X @ slope, 0.0)
        violation = optimality(coef, grad, strength, square, rms, jnp.sum(curvature, 0), prior)
        residual = jnp.maximum(jnp.max(violation), jnp.max(jnp.abs(slope.sum(0))) / rms)
        value, noise = objective(coef, eta)
        return _State(
            coef=coef,
            intercept=intercept,
            eta=eta,
            value=value,
            noise=noise,
            slope=slope,
            curvature=curvature,
            grad=grad,
            rms=rms,
            residual=residual,
            floor=8 * rounding / rms,
            hessian=hessian,
            renew=(residual > SLOW * before) | (length < 1),
            n_iter=n_iter,
            stuck=stuck,
        )

    def step(state):
        hessian = jax.lax.cond(
            state.renew, lambda: profiled_hessian(X, state.curvature, free, count), lambda: state.hessian
        )
        slope = state.slope.sum(0)
        profiled = state.grad - hessian.cross * slope / positive(hessian.total)
        scale = jnp.sqrt(square)[:, None] * state.rms
        inner_goal = jnp.maximum(0.03 * state.residual, 0.1 * jnp.maximum(tol, state.floor))
        target = composite_step(hessian.gram, profiled, state.coef, strength, free, scale, inner_goal, count, prior)
        move = target - state.coef
        move_intercept = -(slope + jnp.sum(hessian.cross * move, 0)) / positive(hessian.total)
        along = (move.T @ X).T + move_intercept
        expected = jnp.sum(state.grad * move) + slope @ move_intercept
        expected += prior.penalty(target, strength) - prior.penalty(state.coef, strength)

        def too_far(carry):
            length, value, noise = carry  # at first 2 and infinity
            falls = value <= state.value + 1e-4 * length * jnp.minimum(expected, 0.0) + noise + state.noise
            return ~(falls & jnp.isfinite(value)) & (length > 2.0**-MAX_HALVINGS)

        def halve(carry):
            length = carry[0] / 2
            coef = jnp.where(length == 1, target, state.coef + length * move)  # target holds the exact zeros
            return length, *objective(coef, state.eta + length * along)

        length, _, _ = jax.lax.while_loop(too_far, halve, (zero + 2, zero + jnp.inf, zero))
        failed = length <= 2.0**-MAX_HALVINGS
        coef = jnp.where(length == 1, target, state.coef + length * move)
        intercept = state.intercept + length * move_intercept
        # A step that went nowhere may hold NaN.
        coef, intercept = jnp.where(failed, state.coef, coef), jnp.where(failed, state.intercept, intercept)
        # A failure with an old Hessian says nothing of a new one.
        stuck = failed & state.renew
        return _Next(coef, intercept, hessian, state.residual, length, state.n_iter + 1, stuck, zero < 1)

    def unfinished(state):
        return (state.residual > jnp.maximum(tol, state.floor)) & ~state.stuck & (state.n_iter < max_iter)

    def go_on(carry):
        """Evaluate, then step: so each is compiled once."""
        state = evaluate(carry[0])
        return jax.lax.cond(unfinished(state), step, rest, state), state

    def rest(state):
        return _Next(state.coef, state.intercept, state.hessian, zero, zero, state.n_iter, state.stuck, zero > 1)

    p, m = free.shape
    zero = jnp.zeros((), X.dtype)
    blank = _Hessian(*(jnp.zeros(shape, X.dtype) for shape in ((m, p, p), (p, m), m, y.shape)))
    begin = _Next(start[0], start[1], blank, zero, zero + 1, jnp.zeros((), int), zero > 1, zero < 1)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(evaluate, begin))
    end = jax.lax.while_loop(lambda carry: carry[0].goes_on, go_on, (begin, nothing))[1]
    hessian = end.hessian
    old = end.n_iter == 0
    if exact_gram:
        old |= jnp.any(jnp.abs(end.curvature - hessian.curvature) > 1e-9 * end.curvature)
    hessian = jax.lax.cond(old, lambda: profiled_hessian(X, end.curvature, free, count), lambda: hessian)
    return Solution(
        coef=end.coef,
        intercept=end.intercept,
        eta=end.eta,
        slope=end.slope,
        residual=end.residual,
        floor=end.floor,
        n_iter=end.n_iter,
        converged=(end.residual <= jnp.maximum(tol, end.floor)) & jnp.isfinite(end.value),
        gram=hessian.gram,
    )


def profiled_hessian(X, curvature, free, count):
    """Second derivatives of the loss by intercepts and the free coefficients of the first `count` features."""
    total, cross = jnp.sum(curvature, 0), jnp.where(free, X @ curvature, 0.0)

    def one(column, free, cross, total):
        gram = jnp.where(free[:, None] & free, weighted_gram(X, column, count), 0.0)
        return gram - cross[:, None] * cross / positive(total)

    outputs = range(curvature.shape[1])
    gram = jnp.stack([one(curvature[:, o], free[:, o], cross[:, o], total[o]) for o in outputs])
    return _Hessian(gram, cross, total, curvature)


def support(coef, strength, free, prior):
    """Which coefficients are held at zero neither by `free` nor by a kink of the penalty."""
    return free & ((coef != 0) | prior.is_flat(strength))


def optimality(coef, grad, strength, square, rms, total, prior):
    """How far each coefficient (p, m) is from satisfying its optimality condition, as a correlation.

    Parameters
    ----------
    coef, grad : (p, m)
    square : (p,)
        Mean squares of the features.
    rms : ()
        Root mean square of the loss's derivatives.
    total : (m,)
        Sums of the loss's curvature.
    """
    metric = prior.common(positive(square[:, None] * total), strength)
    return _violation(coef, grad, strength, metric, prior) / positive(jnp.sqrt(square)[:, None] * rms)


def _violation(coef, grad, strength, metric, prior):
    return jnp.abs(coef - prior.prox(coef - grad / metric, strength, 1 / metric)) * metric


def composite_step(gram, grad, coef, strength, free, scale, goal, count, prior):
    """Minimizer of the quadratic model plus a penalty with kinks, up to a residual of `goal`."""
    hessian = _block_diagonal(gram)
    shape = coef.shape
    limit = round(LEAST_PASSES + PASSES_PER_FEATURE * coef.size)

    def gradient(w):
        return grad + (hessian @ (w - coef).ravel()).reshape(shape)

    def one_round(carry):
        w, violation, rounds = carry
        arguments = w, gradient(w), hessian, strength, free, prior
        w = jax.lax.cond(rounds > 0, lambda: newton_on_support(*arguments), lambda: w)
        if prior.separable:
            w, violation = descend(w, gradient(w), hessian, strength, scale, goal, count, limit, prior)
        else:
            w, violation = accelerate(w, gradient, hessian, strength, scale, goal, limit, prior)
        return w, violation, rounds + 1

    start = coef, jnp.full((), jnp.inf, coef.dtype), jnp.zeros((), int)
    return jax.lax.while_loop(lambda c: (c[1] > goal) & (c[2] < MAX_ROUNDS), one_round, start)[0]


def descend(coef, grad, hessian, strength, scale, goal, count, limit, prior):
    """Coordinate descent on a quadratic function of gradient `grad` at coef (p, 1), plus a separable penalty.

    Returns
    -------
    coef : (p, 1)
    violation : ()
        Largest one met in the last pass.
    """
    metric = positive(jnp.diagonal(hessian))
    scale = positive(scale[:, 0])

    def one(j, carry):
        coef, grad, worst = carry
        own = jax.tree.map(lambda leaf: leaf[j, 0], strength)
        new = prior.prox(coef[j] - grad[j] / metric[j], own, 1 / metric[j])
        change = new - coef[j]
        grad = jax.lax.cond(change != 0, lambda: grad + change * hessian[j], lambda: grad)
        return coef.at[j].set(new), grad, jnp.maximum(worst, jnp.abs(change) * metric[j] / scale[j])

    def one_pass(carry):
        coef, grad, _, passes = carry
        return *jax.lax.fori_loop(0, count, one, (coef, grad, jnp.zeros((), coef.dtype))), passes + 1

    start = coef[:, 0], grad[:, 0], jnp.full((), jnp.inf, coef.dtype), jnp.zeros((), int)
    coef, _, worst, _ = jax.lax.while_loop(lambda c: (c[2] > goal) & (c[3] < limit), one_pass, start)
    return coef[:, None], worst


def accelerate(coef, gradient, hessian, strength, scale, goal, limit, prior):
    """Accelerated proximal steps on a quadratic function plus a penalty; returned as by `descend`."""
    metric = prior.common(positive(jnp.diagonal(hessian).reshape(coef.shape)), strength)
    root = jnp.sqrt(metric).ravel()
    # The largest row sum bounds the largest eigenvalue of the Hessian in this metric.
    metric = metric * jnp.maximum(jnp.max(jnp.sum(jnp.abs(hessian / root / root[:, None]), 1)), 1.0)

    def one_pass(carry):
        w, ahead, momentum, _, passes = carry
        new = prior.prox(ahead - gradient(ahead) / metric, strength, 1 / metric)
        restart = jnp.sum(metric * (ahead - new) * (new - w)) > 0
        grown = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        worst = jnp.max(metric * jnp.abs(ahead - new) / positive(scale))
        ahead = jnp.where(restart, new, new + (momentum - 1) / grown * (new - w))
        return new, ahead, jnp.where(restart, 1.0, grown), worst, passes + 1

    one, far = jnp.ones((), coef.dtype), jnp.full((), jnp.inf, coef.dtype)
    start = coef, coef, one, far, jnp.zeros((), int)
    coef, _, _, worst, _ = jax.lax.while_loop(lambda c: (c[3] > goal) & (c[4] < limit), one_pass, start)
    return coef, worst


def newton_on_support(coef, grad, hessian, strength, free, prior):
    """Newton's step on the coefficients that are not zero, cut where some reach zero if that is lower."""
    size, shape = coef.size, coef.shape
    active = support(coef, strength, free, prior).ravel()
    slope = jnp.where(active, grad.ravel() + jax.grad(prior.penalty)(coef, strength).ravel(), 0.0)
    bend = _bend(coef, strength, prior)

    def solve_some(width):
        """Solve for so many of the coefficients, the active ones among them."""
        some = jnp.argsort(~active, stable=True)[:width]
        part = _add_bend(hessian[some[:, None], some], bend[some] if bend.ndim == 1 else bend[some[:, None], some])
        return jnp.zeros_like(slope).at[some].set(solve_active(part, slope[some], active[some]))

    # The factorization costs the third power of the size: where that is much, leave out those that are zero.
    sizes = [-(-size * quarters // 4) for quarters in (1, 2, 3, 4)] if size > LARGE else [size]
    smallest = jnp.searchsorted(jnp.array(sizes), jnp.sum(active))
    direction = -jax.lax.switch(smallest, [partial(solve_some, width) for width in sizes])
    # Where coefficients reach zero: the only useful lengths if more are active than the data determine.
    flat = coef.ravel()
    reached = jnp.sort(jnp.where(flat * direction < 0, -flat / direction, jnp.inf))
    reached = reached[jnp.array([2**i - 1 for i in range(size.bit_length())])] * (1 + 8 * jnp.finfo(coef.dtype).eps)
    lengths = jnp.concatenate([jnp.array(STEP_LENGTHS, coef.dtype), jnp.where(reached < jnp.inf, reached, 0.0)])
    moves = jax.vmap(lambda t: prior.face(coef + t * direction.reshape(shape), coef, strength) - coef)(lengths)
    flat = moves.reshape(len(lengths), -1)
    change = flat @ grad.ravel() + 0.5 * jnp.sum(flat @ hessian * flat, 1)
    change = change + jax.vmap(lambda move: prior.penalty(coef + move, strength))(moves)
    best = jnp.argmin(jnp.where(jnp.isnan(change), jnp.inf, change))
    return coef + moves[best]


def _bend(coef, strength, prior):
    """Second derivatives of the penalty where it has them: the diagonal (p m,) if it is separable, or (p m, p m)."""
    if prior.separable:
        pull = jax.grad(lambda w: prior.penalty(w, strength))
        return jax.jvp(pull, (coef,), (jnp.ones_like(coef),))[1].ravel()
    return jax.hessian(prior.penalty)(coef, strength).reshape(coef.size, coef.size)


def _add_bend(hessian, bend):
    return hessian + bend if bend.ndim == 2 else hessian + jnp.diag(bend)


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
        Smallest squared pivot of the Hessian scaled to a unit diagonal; near 0 if it is singular. 1 if every
        coefficient has a kink and none a curvature: then the trace is the number of those that are not zero.
    """
    active = support(coef, strength, free, prior)
    bend = _bend(coef, strength, prior)

    def factorized():
        hessian, some = _block_diagonal(gram), active.ravel()
        _, root, factor = _factorize(_add_bend(hessian, bend), some)
        scaled = jnp.where(some[:, None] & some, hessian / root / root[:, None], 0.0)
        trace = jnp.diagonal(cho_solve(factor, scaled)).reshape(coef.shape).sum(0)
        return trace, jnp.min(jnp.diagonal(factor[0])) ** 2

    def counted():
        return jnp.sum(active, 0).astype(coef.dtype), jnp.ones((), coef.dtype)

    return jax.lax.cond(jnp.any(bend != 0) | jnp.any(free & prior.is_flat(strength)), factorized, counted)


def _factorize(hessian, active):
    """Matrix scaled to a unit diagonal over the active components, the scale, and the Cholesky factor.

    A jitter at the level of rounding makes singular systems solvable.
    """
    root = jnp.sqrt(positive(jnp.where(active, jnp.diagonal(hessian), 1.0)))
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
