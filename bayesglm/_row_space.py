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

    design: Any  # (n, q + n): the features without a prior, then L
    coef: Any  # (q + n,) the mode
    standardized: Any  # (n, p - q) A
    factor: Any  # (n, n) L
    sd: Any  # (p - q,) prior standard deviations of the features with a prior
    flat: Any  # (p,) bool: features without a prior
    free: Any  # (p,) bool: features that are not held at zero


def row_space(X, precision, free, coef):
    """Replace the features that have a prior by as many as there are samples.

    Parameters
    ----------
    X : (n, p)
    precision : (p,)
        Of the normal prior of each coefficient; 0 is flat.
    free : (p,) bool
        Coefficients that are not held at zero.
    coef : (p,)
        Mode.
    """
    X = X.astype(np.float64)
    flat, normal = free & (precision == 0), free & (precision > 0)
    sd = 1 / np.sqrt(precision[normal])
    standardized = X[:, normal] * sd
    # Samples may be equal: then L would have no inverse.
    rounding = ROUNDING * np.linalg.norm(standardized)
    factor = np.linalg.qr(np.concatenate([standardized.T, rounding * np.eye(len(X))]), mode="r").T
    mode = solve_triangular(factor, X[:, normal] @ coef[normal], lower=True)
    design = np.concatenate([X[:, flat], factor], axis=1)
    return RowSpace(design, np.concatenate([coef[flat], mode]), standardized, factor, sd, flat, free)


def lift(reduced, draws, spread, rng):
    """Coefficients (S, p) from draws (S, q + n) of those of the reduced design.

    `spread` (S,) is what the prior standard deviations are multiplied with in each draw.
    """
    n_flat = int(reduced.flat.sum())
    normal = reduced.free & ~reduced.flat
    coef = np.zeros((len(draws), len(reduced.flat)), draws.dtype)
    coef[:, reduced.flat] = draws[:, :n_flat]
    rows = max(1, BLOCK // len(reduced.sd))
    for first in range(0, len(draws), rows):
        seen = draws[first : first + rows, n_flat:]
        v = rng.standard_normal((len(seen), len(reduced.sd))) * spread[first : first + rows, None]
        missing = seen - solve_triangular(reduced.factor, reduced.standardized @ v.T, lower=True).T
        back = solve_triangular(reduced.factor, missing.T, lower=True, trans="T")
        v += back.T @ reduced.standardized
        v *= reduced.sd
        coef[first : first + rows, normal] = v
    return coef
