"""Normal priors with more features than samples: sample what the data see, draw the rest from the prior.

With standardized coefficients v ~ Normal(0, I) and the linear predictor A v, the likelihood depends on v only through
its part in the row space of A, of dimension n at most. For A = L Q with orthonormal rows of Q, A v = L (Q v). So the
design L takes the place of A, and given a draw of Q v the rest of v is a draw of the prior.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

__all__ = ["RowSpace", "lift", "row_space"]

# Numbers of one block of draws.
BLOCK = 20_000_000
# Singular values that count as zero, relative to the norm; far from what double precision resolves, so that features of
# wildly different units keep their digits.
ROUNDING = 1e-12


class RowSpace(NamedTuple):
    """A design with as many penalized features as samples, and the way back."""

    design: Any  # (n, n) L; where these features are no more than the samples, A
    coef: Any  # of this design, the mode
    standardized: Any  # (n, q) A
    sd: Any  # (q,) prior standard deviations
    features: Any  # (p,) bool: the q features that it replaces


def row_space(X, precision, features, coef):
    """Replace some features by as many as there are samples.

    Parameters
    ----------
    X : (n, p)
    precision : (p,)
        Of the normal prior of each coefficient.
    features : (p,) bool
        Which to replace.
    coef : (p,)
        Mode.
    """
    mine = X[:, features].astype(np.float64)
    sd = 1 / np.sqrt(precision[features])
    standardized = mine * sd
    if len(sd) <= len(X):
        return RowSpace(standardized, coef[features] / sd, standardized, sd, features)
    # Samples may be equal: then L would have no inverse.
    rounding = ROUNDING * np.linalg.norm(standardized)
    factor = np.linalg.qr(np.concatenate([standardized.T, rounding * np.eye(len(X))]), mode="r").T
    mode = solve_triangular(factor, mine @ coef[features], lower=True)
    return RowSpace(factor, mode, standardized, sd, features)


def lift(reduced, draws, spread, rng, coef):
    """Turn draws (S, n) of the coefficients of the reduced design into those of the features, in `coef` (S, p).

    `spread` (S,) is what the prior standard deviations are multiplied with in each draw.
    """
    if len(reduced.sd) <= len(reduced.design):
        coef[:, reduced.features] = draws * reduced.sd
        return
    rows = max(1, BLOCK // len(reduced.sd))
    for first in range(0, len(draws), rows):
        seen = draws[first : first + rows]
        v = rng.standard_normal((len(seen), len(reduced.sd))) * spread[first : first + rows, None]
        missing = seen - solve_triangular(reduced.design, reduced.standardized @ v.T, lower=True).T
        back = solve_triangular(reduced.design, missing.T, lower=True, trans="T")
        v += back.T @ reduced.standardized
        v *= reduced.sd
        coef[first : first + rows, reduced.features] = v
