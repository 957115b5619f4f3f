"""y, sample_weight and offset: from what the user hands over to checked arrays."""

import numpy as np
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import check_classification_targets

from bayesglm._design import as_numbers, check_finite, column_names
from bayesglm._warn import warn_user

__all__ = [
    "check_counts",
    "check_output_names",
    "label_array",
    "missing_labels",
    "output_names",
    "read_classes",
    "read_labels",
    "read_offset",
    "read_successes",
    "read_targets",
    "read_weights",
]


# Where else y may belong that a family does not take.
HINTS = {
    "zeros and ones": " Labels of classes are for ClassifierGLM, successes among trials for the observation_model "
    "'Binomial'."
}


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
    if not population:
        array = _without_column(array)
    if not population and array.ndim != 1:
        hint = " Use PopulationGLM for several outputs." if array.ndim == 2 else ""
        raise ValueError(f"y must have shape (samples,) for GLM; got {array.shape}.{hint}")
    _check_length(array, n_samples)
    check_finite(array, "y", missing=missing)
    array = array.astype(dtype)
    outside = family.outside(array) & ~np.isnan(array)
    if outside.any():
        first = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(
            f"y must hold {family.domain} for {family.__name__}; {int(outside.sum())} of {array.size} entries "
            f"do not, the first is {array[first]:g} at {first[0] if len(first) == 1 else first}."
            + HINTS.get(family.domain, "")
        )
    return array.reshape(n_samples, -1)


def output_names(y):
    """Names of the columns of y, or None if it has none, or just numbers in order."""
    names = column_names(y)
    return None if names is None or names == tuple(map(str, range(len(names)))) else names


def check_output_names(y, known):
    """Raise a ValueError if y has columns of other names, or in another order, than those of the fit."""
    names = output_names(y)
    if names is not None and known is not None and names != known:
        raise ValueError(f"y has the columns {list(names)}; the model was fitted with {list(known)}.")


def read_successes(y, n_samples, *, missing=False):
    """Read successes and trials, y of shape (n_samples, 2), into the share of successes and the trials, (n_samples,).

    A sample without trials has the share 0. With `missing`, NaN is allowed.
    """
    if y is None:
        raise ValueError("y must hold successes and trials: Expected array-like, got None.")
    array = as_numbers(y, "y").astype(float)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(
            f"y must have shape (samples, 2), successes and trials, for BinomialObservations; got {array.shape}."
        )
    _check_length(array, n_samples)
    check_finite(array, "y", missing=missing)
    known = ~np.isnan(array).any(1)
    successes, trials = array.T
    wrong = known & ((array != np.round(array)).any(1) | (successes < 0) | (successes > trials))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            "y must hold whole numbers, successes from 0 to trials, for BinomialObservations; "
            f"{int(wrong.sum())} of {n_samples} samples do not, the first is {array[first].tolist()} at {first}. "
            "Failures have no column here: trials are successes and failures."
        )
    if not (trials[known] > 0).any():
        raise ValueError("y has no trials: there is nothing to fit.")
    return np.where(trials == 0, 0.0, successes / np.where(trials == 0, 1.0, trials)), trials


def read_labels(y, n_samples, dtype, classes=None, *, missing=False):
    """Read labels into indicators.

    Parameters
    ----------
    y : array_like (n_samples,) or (n_samples, responses)
    n_samples : int
    dtype : numpy.dtype
        Of the indicators.
    classes : numpy.ndarray, optional
        Labels that are known; by default those of y.
    missing : bool
        Whether labels may be missing (None, NaN, NA or NaT): their indicators are NaN.

    Returns
    -------
    indicators : numpy.ndarray, shape (n_samples, responses * classes)
    classes : numpy.ndarray
        In ascending order; labels that cannot be compared are ordered by their types' names first.
    several : bool
        Whether y had an axis of responses.

    Raises
    ------
    ValueError
        If y does not hold labels, has fewer than two, or some that are not known.
    """
    array = label_array(y, n_samples)
    if array.dtype.kind == "c":
        raise ValueError("y must hold labels. Complex data not supported.")
    if array.dtype.kind == "f":
        check_finite(array, "y", missing=missing)
        check_classification_targets(array[~np.isnan(array)])
    lost = missing_labels(array)
    if lost.any() and not missing:
        raise ValueError("y has missing labels (None, NaN, NA or NaT): drop those samples, or say nan_policy='drop'.")
    if classes is None:
        classes = _distinct(array[~lost])
        if len(classes) < 2:
            raise ValueError(f"y must hold at least two classes; got one class: {classes.tolist()[0]!r}.")
    place = {label: number for number, label in enumerate(classes.tolist())}
    unknown = [label for label in array[~lost].tolist() if label not in place]
    if unknown:
        raise ValueError(f"y has {len(unknown)} labels that the fit does not know, the first is {unknown[0]!r}.")
    numbers = np.zeros(array.shape, int)
    numbers[~lost] = [place[label] for label in array[~lost].tolist()]
    indicators = (numbers[..., None] == np.arange(len(classes))).astype(dtype)
    indicators[lost] = np.nan
    return indicators.reshape(n_samples, -1), classes, array.ndim == 2


def read_classes(classes):
    """Labels (classes,), of any order, in ascending order."""
    array = np.asarray(classes)
    if array.ndim != 1 or missing_labels(array).any():
        raise ValueError(f"classes must be a list of labels, none of them missing; got {classes!r}.")
    distinct = _distinct(array)
    if len(distinct) < 2 or len(distinct) < len(array):
        raise ValueError(f"classes must hold at least two labels, each once; got {array.tolist()}.")
    return distinct


def label_array(y, n_samples):
    """Labels as an array (n_samples,) or (n_samples, responses)."""
    if y is None:
        raise ValueError("y must hold labels: Expected array-like (array or non-string sequence), got None.")
    array = _without_column(np.asarray(y))
    if array.ndim not in (1, 2):
        raise ValueError(f"y must have shape (samples,) or (samples, responses); got {array.shape}.")
    _check_length(array, n_samples)
    return array


def missing_labels(array):
    """Which labels of an array are None, NaN, NA or NaT."""
    if array.dtype.kind == "f":
        return np.isnan(array)
    if array.dtype.kind in "Mm":
        return np.isnat(array)
    if array.dtype.kind == "O":
        return np.array([_is_missing(label) for label in array.flat]).reshape(array.shape)
    return np.zeros(array.shape, bool)


def _is_missing(label):
    if label is None:
        return True
    try:
        return bool(label != label)
    except TypeError:  # what pandas's NA answers
        return True


def _distinct(array):
    try:
        return np.unique(array)
    except TypeError:
        labels = sorted(set(array.ravel().tolist()), key=lambda label: (type(label).__name__, label))
        distinct = np.empty(len(labels), object)
        distinct[:] = labels
        return distinct


def _without_column(array):
    """One response that came as a column, as scikit-learn reads it: with a warning."""
    if array.ndim != 2 or array.shape[1] != 1:
        return array
    warn_user(
        "A column-vector y was passed when a 1d array was expected: shape (samples, 1) was read as (samples,).",
        DataConversionWarning,
    )
    return array[:, 0]


def _check_length(array, n_samples):
    if len(array) != n_samples:
        raise ValueError(f"X and y must have the same number of samples: X has {n_samples}, y has {len(array)}.")
    if array.size == 0:
        raise ValueError(f"y has no outputs: its shape is {array.shape}.")


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


def read_offset(offset, n_samples, outputs, dtype, *, missing=False):
    """Read offset into shape (n_samples, outputs); None is zeros. With `missing`, NaN is allowed."""
    if offset is None:
        return np.zeros((n_samples, outputs.count), dtype)
    array = as_numbers(offset, "offset").astype(dtype)
    allowed = [(n_samples, *outputs.shape)]
    if outputs.several and outputs.classes is None:
        allowed.insert(0, (n_samples,))
    if array.shape not in allowed:
        raise ValueError(f"offset must have shape {' or '.join(map(str, allowed))}; got {array.shape}.")
    check_finite(array, "offset", missing=missing)
    return np.broadcast_to(array.reshape(n_samples, -1), (n_samples, outputs.count))
