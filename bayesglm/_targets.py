"""y, sample_weight and offset: from what the user hands over to checked arrays."""

import numpy as np
from sklearn.exceptions import DataConversionWarning

from bayesglm._design import as_numbers, check_finite
from bayesglm._warn import warn_user

__all__ = ["read_offset", "read_targets", "read_weights"]


def read_targets(y, n_samples, family, dtype, *, population, missing=False):
    """Read y into shape (n_samples, outputs); with `missing`, NaN is allowed.

    Raises
    ------
    ValueError
        If y has the wrong number of dimensions or samples, is not finite, or lies outside the family's domain.
    """
    if y is None:
        raise ValueError("y must hold real numbers: Expected array-like (array or non-string sequence), got None.")
    array = as_numbers(y, "y")
    if population and array.ndim != 2:
        raise ValueError(
            f"y must have shape (samples, outputs) for PopulationGLM; got {array.shape}. Use GLM for one output."
        )
    if not population and array.ndim == 2 and array.shape[1] == 1:
        warn_user(
            "A column-vector y was passed when a 1d array was expected: shape (samples, 1) was read as (samples,).",
            DataConversionWarning,
        )
        array = array[:, 0]
    if not population and array.ndim != 1:
        hint = " Use PopulationGLM for several outputs." if array.ndim == 2 else ""
        raise ValueError(f"y must have shape (samples,) for GLM; got {array.shape}.{hint}")
    if len(array) != n_samples:
        raise ValueError(f"X and y must have the same number of samples: X has {n_samples}, y has {len(array)}.")
    if array.size == 0:
        raise ValueError(f"y has no outputs: its shape is {array.shape}.")
    check_finite(array, "y", missing=missing)
    array = array.astype(dtype)
    outside = family.outside(array) & ~np.isnan(array)
    if outside.any():
        first = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(
            f"y must hold {family.domain} for {family.__name__}; {int(outside.sum())} of {array.size} entries "
            f"do not, the first is {array[first]:g} at {first[0] if len(first) == 1 else first}."
        )
    return array.reshape(n_samples, -1)


def check_counts(y, family):
    """Raise a ValueError if a family of counts is given fractions: only `fit` has a use for them."""
    fractional = (y != np.round(y)) & ~np.isnan(y)
    if family.is_count and fractional.any():
        raise ValueError(
            f"y must hold whole numbers to sample from {family.__name__}; {int(fractional.sum())} entries are "
            "fractional. Rates can be fitted, but they have no posterior: use counts, with log exposure as offset."
        )


def read_weights(sample_weight, n_samples, dtype, *, missing=False):
    """Read sample_weight into shape (n_samples,); None is ones. With `missing`, NaN is allowed."""
    if sample_weight is None:
        return np.ones(n_samples, dtype)
    array = as_numbers(sample_weight, "sample_weight").astype(dtype)
    if array.shape != (n_samples,):
        raise ValueError(f"sample_weight must have shape ({n_samples},); got {array.shape}.")
    check_finite(array, "sample_weight", missing=missing)
    if (array < 0).any():
        raise ValueError(f"sample_weight must not be negative; the smallest is {np.nanmin(array):g}.")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.nansum(array)):
            raise ValueError(f"sample_weight has an infinite sum in {np.dtype(dtype).name}; divide it by its mean.")
    if not (array > 0).any():
        raise ValueError("sample_weight is zero everywhere: there is nothing to fit.")
    return array


def read_offset(offset, n_samples, n_outputs, dtype, *, population, missing=False):
    """Read offset into shape (n_samples, n_outputs); None is zeros. With `missing`, NaN is allowed."""
    if offset is None:
        return np.zeros((n_samples, n_outputs), dtype)
    array = as_numbers(offset, "offset").astype(dtype)
    allowed = [(n_samples,), (n_samples, n_outputs)] if population else [(n_samples,)]
    if array.shape not in allowed:
        raise ValueError(f"offset must have shape {' or '.join(map(str, allowed))}; got {array.shape}.")
    check_finite(array, "offset", missing=missing)
    return np.broadcast_to(array.reshape(n_samples, -1), (n_samples, n_outputs))
