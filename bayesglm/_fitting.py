"""A fit: data and strengths in; the mode of every output and the Bayesian model it fixes out."""

import numbers
from dataclasses import dataclass

import jax
import numpy as np
import numpyro.distributions as dist
from sklearn.exceptions import ConvergenceWarning

from bayesglm._map import find_modes
from bayesglm._model import Spec
from bayesglm._posterior import Form
from bayesglm._problem import Data, make_batches, per_output
from bayesglm._propriety import boundary_fault, null_space, rank_fault, separation_fault
from bayesglm._warn import warn_user

__all__ = ["Fitted", "fit_model", "warn_of_fit"]

# Features that the working set of a penalty with kinks holds at first.
FIRST_WIDTH = 256
# Squared pivot of the scaled Hessian below which features may be collinear.
SINGULAR_PIVOT = 1e-8


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fit and what it was made from; arrays are NumPy's."""

    data: Data
    batches: list
    modes: list
    spec: Spec

    @property
    def coef(self):
        """Coefficients, shape (p, outputs)."""
        return per_output(self.batches, [mode.coef for mode in self.modes])

    @property
    def intercept(self):
        """Intercepts, shape (outputs,)."""
        return per_output(self.batches, [mode.intercept for mode in self.modes])

    @property
    def edf(self):
        """Effective degrees of freedom, shape (outputs,)."""
        return per_output(self.batches, [mode.edf for mode in self.modes])

    @property
    def total(self):
        """Sum of the weights."""
        return float(self.data.weight.sum())

    @property
    def n_iter(self):
        """Iterations of the output that took most."""
        return int(max(mode.n_iter.max() for mode in self.modes))

    @property
    def residual(self):
        """Largest violation of optimality of any output."""
        return float(max(mode.residual.max() for mode in self.modes))

    @property
    def converged(self):
        """Whether every output converged."""
        return all(bool(mode.converged.all()) for mode in self.modes)

    @property
    def determined(self):
        """Whether the Hessian of every output is clearly regular."""
        return all(bool((mode.pivot > SINGULAR_PIVOT).all()) for mode in self.modes)

    @property
    def flat(self):
        """Which coefficients have no prior, shape (p, outputs)."""
        return np.broadcast_to(np.asarray(self.spec.form.prior.is_flat(self.spec.strength)), self.coef.shape)

    def fault(self, output, *, with_intercept):
        """Why an output has no mode or no proper posterior: a Fault, or None."""
        X, y, weight, offset = self.data
        y, flat, family = y[:, output], self.flat[:, output], self.spec.form.family
        eta = offset[:, output] + self.intercept[output] + X @ self.coef[:, output]
        return (
            (boundary_fault(y, weight, family) if with_intercept else None)
            or (None if self.determined else rank_fault(X, weight, flat, with_intercept=with_intercept))
            or separation_fault(X, y, weight, eta, flat, family, with_intercept=with_intercept)
        )


def fit_model(parts, data, layout, strength, *, population):
    """Fit all outputs.

    Parameters
    ----------
    parts : Parts
    data : Data
    layout : Layout
    strength : numpy.ndarray or tuple
        As from `read_strength`.
    population : bool

    Returns
    -------
    Fitted
    """
    batches = make_batches(data, strength)
    with jax.enable_x64(data.X.dtype == np.float64):
        modes = [_find_modes(data, batch, parts) for batch in batches]
    return Fitted(data, batches, modes, _make_spec(parts, layout, population, strength, batches, modes, data))


def _find_modes(data, batch, parts):
    """Modes of a batch; the working set starts small and grows until it holds all that is not zero."""
    n_features = data.X.shape[1]
    tol = parts.tol if parts.tol is not None else (1e-10 if data.X.dtype == np.float64 else 1e-5)
    static = {"family": type(parts.family), "link": parts.link, "prior": type(parts.prior)}
    width = n_features if parts.prior.smooth else min(n_features, FIRST_WIDTH)
    start = None
    while True:
        arguments = data.X, data.weight, batch.y, batch.offset, batch.strength, start, tol, parts.max_iter
        modes = jax.tree.map(np.asarray, find_modes(*arguments, **static, width=width))
        if not modes.overflow.any():
            return _of_smallest_norm(modes, data, batch, parts)
        start = modes.coef, modes.intercept
        width = min(n_features, 4 * width)


def _of_smallest_norm(modes, data, batch, parts):
    """Among the optima of collinear features without a penalty, take the one of smallest norm."""
    coef, intercept = modes.coef + 0.0, modes.intercept.copy()  # + 0.0 turns -0.0 into 0.0
    for b in np.flatnonzero(modes.pivot <= SINGULAR_PIVOT):
        is_flat = np.asarray(parts.prior.is_flat(jax.tree.map(lambda leaf: leaf[b], batch.strength)))  # noqa: B023
        for output, flat in enumerate(is_flat.T):
            if flat.any():
                mean = data.weight @ data.X[:, flat] / data.weight.sum()
                null = null_space((data.X[:, flat] - mean)[data.weight > 0])
                surplus = null @ (null.T @ coef[b, flat, output])
                coef[b, flat, output] -= surplus
                intercept[b, output] += mean @ surplus
    return modes._replace(coef=coef, intercept=intercept)


def warn_of_fit(fitted):
    """At most one warning each on the mode and on the dispersion."""
    if not fitted.converged or fitted.flat.any():
        _warn_of_mode(fitted)
    spec = fitted.spec
    if not spec.form.samples_dispersion:
        return
    total, edf = fitted.total, fitted.edf
    left = float((total - edf).min())
    if np.isnan(spec.dispersion).any():
        warn_user(
            f"scale_ is NaN: the fit has {edf.max():.1f} effective degrees of freedom for {total:g} samples, "
            "which leaves none for the dispersion. Use a stronger regularizer, or give the dispersion: "
            f"{spec.form.family.__name__}(scale=...).",
        )
    elif left < 0.1 * total:
        warn_user(
            f"scale_ rests on {left:.1f} of {total:g} degrees of freedom: the fit nearly interpolates, and the "
            "prior hardly depends on the strength any more. Use a stronger regularizer, or give the "
            f"dispersion: {spec.form.family.__name__}(scale=...).",
        )


def _warn_of_mode(fitted):
    """Name the cause of a fit that did not converge, or is not unique."""
    outputs = range(fitted.coef.shape[1])
    faults = [(output, fault) for output in outputs if (fault := fitted.fault(output, with_intercept=True))]
    if faults:
        output, fault = faults[0]
        where = f" (output {output}; {len(faults)} of {len(outputs)} are affected)" if fitted.spec.population else ""
        effect = "has no finite optimum" if fault.is_unbounded else "is one of many, that of smallest norm"
        message = f"The fit{where} {effect}, for {fault.cause}. {fault.remedy}".strip()
        warn_user(message, ConvergenceWarning)
    elif not fitted.converged:
        warn_user(
            f"The fit did not converge: after {fitted.n_iter} iterations the optimality conditions are violated "
            f"by a correlation of {fitted.residual:.1e}. Raise solver_kwargs={{'maxiter': ...}}, or use a "
            "(stronger) regularizer.",
            ConvergenceWarning,
        )


def _make_spec(parts, layout, population, strength, batches, modes, data):
    """Everything of the Bayesian model that the fit fixes."""
    n_outputs = data.y.shape[1]
    total = float(data.weight.sum())
    family = parts.family
    blocks = tuple(block for batch in batches for block in batch.outputs)
    dispersion = np.ones(n_outputs, data.X.dtype)
    scale = getattr(family, "scale", None)
    if isinstance(scale, numbers.Real):
        dispersion[:] = scale
    elif family.has_dispersion:
        edf = per_output(batches, [mode.edf for mode in modes])
        pearson = per_output(batches, [mode.pearson for mode in modes])
        for block in blocks:
            freedom = len(block) * total - edf[block].sum()
            dispersion[block] = pearson[block].sum() / freedom if freedom >= 1 else np.nan
    mean = data.weight @ data.y / total
    variance = data.weight @ (data.y - mean) ** 2 / total
    spread = np.empty(n_outputs, data.X.dtype)
    for block in blocks:
        spread[block] = np.sqrt(variance[block].mean()) or 1.0
    form = Form(
        type(family), parts.link, type(parts.prior), family.has_dispersion and not isinstance(scale, numbers.Real)
    )
    return Spec(
        form, layout, population, strength, blocks, total / dispersion, dispersion, spread,
        parts.intercept_prior,
        scale if isinstance(scale, dist.Distribution) else None,
    )  # fmt: skip
