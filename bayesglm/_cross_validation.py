"""Fits of a grid of strengths to folds of the data, and their scores.

A fold leaves samples out by a weight of zero: all folds have the same shape, and what is compiled for one serves all.
The grid is fitted to all samples first, as one batch or path; the fits of a fold start from there.
"""

import jax
import numpy as np

from bayesglm._fitting import fit_path
from bayesglm._score import score_fit

__all__ = ["fit_folds", "score_path"]

# Residual at which fits to folds stop, a correlation: it moves no score that noise does not move more.
FOLD_TOL = 1e-4
# Linear predictors that are scored at once.
BLOCK = 10_000_000


def fit_folds(setup, strengths, weights, *, rough):
    """Fit every strength to all samples, then to each fold.

    Parameters
    ----------
    setup : Setup
    strengths : list
        Each as from `read_strength`.
    weights : iterable of (n,)
        Weights of the samples in each fold.
    rough : bool
        Whether dispersions do not matter.

    Yields
    ------
    list of Fitted
        One for each strength: those to all samples first.
    """
    tol = FOLD_TOL if setup.parts.tol is None else setup.parts.tol
    setup = setup._replace(parts=setup.parts._replace(tol=tol))
    start = fit_path(setup, strengths, rough=rough)
    yield start
    for weight in weights:
        yield fit_path(setup._replace(data=setup.data._replace(weight=weight)), strengths, start=start, rough=rough)


def score_path(fits, data, weights, score_type):
    """Score each of several fits by each of several weights of the samples, shape (weights, S); in double precision."""
    X, y, offset = (leaf.astype(np.float64) for leaf in (data.X, data.y, data.offset))
    length = max(1, BLOCK // y.size)
    scores = []
    for first in range(0, len(fits), length):
        some = fits[first : first + length]
        coef = np.stack([fit.coef for fit in some]).astype(np.float64)
        eta = X @ np.moveaxis(coef, 1, 0).reshape(X.shape[1], -1)
        eta = np.moveaxis(eta.reshape(len(y), *coef.shape[::2]), 1, 0)
        eta += offset + np.stack([fit.intercept for fit in some])[:, None]
        scale = np.stack([fit.spec.scale for fit in some]).astype(np.float64)
        with jax.enable_x64(True):
            scores.append(score_fit(y, eta, weights, some[0].spec.form, scale, score_type))
    return np.concatenate(scores, axis=1)
