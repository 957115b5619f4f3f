"""The estimator for samples that come in batches and are not kept."""

import jax
import numpy as np
from sklearn.exceptions import NotFittedError

from bayesglm._design import same_layout
from bayesglm._estimator import PenalizedGLM
from bayesglm._fitted import warn_of_fit
from bayesglm._fitting import Start, make_form
from bayesglm._problem import Data
from bayesglm._sparse_matrix import refuse_sparse
from bayesglm._stream import fit_with, remember
from bayesglm._targets import check_output_names

__all__ = ["IncrementalGLM"]


class IncrementalGLM(PenalizedGLM):
    """What all models share as fits to a stream of samples."""

    def partial_fit(self, X, y=None, *, sample_weight=None, offset=None):
        """Fit to more samples, together with those of the calls before.

        The first call is `fit`. Of its samples, and of those of each later call, their loss to second order around
        the fit is kept, an array of (1 + p, 1 + p) for each output, in `memory_`. For Gaussian observations with the
        identity link that is all there is to know: the fit is that to all samples. For other families it is close
        to it, the closer the larger the batches are: the first should have some twenty samples for each
        coefficient. As long as the samples have no finite fit (classes that are separated, no counts, and no
        prior), they are kept whole. `fit` begins anew.

        The strength may change from call to call, and sets its penalty against the mean loss over all samples so far.
        Everything is in double precision. Batches of one size compile once. Where features without a prior are
        collinear, one of the fits that are as good is found, after the first call not that of smallest norm.

        Parameters
        ----------
        X, y, sample_weight, offset
            As in `fit`, of any number of samples, and not sparse. Samples that come again count again.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an argument does not make sense, or is unlike that of the calls before.
        NotFittedError
            If the model was fitted by `fit`, and the samples of that are no longer with it.

        Warns
        -----
        ConvergenceWarning
            If the solver stopped before the optimality conditions held.
        """
        return self._fit_more(X, y, sample_weight, offset)

    def _fit_more(self, X, y, sample_weight, offset, classes=None):
        last, memory = vars(self).get("spec_"), vars(self).get("memory_")
        terms = None if last is None else last.layout.terms
        setup, strength, unknowns = self._read_all(X, y, sample_weight, offset, terms=terms, classes=classes)
        refuse_sparse(setup.data.X, "partial_fit")
        _check_numbers(setup, unknowns)
        dropped = 0
        setup = setup._replace(data=setup.data.as_double())
        if last is not None:
            _check_alike(setup, last)
            check_output_names(y, last.outputs.names)
            # The names of columns are those of the first call.
            setup, dropped = setup._replace(layout=last.layout, outputs=last.outputs), self.n_samples_dropped_
        if memory is None:
            if last is not None:
                setup = setup._replace(data=_joined(self._samples_so_far(), setup.data))
            fitted = self._fit(setup, strength, unknowns)
        else:
            # Masks and bounds may be new.
            coef = np.concatenate(jax.tree.leaves(self.coef_)).reshape(setup.free.shape) * setup.free
            coef = coef if setup.positive is None else np.where(setup.positive, np.maximum(coef, 0.0), coef)
            start = Start(coef, self.intercept_.ravel())
            fitted = fit_with(setup, strength, memory, last, start)
            self._set_fitted(fitted, self.regularizer_strength)
        self.n_samples_dropped_ += dropped
        if memory is not None or not any(fault.is_unbounded for _, fault in fitted.faults):
            new = remember(fitted, memory)
            self.memory_ = new if memory is None else memory + new
            del self.training_data_
        warn_of_fit(fitted, faults=memory is None)
        return self

    def _samples_so_far(self):
        """Data of the last fit, in double precision."""
        if "training_data_" not in vars(self):
            raise NotFittedError(
                "partial_fit goes on from the samples of the last fit, which files and pickles leave behind: call fit "
                "again. A model that begins with partial_fit does not need them."
            )
        data = self.training_data_
        refuse_sparse(data.X, "partial_fit")
        return data.as_double()


def _check_numbers(setup, unknowns):
    """Raise a ValueError for what has to be learned from all samples at once."""
    if unknowns.kinds:
        raise ValueError(f"regularizer_strength must be numbers for partial_fit; got {unknowns.kinds[0]!r}.")
    family = setup.parts.family
    if family.scale_shapes_mean and not isinstance(family.scale, float | int):
        raise ValueError(
            f"observation_model must have a known overdispersion for partial_fit: {type(family).__name__}(scale=...); "
            f"got scale={family.scale!r}."
        )


def _check_alike(setup, last):
    """Raise a ValueError unless features, outputs and family are those of the fit before."""
    same_layout(setup.layout, last.layout)
    if setup.outputs.count != last.outputs.count:
        raise ValueError(
            f"y must have {last.outputs.n_responses} outputs, as in the calls before; got {setup.outputs.n_responses}."
        )
    now, then = ((form.family, form.link, form.fit_intercept) for form in (make_form(setup), last.form))
    if now != then:
        raise ValueError(
            "observation_model, inverse_link_function and fit_intercept must be those of the fit before; call fit to "
            "begin anew."
        )


def _joined(data, more):
    """Samples and further ones."""
    return Data(*(None if old is None else np.concatenate([old, new]) for old, new in zip(data, more, strict=True)))
