"""Modes under smooth penalties of problems whose X is sparse.

Newton's method, its steps by conjugate gradients: all that is asked of X are products with vectors and sums over what
it holds, on NumPy's side. Features are centered in the formulas only, so that the intercept does not get in the way.
Outputs are columns, each on its own, and share the products.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from bayesglm._map import Mode, pearson, start_of_intercept
from bayesglm._passes import expected_curvature, value_and_slope
from bayesglm.links import IDENTITY
from bayesglm.observation_models import GaussianObservations

__all__ = ["Look", "find_sparse_smooth_modes", "losses"]

# Numbers, of samples and features times outputs, that are solved for at once.
BLOCK = 10**7
# Features up to which the Hessian is factorized to guide conjugate gradients.
SMALL_WIDTH = 256
# Features, or samples, up to which degrees of freedom are exact: where the dispersion rests on them, or not.
EXACT_TRACE, CHEAP_TRACE = 2000, 500
# Random vectors that estimate them beyond.
EXACT_PROBES, CHEAP_PROBES = 32, 8
PROBE_TOL = 1e-3
MAX_PRODUCTS = 2000
SMALLEST_STEP = 2.0**-40
EPS = np.finfo(float).eps


class _Problem(NamedTuple):
    X: Any
    square: Any  # (n, p) squares of X
    center: Any  # (p,) means
    share: Any  # (n,) of each sample, sums to 1
    spread: Any  # (p,) mean squares around the means
    strength: Any  # (p, m)
    moves: Any  # (p, m) bool: coefficients that are solved for


class Look(NamedTuple):
    """The loss and its derivatives at some linear predictors."""

    value: Any  # (m,) mean loss
    size: Any  # (m,) mean absolute loss
    slope: Any  # (n, m) share * derivative
    curvature: Any  # (n, m) share * expected second derivative
    rms: Any  # (m,) root mean square of the derivatives
    rounding: Any  # (m,) rounding error of the gradient


def find_sparse_smooth_modes(X, weight, y, offset, strength, free, scale, start, tol, max_iter, *, family, link, trace):
    """Penalized fits of a batch of problems of one output each; arguments as those of `find_smooth_modes`.

    Parameters
    ----------
    X : SparseMatrix
    trace : {"exact", "cheap", "none"}
        Whether the effective degrees of freedom matter much, or a bit, or are NaN. They are exact for few features or
        samples, and otherwise Hutchinson's estimate, from random vectors that are the same each time.

    Returns
    -------
    Mode
    """
    share = weight / weight.sum()
    center, spread = X.moments(share)
    square = X.rows.power(2)
    block = max(1, BLOCK // sum(X.shape))
    modes = []
    for first in range(0, len(scale), block):
        some = slice(first, first + block)
        columns = y[some, :, 0].T, offset[some, :, 0].T
        moves = free[some, :, 0].T & (spread > 0)[:, None]
        problem = _Problem(X, square, center, share, spread, strength[some, :, 0].T.astype(float), moves)
        begin = start[0][some, :, 0].T, start[1][some, 0]
        measure = partial(losses, columns[0], share=share, scale=scale[some], family=family, link=link)
        quadratic = family is GaussianObservations and link == IDENTITY
        mode = _solve(problem, measure, columns, begin, tol, max_iter, trace, link, quadratic=quadratic)
        statistic = np.asarray(pearson(columns[0], mode.pop("eta"), weight, scale[some], family, link))
        lost = (free[some, :, 0].T & ~moves & (problem.strength == 0)).any(0)
        mode["pivot"] = np.where(lost, 0.0, mode["pivot"])
        modes.append(Mode(**mode, pearson=statistic[:, None]))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *modes)


@partial(jax.jit, static_argnames=("family", "link"))
def losses(y, eta, share, scale, *, family, link):
    """Loss of y (n, m) at linear predictors eta and its derivatives."""
    loss = partial(family.nll, link=link, scale=scale)
    weight = share[:, None]
    value, slope = value_and_slope(loss, y, eta)
    # What overflows must not meet a weight of 0.
    value, slope, curvature = (
        jnp.where(weight > 0, weight * z, 0.0) for z in (value, slope, expected_curvature(loss, link.inverse, eta))
    )
    rms = jnp.sqrt(jnp.sum(jnp.where(weight > 0, slope**2 / jnp.where(weight > 0, weight, 1.0), 0.0), 0))
    total = jnp.where(jnp.isfinite(jnp.sum(eta, 0)), jnp.sum(value, 0), jnp.inf)
    rounding = EPS * jnp.sum(curvature * (1 + jnp.abs(eta)) + jnp.abs(slope), 0)
    return Look(total, jnp.sum(jnp.abs(value), 0), slope, curvature, rms, rounding)


def _solve(problem, measure, columns, begin, tol, max_iter, trace, link, *, quadratic):
    """Fields of a Mode but for Pearson's statistic, and the linear predictor."""
    X, center, strength, moves = problem.X, problem.center, problem.strength, problem.moves
    y, offset = columns
    coef, intercept = np.where(moves, begin[0], 0.0), begin[1]
    intercept = np.where(
        np.isnan(intercept),
        np.asarray(start_of_intercept(y, offset, problem.share, link, True)),
        intercept + center @ coef,
    )
    eta = offset + intercept + (X @ coef - center @ coef if coef.any() else 0.0)
    look = Look(*map(np.asarray, measure(eta)))
    done, n_iter = np.zeros(len(intercept), bool), np.zeros(len(intercept), int)
    while True:
        grad = _gradient(problem, look.slope, coef)
        rms = np.where(look.rms > 0, look.rms, 1.0)
        unit = np.concatenate([np.ones(1), np.sqrt(np.where(problem.spread > 0, problem.spread, 1.0))])[:, None] * rms
        residual = np.abs(grad / unit).max(0)
        goal = np.maximum(tol, 8 * (look.rounding / rms + EPS))
        done |= (residual <= goal) | (n_iter >= max_iter)
        active = np.flatnonzero(~done)
        if not active.size:
            break
        part = problem._replace(strength=strength[:, active], moves=moves[:, active])
        # Far away, a step need not be Newton's to the last digit.
        rough = 0.0 if quadratic else residual * np.minimum(0.1, residual)
        inner = (unit * np.maximum(0.1 * goal, rough))[:, active]
        step = np.zeros_like(grad)
        step[:, active] = -_conjugate_gradients(part, look.curvature[:, active], grad[:, active], inner)
        along = step[0] + X @ step[1:] - center @ step[1:]
        slope = (grad * step).sum(0)
        value, noise = look.value + _penalty(strength, coef), 16 * EPS * look.size
        length = np.ones(len(done))
        while True:
            ahead = coef + length * step[1:]
            seen = Look(*map(np.asarray, measure(eta + length * along)))
            new, limit = seen.value + _penalty(strength, ahead), value + 1e-4 * length * np.minimum(slope, 0.0)
            falls = np.isfinite(new) & (new <= limit + noise + 16 * EPS * seen.size)
            short = ~falls & ~done
            if not short.any() or length[short].min() < SMALLEST_STEP:
                break
            length = np.where(short, length / 2, length)
        moved = falls & ~done
        done |= ~falls
        length = np.where(moved, length, 0.0)
        coef, intercept = coef + length * step[1:], intercept + length * step[0]
        # Of sums of steps, rounding would pile up.
        eta = offset + intercept + X @ coef - center @ coef
        look = Look(*map(np.asarray, measure(eta)))
        n_iter += moved
    edf, pivot = _freedom(problem, look.curvature, trace)
    return {
        "coef": coef.T[:, :, None],
        "intercept": (intercept - center @ coef)[:, None],
        "residual": residual,
        "n_iter": n_iter,
        "converged": (residual <= goal) & np.isfinite(look.value),
        "pivot": pivot,
        "edf": edf[:, None],
        "eta": eta,
    }


def _penalty(strength, coef):
    return 0.5 * (strength * coef**2).sum(0)


def _gradient(problem, slope, coef):
    pulled = problem.X.correlate(problem.center, slope) + problem.strength * coef
    return np.concatenate([slope.sum(0)[None], np.where(problem.moves, pulled, 0.0)])


def _conjugate_gradients(problem, curvature, right, goal):
    """Inverse of the Hessian times `right` (1 + p, m), until each element of the residual is below `goal`."""
    X, center, strength, moves = problem.X, problem.center, problem.strength, problem.moves

    def product(v):
        pushed = curvature * (v[0] + X @ v[1:] - center @ v[1:])
        pulled = X.correlate(center, pushed) + strength * v[1:]
        return np.concatenate([pushed.sum(0)[None], np.where(moves, pulled, 0.0)])

    precondition = _factorized(problem, curvature) if X.shape[1] <= SMALL_WIDTH else _diagonal(problem, curvature)
    found, left = np.zeros_like(right), right
    active = np.abs(left / goal).max(0) > 1
    ahead = precondition(left)
    size = (left * ahead).sum(0)
    for _ in range(MAX_PRODUCTS):
        if not active.any():
            break
        image = product(ahead)
        bend = (ahead * image).sum(0)
        active &= (bend > 0) & (size > 0)
        length = np.where(active, size / np.where(active, bend, 1.0), 0.0)
        found, left = found + length * ahead, left - length * image
        active &= np.abs(left / goal).max(0) > 1
        turned = precondition(left)
        before, size = np.where(size > 0, size, 1.0), (left * turned).sum(0)
        ahead = turned + size / before * ahead
    return found


def _diagonal(problem, curvature):
    """Division by the diagonal of the Hessian."""
    total, center = curvature.sum(0), problem.center[:, None]
    cross = problem.X.transposed_product(curvature)
    bend = problem.square.T @ curvature - 2 * center * cross + center**2 * total
    bend = np.maximum(bend, 1e-3 * problem.spread[:, None] * total) + problem.strength
    diagonal = np.concatenate([total[None], np.where(problem.moves, bend, 1.0)])
    diagonal = np.where(diagonal > 0, diagonal, 1.0)
    return lambda right: right / diagonal


def _factorized(problem, curvature):
    """Solution by a factorization of the Hessian of each output."""
    parts = [_cholesky(problem, column, o)[:2] for o, column in enumerate(curvature.T)]

    def solve(right):
        if len(parts) == 1:
            ((lower, unit),) = parts
            return unit[:, None] * cho_solve((lower, True), unit[:, None] * right)
        pairs = zip(parts, right.T, strict=True)
        return np.stack([unit * cho_solve((lower, True), unit * one) for (lower, unit), one in pairs], axis=1)

    return solve


def _cholesky(problem, curvature, output):
    """Factor of the Hessian (1 + p, 1 + p) of one output, scaled; the scale; and the smallest squared pivot."""
    X, center, moves = problem.X.rows, problem.center, problem.moves[:, output]
    total, cross = curvature.sum(), X.T @ curvature
    gram = (X.T @ (X * curvature[:, None])).toarray()
    gram += total * np.outer(center, center) - np.outer(cross, center) - np.outer(center, cross)
    gram += np.diag(problem.strength[:, output])
    gram = np.where(np.outer(moves, moves), gram, np.diag(np.where(moves, 0.0, 1.0)))
    border = np.where(moves, cross - center * total, 0.0)
    hessian = np.block([[np.full((1, 1), total), border[None]], [border[:, None], gram]])
    diagonal = np.diagonal(hessian)
    unit = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = unit * hessian * unit[:, None]
    rounding = 16 * EPS * len(unit)
    lower = np.tril(cho_factor(scaled + rounding * np.eye(len(unit)), lower=True)[0])
    return lower, unit, max(float(np.diagonal(lower).min()) ** 2 - rounding, 0.0)


def _freedom(problem, curvature, trace):
    """Effective degrees of freedom of each output, the intercept included, and the smallest squared pivots."""
    (n, p), m = problem.X.shape, curvature.shape[1]
    pivot = np.ones(m)
    if trace == "none" and p > SMALL_WIDTH:
        return np.full(m, np.nan), pivot
    limit = EXACT_TRACE if trace == "exact" else CHEAP_TRACE
    if min(n, p) > limit or (p > limit and ((problem.strength == 0) & problem.moves).any()):
        probes = EXACT_PROBES if trace == "exact" else CHEAP_PROBES
        return np.array([_estimated(problem, curvature, output, probes) for output in range(m)]), pivot
    if p > limit:
        return np.array([_by_samples(problem, curvature, output) for output in range(m)]), pivot
    freedom = np.empty(m)
    for output in range(m):
        lower, unit, pivot[output] = _cholesky(problem, curvature[:, output], output)
        inverse = (solve_triangular(lower, np.eye(p + 1), lower=True) ** 2).sum(0)[1:] * unit[1:] ** 2
        moves, strength = problem.moves[:, output], problem.strength[:, output]
        freedom[output] = 1 + moves.sum() - (strength * inverse)[moves].sum()
    return freedom, pivot


def _by_samples(problem, curvature, output):
    """Degrees of freedom from a matrix of the samples, for more features, each with a strength."""
    moves = problem.moves[:, output]
    root = np.sqrt(curvature[:, output])
    inverse = np.where(moves, 1 / np.where(moves, problem.strength[:, output], 1.0), 0.0)
    X = problem.X.rows
    kernel = root[:, None] * (X @ (X * inverse).T).toarray() * root
    along = root / np.linalg.norm(root)
    # The intercept takes up one direction.
    kernel -= np.outer(along, along @ kernel)
    kernel -= np.outer(kernel @ along, along)
    return 1 + len(root) - np.trace(np.linalg.inv(np.eye(len(root)) + kernel))


def _estimated(problem, curvature, output, probes):
    """Hutchinson's estimate of the degrees of freedom."""
    chosen = slice(output, output + 1)
    part = problem._replace(strength=problem.strength[:, chosen], moves=problem.moves[:, chosen])
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (problem.X.shape[1], probes))
    right = np.where(part.moves, np.sqrt(part.strength) * signs, 0.0)
    right = np.concatenate([np.zeros((1, probes)), right])
    goal = PROBE_TOL * np.maximum(np.abs(right).max(0), np.finfo(float).tiny)
    solved = _conjugate_gradients(part, curvature[:, chosen], right, goal)
    rest = (right * solved).sum(0).mean()
    return 1 + min(part.moves.sum() - rest, len(problem.X) - 1.0)
