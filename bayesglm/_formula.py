"""Formulas: from a data frame to a container X with one leaf per term, and y."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Terms", "read_formula"]

INTERCEPT = "1"


@dataclass(frozen=True, eq=False)
class Terms:
    """The two sides of a formula as formulaic remembers them: categories, knots and all else that the data gave."""

    left: Any
    right: Any

    def design(self, data):
        """A dict of one data frame per term. The intercept, which is the model's, is none of them."""
        matrix = _evaluate(self.right, data)
        slices = {str(term): columns for term, columns in self.right.term_slices.items()}
        leaves = {term: matrix.iloc[:, columns] for term, columns in slices.items() if term != INTERCEPT}
        # "plan[b]" in the leaf "plan" is "b".
        return {term: leaf.rename(columns=lambda name: _within(name, term)) for term, leaf in leaves.items()}  # noqa: B023

    def targets(self, data):
        """y, of one column or several."""
        matrix = _evaluate(self.left, data)
        return matrix.iloc[:, 0] if matrix.shape[1] == 1 else matrix


def read_formula(formula, data):
    """Read a formula with the data of a fit.

    Parameters
    ----------
    formula : str
        As in R: ``"y ~ a + b:c + poly(d, 2)"``.
    data : data frame

    Returns
    -------
    Terms

    Raises
    ------
    ValueError
        If the formula cannot be read, lacks a side, or asks for what the data do not have.
    """
    try:
        import formulaic
    except ImportError as error:
        raise ImportError("formula needs the package formulaic: pip install 'bayesglm[formula]'.") from error
    try:
        parsed = formulaic.Formula(formula)
    except Exception as error:
        raise ValueError(f"formula {formula!r} cannot be read: {error}") from error
    if not isinstance(parsed, formulaic.StructuredFormula):
        raise ValueError(f"formula must have two sides, as in 'y ~ a + b'; got {formula!r}.")
    found = _evaluate(parsed, data)
    if set(found.rhs.model_spec.term_slices) <= {INTERCEPT}:
        raise ValueError(f"formula must have a term besides the intercept; got {formula!r}.")
    return Terms(found.lhs.model_spec, found.rhs.model_spec)


def _within(column, term):
    """Name of a column within the leaf of its term."""
    return column[len(term) + 1 : -1] if column.startswith(f"{term}[") and column.endswith("]") else column


def _evaluate(spec, data):
    """Matrices of a formula; what is missing is an error, rather than rows that disappear."""
    try:
        return spec.get_model_matrix(data, na_action="raise")
    except Exception as error:
        raise ValueError(f"formula and data do not fit: {error}") from error
