"""Fits to samples that come in batches and are not kept: what is remembered of them, and the fit to them and a batch.

A batch is remembered as its loss to second order around the fit that it led to: exactly, where that is quadratic
(Gaussian observations with the identity link), and for other families as the renewable estimators of Luo and Song
(2020, JRSS B 82, 69-97) do. All in double precision.
"""

import numbers
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from bayesglm._composite import Hessian, Past
from bayesglm._expansion import loss_slopes
from bayesglm._fitted import Fitted
from bayesglm._fitting import TINY_SIZE, dispersions, first_scale, make_problems, make_spec, tolerance
from bayesglm._map import Seen, find_modes, pearson
from bayesglm._passes import moments

__all__ = ["Memory", "Moments", "fit_with", "remember"]

_moments = jax.jit(moments, static_argnames="centered")


@dataclass(frozen=True, eq=False)
class Moments:
    """Sum of the weights, means of the features (p,), and their mean squares around these."""

    total: float
    mean: Any
    square: Any

    @classmethod
    def of(cls, X, weight, form):
        """Those of features (n, p); without an intercept, features are taken from zero."""
        mean, square = _moments(X, weight / weight.sum(), centered=form.fit_intercept)
        return cls(float(weight.sum()), np.asarray(mean), np.asarray(square))

    def __add__(self, other):
        total, apart = self.total + other.total, other.mean - self.mean
        share = other.total / total
        square = (1 - share) * self.square + share * other.square + share * (1 - share) * apart**2
        return Moments(total, self.mean + share * apart, square)


@dataclass(frozen=True, eq=False)
class Memory:
    """Samples that are gone: their losses, times weights, to second order.

    There are R responses of K outputs (the classes; without, one), and P = 1 + p parameters of each, the intercept
    first. Features are taken from `center`.

    Parameters
    ----------
    center : numpy.ndarray, shape (p,)
    origin : numpy.ndarray, shape (R, K, P)
        Parameters of the first fit, from which others are taken.
    moments : Moments
        Of the features, taken from `center`.
    hessian : numpy.ndarray, shape (R, K, P, K, P)
    grad : numpy.ndarray, shape (R, K, P)
        At the origin.
    pearson, pearson_grad : numpy.ndarray, shape (R,) and (R, K, P)
        Pearson's chi-square statistic, and its gradient, at the origin; its second derivatives are taken to be twice
        those of the losses.
    slope_square : numpy.ndarray, shape (R,)
        Sum of weight * slope^2.
    """

    center: Any
    origin: Any
    moments: Moments
    hessian: Any
    grad: Any
    pearson: Any
    pearson_grad: Any
    slope_square: Any

    def __add__(self, other):
        names = ("moments", "hessian", "grad", "pearson", "pearson_grad", "slope_square")
        return Memory(self.center, self.origin, *(getattr(self, name) + getattr(other, name) for name in names))

    def pull(self, parameters):
        """What the second derivatives add to `grad` at parameters (R, K, P)."""
        return np.einsum("rkplq,rlq->rkp", self.hessian, parameters - self.origin)

    def chi_square(self, parameters):
        """Pearson's statistic of each response (R,) at parameters (R, K, P)."""
        slope = self.pearson_grad + self.pull(parameters)
        return self.pearson + np.einsum("rkp,rkp->r", parameters - self.origin, slope)

    def second_derivatives(self, outputs):
        """Those of a problem, some outputs (m,), by its parameters in the features as they are: (m, P, m, P)."""
        (_, n_classes, width), m = self.grad.shape, len(outputs)
        shift = np.eye(width)
        shift[0, 1:] = self.center
        if n_classes > 1:
            whole = self.hessian[outputs[0] // n_classes]
        else:
            whole = np.zeros((m, width, m, width))
            whole[np.arange(m), :, np.arange(m)] = self.hessian[outputs, 0, :, 0]
        return np.einsum("pa,kplq,qb->kalb", shift, whole, shift, optimize=True)

    def past(self, outputs, total):
        """The losses of a problem, some outputs (m,), on the scale of a mean over samples of weight `total`."""
        (_, n_classes, width), m = self.grad.shape, len(outputs)
        if n_classes == 1:
            hessian = self.hessian[outputs, 0, :, 0] / total
            gram, cross, own = hessian[:, 1:, 1:], hessian[:, 0, 1:].T, hessian[:, 0, 0]
        else:
            hessian = self.hessian[outputs[0] // n_classes].transpose(1, 0, 3, 2) / total
            size = (width - 1) * m
            gram, cross, own = (
                hessian[1:, :, 1:].reshape(size, size),
                hessian[1:, :, 0].reshape(size, m),
                hessian[0, :, 0],
            )
        grad, origin = self.grad.reshape(-1, width)[outputs] / total, self.origin.reshape(-1, width)[outputs]
        square = self.slope_square[np.unique(outputs // n_classes)].sum() / total
        return Past(Hessian(gram, cross, own, None), origin[:, 1:].T, origin[:, 0], grad[:, 1:].T, grad[:, 0], square)


def as_parameters(coef, intercept, center):
    """Coefficients (p, outputs) and intercepts (outputs,) as parameters (outputs, P), features taken from a center."""
    return np.concatenate([(intercept + center @ coef)[None], coef]).T


def remember(fitted, memory=None):
    """What there is to remember of the samples of a fit, which may be one to others, too.

    Parameters
    ----------
    fitted : Fitted
    memory : Memory, optional
        Of samples before, to be added to.

    Returns
    -------
    Memory
    """
    spec, form = fitted.spec, fitted.spec.form
    with jax.enable_x64(True):
        X, y, weight, offset = fitted.data.in_double()
        eta, scale = offset + fitted.intercept + X @ fitted.coef, np.where(np.isnan(spec.scale), 1.0, spec.scale)
        center = Moments.of(X, weight, form).mean if memory is None else memory.center
        design = np.concatenate([np.ones((len(X), 1)), X - center], axis=1)
        shape = (y.shape[1] // form.n_classes, form.n_classes, design.shape[1])
        grad, hessian, slope_square = np.empty(shape), np.empty((*shape, *shape[1:])), np.empty(shape[0])
        for response in range(shape[0]):
            mine = slice(response * form.n_classes, (response + 1) * form.n_classes)
            slope, curvature = loss_slopes(y[:, mine], eta[:, mine], weight, form, scale[mine])
            curvature = curvature.reshape(len(X), form.n_classes, form.n_classes)
            for first, second in np.ndindex(form.n_classes, form.n_classes):
                bent = design * (weight * curvature[:, first, second])[:, None]
                hessian[response, first, :, second] = bent.T @ design
            grad[response] = (weight[:, None] * slope).T @ design
            slope_square[response] = weight @ (slope**2).sum(1)
        at = as_parameters(fitted.coef, fitted.intercept, center).reshape(shape)
        found = Memory(
            center=center,
            origin=at if memory is None else memory.origin,
            moments=Moments.of(X - center, weight, form),
            hessian=hessian,
            grad=np.zeros(shape),
            pearson=np.zeros(shape[0]),
            pearson_grad=np.zeros(shape),
            slope_square=slope_square,
        )
        found = replace(found, grad=grad - found.pull(at))
        if form.family.joint:
            return found
        settings = weight, scale, form.family, form.link
        slope = np.asarray(jax.grad(lambda eta: pearson(y, eta, *settings).sum())(eta))
        bent = (slope.T @ design)[:, None] - 2 * found.pull(at)
        found = replace(found, pearson_grad=bent)
        return replace(found, pearson=np.asarray(pearson(y, eta, *settings)) - found.chi_square(at))


def fit_with(setup, strength, memory, spec, start):
    """Fit all outputs to samples that are remembered and to others.

    Parameters
    ----------
    setup : Setup
        In double precision.
    strength : as from `read_strength`
    memory : Memory
    spec : Spec
        Of the fit before.
    start : Start

    Returns
    -------
    Fitted
    """
    parts, data = setup.parts, setup.data
    batches = make_problems(setup, strength)
    with jax.enable_x64(True):
        X = data.X - memory.center
        seen = memory.moments + Moments.of(X, data.weight, spec.form)
        coef, intercept = start.coef, start.intercept + memory.center @ start.coef
        static = {"family": type(parts.family), "link": parts.link, "fit_intercept": parts.fit_intercept}
        found = []
        for batch in batches:
            begin = np.stack([coef[:, each] for each in batch.outputs]), intercept[batch.outputs]
            pasts = [memory.past(each, seen.total) for each in batch.outputs]
            pasts = jax.tree.map(lambda *leaves: np.stack(leaves), *pasts)
            modes = find_modes[X.size * batch.outputs.size <= TINY_SIZE](
                X, data.weight, batch.y, batch.offset, batch.strength, batch.free, first_scale(parts, batch), begin,
                tolerance(parts, X.dtype), parts.max_iter, Seen(seen.total, seen.square, pasts),
                prior=type(parts.prior), n_paths=len(batch.y), rough=False, **static,
            )  # fmt: skip
            modes = jax.tree.map(np.asarray, modes)
            found.append(modes._replace(intercept=modes.intercept - np.einsum("p,bpm->bm", memory.center, modes.coef)))
        fitted = Fitted(data, batches, found, spec, tolerance(parts, X.dtype))
        scales = [first_scale(parts, batch) for batch in batches]
        if not isinstance(parts.family.scale, numbers.Real):
            gone = memory.chi_square(
                as_parameters(fitted.coef, fitted.intercept, memory.center).reshape(memory.grad.shape)
            )
            whole = [
                modes._replace(pearson=modes.pearson + gone[b.outputs]) for modes, b in zip(found, batches, strict=True)
            ]
            scales = [dispersions(modes, seen.total) for modes in whole]
        new = make_spec(setup, strength, batches, scales)
    # The spread of y is that of the first batch.
    new = replace(new, total=seen.total, k=new.k * (seen.total / new.total), y_spread=spec.y_spread)
    n_dropped = 0 if setup.missing is None else int(setup.missing.sum())
    return replace(fitted, spec=new, n_dropped=n_dropped)
