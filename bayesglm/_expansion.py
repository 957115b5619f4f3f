"""The objective to second order around a mode: what leaving out samples, and curvature itself, do to it.

Coefficients that a kink of the penalty holds at zero stay there. In double precision, on the host.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from bayesglm._passes import joint_curvature, value_and_slope

__all__ = ["Expansion", "covariances", "covariances_from", "expand", "loss_slopes", "slopes"]

# Squared pivot of the scaled Hessian below which it is taken to be singular.
SINGULAR_PIVOT = 1e-13


class Expansion(NamedTuple):
    """A quadratic function of the parameters that are not held at zero, for one problem of m outputs.

    H is the Hessian of W times the objective, W the sum of the weights: that of -log posterior times the dispersion.
    """

    covariance: Any  # (n, m, m) of the linear predictors of each sample under the inverse of H
    variance: Any  # (p, m) diagonal of the inverse of H; 0 where a coefficient is held at zero
    log_det: Any  # log determinant of H
    pull: Any  # (p, m) coefficients' part of the inverse of H times the features' sums that `third` asks for


def expand(X, curvature, strength, coef, free, total, prior, fit_intercept, third=None):
    """Expand the objective of one problem.

    Parameters
    ----------
    X : (n, p)
    curvature : (n, m), or (n, m, m) of a joint loss
        Second derivatives of the loss, times the weights. A joint loss is that of classes: the intercept of the last
        is held, and `free` must leave out the last class of features without a prior.
    strength : as the prior takes it
    coef : (p, m)
    free : (p, m) bool
    total : float
        Sum of the weights.
    prior : class
    fit_intercept : bool
    third : (n, m), optional
        Third derivatives of the loss, times the weights. Times the covariances of the linear predictors they are the
        slope of `log_det` by the linear predictors, and summed over the samples with the features what `pull` solves
        for.

    Returns
    -------
    Expansion
    """
    third = np.zeros(curvature.shape[:2]) if third is None else third
    flat = np.asarray(prior.is_flat(strength))
    active = free & ((coef != 0) | ~np.asarray(prior.has_kink(strength)))
    if prior.smooth and X.shape[1] > len(X) and not (flat & free).any() and (curvature >= 0).all():
        precision = np.where(active, total * np.asarray(strength), np.inf)[:, 0]
        return _expand_dual(X, curvature[:, 0], precision, third[:, 0], fit_intercept)
    n, m = curvature.shape[:2]
    hessian, designs, n_intercepts = _hessian(X, curvature, strength, coef, active, total, prior, fit_intercept)
    size = len(hessian)
    unit = np.sqrt(np.where(np.diag(hessian) > 0, np.diag(hessian), 1.0))
    lower, _ = cho_factor(hessian / unit / unit[:, None], lower=True)
    lower = np.tril(lower)
    spread = np.zeros((m, size, n))
    for output, (rows, design) in enumerate(designs):
        padded = np.zeros((size, n))
        padded[rows] = design.T / unit[rows, None]
        spread[output] = solve_triangular(lower, padded, lower=True)
    inverse = solve_triangular(lower, np.eye(size), lower=True) / unit
    variance = np.zeros(coef.shape)
    variance[active] = (inverse**2).sum(0)[n_intercepts:]
    log_det = 2 * np.log(np.diag(lower)).sum() + 2 * np.log(unit).sum()
    covariance = np.einsum("akn,bkn->nab", spread, spread)
    slope = np.einsum("akn,na->k", spread, third * np.einsum("naa->na", covariance))
    pull = np.zeros(coef.shape)
    pull[active] = (solve_triangular(lower, slope, lower=True, trans=1) / unit)[n_intercepts:]
    return Expansion(covariance, variance, log_det, pull)


def covariances(X, curvature, strength, coef, free, total, prior, fit_intercept):
    """Inverse of H; arguments as of `expand`.

    Returns
    -------
    numpy.ndarray, shape (m, 1 + p, m, 1 + p)
        Of the intercept and the coefficients of each output; NaN where one is held at zero.

    Raises
    ------
    numpy.linalg.LinAlgError
        If H is singular.
    """
    active = free & ((coef != 0) | ~np.asarray(prior.has_kink(strength)))
    hessian, _, n_intercepts = _hessian(X, curvature, strength, coef, active, total, prior, fit_intercept)
    return _inverse(hessian, active, _places(active, n_intercepts))


def covariances_from(hessian, strength, coef, free, total, prior, n_intercepts):
    """As `covariances`, from the second derivatives (m, 1 + p, m, 1 + p) of the losses, times weights.

    Only the first `n_intercepts` of the intercepts move.
    """
    active = free & ((coef != 0) | ~np.asarray(prior.has_kink(strength)))
    places = _places(active, n_intercepts)
    whole = hessian.reshape(coef.shape[1] * hessian.shape[1], -1)[np.ix_(places, places)]
    whole[n_intercepts:, n_intercepts:] += total * _bend(coef, active, strength, prior)
    return _inverse(whole, active, places)


def _inverse(hessian, active, places):
    """Inverse of H, put at its places among all parameters; see `covariances`."""
    unit = np.sqrt(np.diag(hessian))
    if not (unit > 0).all():
        raise np.linalg.LinAlgError("a parameter changes nothing")
    factor = cho_factor(hessian / unit / unit[:, None], lower=True)
    if np.diag(factor[0]).min(initial=1.0) ** 2 < SINGULAR_PIVOT:
        raise np.linalg.LinAlgError("parameters are collinear")
    inverse = cho_solve(factor, np.eye(len(unit))) / unit / unit[:, None]
    m, width = active.shape[1], 1 + len(active)
    found = np.full((m * width, m * width), np.nan)
    found[np.ix_(places, places)] = inverse
    return found.reshape(m, width, m, width)


def _places(active, n_intercepts):
    """Where some intercepts, then active coefficients, are among the parameters (output, intercept, coefficients)."""
    features, outputs = np.nonzero(active)
    width = 1 + len(active)
    return np.concatenate([np.arange(n_intercepts) * width, outputs * width + 1 + features])


def _hessian(X, curvature, strength, coef, active, total, prior, fit_intercept):
    """H of the intercepts, then the active coefficients; of each output its rows of H and its design; and how many
    intercepts there are.
    """
    n, m = curvature.shape[:2]
    joint = curvature.ndim == 3
    n_intercepts = (m - joint) * fit_intercept
    place = np.full((len(coef), m), -1)
    place[active] = n_intercepts + np.arange(active.sum())
    hessian = np.zeros((n_intercepts + int(active.sum()),) * 2)
    designs = []
    for output in range(m):
        own = np.ones((n, int(output < n_intercepts)))
        rows = np.concatenate([np.full(own.shape[1], output), place[active[:, output], output]])
        designs.append((rows, np.concatenate([own, X[:, active[:, output]]], axis=1)))
    for first, (rows, design) in enumerate(designs):
        for second, (columns, other) in enumerate(designs if joint else [designs[first]], 0 if joint else first):
            bend = curvature[:, first, second] if joint else curvature[:, first]
            hessian[np.ix_(rows, columns)] += (design * bend[:, None]).T @ other
    hessian[n_intercepts:, n_intercepts:] += total * _bend(coef, active, strength, prior)
    return hessian, designs, n_intercepts


def _bend(coef, active, strength, prior):
    """Second derivatives of the penalty by the active coefficients."""
    if not prior.separable:
        whole = np.asarray(jax.hessian(prior.penalty)(coef, strength)).reshape(coef.size, coef.size)
        return whole[np.ix_(active.ravel(), active.ravel())]
    pull = jax.grad(lambda w: prior.penalty(w, strength))
    return np.diag(np.asarray(jax.jvp(pull, (coef,), (np.ones_like(coef),))[1])[active])


def _expand_dual(X, curvature, precision, third, fit_intercept):
    """Expand a problem with a penalty on every coefficient by Woodbury's identity, from a matrix of the samples."""
    scaled = X / np.sqrt(precision)
    root = np.sqrt(curvature)
    kernel = scaled @ scaled.T
    lower, _ = cho_factor(np.eye(len(X)) + root[:, None] * kernel * root, lower=True)
    lower = np.tril(lower)

    def held(right):
        """Coefficients, times the root of their precision, for sums X' right, the intercept being held."""
        inner = root * cho_solve((lower, True), root * (kernel @ right))
        return scaled.T @ (right - inner)

    half = solve_triangular(lower, root[:, None] * kernel, lower=True)
    inner = kernel - half.T @ half
    # The intercept, which has no penalty, is bordered to it; nothing is where there is none.
    reach = (1 - inner @ curvature) * fit_intercept
    left = curvature @ reach if fit_intercept else 1.0
    covariance = inner + np.outer(reach, reach) / left
    spread = solve_triangular(lower, root[:, None] * scaled, lower=True)
    cross = held(curvature) * fit_intercept
    variance = (1 - (spread**2).sum(0) + cross**2 / left) / precision
    log_det = 2 * np.log(np.diag(lower)).sum() + np.log(precision[np.isfinite(precision)]).sum() + np.log(left)
    slope = third * np.diag(covariance)
    pull = (held(slope) - cross * (reach @ slope) / left) / np.sqrt(precision)
    return Expansion(np.diag(covariance)[:, None, None], variance[:, None], log_det, pull[:, None])


def loss_slopes(y, eta, weight, form, scale, *, expected=False):
    """First and second derivatives of the loss by the linear predictor; those of samples of weight 0 are 0.

    The second ones of a joint loss are (n, m, m).

    Parameters
    ----------
    y, eta : (n, m)
    weight : (n,)
    form : Form
    scale : (m,)
        The family's second parameter.
    expected : bool
        Whether to take the second derivative's expectation over y, as is done in any case if some observed ones are
        negative (a link that is not canonical).
    """
    scale = np.where(np.isnan(scale), 1.0, scale)
    seen = weight[:, None] > 0
    eta = np.where(seen, eta, np.asarray(form.link.predictor(0.5 * np.ones(()))))
    if form.family.joint:
        loss = partial(form.family.nll, link=form.link, scale=scale)
        slope = np.asarray(value_and_slope(loss, y, eta, joint=True)[1])
        curvature = np.asarray(joint_curvature(form.link.inverse, eta))
        return np.where(seen, slope, 0.0), np.where(seen[:, :, None], curvature, 0.0)
    settings = {"family": form.family, "link": form.link, "order": 2}
    slope, curvature = map(np.asarray, slopes(y, eta, scale, **settings))
    if expected or (curvature < 0).any():
        curvature = np.asarray(slopes(np.asarray(form.link.inverse(eta)), eta, scale, **settings)[1])
    return np.where(seen, slope, 0.0), np.where(seen, curvature, 0.0)


@partial(jax.jit, static_argnames=("family", "link", "order"))
def slopes(y, eta, scale, *, family, link, order):
    """First derivatives of the loss by the linear predictor, up to an order, elementwise."""

    def derivative(function):
        return lambda eta: jax.jvp(function, (eta,), (jnp.ones_like(eta),))[1]

    found, function = [], lambda eta: family.nll(y, eta, link, scale)
    for _ in range(order):
        function = derivative(function)
        found.append(function(eta))
    return tuple(found)
