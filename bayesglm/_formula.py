"""Formulas: from a data frame to a container X with one leaf per term, and y."""

import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesglm._design import column_names, take_rows
from bayesglm._warn import warn_user

__all__ = ["Terms", "read_formula"]

INTERCEPT = "1"
# What formulas of other packages may have, and what is there instead.
UNKNOWN = {
    r"~\s*\.(?!\w)|\+\s*\.(?!\w)": "'.', which does not stand for all columns here: name them",
    r"\boffset\(": "an offset as a term, which is no term here: hand it over as offset=...",
}


@dataclass(frozen=True, eq=False)
class Terms:
    """The two sides of a formula as formulaic remembers them: categories, knots and all else that the data gave."""

    left: Any
    right: Any

    def complete(self, data, *, with_targets=False):
        """Which rows have all that the formula's right side needs, or both sides: (n,) bool."""
        return _complete(
            self.right.required_variables | (self.left.required_variables if with_targets else set()), data
        )

    def design(self, data, kept=None):
        """A dict of one data frame per term. The intercept, which is the model's, is none of them.

        Given `kept` (n,) bool, only these rows are read; the others are NaN.
        """
        matrix = _evaluate(self.right, data, kept)
        slices = {str(term): columns for term, columns in self.right.term_slices.items()}
        leaves = {term: matrix.iloc[:, columns] for term, columns in slices.items() if term != INTERCEPT}
        # "plan[b]" in the leaf "plan" is "b".
        return {term: leaf.rename(columns=lambda name: _within(name, term)) for term, leaf in leaves.items()}  # noqa: B023

    def targets(self, data, kept=None):
        """y, of one column or several; `kept` as for `design`."""
        matrix = _evaluate(self.left, data, kept)
        return matrix.iloc[:, 0] if matrix.shape[1] == 1 else matrix

    def labels(self, data, kept=None):
        """Labels of one response or several, columns of the data that the left side names; None where not `kept`."""
        names = [str(term) for term in self.left.term_slices]
        known = set(column_names(data) or list(data))
        if not set(names) <= known:
            raise ValueError(f"formula must have columns of labels on its left side, as they are; got {names}.")
        columns = [np.asarray(data[name], object) for name in names]
        if kept is not None:
            columns = [np.where(kept, column, np.array(None, object)) for column in columns]
        if len(columns) > 1:
            return np.stack(columns, axis=1)
        return columns[0] if kept is not None else np.asarray(data[names[0]])


def read_formula(formula, data, *, missing=False, fit_intercept=True):
    """Read a formula with the data of a fit.

    Parameters
    ----------
    formula : str
        As in R: ``"y ~ a + b:c + poly(d, 2)"``.
    data : data frame
    missing : bool
        Whether rows may lack some of what the formula needs; they are not read then.
    fit_intercept : bool
        Whether the model has an intercept, whatever the formula says.

    Returns
    -------
    Terms

    Warns
    -----
    UserWarning
        If the formula leaves the intercept out, and has no factor for which that would matter.

    Raises
    ------
    ValueError
        If the formula cannot be read, lacks a side, or asks for what the data do not have.
    """
    try:
        import formulaic
    except ImportError as error:
        raise ImportError("formula needs the package formulaic: pip install 'bayesglm[formula]'.") from error
    for pattern, hint in UNKNOWN.items():
        if re.search(pattern, str(formula)):
            raise ValueError(f"formula has {hint}; got {formula!r}.")
    try:
        parsed = formulaic.Formula(formula)
    except Exception as error:
        raise ValueError(f"formula {formula!r} cannot be read: {error}") from error
    if not isinstance(parsed, formulaic.StructuredFormula) or isinstance(parsed.rhs, tuple):
        raise ValueError(f"formula must have two sides, as in 'y ~ a + b', and no '|'; got {formula!r}.")
    if missing:
        data = take_rows(data, np.flatnonzero(_complete(_named(formula, data), data)))
    found = _evaluate(parsed, data)
    if set(found.rhs.model_spec.term_slices) <= {INTERCEPT}:
        raise ValueError(f"formula must have a term besides the intercept; got {formula!r}.")
    kinds = [kind.value for kind, _ in found.rhs.model_spec.encoder_state.values()]
    if fit_intercept and INTERCEPT not in found.rhs.model_spec.term_slices and "categorical" not in kinds:
        warn_user(
            f"formula {formula!r} leaves the intercept out, but the model has one: say fit_intercept=False for none. "
            "(Without it, a formula gives every level of a factor a coefficient; this one has no factor.)"
        )
    return Terms(found.lhs.model_spec, found.rhs.model_spec)


def _within(column, term):
    """Name of a column within the leaf of its term."""
    return column[len(term) + 1 : -1] if column.startswith(f"{term}[") and column.endswith("]") else column


def _named(formula, data):
    """Columns of a data frame that a formula names; which it needs, formulaic tells once it has read the data."""
    columns = column_names(data) or list(data)
    return [name for name in columns if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.(])", formula)]


def _complete(variables, data):
    """Which rows of a data frame have all of some variables."""
    # pandas comes with formulaic.
    import pandas as pd

    try:
        missing = [pd.isna(np.asarray(data[name], object)) for name in sorted(variables)]
    except Exception as error:
        raise ValueError(f"formula and data do not fit: {error!r}") from error
    kept = ~np.any(missing, axis=0) if missing else np.ones(len(data), bool)
    if not np.any(kept):
        raise ValueError("nan_policy='drop' leaves no sample: each lacks something that the formula needs.")
    return kept


def _evaluate(spec, data, kept=None):
    """Matrices of a formula; what is missing is an error, rather than rows that disappear."""
    if kept is not None and not kept.all():
        matrix = _evaluate(spec, take_rows(data, np.flatnonzero(kept)))
        return matrix.astype(float).set_axis(np.flatnonzero(kept)).reindex(range(len(kept)))
    from formulaic.errors import DataMismatchWarning

    try:
        with warnings.catch_warnings():
            # A level that the fit did not have would be the base.
            warnings.simplefilter("error", DataMismatchWarning)
            return spec.get_model_matrix(data, na_action="raise")
    except ModuleNotFoundError as error:
        raise ImportError(f"formula needs the package {error.name} to read a {type(data).__name__}.") from error
    except Exception as error:
        raise ValueError(f"formula and data do not fit: {error}") from error
