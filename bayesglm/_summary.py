"""Inference at the mode: the normal approximation of the posterior there, and information criteria."""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import ndtri

from bayesglm._expansion import covariances, covariances_from, expand, loss_slopes
from bayesglm._model import rates
from bayesglm._passes import own_curvature
from bayesglm._problem import Data, against_last, make_batches
from bayesglm._propriety import boundary_fault
from bayesglm.links import IDENTITY
from bayesglm.priors import bound

__all__ = ["Criteria", "fit_criteria", "mode_covariance", "remembered_covariance", "standard_errors", "summary_table"]

# Correlation of a feature with the slopes of the loss up to which a fit is that of the data, and the same beside the
# linear predictors.
STATIONARY, ROUNDING = 1e-3, 1e-9


class Criteria(NamedTuple):
    """What a fit costs and how well it does, for each response; shapes (responses,)."""

    edf: Any  # trace of the hat matrix, the intercept included
    deviance: Any
    log_likelihood: Any
    aic: Any
    bic: Any


def mode_covariance(data, spec, coef, intercept, *, expected):
    """Covariance of the normal approximation of the posterior at the mode.

    Parameters
    ----------
    data : Data
        Those of the fit.
    spec : Spec
    coef : (p, outputs)
    intercept : (outputs,)
    expected : bool
        Whether the curvature of the likelihood is its expectation, as in the tables of R's glm, rather than that of
        the posterior; the same for canonical links.

    Returns
    -------
    numpy.ndarray, shape (responses, classes, 1 + p, classes, 1 + p), classes being 1 for families without
        Of the intercept and the coefficients; NaN where one is held at zero.

    Raises
    ------
    ValueError
        If the data are no longer those of the fit, or leave some direction without curvature.
    """
    problems = _problems(data, spec, coef, intercept, expected)
    return _assemble(((problem.outputs, _inverse(problem)) for problem in problems), spec, len(coef))


def _inverse(problem):
    """Inverse of the Hessian of a problem (m, 1 + p, m, 1 + p); NaN where there is no mode."""
    if problem.is_lost:
        m, width = len(problem.outputs), 1 + problem.arguments[0].shape[1]
        return np.full((m, width, m, width), np.nan)
    return covariances(*problem.arguments)


def remembered_covariance(memory, spec, coef):
    """`mode_covariance` of a fit to samples that are gone.

    Parameters
    ----------
    memory : Memory
    spec : Spec
    coef : (p, outputs)
    """
    n_features, n_outputs = coef.shape
    nothing = np.zeros((0, n_outputs))
    data, form = Data(np.zeros((0, n_features)), nothing, np.zeros(0), nothing), spec.form

    def inverses():
        with jax.enable_x64(True):
            for outputs, strength, free in _split(data, spec):
                n_intercepts = (len(outputs) - form.family.joint) * form.fit_intercept
                hessian = memory.second_derivatives(outputs)
                arguments = strength, coef[:, outputs], free, spec.total, form.prior
                yield outputs, covariances_from(hessian, *arguments, n_intercepts)

    return _assemble(inverses(), spec, n_features)


def _assemble(inverses, spec, n_features):
    """Covariances, see `mode_covariance`, of all outputs from pairs of some outputs and the inverse of their H."""
    if not (spec.scale > 0).all():
        raise ValueError("scale_ is 0: the fit leaves no residuals, and with them no uncertainty to tell.")
    outputs, width, phi = spec.outputs, 1 + n_features, np.asarray(spec.form.family.phi(spec.scale))
    found = np.empty((outputs.n_responses, outputs.n_classes, width, outputs.n_classes, width))
    try:
        for some, inverse in inverses:
            if outputs.classes is not None:
                response = some[0] // outputs.n_classes
                shifts = np.append(spec.form.fit_intercept, spec.shared_shifts[:, response])
                found[response] = _of_balanced(inverse, shifts)
                continue
            for place, output in enumerate(some):
                found[output, 0, :, 0] = phi[output] * inverse[place, :, place]
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "The mode has no covariance: some parameters, or combinations of them, change nothing. Give them a "
            "regularizer_strength, or drop features, such as a constant beside the intercept."
        ) from error
    return found


def _of_balanced(covariance, shifts):
    """Covariance (classes, 1 + p, classes, 1 + p) of parameters that sum to zero over classes, where `shifts` (1 + p,).

    In what comes, the last class of these is held instead, and its covariances with all that moves are NaN.
    """
    moved = np.array(covariance)
    known = np.isfinite(np.einsum("kwkw->kw", moved))
    known[-1, shifts] = True
    known = known.ravel()
    moved[-1, shifts] = 0.0
    moved[:, :, -1, shifts] = 0.0
    moved[:, shifts] -= moved[:, shifts].mean(0)
    moved[:, :, :, shifts] -= moved[:, :, :, shifts].mean(2, keepdims=True)
    flat = moved.reshape(len(known), -1)
    return np.where(known[:, None] & known, flat, np.nan).reshape(moved.shape)


def fit_criteria(data, spec, coef, intercept):
    """Effective degrees of freedom, deviance, log-likelihood, AIC and BIC: a Criteria.

    As in R, the log-likelihood of Gaussian and Gamma observations whose dispersion was estimated is that at
    deviance / n, and the dispersion counts as a parameter.
    """
    outputs, form = spec.outputs, spec.form
    edf = np.empty(outputs.n_responses)
    for problem in _problems(data, spec, coef, intercept, False):
        if problem.is_lost:
            edf[problem.outputs] = np.nan
            continue
        reach = expand(*problem.arguments).covariance
        if outputs.classes is None:
            edf[problem.outputs] = np.einsum("no,noo->o", problem.curvature, reach)
        else:
            edf[problem.outputs[0] // outputs.n_classes] = np.einsum("nab,nab->", problem.curvature, reach)
    X, y, weight, offset = data.in_double()
    family, link, scale = spec.form.family, spec.form.link, spec.scale.astype(np.float64)
    with jax.enable_x64(True):
        eta = offset + intercept + X @ coef
        y, eta = map(form.by_class, (y, eta))
        of_classes = form.by_class(scale)
        loss = np.asarray(family.nll(y, eta, link, of_classes))
        deviance = 2 * weight @ form.per_response(loss - np.asarray(family.saturated_nll(y, of_classes)))
        estimated = spec.form.samples_scale and not family.scale_shapes_mean
        if estimated:
            for block in spec.blocks:
                scale[block] = deviance[block].mean() / spec.total
        of_classes = form.by_class(scale)
        terms = loss / np.asarray(family.phi(of_classes)) + np.asarray(family.log_normalizer(y, of_classes))
        log_likelihood = -(weight @ form.per_response(terms))
        if family.counts_trials:
            log_likelihood = log_likelihood + data.frequency @ np.asarray(family.log_choose(y, data.trials[:, None]))
    parameters = edf + (spec.form.samples_scale and 1.0)
    aic, bic = (-2 * log_likelihood + cost * parameters for cost in (2.0, np.log(data.frequency.sum())))
    return Criteria(edf, deviance, log_likelihood, aic, bic)


def summary_table(covariance, spec, coef, intercept, level):
    """Estimates with their standard errors, one row per parameter.

    Parameters
    ----------
    covariance : as from `mode_covariance`
    level : float
        Probability of the interval.

    Returns
    -------
    pandas.DataFrame
    """
    # pandas comes with ArviZ; a fit does not need it.
    import pandas as pd

    error = standard_errors(covariance)
    estimate = np.concatenate([intercept[None], coef]).T
    prior_sd = np.concatenate([np.full((1, len(spec.k)), np.inf), _prior_sd(spec)]).T
    free = np.concatenate([np.ones((1, len(spec.k)), bool), spec.free]).T
    reach = ndtri((1 + level) / 2) * error
    table = {
        "estimate": estimate,
        "se": error,
        f"lower_{level:.3g}": estimate - reach,
        f"upper_{level:.3g}": estimate + reach,
        "prior_sd": prior_sd,
    }
    free[:, 0] = spec.form.fit_intercept
    labels = [name for output in spec.outputs.labels() for name in _names(spec, output)]
    frame = pd.DataFrame({name: values[free] for name, values in table.items()})
    frame.index = pd.Index(np.array(labels, object)[free.ravel()])
    # Shown in the corner of the table.
    frame.columns.name = None if spec.form.prior.smooth else "given selection"
    return frame


def standard_errors(covariance):
    """Roots of the variances, (outputs, 1 + p)."""
    return np.sqrt(np.einsum("rkwkw->rkw", covariance).reshape(-1, covariance.shape[2]))


class _Problem(NamedTuple):
    """Outputs that are coupled, and what `expand` takes of them."""

    outputs: Any
    curvature: Any  # (n, m), or (n, m, m) of classes
    arguments: tuple
    is_lost: bool  # whether an output has no mode, for every y of it is on the boundary


def _problems(data, spec, coef, intercept, expected):
    """Expansions' arguments of all problems of a fit; in double precision."""
    X, y, weight, offset = data.in_double()
    coef = coef.astype(np.float64)
    eta = offset + intercept + X @ coef
    with jax.enable_x64(True):
        for outputs, strength, free in _split(data, spec):
            slope, curvature = loss_slopes(
                y[:, outputs], eta[:, outputs], weight, spec.form, spec.scale[outputs], expected=expected
            )
            curvature = weight.reshape(-1, *(1,) * (curvature.ndim - 1)) * curvature
            settings = weight.sum(), spec.form.prior, spec.form.fit_intercept
            arguments = X, curvature, strength, coef[:, outputs], free, *settings
            fault = _fault_of_boundary(y[:, outputs], weight, spec.form)
            if fault is not None and not spec.outputs.several:
                raise ValueError(f"The fit has no finite optimum, and no curvature there, for {fault.cause}.")
            if fault is None:
                _check_stationary(weight[:, None] * slope, eta[:, outputs], weight, *arguments)
            yield _Problem(outputs, curvature, arguments, fault is not None)


def _fault_of_boundary(y, weight, form):
    """The fault of the first output whose every y is on the boundary of the mean's domain, or None."""
    if form.family.joint or not form.fit_intercept or form.link == IDENTITY:
        return None
    faults = (boundary_fault(column, weight, form.family) for column in y.T)
    return next((fault for fault in faults if fault is not None), None)


def _split(data, spec):
    """Outputs of each problem, their strength, and which of their coefficients are free."""
    free = against_last(spec.flat, spec.free, spec.outputs)
    for batch in make_batches(data, bound(spec.strength, spec.positive), free, n_classes=spec.outputs.n_classes):
        for b, outputs in enumerate(batch.outputs):
            yield outputs, jax.tree.map(lambda leaf: leaf[b], batch.strength), batch.free[b]  # noqa: B023


def _check_stationary(slope, eta, weight, X, curvature, strength, coef, free, total, prior, fit_intercept):
    """Raise a ValueError unless the coefficients that are not zero, and the intercepts, are at a mode.

    Parameters
    ----------
    slope : (n, m)
    curvature : (n, m), or (n, m, m) of classes
        Times the weights.
    """
    active = free & ((coef != 0) | ~np.asarray(prior.has_kink(strength)))
    pull = np.where(active, jax.grad(lambda w: prior.penalty(w, strength))(coef), 0.0)
    design = np.concatenate([np.ones((len(X), 1)), X], axis=1)
    grad = design.T @ slope + total * np.concatenate([np.zeros((1, len(coef[0]))), pull])
    # Where residuals are rounding errors, they are judged beside the linear predictors.
    curvature = own_curvature(curvature)
    size = STATIONARY * np.sqrt((slope**2).sum(0)) + ROUNDING * np.sqrt(((curvature * (1 + abs(eta))) ** 2).sum(0))
    far = abs(grad) > size * np.sqrt(weight @ design**2)[:, None]
    if far[np.concatenate([np.full((1, len(coef[0])), fit_intercept), active])].any():
        raise ValueError("X or y are no longer those of the fit, or the fit did not converge: fit again.")


def _prior_sd(spec):
    """Prior standard deviation of each coefficient (p, outputs); infinite where the prior is flat."""
    with jax.enable_x64(True):
        prior = spec.form.prior.distribution(*rates(spec, spec.strength, spec.k))
        variance = np.asarray(prior.variance).reshape(spec.free.shape)
        return np.where(spec.flat, np.inf, np.sqrt(variance))


def _names(spec, output):
    """Names of the intercept and the coefficients of an output, as ArviZ's summary of the posterior writes them."""
    layout = spec.layout
    one, each = (f"[{output}]", f"{output}, ") if spec.population else ("", "")
    coefficients = [
        f"coef{'.' * bool(leaf)}{leaf}[{each}{column}]"
        for leaf, width, columns in zip(layout.names, layout.widths, layout.columns, strict=True)
        for column in (range(width) if columns is None else columns)
    ]
    return [f"intercept{one}", *coefficients]
