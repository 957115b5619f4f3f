"""Scores of a fit on data: the fraction of the deviance explained, and NeMoS's three."""

from functools import partial

import numpy as np

from bayesglm.links import IDENTITY

__all__ = ["SCORE_TYPES", "score_fit", "scores_each"]

WITH_CONSTANTS = ("log-likelihood", "pseudo-r2-McFadden")
SCORE_TYPES = (None, "log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen")


def scores_each(multioutput):
    """Whether each response has a score of its own; a ValueError if that is not clear."""
    if not isinstance(multioutput, str) or multioutput not in ("uniform_average", "raw_values"):
        raise ValueError(f"multioutput must be 'uniform_average' or 'raw_values'; got {multioutput!r}.")
    return multioutput == "raw_values"


def score_fit(y, eta, weights, form, scale, score_type, *, each=False):
    """Score the linear predictors of fits to the same data.

    Parameters
    ----------
    y : (n, outputs)
    eta : (..., n, outputs)
    weights : list of (n,)
        Each of them makes scores.
    form : Form
    scale : (..., outputs)
        The family's second parameter.
    score_type : one of SCORE_TYPES
    each : bool
        Whether each response has a score of its own.

    Returns
    -------
    list of numpy.ndarray, shape (...), or (..., responses)
        -inf where a mean lies outside the family's domain.
    """
    family = form.family
    y, eta, scale = map(form.by_class, (y, eta, scale[..., None, :]))
    loss = np.asarray(family.nll(y, eta, form.link, scale))
    loss = np.where(np.isnan(loss), np.inf, loss)
    saturated = np.asarray(family.saturated_nll(y, scale))
    constant = np.asarray(family.log_normalizer(y, scale)) if score_type in WITH_CONSTANTS else None
    phi = np.asarray(family.phi(scale))
    if family.joint:
        null = partial(_null_of_classes, y)
        loss, saturated, phi = loss.sum(-1), saturated.sum(-1), phi[..., 0]
        constant = None if constant is None else constant.sum(-1)
    else:
        null = partial(_null, y, saturated, scale, family)
    combine = np.asarray if each else partial(np.mean, axis=-1)
    return [
        _score(loss, saturated, constant, phi[..., 0, :], weight, null(weight), score_type, combine)
        for weight in weights
    ]


def _null(y, saturated, scale, family, weight):
    """Loss of the model that predicts the mean; where all y are equal it is the saturated model."""
    share = weight / weight.sum()
    varies = np.ptp(y[weight > 0], axis=0) > 0
    mean = np.where(varies, share @ y, 0.5)
    at_mean = share @ np.asarray(family.nll(y, np.broadcast_to(mean, y.shape), IDENTITY, scale))
    return np.where(varies, at_mean, share @ saturated)


def _null_of_classes(y, weight):
    """Loss of the model that predicts the shares of the classes."""
    share = np.einsum("n,nrk->rk", weight / weight.sum(), y)
    return -np.sum(share * np.log(np.where(share > 0, share, 1.0)), -1)


def _score(loss, saturated, constant, phi, weight, null, score_type, combine):
    share = weight / weight.sum()
    saturated = share @ saturated
    # A mean outside the domain, or one that overflows, must not meet a weight of 0.
    fit = share @ (loss if np.isfinite(loss).all() else np.where(weight[:, None] > 0, loss, 0.0))
    if score_type is None:
        return combine(_fraction(null - saturated, fit - saturated))
    if score_type == "pseudo-r2-Cohen":
        return _fraction(combine(null - saturated), combine(fit - saturated))
    likelihood, null_likelihood = (combine(-each / phi - share @ constant) for each in (fit, null))
    if score_type == "log-likelihood":
        return likelihood
    return _fraction(null_likelihood, likelihood)


def _fraction(null, fit):
    """1 - fit / null; without anything to explain, 1 for a perfect fit and 0 for any other."""
    return np.where(null != 0, 1 - fit / np.where(null != 0, null, 1.0), np.where(fit == 0, 1.0, 0.0))
