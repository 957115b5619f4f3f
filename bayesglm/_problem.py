"""Data, strengths and outputs as the arrays that solvers and samplers take.

Outputs that no group couples are independent problems of one output each and are solved as one batch; outputs
that groups couple form one problem together. A `Batch` holds all problems with the same number of outputs.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from bayesglm._design import ALIGNMENT, aligned_empty
from bayesglm._sparse_matrix import SparseMatrix

__all__ = [
    "Batch",
    "Data",
    "coupled_outputs",
    "make_batches",
    "on_device",
    "per_output",
    "without_missing",
    "without_unseen",
]


class Data(NamedTuple):
    """What the user handed over, as arrays."""

    X: Any  # (n, p)
    y: Any  # (n, outputs)
    weight: Any  # (n,)
    offset: Any  # (n, outputs)


def without_missing(data):
    """Data in which samples with a NaN have weight 0, and which samples these are, (n,) bool.

    Raises
    ------
    ValueError
        If none is left.
    """
    X = data.X
    missing = np.isnan(data.weight) | np.isnan(data.y).any(1) | np.isnan(data.offset).any(1)
    missing |= X.missing() if isinstance(X, SparseMatrix) else np.isnan(X).any(1)
    if not missing.any():
        return data, missing
    if not (data.weight[~missing] > 0).any():
        raise ValueError("nan_policy='drop' leaves no sample: each lacks an entry of X, y, sample_weight or offset.")
    X = X.without(missing) if isinstance(X, SparseMatrix) else np.where(missing[:, None], X.dtype.type(0), X)
    y, offset = (np.where(missing[:, None], array.dtype.type(0), array) for array in (data.y, data.offset))
    return Data(X, y, np.where(missing, data.weight.dtype.type(0), data.weight), offset), missing


def without_unseen(data):
    """Data in which samples of weight 0 are the average sample, whatever they held.

    They stay, since another number of samples would compile anew; but a mean outside the family's domain, or one
    that overflows, must not meet a weight of 0.
    """
    unseen = data.weight == 0
    if not unseen.any():
        return data
    share = data.weight / data.weight.sum()

    def averaged(array):
        array = np.array(array)
        array[unseen] = share @ array
        return array

    X = data.X.without(unseen) if isinstance(data.X, SparseMatrix) else averaged(data.X)
    return Data(X, averaged(data.y), data.weight, averaged(data.offset))


def on_device(array):
    """Array where JAX computes; on a CPU it is the same memory, if that starts at a multiple of 64 bytes.

    NumPy's rarely does. A copy that does is made by NumPy, several times faster than by JAX. A sparse matrix stays.
    """
    if isinstance(array, SparseMatrix):
        return array
    if array.ctypes.data % ALIGNMENT or not array.flags.c_contiguous:
        copy = aligned_empty(array.shape, array.dtype)
        copy[...] = array
        array = copy
    return jax.device_put(array)


class Batch(NamedTuple):
    """B problems of m outputs each; features and weights are shared."""

    outputs: Any  # (B, m) int: which outputs of the model
    y: Any  # (B, n, m)
    offset: Any  # (B, n, m)
    strength: Any  # leaves (B, ...), as the prior takes them
    free: Any  # (B, p, m) bool: coefficients that are not held at zero


def make_batches(data, strength, free, shared=None):
    """Split the outputs into independent problems, those of equal size in one batch.

    Parameters
    ----------
    data : Data
    strength : numpy.ndarray or tuple
        As from `read_strength`.
    free : numpy.ndarray of bool, shape (p, outputs)
        Coefficients that are not held at zero.
    shared : numpy.ndarray of int, shape (p, outputs), optional
        Which random strength each coefficient has, -1 for none: one that outputs share connects them, as groups do.

    Returns
    -------
    list of Batch
    """
    dtype = data.X.dtype
    blocks = coupled_outputs(strength, data.y.shape[1], shared)
    batches = []
    for size in sorted({len(block) for block in blocks}):
        outputs = np.array([block for block in blocks if len(block) == size])
        batches.append(
            Batch(
                outputs,
                np.stack([data.y[:, block] for block in outputs]),
                np.stack([data.offset[:, block] for block in outputs]),
                _split_strength(strength, outputs, dtype),
                np.stack([free[:, block] for block in outputs]),
            )
        )
    return batches


def per_output(batches, values):
    """Put results of batches, leaves (B, ..., m), together along a last axis of all outputs."""
    order = np.concatenate([batch.outputs.ravel() for batch in batches])
    joined = np.concatenate([np.concatenate(list(value), axis=-1) for value in values], axis=-1)
    return joined[..., np.argsort(order)]


def is_grouped(strength):
    """Whether a strength is that of groups: (per group, group of each coefficient)."""
    return isinstance(strength, tuple) and strength[1].dtype.kind == "i"


def coupled_outputs(strength, n_outputs, shared=None):
    """Sets of outputs that are connected by groups, or by random strengths that they share."""
    label = np.arange(n_outputs)
    links = [(shared, shared.max(initial=-1) + 1)] if shared is not None else []
    if is_grouped(strength):
        links.append((strength[1], len(strength[0])))
    for members_of, count in links:
        for one in range(count if n_outputs > 1 else 0):
            members = np.unique(np.nonzero(members_of == one)[1])
            label[np.isin(label, label[members])] = label[members].min(initial=n_outputs)
    return [np.flatnonzero(label == value) for value in np.unique(label)]


def _split_strength(strength, outputs, dtype):
    if not is_grouped(strength):
        parts = strength if isinstance(strength, tuple) else (strength,)
        split = tuple(np.stack([part[:, block] for block in outputs]).astype(dtype) for part in parts)
        return split if isinstance(strength, tuple) else split[0]
    size, groups = strength
    used = [np.unique(groups[:, block][groups[:, block] < len(size)]) for block in outputs]
    # Also those that a mask leaves empty, so that masks compile nothing.
    n_groups = max(*(len(ids) for ids in used), -(-len(size) * outputs.shape[1] // groups.shape[1]))
    sizes = np.zeros((len(outputs), n_groups), dtype)
    local = np.full((len(outputs), len(groups), outputs.shape[1]), n_groups)
    for b, (block, ids) in enumerate(zip(outputs, used, strict=True)):
        sizes[b, : len(ids)] = size[ids]
        for new, old in enumerate(ids):
            local[b][groups[:, block] == old] = new
    return sizes, local
