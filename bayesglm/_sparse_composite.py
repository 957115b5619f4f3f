"""Proximal Newton method for features of a sparse X: `_composite.minimize`, but X is read by products alone.

The Hessian of a working set is a product of sparse matrices, of the set's size; its quadratic model is solved by the
compiled program that serves dense X.
"""

from functools import partial
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._composite import MAX_HALVINGS, SLOW, Hessian, Solution, optimality
from bayesglm._quadratic import composite_step
from bayesglm._sparse_matrix import weighted_sums
from bayesglm._sparse_smooth import Look, losses
from bayesglm.observation_models import is_canonical

__all__ = ["minimize_sparse"]

EPS = np.finfo(float).eps


class _Point(NamedTuple):
    coef: Any  # (w, m)
    intercept: Any  # (m,)
    eta: Any  # (n, m)
    look: Look
    value: Any  # F
    grad: Any  # (w, m)
    rms: Any  # root mean square of the loss's derivatives
    residual: Any
    floor: Any  # residual that rounding allows


def minimize_sparse(
    features, problem, rows, count, start, tol, max_iter, *, family, link, prior, exact_trace, fit_intercept
):
    """Solution for the first `count` features of `rows`, the others being zero; arguments are those of `_solve_part`.

    Returns
    -------
    Solution
    """
    y, offset, strength, free, scale = problem
    chosen = rows[:count]
    columns, center = features.X.columns[:, chosen], features.center[chosen]
    square = np.zeros(len(rows))
    square[:count] = features.square[chosen]
    counts = np.arange(len(rows)) < count
    moves = free[rows] & (counts & (square > 0))[:, None]
    strength = prior.rows(strength, rows)
    settings = {"share": features.share, "scale": scale, "family": family, "link": link}
    canonical = is_canonical(family, link)
    measure = partial(losses, y, **settings, of_steps=not canonical)

    def product(coef):
        return columns @ coef[:count] - center @ coef[:count]

    def evaluate(coef, intercept):
        eta = offset + intercept + product(coef)
        look = jax.tree.map(np.asarray, measure(eta))
        grad = np.zeros_like(coef)
        grad[:count] = columns.T @ look.slope - center[:, None] * look.slope.sum(0)
        grad = np.where(moves, grad, 0.0)
        rms = np.sqrt((look.rms**2).sum()) or 1.0
        violation = _largest_violation(coef, grad, strength, square, rms, look.curvature.sum(0), prior=prior)
        residual = max(float(violation), np.abs(look.slope.sum(0)).max() / rms * fit_intercept)
        # Where slopes are so large that their squares overflow, the optimum is far.
        residual = residual if np.isfinite(rms) else np.inf
        value = look.value.sum() + _penalty(coef, strength, prior=prior)
        return _Point(coef, intercept, eta, look, value, grad, rms, residual, 8 * look.rounding.sum() / rms)

    def renewed(look):
        return _hessian(columns, center, features.share, look, moves, count, fit_intercept=fit_intercept)

    point = evaluate(np.where(counts[:, None], start[0], 0.0), np.asarray(start[1]))
    hessian, renew, stuck, n_iter = None, True, False, 0
    while point.residual > max(tol, point.floor) and not stuck and n_iter < max_iter:
        if renew:
            hessian = renewed(point.look)
        ahead, length, failed = _step(
            point, hessian, strength, moves, square, count, tol, product, measure, prior, fit_intercept=fit_intercept
        )
        before, point, n_iter = point.residual, (point if failed else evaluate(*ahead)), n_iter + 1
        # A failure with an old Hessian says nothing of a new one.
        stuck, renew = failed and renew, failed or length < 1 or point.residual > SLOW * before
    curvature = point.look.curvature
    if hessian is None or (exact_trace and (np.abs(curvature - hessian.curvature) > 1e-9 * curvature).any()):
        hessian = renewed(point.look)
    if not canonical:
        hessian = renewed(jax.tree.map(np.asarray, losses(y, point.eta, **settings, of_steps=False)))
    converged = point.residual <= max(tol, point.floor) and bool(np.isfinite(point.value))
    return Solution(
        coef=point.coef,
        intercept=point.intercept,
        eta=point.eta,
        slope=point.look.slope,
        residual=point.residual,
        floor=point.floor,
        n_iter=n_iter,
        converged=converged,
        hessian=hessian,
    )


def _step(point, hessian, strength, moves, square, count, tol, product, measure, prior, *, fit_intercept):
    """Coefficients and intercept after a proximal Newton step, its length, and whether F did not fall."""
    slope = point.look.slope.sum(0) * fit_intercept
    profiled = point.grad - np.where(moves, hessian.by_coef(hessian.inner(slope)), 0.0)
    scale = np.sqrt(square)[:, None] * point.rms
    goal = max(0.03 * point.residual, 0.1 * max(tol, point.floor))
    target = np.asarray(
        _quadratic_step(hessian.gram, profiled, point.coef, strength, moves, scale, goal, count, prior=prior)
    )
    move = target - point.coef
    move_intercept = -np.asarray(hessian.inner(slope + hessian.by_intercept(move)))
    along = product(move) + move_intercept
    expected = (point.grad * move).sum() + slope @ move_intercept
    expected += _penalty(target, strength, prior=prior) - _penalty(point.coef, strength, prior=prior)
    length = 1.0
    while length > 2.0**-MAX_HALVINGS:
        coef = target if length == 1 else point.coef + length * move  # target holds the exact zeros
        look = measure(point.eta + length * along)
        value = float(look.value.sum()) + _penalty(coef, strength, prior=prior)
        noise = 16 * EPS * float(look.size.sum() + point.look.size.sum())
        if np.isfinite(value) and value <= point.value + 1e-4 * length * min(expected, 0.0) + noise:
            return (coef, point.intercept + length * move_intercept), length, False
        length /= 2
    return (point.coef, point.intercept), length, True


def _hessian(columns, center, share, look, moves, count, *, fit_intercept):
    """Second derivatives of the loss, intercepts profiled out; those of features after the first `count` are zero."""
    if look.mean is not None:
        return _joint_hessian(columns, center, share, look, moves, count, fit_intercept=fit_intercept)
    width, m = moves.shape
    gram, cross, total = np.zeros((m, width, width)), np.zeros((width, m)), np.zeros(m)
    for o in range(m):
        gram[o, :count, :count], cross[:count, o], total[o] = weighted_sums(columns, center, look.curvature[:, o])
    cross, free = np.where(moves & fit_intercept, cross, 0.0), moves.T
    gram -= cross.T[:, :, None] * cross.T[:, None] / np.where(total > 0, total, 1.0)[:, None, None]
    return Hessian(np.where(free[:, :, None] & free[:, None], gram, 0.0), cross, total, look.curvature)


def _joint_hessian(columns, center, share, look, moves, count, *, fit_intercept):
    """`_hessian` of a joint loss."""
    width, m = moves.shape
    gram, cross, total = np.zeros((width, m, width, m)), np.zeros((width, m, m)), np.zeros((m, m))
    for a, b in combinations_with_replacement(range(m), 2):
        own, sums, whole = weighted_sums(columns, center, look.between(share, a, b))
        gram[:count, a, :count, b] = gram[:count, b, :count, a] = own
        cross[:count, a, b] = cross[:count, b, a] = sums
        total[a, b] = total[b, a] = whole
    gram, cross = gram.reshape(width * m, -1), cross.reshape(width * m, m)
    free = moves.ravel()
    cross = np.where(free[:, None] & fit_intercept, cross, 0.0)
    blank = Hessian(gram, cross, total, look.curvature)
    gram = gram - cross @ np.asarray(jax.vmap(blank.inner, 1, 1)(cross.T))
    return blank._replace(gram=np.where(free[:, None] & free, gram, 0.0))


_quadratic_step = jax.jit(composite_step, static_argnames="prior")


@partial(jax.jit, static_argnames="prior")
def _largest_violation(coef, grad, strength, square, rms, total, *, prior):
    return jnp.max(optimality(coef, grad, strength, square, rms, total, prior))


def _penalty(coef, strength, *, prior):
    return float(_jitted_penalty(coef, strength, prior=prior))


@partial(jax.jit, static_argnames="prior")
def _jitted_penalty(coef, strength, *, prior):
    return prior.penalty(coef, strength)
