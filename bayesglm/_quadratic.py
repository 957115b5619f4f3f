"""Quadratic functions of coefficients plus a penalty with kinks: their minimizers, and degrees of freedom there.

The minimizer is found by passes over the coefficients that find which are zero (coordinate descent, or accelerated
proximal steps where the penalty couples coefficients) and, if these take long, Newton steps on the others.
Factorizations are scaled to a unit diagonal.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from bayesglm._passes import positive

__all__ = ["composite_step", "trace_of_hat"]

MAX_ROUNDS = 50
STEP_LENGTHS = (0.0, 1.0, 0.5, 0.25, 0.1, 0.03, 0.01)
# Coefficients beyond which factorizations come in several sizes.
LARGE = 512
# Passes over the coefficients before a Newton step: a factorization costs that many, more or less.
LEAST_PASSES, PASSES_PER_FEATURE = 15, 1 / 256


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
        w = jax.lax.cond((rounds > 0) | prior.smooth, lambda: newton_on_support(*arguments), lambda: w)
        if prior.separable:
            w, violation = descend(w, gradient(w), hessian, strength, scale, goal, count, limit, prior)
        else:
            w, violation = accelerate(w, gradient, hessian, strength, scale, goal, limit, prior)
        return w, violation, rounds + 1

    start = coef, jnp.full((), jnp.inf, coef.dtype), jnp.zeros((), int)
    return jax.lax.while_loop(lambda c: (c[1] > goal) & (c[2] < MAX_ROUNDS), one_round, start)[0]


def descend(coef, grad, hessian, strength, scale, goal, count, limit, prior):
    """Coordinate descent on a quadratic function of gradient `grad` at coef (p, m), plus a separable penalty.

    Returns
    -------
    coef : (p, m)
    violation : ()
        Largest one met in the last pass.
    """
    metric = positive(jnp.diagonal(hessian))
    shape, scale = coef.shape, positive(jnp.broadcast_to(scale, coef.shape).ravel())
    strength = jax.tree.map(jnp.ravel, strength)

    def one(j, carry):
        coef, grad, worst = carry
        own = jax.tree.map(lambda leaf: leaf[j], strength)
        new = prior.prox(coef[j] - grad[j] / metric[j], own, 1 / metric[j])
        change = new - coef[j]
        grad = jax.lax.cond(change != 0, lambda: grad + change * hessian[j], lambda: grad)
        return coef.at[j].set(new), grad, jnp.maximum(worst, jnp.abs(change) * metric[j] / scale[j])

    def one_pass(carry):
        coef, grad, _, passes = carry
        begin = coef, grad, jnp.zeros((), coef.dtype)
        return *jax.lax.fori_loop(0, count * shape[1], one, begin), passes + 1

    start = coef.ravel(), grad.ravel(), jnp.full((), jnp.inf, coef.dtype), jnp.zeros((), int)
    coef, _, worst, _ = jax.lax.while_loop(lambda c: (c[2] > goal) & (c[3] < limit), one_pass, start)
    return coef.reshape(shape), worst


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


def support(coef, strength, free, prior):
    """Which coefficients are held at zero neither by `free` nor by a kink of the penalty."""
    return free & ((coef != 0) | ~prior.has_kink(strength))


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
    """Block-diagonal matrix over coefficients in the order (feature, output); that of joint losses is whole already."""
    if blocks.ndim == 2:
        return blocks
    m, p, _ = blocks.shape
    if m == 1:
        return blocks[0]
    outputs = jnp.arange(m)
    full = jnp.zeros((p, m, p, m), blocks.dtype).at[:, outputs, :, outputs].set(blocks)
    return full.reshape(p * m, p * m)
