"""Proximal Newton method for losses of a linear predictor under penalties with kinks.

Minimizes, over coefficients w (p, m) of some features and intercepts b (m,), with weights that sum to 1,

    F(w, b) = sum_i weight_i sum_o loss(y_io, offset_io + b_o + x_i w_o) + penalty(w).

Each step replaces the loss by its quadratic model with positive curvature, profiles the intercepts out, solves
the penalized quadratic problem, and goes back along the way until F falls. The Hessian of an earlier step serves
again as long as the residual falls fast. The quadratic problem is that of `_quadratic`.

A joint loss has one linear predictor per class, in which its second derivatives are matrices. It does not change as all
of a sample's predictors do by the same amount: of the intercepts that are as good, steps keep the sum.

Samples that are gone may count, by a quadratic function of the parameters that stands for their losses.

Everything is invariant to the scale of the features, so nothing needs to be standardized: factorizations are scaled
to a unit diagonal, and the residual is the correlation, in absolute value, of each feature with the derivatives of
the loss (beyond what the penalty takes up).

The module knows nothing of families and priors but the functions it is given. Features come transposed, since it
is by feature that they are read.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._passes import (
    curvature_of_steps,
    expected_curvature,
    joint_curvature,
    own_curvature,
    positive,
    value_and_slope,
    weighted_gram,
)
from bayesglm._quadratic import composite_step

__all__ = ["Hessian", "Past", "Solution", "blank_hessian", "minimize", "optimality"]

MAX_HALVINGS = 40
# The Hessian is renewed after a step that leaves more than this of the residual.
SLOW = 0.2


class Hessian(NamedTuple):
    """Second derivatives of the loss; in brackets the shapes for a joint one."""

    gram: Any  # (m, p, p) by the coefficients, intercepts profiled out [(p m, p m)]
    cross: Any  # (p, m) by coefficient and intercept [(p m, m)]
    total: Any  # (m,) by the intercept [(m, m)]
    curvature: Any  # (n, m) of which these are sums [(n, m, m)]

    def inner(self, slope):
        """Intercepts (m,) that the second derivatives by them turn into `slope`."""
        if self.total.ndim == 1:
            return slope / positive(self.total)
        # What adds to all alike changes nothing: any curvature in that direction will do.
        return jnp.linalg.solve(self.total + positive(jnp.trace(self.total)) / len(slope), slope)

    def by_coef(self, intercept):
        """What intercepts (m,) add to the gradient (p, m)."""
        if self.total.ndim == 1:
            return self.cross * intercept
        return (self.cross @ intercept).reshape(-1, len(intercept))

    def by_intercept(self, coef):
        """What coefficients (p, m) add to the slopes (m,)."""
        return jnp.sum(self.cross * coef, 0) if self.total.ndim == 1 else self.cross.T @ coef.ravel()


class Past(NamedTuple):
    """Samples that are gone: a quadratic function of coefficients and intercepts, on the scale of F."""

    hessian: Hessian  # intercepts not profiled out; of the `curvature` there is nothing left
    coef: Any  # (p, m) and, below, (m,): a point nearby
    intercept: Any
    grad: Any  # (p, m) there
    slope: Any  # (m,) there, by the intercepts
    square: Any  # () sum of weight * slope^2 of their losses

    def slopes(self, coef, intercept):
        """Derivatives by the coefficients (p, m) and the intercepts (m,)."""
        gram, total = self.hessian.gram, self.hessian.total
        coef, intercept = coef - self.coef, intercept - self.intercept
        if total.ndim == 1:
            pull, push = jnp.einsum("mpq,qm->pm", gram, coef), total * intercept
        else:
            pull, push = (gram @ coef.ravel()).reshape(coef.shape), total @ intercept
        grad = self.grad + pull + self.hessian.by_coef(intercept)
        return grad, self.slope + push + self.hessian.by_intercept(coef)

    def value(self, coef, intercept):
        """The quadratic function, 0 at the point nearby."""
        grad, slope = self.slopes(coef, intercept)
        by_coef, by_intercept = (
            (coef - self.coef) * (grad + self.grad),
            (intercept - self.intercept) * (slope + self.slope),
        )
        return (jnp.sum(by_coef) + jnp.sum(by_intercept)) / 2

    @property
    def own(self):
        """Sums (m,) of the curvature by each linear predictor alone."""
        total = self.hessian.total
        return total if total.ndim == 1 else jnp.diagonal(total)


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
    hessian: Any  # Hessian at the end or shortly before


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
    curvature: Any  # (n, m) weight * second derivative
    grad: Any  # (p, m)
    slopes: Any  # (m,) derivatives by the intercepts
    rms: Any  # root mean square of the loss's derivatives
    residual: Any
    floor: Any  # residual that rounding allows
    hessian: Any
    renew: Any  # whether the Hessian is too old
    n_iter: Any
    stuck: Any


def minimize(
    X, square, count, y, weight, offset, strength, free, start, *,
    loss, mean, joint, canonical, prior, tol, max_iter, exact_gram, fit_intercept=True, hessian=None, past=None,
):  # fmt: skip
    """Minimize the penalized loss.

    Parameters
    ----------
    X, square : (p, n), (p,)
        Centered features, transposed, and their mean squares.
    count : int
        How many features there are; those after them are not free.
    y, offset : (n, m)
    weight : (n,), sums to 1, or to less if there is a past
    strength : pytree
        What `prior` takes.
    free : (p, m) bool
        Coefficients that are not held at zero.
    start : pair of coef (p, m) and intercept (m,)
    loss, mean : callable
        loss(y, eta) and mean(eta), elementwise.
    joint : bool
        Whether they are rather functions of each row, the loss one whose terms are to be summed.
    canonical : bool
        Whether the expected second derivatives of the loss are those that it has.
    prior : class with penalty, prox, common, is_flat, smooth and separable
    tol : float
        Largest residual at which to stop.
    max_iter : int
    exact_gram : bool
        Whether the second derivatives that are returned must be those at the minimum.
    fit_intercept : bool
        Whether there are intercepts; otherwise they stay where they start.
    hessian : Hessian, optional
        Of a point nearby, to begin with; zeros are none.
    past : Past, optional

    Returns
    -------
    Solution
    """
    eps = jnp.finfo(X.dtype).eps
    column = weight[:, None]

    def second_derivatives(curvature):
        before = None if past is None else past.hessian
        return profiled_hessian(X, curvature, free, count, fit_intercept=fit_intercept, past=before)

    def expected(eta):
        return joint_curvature(mean, eta) if joint else expected_curvature(loss, mean, eta)

    def objective(coef, intercept, eta):
        """F, infinite where eta is, and its rounding error."""
        terms = jnp.where(column > 0, column * loss(y, eta), 0.0)
        value, size = jnp.sum(terms) + prior.penalty(coef, strength), jnp.sum(jnp.abs(terms))
        if past is not None:
            known = past.value(coef, intercept)
            value, size = value + known, size + jnp.abs(known) + past_noise(coef, intercept)
        return jnp.where(jnp.isfinite(jnp.sum(eta)), value, jnp.inf), 16 * eps * size

    def past_noise(coef, intercept):
        """What the terms of the past's slopes come to, in the unit of a slope."""
        size = jnp.abs(intercept - past.intercept) + jnp.sqrt(square) @ jnp.abs(coef - past.coef)
        return jnp.sum(past.own * (1 + jnp.abs(intercept) + size))

    def evaluate(at):
        coef, intercept, hessian, before, length, n_iter, stuck, _ = at
        eta = offset + intercept + (coef.T @ X).T
        slope = value_and_slope(loss, y, eta, joint=joint)[1]
        curvature = expected(eta) if canonical else curvature_of_steps(loss, mean, y, eta)
        # What overflows must not meet a weight of 0.
        slope = jnp.where(column > 0, slope, 0.0)
        curvature = jnp.where(_beside(column, curvature) > 0, curvature, 0.0)
        sum_of_squares = jnp.sum(column * slope**2)
        own = own_curvature(curvature)
        rounding = jnp.sum(column * (own * (1 + jnp.abs(eta)) + jnp.abs(slope)))
        # A curvature that overflows says nothing of rounding.
        rounding = jnp.where(jnp.isfinite(rounding), rounding, 0.0)
        total = jnp.sum(column * own, 0)
        slope, curvature = column * slope, _beside(column, curvature) * curvature
        grad, slopes = X @ slope, slope.sum(0)
        if past is not None:
            by_coef, by_intercept = past.slopes(coef, intercept)
            grad, slopes, total = grad + by_coef, slopes + by_intercept, total + past.own
            sum_of_squares, rounding = sum_of_squares + past.square, rounding + past_noise(coef, intercept)
        rms, grad = positive(jnp.sqrt(sum_of_squares)), jnp.where(free, grad, 0.0)
        violation = optimality(coef, grad, strength, square, rms, total, prior)
        residual = jnp.maximum(jnp.max(violation), jnp.max(jnp.abs(slopes)) / rms * fit_intercept)
        # Where slopes are so large that their squares overflow, the optimum is far.
        residual = jnp.where(jnp.isfinite(rms), residual, jnp.inf)
        value, noise = objective(coef, intercept, eta)
        return _State(
            coef=coef,
            intercept=intercept,
            eta=eta,
            value=value,
            noise=noise,
            slope=slope,
            curvature=curvature,
            grad=grad,
            slopes=slopes,
            rms=rms,
            residual=residual,
            floor=8 * eps * rounding / rms,
            hessian=hessian,
            renew=(residual > SLOW * before) | (length < 1),
            n_iter=n_iter,
            stuck=stuck,
        )

    def step(state):
        hessian = jax.lax.cond(state.renew, lambda: second_derivatives(state.curvature), lambda: state.hessian)
        slope = state.slopes * fit_intercept
        profiled = state.grad - jnp.where(free, hessian.by_coef(hessian.inner(slope)), 0.0)
        scale = jnp.sqrt(square)[:, None] * state.rms
        inner_goal = jnp.maximum(0.03 * state.residual, 0.1 * jnp.maximum(tol, state.floor))
        target = composite_step(hessian.gram, profiled, state.coef, strength, free, scale, inner_goal, count, prior)
        move = target - state.coef
        move_intercept = -hessian.inner(slope + hessian.by_intercept(move))
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
            intercept = state.intercept + length * move_intercept
            return length, *objective(coef, intercept, state.eta + length * along)

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
    first = blank_hessian(p, y.shape, X.dtype, joint=joint) if hessian is None else hessian
    is_blank = jnp.all(first.total == 0)
    before = jnp.where(is_blank, 0.0, jnp.inf).astype(X.dtype)
    begin = _Next(start[0], start[1], first, before, zero + 1, jnp.zeros((), int), zero > 1, zero < 1)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(evaluate, begin))
    end = jax.lax.while_loop(lambda carry: carry[0].goes_on, go_on, (begin, nothing))[1]
    last = end.hessian
    old = (end.n_iter == 0) & is_blank
    if exact_gram:
        now, then = own_curvature(end.curvature), own_curvature(last.curvature)
        old |= jnp.any(jnp.abs(now - then) > 1e-9 * now)
    if canonical:
        last = jax.lax.cond(old, lambda: second_derivatives(end.curvature), lambda: last)
    else:
        last = second_derivatives(jnp.where(column > 0, column * expected(end.eta), 0.0))
    return Solution(
        coef=end.coef,
        intercept=end.intercept,
        eta=end.eta,
        slope=end.slope,
        residual=end.residual,
        floor=end.floor,
        n_iter=end.n_iter,
        converged=(end.residual <= jnp.maximum(tol, end.floor)) & jnp.isfinite(end.value),
        hessian=last,
    )


def blank_hessian(p, shape, dtype, *, joint):
    """A Hessian of zeros, for p features and observations of a shape (n, m)."""
    n, m = shape
    parts = ((p * m, p * m), (p * m, m), (m, m), (n, m, m)) if joint else ((m, p, p), (p, m), m, shape)
    return Hessian(*(jnp.zeros(part, dtype) for part in parts))


def _beside(column, array):
    """A column (n, 1) with as many axes as an array (n, ...)."""
    return column.reshape(-1, *(1,) * (array.ndim - 1))


def profiled_hessian(X, curvature, free, count, *, fit_intercept=True, past=None):
    """Second derivatives of the loss by intercepts and the free coefficients of the first `count` features.

    Without intercepts nothing is profiled out: the cross derivatives are 0. `past` is a Hessian to be added before.
    """
    if curvature.ndim == 3:
        return _joint_hessian(X, curvature, free, count, fit_intercept=fit_intercept, past=past)
    total, cross, outputs = jnp.sum(curvature, 0), X @ curvature, range(curvature.shape[1])
    grams = [weighted_gram(X, curvature[:, o], count) for o in outputs]
    if past is not None:
        total, cross, grams = total + past.total, cross + past.cross, [grams[o] + past.gram[o] for o in outputs]
    cross = jnp.where(free & fit_intercept, cross, 0.0)

    def one(gram, free, cross, total):
        return jnp.where(free[:, None] & free, gram, 0.0) - cross[:, None] * cross / positive(total)

    gram = jnp.stack([one(grams[o], free[:, o], cross[:, o], total[o]) for o in outputs])
    return Hessian(gram, cross, total, curvature)


def _joint_hessian(X, curvature, free, count, *, fit_intercept, past):
    """`profiled_hessian` of a joint loss."""
    (n, m, _), p = curvature.shape, len(X)
    flat = curvature.reshape(n, m * m)
    total, cross = jnp.sum(curvature, 0), (X @ flat).reshape(p, m, m)
    # Those of outputs (a, b) and (b, a) are the same.
    first, second = np.triu_indices(m)
    pairs = jax.lax.map(lambda column: weighted_gram(X, column, count), flat.T[first * m + second])
    place = np.zeros((m, m), int)
    place[first, second] = place[second, first] = np.arange(len(first))
    gram, cross = pairs[place].transpose(2, 0, 3, 1).reshape(p * m, p * m), cross.reshape(p * m, m)
    if past is not None:
        total, cross, gram = total + past.total, cross + past.cross, gram + past.gram
    cross = jnp.where(free.reshape(-1, 1) & fit_intercept, cross, 0.0)
    moves = free.ravel()
    blank = Hessian(gram, cross, total, curvature)
    gram = gram - cross @ jax.vmap(blank.inner, 1, 1)(cross.T)
    return blank._replace(gram=jnp.where(moves[:, None] & moves, gram, 0.0))


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
