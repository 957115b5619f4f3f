"""Scores of a fit on data: the fraction of the deviance explained, and NeMoS's three."""

import numpy as np

from bayesglm.links import IDENTITY

__all__ = ["SCORE_TYPES", "score_fit"]

SCORE_TYPES = (None, "log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen")


def score_fit(y, eta, weight, form, scale, score_type):
    """Score the linear predictors of fits to the same data.

    Parameters
    ----------
    y : (n, outputs)
    eta : (..., n, outputs)
    weight : (n,)
    form : Form
    scale : (..., outputs)
        The family's second parameter.
    score_type : one of SCORE_TYPES

    Returns
    -------
    numpy.ndarray, shape (...)
        -inf where a mean lies outside the family's domain.
    """
    family, link = form.family, form.link
    share = weight / weight.sum()
    scale = scale[..., None, :]
    # A mean outside the domain, or one that overflows, must not meet a weight of 0.
    eta = np.where(weight[:, None] > 0, eta, np.asarray(link.predictor(0.5 * np.ones(()))))
    # The null model predicts the mean; where all y are equal it is the saturated model.
    varies = np.ptp(y[weight > 0], axis=0) > 0
    mean = np.where(varies, share @ y, 0.5)
    saturated = share @ np.asarray(family.saturated_nll(y, scale))
    null = np.where(
        varies, share @ np.asarray(family.nll(y, np.broadcast_to(mean, y.shape), IDENTITY, scale)), saturated
    )
    loss = np.asarray(family.nll(y, eta, link, scale))
    fit = share @ np.where(np.isnan(loss), np.inf, loss)
    if score_type is None:
        return np.mean(_fraction(null - saturated, fit - saturated), axis=-1)
    if score_type == "pseudo-r2-Cohen":
        return _fraction(np.mean(null - saturated, axis=-1), np.mean(fit - saturated, axis=-1))
    constant = share @ np.asarray(family.log_normalizer(y, scale))
    phi = np.asarray(family.phi(scale))[..., 0, :]
    likelihood, null_likelihood = (np.mean(-loss / phi - constant, axis=-1) for loss in (fit, null))
    if score_type == "log-likelihood":
        return likelihood
    return _fraction(null_likelihood, likelihood)


def _fraction(null, fit):
    """1 - fit / null; without anything to explain, 1 for a perfect fit and 0 for any other."""
    return np.where(null != 0, 1 - fit / np.where(null != 0, null, 1.0), np.where(fit == 0, 1.0, 0.0))
