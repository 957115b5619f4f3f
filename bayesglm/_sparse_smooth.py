"""Modes under smooth penalties of problems whose X is sparse.

Newton's method, its steps by conjugate gradients: all that is asked of X are products with vectors and sums over what
it holds, on NumPy's side. Features are centered in the formulas only, so that the intercept does not get in the way.
Outputs are columns, each on its own, and share the products; where the loss is joint, the columns are the classes of
one problem.
"""

from functools import partial
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from bayesglm._map import Mode, pearson, start_of_intercept
from bayesglm._passes import curvature_of_steps, expected_curvature, positive, value_and_slope
from bayesglm._sparse_matrix import weighted_sums
from bayesglm.links import IDENTITY
from bayesglm.observation_models import GaussianObservations, is_canonical

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
EPS, LARGEST = np.finfo(float).eps, np.sqrt(np.finfo(float).max)


class _Problem(NamedTuple):
    X: Any
    square: Any  # (n, p) squares of X
    center: Any  # (p,) means
    share: Any  # (n,) of each sample, sums to 1
    spread: Any  # (p,) mean squares around the means
    strength: Any  # (p, m)
    moves: Any  # (1 + p, m) bool: intercepts, then coefficients, that are solved for
    joint: bool  # whether the columns are the classes of one problem

    def gathered(self, values, reduce=np.add):
        """Values (m,) of columns, reduced over those of a problem."""
        return np.full_like(values, reduce.reduce(values)) if self.joint else values

    def columns(self, some):
        """The problem of some columns."""
        return self._replace(strength=self.strength[:, some], moves=self.moves[:, some])


class Look(NamedTuple):
    """The loss and its derivatives at some linear predictors."""

    value: Any  # (m,) mean loss
    size: Any  # (m,) mean absolute loss
    slope: Any  # (n, m) share * derivative
    curvature: Any  # (n, m) share * second derivative by each linear predictor
    mean: Any  # (n, m) probabilities of the classes where the loss is joint, or None
    rms: Any  # (m,) root mean square of the derivatives
    rounding: Any  # (m,) rounding error of the gradient

    @property
    def is_bounded(self):
        """Whether sums over the second derivatives (m,) are far from overflowing."""
        return self.curvature.sum(0) < LARGEST

    def bent(self, share, eta):
        """Second derivatives (n, m) times changes of the linear predictors."""
        if self.mean is None:
            return self.curvature * eta
        return share[:, None] * self.mean * (eta - (self.mean * eta).sum(1, keepdims=True))

    def between(self, share, first, second):
        """Second derivatives (n,) by the linear predictors of two columns."""
        if first == second or self.mean is None:
            return self.curvature[:, first] * (first == second)
        return -share * self.mean[:, first] * self.mean[:, second]

    def columns(self, some):
        """The look at some columns; all of them, where the loss is joint."""
        return self if self.mean is not None else self._replace(curvature=self.curvature[:, some])


def find_sparse_smooth_modes(
    X, weight, y, offset, strength, free, scale, start, tol, max_iter, *, family, link, trace, fit_intercept
):
    """Penalized fits of a batch of problems of one output each, or of the classes of one response.

    Arguments are those of `find_smooth_modes`.

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
    center, spread = X.moments(share, centered=fit_intercept)
    square = X.rows.power(2)
    block = 1 if family.joint else max(1, BLOCK // sum(X.shape))
    quadratic = family is GaussianObservations and link == IDENTITY
    n_classes, modes = y.shape[2], []

    def as_columns(array):
        """Rows (..., m) of columns, from the problems (b, ..., m) of a block."""
        return np.concatenate(list(array), axis=-1)

    for first in range(0, len(scale), block):
        some = slice(first, first + block)
        columns = as_columns(y[some]), as_columns(offset[some])
        can_move = as_columns(free[some])
        moves = np.concatenate([np.full((1, can_move.shape[1]), fit_intercept), can_move & (spread > 0)[:, None]])
        penalty = as_columns(strength[some]).astype(float)
        problem = _Problem(X, square, center, share, spread, penalty, moves, family.joint)
        begin = as_columns(start[0][some]), as_columns(start[1][some])
        settings = {"share": share, "scale": scale[some], "family": family, "link": link}
        measure = partial(losses, columns[0], **settings, of_steps=not is_canonical(family, link))
        expected = partial(losses, columns[0], **settings, of_steps=False)
        # Steps that overflow are taken back.
        with np.errstate(over="ignore", invalid="ignore"):
            found = _solve(problem, measure, expected, columns, begin, tol, max_iter, trace, link, quadratic=quadratic)
        statistic = np.asarray(pearson(columns[0], found["eta"], weight, scale[some], family, link))
        lost = problem.gathered((can_move & ~moves[1:] & (penalty == 0)).any(0), np.logical_or)
        modes.append(
            Mode(
                coef=_by_problem(found["coef"], n_classes),
                intercept=found["intercept"].reshape(-1, n_classes),
                residual=found["residual"][::n_classes],
                n_iter=found["n_iter"][::n_classes],
                converged=found["converged"][::n_classes],
                pivot=np.where(lost, 0.0, found["pivot"])[::n_classes],
                edf=found["edf"].reshape(-1, n_classes),
                pearson=statistic.reshape(-1, n_classes),
            )
        )
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *modes)


def _by_problem(coef, n_classes):
    """Coefficients (p, m) of columns as (problems, p, classes)."""
    return coef.reshape(len(coef), -1, n_classes).transpose(1, 0, 2)


@partial(jax.jit, static_argnames=("family", "link", "of_steps"))
def losses(y, eta, share, scale, *, family, link, of_steps):
    """Loss of y (n, m) at linear predictors eta and its derivatives: second ones as expected, or those of steps."""
    loss = partial(family.nll, link=link, scale=scale)
    weight = share[:, None]
    value, slope = value_and_slope(loss, y, eta, joint=family.joint)
    if family.joint:
        mean = jnp.where(weight > 0, link.inverse(eta), 0.0)
        bend = family.unit_variance(mean, scale)
    else:
        mean, bend = None, expected_curvature(loss, link.inverse, eta)
        bend = curvature_of_steps(loss, link.inverse, y, eta) if of_steps else bend
    # What overflows must not meet a weight of 0.
    value, slope, curvature = (jnp.where(weight > 0, weight * z, 0.0) for z in (value, slope, bend))
    rms = jnp.sqrt(jnp.sum(jnp.where(weight > 0, slope**2 / positive(weight), 0.0), 0))
    total = jnp.where(jnp.isfinite(jnp.sum(eta, 0)), jnp.sum(value, 0), jnp.inf)
    rounding = EPS * jnp.sum(curvature * (1 + jnp.abs(eta)) + jnp.abs(slope), 0)
    # A curvature that overflows says nothing of rounding.
    rounding = jnp.where(jnp.isfinite(rounding), rounding, 0.0)
    return Look(total, jnp.sum(jnp.abs(value), 0), slope, curvature, mean, rms, rounding)


def _solve(problem, measure, expected, columns, begin, tol, max_iter, trace, link, *, quadratic):
    """Dictionary of coef (p, m), eta (n, m) and, for each column, the fields of a Mode but for Pearson's statistic."""
    X, center, moves = problem.X, problem.center, problem.moves
    y, offset = columns
    coef, intercept = np.where(moves[1:], begin[0], 0.0), begin[1]
    intercept = np.where(
        np.isnan(intercept),
        np.asarray(start_of_intercept(y, offset, problem.share, link, bool(moves[0, 0]))),
        intercept + center @ coef,
    )
    eta = offset + intercept + (X @ coef - center @ coef if coef.any() else 0.0)
    look, residual, goal, grad, unit = _examine(problem, measure, eta, coef, tol)
    done, n_iter = np.zeros(len(intercept), bool), np.zeros(len(intercept), int)
    while True:
        # From where second derivatives overflow there is no step.
        lost = ~np.isfinite(grad).all(0) | ~look.is_bounded
        done |= (residual <= goal) | (n_iter >= max_iter) | problem.gathered(lost, np.logical_or)
        active = np.flatnonzero(~done)
        if not active.size:
            break
        # Far away, a step need not be Newton's to the last digit.
        rough = 0.0 if quadratic else residual * np.minimum(0.1, residual)
        inner = (unit * np.maximum(0.1 * goal, rough))[:, active]
        step = np.zeros_like(grad)
        step[:, active] = -_conjugate_gradients(problem.columns(active), look.columns(active), grad[:, active], inner)
        if problem.joint:
            # Intercepts that change alike change nothing: keep their sum.
            step[0] -= step[0].mean()
        along = step[0] + X @ step[1:] - center @ step[1:]
        slope = problem.gathered((grad * step).sum(0))
        value, noise = _value(problem, look, coef), 16 * EPS * problem.gathered(look.size)
        length = np.ones(len(done))
        while True:
            seen = _as_arrays(measure(eta + length * along))
            new, limit = _value(problem, seen, coef + length * step[1:]), value + 1e-4 * length * np.minimum(slope, 0.0)
            falls = np.isfinite(new) & (new <= limit + noise + 16 * EPS * problem.gathered(seen.size))
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
        look, residual, goal, grad, unit = _examine(problem, measure, eta, coef, tol)
        n_iter += moved
    freedom, pivot = _freedom(problem, _as_arrays(expected(eta)), trace)
    return {
        "coef": coef,
        "intercept": intercept - center @ coef,
        "residual": residual,
        "n_iter": n_iter,
        "converged": (residual <= goal) & np.isfinite(problem.gathered(look.value)),
        "pivot": pivot,
        "edf": moves[0] + freedom,
        "eta": eta,
    }


def _examine(problem, measure, eta, coef, tol):
    """A Look at linear predictors; the residual of each column and its goal, the gradient (1 + p, m) and its unit."""
    look = _as_arrays(measure(eta))
    rms = np.sqrt(problem.gathered(look.rms**2))
    rms = np.where(rms > 0, rms, 1.0)
    unit = np.concatenate([np.ones(1), np.sqrt(np.where(problem.spread > 0, problem.spread, 1.0))])[:, None] * rms
    grad = _gradient(problem, look.slope, coef)
    residual = problem.gathered(np.abs(grad / unit).max(0), np.maximum)
    # Where slopes are so large that their squares overflow, the optimum is far.
    residual = np.where(np.isfinite(rms), residual, np.inf)
    goal = np.maximum(tol, 8 * (problem.gathered(look.rounding) / rms + EPS))
    return look, residual, goal, grad, unit


def _as_arrays(look):
    return jax.tree.map(np.asarray, look)


def _value(problem, look, coef):
    """Penalized loss of each column, or of the classes together."""
    return problem.gathered(look.value + 0.5 * (problem.strength * coef**2).sum(0))


def _gradient(problem, slope, coef):
    pulled = problem.X.correlate(problem.center, slope) + problem.strength * coef
    return np.where(problem.moves, np.concatenate([slope.sum(0)[None], pulled]), 0.0)


def _conjugate_gradients(problem, look, right, goal):
    """Inverse of the Hessian times `right` (1 + p, m), until each element of the residual is below `goal`."""
    X, center, strength, moves = problem.X, problem.center, problem.strength, problem.moves

    def product(v):
        pushed = look.bent(problem.share, v[0] + X @ v[1:] - center @ v[1:])
        pulled = X.correlate(center, pushed) + strength * v[1:]
        return np.where(moves, np.concatenate([pushed.sum(0)[None], pulled]), 0.0)

    def unfinished(left):
        return problem.gathered(np.abs(left / goal).max(0), np.maximum) > 1

    precondition = (_factorized if X.shape[1] <= SMALL_WIDTH else _diagonal)(problem, look)
    found, left = np.zeros_like(right), right
    active = unfinished(left)
    ahead = precondition(left)
    size = problem.gathered((left * ahead).sum(0))
    for _ in range(MAX_PRODUCTS):
        if not active.any():
            break
        image = product(ahead)
        bend = problem.gathered((ahead * image).sum(0))
        active &= (bend > 0) & (size > 0)
        length = np.where(active, size / np.where(active, bend, 1.0), 0.0)
        found, left = found + length * ahead, left - length * image
        active &= unfinished(left)
        turned = precondition(left)
        before, size = np.where(size > 0, size, 1.0), problem.gathered((left * turned).sum(0))
        ahead = turned + size / before * ahead
    return found


def _diagonal(problem, look):
    """Division by the diagonal of the Hessian."""
    total, center = look.curvature.sum(0), problem.center[:, None]
    cross = problem.X.transposed_product(look.curvature)
    bend = problem.square.T @ look.curvature - 2 * center * cross + center**2 * total
    bend = np.maximum(bend, 1e-3 * problem.spread[:, None] * total) + problem.strength
    diagonal = np.where(problem.moves, np.concatenate([total[None], bend]), 1.0)
    diagonal = np.where(diagonal > 0, diagonal, 1.0)
    return lambda right: right / diagonal


def _factorized(problem, look):
    """Solution by a factorization of the Hessian of each column; of few coefficients of classes, of all of them."""
    m = look.curvature.shape[1]
    if problem.joint and m * problem.X.shape[1] <= SMALL_WIDTH:
        lower, unit, _ = _cholesky(_hessian(problem, look, list(range(m))))
        return lambda right: (unit * cho_solve((lower, True), unit * right.T.ravel())).reshape(m, -1).T
    parts = [_cholesky(_hessian(problem, look, [o]))[:2] for o in range(m)]

    def solve(right):
        if len(parts) == 1:
            ((lower, unit),) = parts
            return unit[:, None] * cho_solve((lower, True), unit[:, None] * right)
        pairs = zip(parts, right.T, strict=True)
        return np.stack([unit * cho_solve((lower, True), unit * one) for (lower, unit), one in pairs], axis=1)

    return solve


def _hessian(problem, look, columns):
    """Dense Hessian by the intercept and the coefficients of one column after the other; ones where one is held."""
    moves = problem.moves[:, columns].copy()
    # Of several intercepts, one is given by the others.
    moves[0, 1:][-1:] = False
    parts = {}
    for a, b in combinations_with_replacement(range(len(columns)), 2):
        weight = look.between(problem.share, columns[a], columns[b])
        gram, cross, total = weighted_sums(problem.X.rows, problem.center, weight)
        parts[a, b] = parts[b, a] = np.block([[np.full((1, 1), total), cross[None]], [cross[:, None], gram]])
    hessian = np.block([[parts[a, b] for b in range(len(columns))] for a in range(len(columns))])
    ridge = np.concatenate([np.zeros((1, len(columns))), problem.strength[:, columns]])
    hessian[np.diag_indices_from(hessian)] += ridge.T.ravel()
    free = moves.T.ravel()
    return np.where(np.outer(free, free), hessian, np.diag(np.where(free, 0.0, 1.0)))


def _cholesky(hessian):
    """Factor of a matrix, scaled; the scale; and the smallest squared pivot."""
    diagonal = np.diagonal(hessian)
    unit = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = unit * hessian * unit[:, None]
    rounding = 16 * EPS * len(unit)
    lower = np.tril(cho_factor(scaled + rounding * np.eye(len(unit)), lower=True)[0])
    return lower, unit, max(float(np.diagonal(lower).min()) ** 2 - rounding, 0.0)


def _freedom(problem, look, trace):
    """Effective degrees of freedom of each column's coefficients, and the smallest squared pivots.

    Those of classes are shared out evenly among them.
    """
    (n, p), m = problem.X.shape, look.curvature.shape[1]
    groups = [list(range(m))] if problem.joint else [[o] for o in range(m)]
    size = p * len(groups[0])
    freedom, pivot = np.empty(m), np.ones(m)
    if (trace == "none" and size > SMALL_WIDTH) or not look.is_bounded.all():
        return np.full(m, np.nan), pivot
    limit = EXACT_TRACE if trace == "exact" or problem.joint else CHEAP_TRACE
    by_samples = not problem.joint and n <= limit and not ((problem.strength == 0) & problem.moves[1:]).any()
    for group in groups:
        part, seen = problem.columns(group), look.columns(group)
        if size <= limit:
            freedom[group], pivot[group] = _by_features(part, seen)
        elif by_samples:
            freedom[group] = _by_samples(part, seen)
        else:
            freedom[group] = _estimated(part, seen, EXACT_PROBES if trace == "exact" else CHEAP_PROBES)
    return freedom, pivot


def _by_features(problem, look):
    """Mean degrees of freedom of the columns of a problem, from its Hessian, and the smallest squared pivot."""
    (p, m), moves = problem.strength.shape, problem.moves[1:]
    lower, unit, pivot = _cholesky(_hessian(problem, look, list(range(m))))
    inverse = (solve_triangular(lower, np.eye(len(unit)), lower=True) ** 2).sum(0) * unit**2
    inverse = inverse.reshape(m, 1 + p)[:, 1:].T
    return (moves.sum() - (problem.strength * inverse)[moves].sum()) / m, pivot


def _by_samples(problem, look):
    """Degrees of freedom of a column from a matrix of the samples, for more features, each with a strength."""
    X, moves, root = problem.X.rows, problem.moves[1:, 0], np.sqrt(look.curvature[:, 0])
    inverse = np.where(moves, 1 / np.where(moves, problem.strength[:, 0], 1.0), 0.0)
    kernel = root[:, None] * (X @ (X * inverse).T).toarray() * root
    if problem.moves[0, 0]:
        # The intercept takes up one direction.
        along = root / np.linalg.norm(root)
        kernel -= np.outer(along, along @ kernel)
        kernel -= np.outer(kernel @ along, along)
    return len(root) - np.trace(np.linalg.inv(np.eye(len(root)) + kernel))


def _estimated(problem, look, probes):
    """Hutchinson's estimate of the mean degrees of freedom of the columns of a problem."""
    (p, m), moves = problem.strength.shape, problem.moves[1:]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (p, probes * m))
    # Probes of one column are solved for at once.
    parts = np.split(signs, probes, axis=1) if problem.joint else [signs]
    rest = 0.0
    for part in parts:
        right = np.concatenate([np.zeros((1, part.shape[1])), np.where(moves, np.sqrt(problem.strength) * part, 0.0)])
        goal = PROBE_TOL * np.maximum(problem.gathered(np.abs(right).max(0), np.maximum), np.finfo(float).tiny)
        rest += (right * _conjugate_gradients(problem, look, right, goal)).sum() / probes
    return min(moves.sum() - rest, m * (len(problem.X) - 1.0)) / m
