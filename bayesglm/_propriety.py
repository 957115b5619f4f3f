"""Whether the mode exists and the posterior is proper: directions without a prior must be held by the data."""

from typing import NamedTuple

import numpy as np

__all__ = [
    "Fault",
    "boundary_fault",
    "class_separation_fault",
    "lone_fault",
    "missing_class_fault",
    "rank_fault",
    "row_space",
    "separation_fault",
]


class Fault(NamedTuple):
    """Why there is no mode or no proper posterior, and what would help."""

    cause: str
    remedy: str
    is_unbounded: bool  # whether the likelihood rises for ever, rather than being flat


SEPARATED = Fault(
    "features without a penalty separate the data, so the likelihood rises for ever along them",
    "Give them a regularizer_strength.",
    is_unbounded=True,
)


def boundary_fault(y, weight, family):
    """The fault of an output whose every y sits on the boundary of the mean's domain, or None.

    Parameters
    ----------
    y, weight : (n,)
    family : class
    """
    direction = family.recession(y[weight > 0])
    if direction[0] == 0 or (direction != direction[0]).any():
        return None
    return Fault(f"every y is {y[weight > 0][0]:g}, so the likelihood rises for ever with the intercept", "", True)


def missing_class_fault(y, weight, classes):
    """The fault of a class that no sample has, or None.

    Parameters
    ----------
    y : (n, classes)
    weight : (n,)
    classes : (classes,) labels
    """
    missing = classes[~(y[weight > 0] > 0).any(0)].tolist()
    if not missing:
        return None
    return Fault(
        f"no sample is of the class {missing[0]!r}, so the likelihood rises for ever as its intercept falls",
        "",
        True,
    )


def rank_fault(X, weight, flat, *, with_intercept, bounded):
    """The fault of features without a prior that are collinear, or None.

    Parameters
    ----------
    X : (n, p)
    weight : (n,)
    flat : (p,) bool
        Coefficients without a prior.
    with_intercept : bool
        Whether the intercept has no prior either.
    bounded : (p,) bool
        Which of these coefficients may not be negative.
    """
    if not flat.any():
        return None
    design = X[weight > 0][:, flat]
    design = design - design.mean(0) if with_intercept else design
    rank = row_space(design).shape[1]
    if rank == design.shape[1] or (bounded.any() and not _leaves_a_way(design, bounded[flat])):
        return None
    return Fault(
        f"the {design.shape[1]} features without a penalty have rank {rank} in "
        f"{len(design)} samples: some are constant or collinear, or there are more of them than samples",
        "Give them a regularizer_strength, or leave some out.",
        is_unbounded=False,
    )


def separation_fault(X, y, weight, eta, flat, family, tol, *, with_intercept, bounded):
    """The fault of features without a prior along which the likelihood rises for ever, or None.

    Parameters
    ----------
    X : (n, p)
    y, weight, eta : (n,)
        eta is the linear predictor of the fit.
    flat : (p,) bool
    family : class
    tol : float
        Residual at which the solver stopped.
    with_intercept : bool
    bounded : (p,) bool
        Coefficients that may not be negative.
    """
    rows = weight > 0
    direction = family.recession(y[rows])
    if not flat.any() or not (direction * eta[rows] > _suspicious(tol, rows)).any():
        return None
    design = _flat_design(X[rows], flat, with_intercept=with_intercept)
    bounded = np.concatenate([np.zeros(int(with_intercept), bool), bounded[flat]])
    return SEPARATED if _separates(design, direction, bounded) else None


def class_separation_fault(X, y, weight, eta, flat, tol, *, with_intercept):
    """`separation_fault` of classes.

    Parameters
    ----------
    X : (n, p)
    y, eta : (n, classes)
    weight : (n,)
    flat : (p, classes) bool
    tol : float
    with_intercept : bool
    """
    rows = weight > 0
    label, n_classes = y[rows].argmax(1), y.shape[1]
    own = np.arange(n_classes) == label[:, None]
    margin = eta[rows][own] - np.where(own, -np.inf, eta[rows]).max(1)
    if not flat.any() or not (margin > _suspicious(tol, rows)).any():
        return None
    some = flat.any(1)
    design = _flat_design(X[rows], some, with_intercept=with_intercept)
    moves = np.concatenate([np.ones((int(with_intercept), n_classes), bool), flat[some]]).ravel()
    # One row for each sample and each class that is not its own: by how much it prefers its own.
    against = (own[:, None] * 1.0 - np.eye(n_classes))[~own]
    rows_of = np.repeat(np.arange(len(label)), n_classes - 1)
    preference = (design[rows_of][:, :, None] * against[:, None]).reshape(len(against), -1)[:, moves]
    bounded = np.zeros(preference.shape[1], bool)
    return SEPARATED if _separates(preference, np.ones(len(against)), bounded) else None


def _suspicious(tol, rows):
    """Linear predictor beyond which a linear program is worth it.

    On its way to infinity, a separated sample's share of the residual falls like exp(-|eta|) / sqrt(n), so the solver
    does not stop before this; 3 is a margin.
    """
    return -np.log(tol * np.sqrt(rows.sum())) - 3.0


def _flat_design(X, flat, *, with_intercept):
    """Features without a prior, and a constant if the intercept has none either."""
    design = X[:, flat]
    return np.column_stack([np.ones(len(design)), design - design.mean(0)]) if with_intercept else design


def lone_fault(X, y, weight, flat, family):
    """The fault of features without a prior along each of which alone the likelihood rises for ever, or None.

    What can be told of many features at little cost, among them rare ones whose every y is 0.

    Parameters
    ----------
    X : SparseMatrix
    y, weight : (n,)
    flat : (p,) bool
    family : class
    """
    columns, direction = X.columns, family.recession(y)
    which = np.repeat(np.arange(len(flat)), np.diff(columns.indptr))
    seen = (weight[columns.indices] > 0) & (columns.data != 0)
    signed = direction[columns.indices] * np.sign(columns.data)
    up, down, held = (np.bincount(which, seen & (signed == sign), len(flat)) > 0 for sign in (1, -1, 0))
    count = int((flat & ~held & (up != down)).sum())
    if not count:
        return None
    return Fault(
        f"{count} of the features without a penalty separate the data, so the likelihood rises for ever along them",
        "Give them a regularizer_strength.",
        is_unbounded=True,
    )


def row_space(design):
    """Orthonormal basis (p, rank) of the directions that move design @ v."""
    right, rank, length = _decompose(design, full_matrices=False)
    return np.linalg.qr(right[:rank].T * length[:, None])[0]


def null_space(design):
    """Orthonormal basis (p, p - rank) of the directions that do not move design @ v."""
    right, rank, length = _decompose(design, full_matrices=True)
    return np.linalg.qr(right[rank:].T / length[:, None])[0]


def _decompose(design, *, full_matrices):
    """Right singular vectors of the design with columns of unit length, its rank, and the lengths.

    The rank is judged at the precision in which the columns came.
    """
    eps = np.finfo(design.dtype).eps
    design = design.astype(np.float64)
    length = np.sqrt((design**2).sum(0))
    length = np.where(length > 0, length, 1)
    triangle = design / length
    if len(design) > design.shape[1]:
        triangle = np.linalg.qr(triangle, mode="r")
    _, singular, right = np.linalg.svd(triangle, full_matrices=full_matrices)
    rank = int((singular > max(design.shape) * eps * singular[0]).sum()) if len(singular) else 0
    return right, rank, length


def _leaves_a_way(design, bounded):
    """Whether some v other than 0 has design @ v = 0 and is not negative where it is bounded."""
    from scipy.optimize import linprog

    if row_space(design[:, ~bounded]).shape[1] < (~bounded).sum():
        return True
    # Of such a v, some bounded component is positive.
    basis = null_space(design)
    length = np.sqrt((design.astype(np.float64) ** 2).sum(0))
    ways = (basis * np.where(length > 0, length, 1)[:, None])[bounded]
    limits = np.concatenate([np.zeros(len(ways)), np.ones(len(ways))])
    result = linprog(-ways.sum(0), A_ub=np.concatenate([-ways, ways]), b_ub=limits, bounds=(None, None))
    return result.status == 0 and -result.fun > 1e-6


def _separates(design, direction, bounded):
    """Whether some v has direction * (design @ v) >= 0, not all 0, and design @ v = 0 where direction is 0.

    The bounded components of v may not be negative.
    """
    # Loaded on use: only suspicious fits come here.
    from scipy.optimize import linprog

    held = design[direction == 0]
    free = np.eye(design.shape[1])
    if len(held):
        free = null_space(held)
    signed = direction[direction != 0, None] * (design[direction != 0] @ free)
    if signed.shape[1] == 0:
        return False
    size = np.maximum(np.abs(signed).max(0), np.finfo(signed.dtype).tiny)
    signed = signed / size
    rows = np.concatenate([signed, free[bounded] / size])
    result = linprog(-signed.sum(0), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1))
    return result.status == 0 and -result.fun > 1e-6 * np.sqrt(len(signed))
