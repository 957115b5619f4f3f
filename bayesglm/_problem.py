"""Data, strengths and outputs as the arrays that solvers and samplers take.

Outputs that no group couples are independent problems of one output each and are solved as one batch; outputs
that groups couple form one problem together. A `Batch` holds all problems with the same number of outputs.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from bayesglm._design import ALIGNMENT, aligned_empty
from bayesglm._sparse_matrix import SparseMatrix
from bayesglm.priors import Bounded

__all__ = [
    "Batch",
    "Data",
    "Outputs",
    "against_last",
    "balanced",
    "coupled_outputs",
    "make_batches",
    "on_device",
    "per_output",
    "repeat_first",
    "roomy_length",
    "shared_shifts",
    "without_missing",
    "with_room",
    "without_unseen",
]

# Entries up to which programs are compiled for a power of two of samples.
LARGEST_WITH_ROOM = 10**5


class Data(NamedTuple):
    """What the user handed over, as arrays."""

    X: Any  # (n, p)
    y: Any  # (n, outputs)
    weight: Any  # (n,), times the trials where y is their share of successes
    offset: Any  # (n, outputs)
    trials: Any = None  # (n,)

    @property
    def frequency(self):
        """How often each sample was seen (n,): its weight."""
        return self.weight if self.trials is None else self.weight / np.where(self.trials > 0, self.trials, 1.0)

    def rows(self, chosen):
        """Some samples."""
        return Data(*(None if leaf is None else leaf[chosen] for leaf in self))

    def in_double(self):
        """X, y, weight and offset in double precision."""
        return tuple(leaf.astype(np.float64) for leaf in self[:4])

    def as_double(self):
        """The same data in double precision."""
        X, y, weight, offset = self.in_double()
        return Data(X, y, weight, offset, self.trials)


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the outputs of a model, the columns of its coefficients, are to the user.

    Parameters
    ----------
    n_responses : int
        Columns of y.
    several : bool
        Whether responses have an axis for the user.
    classes : numpy.ndarray or None
        Labels, if each response is one of several classes: then each has so many outputs in a row.
    names : tuple of str or None
        Of the responses, where y has them.
    """

    n_responses: int
    several: bool
    classes: Any = None
    names: tuple[str, ...] | None = None

    @property
    def n_classes(self):
        """Outputs of a response."""
        return 1 if self.classes is None else len(self.classes)

    @property
    def count(self):
        """Number of outputs."""
        return self.n_responses * self.n_classes

    @property
    def response_shape(self):
        """Axes that y has beside the samples."""
        return (self.n_responses,) if self.several else ()

    @property
    def shape(self):
        """Axes that coefficients have beside the features."""
        return self.response_shape + (() if self.classes is None else (self.n_classes,))

    def labels(self):
        """Of each output, as tables show it; one empty text if there is no axis."""
        responses = list(map(str, self.names or range(self.n_responses))) if self.several else [""]
        if self.classes is None:
            return responses
        return [f"{response}, {label}" if response else str(label) for response in responses for label in self.classes]


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
    weight = np.where(missing, data.weight.dtype.type(0), data.weight)
    trials = None if data.trials is None else np.where(missing, 0.0, data.trials)
    return Data(X, y, weight, offset, trials), missing


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
    return data._replace(X=X, y=averaged(data.y), offset=averaged(data.offset))


def roomy_length(n, size):
    """Number of samples that programs are compiled for: a power of two, unless there are many entries."""
    return n if size > LARGEST_WITH_ROOM else 1 << (n - 1).bit_length()


def repeat_first(array, length):
    """An array with its first row again behind it, up to a length."""
    return np.concatenate([array, np.broadcast_to(array[:1], (length - len(array), *array.shape[1:]))])


def with_room(data):
    """Small data with average samples of weight 0 behind them, up to a power of two; large data as they are.

    So folds of several lengths share compiled programs, which would take far longer than such a fit.
    """
    n = len(data.X)
    length = roomy_length(n, data.X.size + data.y.size)
    if isinstance(data.X, SparseMatrix) or length == n:
        return data
    share = data.weight / data.weight.sum()

    def longer(array):
        whole = aligned_empty((length, *array.shape[1:]), array.dtype)
        whole[:n], whole[n:] = array, share @ array
        return whole

    weight = np.append(data.weight, np.zeros(length - n, data.weight.dtype))
    return Data(longer(data.X), longer(data.y), weight, longer(data.offset))


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


def make_batches(data, strength, free, shared=None, *, n_classes=1):
    """Split the outputs into independent problems, those of equal size in one batch.

    Parameters
    ----------
    data : Data
    strength : numpy.ndarray or tuple
        As from `read_strength`, or Bounded.
    free : numpy.ndarray of bool, shape (p, outputs)
        Coefficients that are not held at zero.
    shared : numpy.ndarray of int, shape (p, outputs), optional
        Which random strength each coefficient has, -1 for none: one that outputs share connects them, as groups do.
    n_classes : int
        So many outputs in a row are the classes of one response, and one problem.

    Returns
    -------
    list of Batch
    """
    dtype = data.X.dtype
    blocks = coupled_outputs(strength, data.y.shape[1], shared, n_classes=n_classes)
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


def shared_shifts(flat, free, outputs):
    """Features (p, responses) free of priors in all classes: what is added to all classes alike changes nothing."""
    return (flat & free).reshape(len(free), -1, outputs.n_classes).all(2)


def against_last(flat, free, outputs):
    """`free` without the last class of features in which only differences between classes mean something."""
    if outputs.n_classes == 1:
        return free
    held = np.zeros((*free.shape[:1], outputs.n_responses, outputs.n_classes), bool)
    held[:, :, -1] = shared_shifts(flat, free, outputs)
    return free & ~held.reshape(free.shape)


def balanced(array, outputs, shifts=True):
    """Numbers (..., outputs), NumPy's or JAX's, with a sum of zero over classes where `shifts` (..., responses) is."""
    if outputs.n_classes == 1:
        return array
    xp = array.__array_namespace__()
    by_class = array.reshape(*array.shape[:-1], outputs.n_responses, outputs.n_classes)
    mean = by_class.mean(-1, keepdims=True)
    moved = by_class - xp.where(np.expand_dims(shifts, -1), mean, 0.0)
    return moved.astype(array.dtype).reshape(array.shape)


def is_grouped(strength):
    """Whether a strength is that of groups: (per group, group of each coefficient)."""
    return isinstance(strength, tuple) and strength[1].dtype.kind == "i"


def coupled_outputs(strength, n_outputs, shared=None, *, n_classes=1):
    """Sets of outputs that are connected: classes of a response, or by groups or random strengths that they share."""
    strength = strength.strength if isinstance(strength, Bounded) else strength
    label = np.arange(n_outputs) // n_classes * n_classes
    links = [(shared, shared.max(initial=-1) + 1)] if shared is not None else []
    if is_grouped(strength):
        links.append((strength[1], len(strength[0])))
    for members_of, count in links:
        for one in range(count if n_outputs > 1 else 0):
            members = np.unique(np.nonzero(members_of == one)[1])
            label[np.isin(label, label[members])] = label[members].min(initial=n_outputs)
    return [np.flatnonzero(label == value) for value in np.unique(label)]


def _split_strength(strength, outputs, dtype):
    if isinstance(strength, Bounded):
        bounded = np.stack([strength.bounded[:, block] for block in outputs])
        return Bounded(_split_strength(strength.strength, outputs, dtype), bounded)
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
