"""A sparse X: the products and moments that fits ask of it, none of which makes it dense."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax.experimental.sparse import BCOO
from scipy import sparse

__all__ = ["SparseMatrix", "as_csr", "is_sparse", "refuse_sparse", "weighted_sums"]


@dataclass(frozen=True, eq=False)
class SparseMatrix:
    """Sparse matrix that fits read as they do a dense one, in double precision.

    Parameters
    ----------
    rows : scipy.sparse.csr_array of float64
    """

    rows: Any

    @classmethod
    def of(cls, array):
        """That of a dense array, or of a sparse one."""
        return cls(sparse.csr_array(array).astype(np.float64))

    @cached_property
    def columns(self):
        """The same as a scipy.sparse.csc_array."""
        return self.rows.tocsc()

    @property
    def shape(self):
        """Numbers of samples and features."""
        return self.rows.shape

    @property
    def size(self):
        """Number of entries, zeros included."""
        return self.shape[0] * self.shape[1]

    @property
    def dtype(self):
        """Double precision."""
        return self.rows.dtype

    def __len__(self):
        return self.shape[0]

    def __matmul__(self, other):
        return self.rows @ np.asarray(other, np.float64)

    def astype(self, dtype):
        """Itself: it is in double precision always."""
        return self

    def transposed_product(self, other):
        """Products X' other, of `other` (n,) or (n, m)."""
        return self.rows.T @ np.asarray(other, np.float64)

    def moments(self, share, *, centered=True):
        """Weighted mean (p,) of each feature, and its mean square around that; 0 for constant features.

        Where there is no intercept, features are not `centered`: the mean is taken to be 0.
        """
        width, share = self.shape[1], np.asarray(share)
        mean = self.transposed_product(share) if centered else np.zeros(width)
        columns = self.columns
        which = np.repeat(np.arange(width), np.diff(columns.indptr))
        weight = share[columns.indices]
        present = np.bincount(which, weight, width)
        square = np.bincount(which, weight * (columns.data - mean[which]) ** 2, width)
        square += np.maximum(1 - present, 0.0) * mean**2
        varies = np.sqrt(square) > 64 * np.finfo(float).eps * np.abs(mean)
        return mean, np.where(varies, square, 0.0)

    def correlate(self, mean, slope):
        """Products (p, m) of the centered features with `slope` (n, m)."""
        slope = np.asarray(slope)
        return self.transposed_product(slope) - np.asarray(mean)[:, None] * slope.sum(0)

    def some_columns(self, features):
        """Some features as a dense matrix, transposed: (features, n)."""
        return self.columns[:, features].T.toarray()

    def without(self, samples):
        """The matrix with zeros in place of some samples, (n,) bool."""
        rows = self.rows
        kept = np.where(np.repeat(samples, np.diff(rows.indptr)), 0.0, rows.data)
        return SparseMatrix(sparse.csr_array((kept, rows.indices, rows.indptr), shape=rows.shape))

    def missing(self):
        """Which samples have a NaN, (n,) bool."""
        held = np.repeat(np.arange(len(self)), np.diff(self.rows.indptr))
        return np.bincount(held, np.isnan(self.rows.data), len(self)) > 0


def weighted_sums(X, center, weight):
    """Sums over samples, times weights (n,), of the features of a scipy.sparse array less their centers (p,).

    Returns
    -------
    gram : (p, p)
        Of products of two features.
    cross : (p,)
        Of features.
    total : ()
        Of the weights.
    """
    sums, total = X.T @ weight, weight.sum()
    gram = (X.T @ (X * weight[:, None])).toarray()
    gram += total * np.outer(center, center) - np.outer(sums, center) - np.outer(center, sums)
    return gram, sums - center * total, total


def is_sparse(value):
    """Whether a part of X is a sparse matrix: of SciPy, or JAX's BCOO."""
    return sparse.issparse(value) or isinstance(value, BCOO)


def as_csr(value):
    """A sparse matrix of any kind as a csr_array; of a BCOO, entries beyond its shape are padding."""
    if not isinstance(value, BCOO):
        return sparse.csr_array(value)
    if value.n_batch or value.n_dense or value.ndim != 2:
        raise ValueError(f"a BCOO must have two sparse dimensions; got {value!r}")
    data, indices = np.asarray(value.data), np.asarray(value.indices)
    inside = (indices < np.array(value.shape)).all(1)
    return sparse.coo_array((data[inside], tuple(indices[inside].T)), shape=value.shape).tocsr()


def refuse_sparse(X, what):
    """Raise a ValueError if X is sparse."""
    if isinstance(X, SparseMatrix) or is_sparse(X):
        raise ValueError(f"{what} needs X as a dense array: hand over X.toarray() (of a BCOO, X.todense()).")
