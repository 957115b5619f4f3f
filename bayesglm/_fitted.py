"""A fit of all outputs, and why one may have no optimum, or none that is alone."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from bayesglm._model import Spec
from bayesglm._problem import Data, balanced, per_output
from bayesglm._propriety import (
    boundary_fault,
    class_separation_fault,
    lone_fault,
    missing_class_fault,
    rank_fault,
    separation_fault,
)
from bayesglm._sparse_matrix import SparseMatrix
from bayesglm._warn import warn_user
from bayesglm.links import IDENTITY

__all__ = ["Fitted", "is_singular", "some_columns", "warn_of_fit"]

# Squared pivot of the scaled Hessian below which features may be collinear.
SINGULAR_PIVOT = 1e-8
# Entries of X up to which features of a sparse one are made dense.
SMALL_COLUMNS = 10**6


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fit and what it was made from; arrays are NumPy's."""

    data: Data
    batches: list
    modes: list
    spec: Spec
    tol: float
    n_dropped: int = 0  # samples with a missing entry

    @cached_property
    def coef(self):
        """Coefficients, shape (p, outputs)."""
        coef = per_output(self.batches, [mode.coef for mode in self.modes])
        return balanced(coef, self.spec.outputs, self.spec.shared_shifts)

    @property
    def intercept(self):
        """Intercepts, shape (outputs,)."""
        return balanced(per_output(self.batches, [mode.intercept for mode in self.modes]), self.spec.outputs)

    @property
    def edf(self):
        """Effective degrees of freedom, shape (responses,)."""
        edf = per_output(self.batches, [mode.edf for mode in self.modes])
        # Of the intercepts of classes, one is given by the others.
        n_classes = self.spec.outputs.n_classes
        return edf.reshape(-1, n_classes).sum(1) - (n_classes > 1 and self.spec.form.fit_intercept)

    @property
    def total(self):
        """Sum of the weights, those of samples that are gone included."""
        return float(self.spec.total)

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

    @cached_property
    def determined(self):
        """Whether the Hessian of every output is clearly regular."""
        return not any(bool(is_singular(mode, self.data.X.dtype).any()) for mode in self.modes)

    @cached_property
    def flat(self):
        """Which free coefficients have no prior, shape (p, outputs)."""
        return self.spec.flat & self.spec.free

    @cached_property
    def faults(self):
        """Of each response whose mode is not there or not alone: its number, and why."""
        responses = range(self.spec.outputs.n_responses)
        return [(one, fault) for one in responses if (fault := self.fault(one, with_intercept=True))]

    def fault(self, response, *, with_intercept):
        """Why a response has no mode or no proper posterior: a Fault, or None."""
        if self.spec.outputs.classes is not None:
            return self._fault_of_classes(response, with_intercept=with_intercept)
        output = response
        X, y, weight, offset, _ = self.data
        y, flat = y[:, output], self.flat[:, output]
        family, link = self.spec.form.family, self.spec.form.link
        with_intercept = with_intercept and self.spec.form.fit_intercept
        # Under the identity link, the boundary of the mean's domain is not infinitely far away.
        fault = boundary_fault(y, weight, family) if with_intercept and link != IDENTITY else None
        if fault is not None or not flat.any():
            return fault
        bounded = np.zeros_like(flat) if self.spec.positive is None else self.spec.positive[:, output] & flat
        settings = {"with_intercept": with_intercept, "bounded": bounded}
        eta = offset[:, output] + self.intercept[output] + X @ self.coef[:, output]
        if isinstance(X, SparseMatrix):
            few = some_columns(X, flat)
            if few is None:
                return None if link == IDENTITY else lone_fault(X, y, weight, flat & ~bounded, family)
            settings["bounded"] = bounded[flat]
            X, flat, bounded = few, flat[flat], bounded[flat]
        # Whether the Hessian is regular says nothing of coefficients that a bound holds at zero.
        determined = self.determined and not bounded.any()
        return (None if determined else rank_fault(X, weight, flat, **settings)) or (
            separation_fault(X, y, weight, eta, flat, family, self.tol, **settings)
        )

    def _fault_of_classes(self, response, *, with_intercept):
        X, y, weight, offset, _ = self.data
        classes = self.spec.outputs.classes
        mine = slice(response * len(classes), (response + 1) * len(classes))
        flat = self.flat[:, mine]
        with_intercept = with_intercept and self.spec.form.fit_intercept
        fault = missing_class_fault(y[:, mine], weight, classes) if with_intercept else None
        if fault is not None or not flat.any():
            return fault
        eta = offset[:, mine] + self.intercept[mine] + X @ self.coef[:, mine]
        some = flat.any(1)
        if isinstance(X, SparseMatrix):
            few = some_columns(X, some)
            if few is None:
                return None
            X, flat, some = few, flat[some], some[some]
        settings = {"with_intercept": with_intercept, "bounded": np.zeros_like(some)}
        return (None if self.determined else rank_fault(X, weight, some, **settings)) or (
            class_separation_fault(X, y[:, mine], weight, eta, flat, self.tol, with_intercept=with_intercept)
        )


def is_singular(modes, dtype):
    """Which problems of a batch may have collinear coefficients, shape (B,)."""
    return modes.pivot <= max(SINGULAR_PIVOT, 400 * modes.coef.shape[1] * np.finfo(dtype).eps)


def some_columns(X, chosen):
    """Some features (p,) bool, dense; None if they are those of a sparse X and that would be much."""
    if not isinstance(X, SparseMatrix):
        return X[:, chosen]
    return X.some_columns(chosen).T if len(X) * chosen.sum() <= SMALL_COLUMNS else None


def warn_of_fit(fitted, *, faults=True):
    """At most one warning each on the mode and on the dispersion.

    Without `faults` there is no look at the data for what the mode may lack.
    """
    _warn_of_mode(fitted, fitted.faults if faults else [])
    spec = fitted.spec
    if not spec.form.samples_scale or spec.form.family.scale_shapes_mean:
        return
    total, edf = fitted.total, fitted.edf
    left = float((total - edf).min())
    if np.isnan(spec.scale).any():
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


def _warn_of_mode(fitted, faults):
    """Name the cause of a fit that did not converge, or is not unique."""
    if faults:
        output, fault = faults[0]
        outputs = fitted.spec.outputs
        where = f" (output {output}; {len(faults)} of {outputs.n_responses} are affected)" if outputs.several else ""
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
