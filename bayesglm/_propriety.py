"""Whether the posterior is proper: directions without a prior must be held by the data."""

import numpy as np

__all__ = ["improper_direction"]

# Beyond this linear predictor a fit may be on its way to infinity; below, no separation went unnoticed.
SUSPICIOUS_ETA = 8.0


def improper_direction(X, y, weight, eta, flat, intercept_is_flat, family):
    """Say why the posterior of one output is improper, or return None.

    Parameters
    ----------
    X : (n, p)
    y, weight, eta : (n,)
        eta is the linear predictor of the fit.
    flat : (p,) bool
        Coefficients without a prior.
    intercept_is_flat : bool
    family : type

    Returns
    -------
    str or None
    """
    rows = weight > 0
    y, eta, X = y[rows], eta[rows], X[rows][:, flat]
    direction = family.recession(y)
    if intercept_is_flat and len(set(direction)) == 1 and direction[0] != 0:
        return f"every y is {y[0]:g}, so the likelihood rises for ever with the flat intercept"
    design = np.column_stack([np.ones(len(y)), X - X.mean(0)]) if intercept_is_flat else X
    if design.shape[1] == 0:
        return None
    rank = _rank(design)
    if rank < design.shape[1]:
        return (
            f"{design.shape[1]} coefficients without a prior (intercept included) meet a design of rank {rank}: "
            "features are collinear, constant, or more than the samples"
        )
    suspicious = (direction * eta > SUSPICIOUS_ETA).any()
    if suspicious and _separates(design, direction):
        return "features without a prior separate the data, so the likelihood rises for ever along them"
    return None


def _rank(design):
    """Numerical rank after scaling the columns to unit length."""
    length = np.sqrt((design**2).sum(0))
    scaled = design / np.where(length > 0, length, 1)
    triangle = np.linalg.qr(scaled, mode="r") if len(design) > design.shape[1] else scaled
    singular = np.linalg.svd(triangle, compute_uv=False)
    return int((singular > max(design.shape) * np.finfo(design.dtype).eps * singular[0]).sum())


def _separates(design, direction):
    """Whether some v has direction * (design @ v) >= 0, not all 0, and design @ v = 0 where direction is 0."""
    from scipy.optimize import linprog

    held = design[direction == 0]
    if len(held):
        _, singular, right = np.linalg.svd(held.T @ held if len(held) > design.shape[1] else held)
        rank = int((singular > len(held) * np.finfo(float).eps * singular[0]).sum())
        design = design @ right[rank:].T
    signed = (direction[:, None] * design)[direction != 0]
    if signed.shape[1] == 0:
        return False
    signed = signed / np.maximum(np.abs(signed).max(0), np.finfo(float).tiny)
    result = linprog(-signed.sum(0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1))
    return result.status == 0 and -result.fun > 1e-6 * len(signed) ** 0.5
