"""regularizer_strength: from the user's tree to one number per coefficient or per group.

X decides how a strength is read: at a container of X, the same kind of container or one value for everything
below; at a leaf, a number or an array that broadcasts to the leaf's coefficients.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from bayesglm._design import as_numbers, by_columns
from bayesglm._numpyro import check_prior, dist, is_distribution
from bayesglm.priors import ElasticNet, GroupLasso, UnRegularized

__all__ = [
    "Unknowns",
    "fill_strength",
    "read_feature_mask",
    "read_groups",
    "read_positive",
    "read_strength",
    "read_unknowns",
    "refuse_random",
]

ARGUMENT = "regularizer_strength"
# What may stand for a number: the likeliest strength, and a random one; for the latter a distribution may, too.
LEARNED = ("evidence", "learn")


class Unknowns(NamedTuple):
    """Strengths that are yet to be found, L of them."""

    index: Any  # which one each coefficient, or each group, has; -1: a number was given
    kinds: tuple  # what the user wrote for each: one of LEARNED, or a NumPyro distribution
    places: dict  # label of each value that the user wrote: array of indices, -1 for a number

    @property
    def are_random(self):
        """Whether some have a distribution, rather than one value."""
        return not all(isinstance(kind, str) and kind == LEARNED[0] for kind in self.kinds)

    def put(self, strength, values):
        """The strength, as from `read_strength`, with values (L,) of the unknown ones."""
        factor = np.where(self.index >= 0, np.append(values, 1.0)[self.index], 1.0)
        if isinstance(strength, tuple):
            return strength[0] * factor, strength[1]
        return strength * factor


def read_strength(strength, prior, layout, free, *, output_shape):
    """Read a strength of numbers for one prior.

    Parameters
    ----------
    strength : None, number, array_like or tree
        As the user wrote it; None means 1.0, for ElasticNet (1.0, 0.5).
    prior : object
        A regularizer of `bayesglm.priors`.
    layout : Layout
        Leaves of X.
    free : numpy.ndarray of bool, shape (n_features, n_outputs)
        Coefficients that are not held at zero. Those that are have strength 0 and are in no group.
    output_shape : tuple of int
        Axes that coefficients have beside the features for the user; the outputs, one after the other.

    Returns
    -------
    numpy.ndarray or tuple
        Shape (n_features, n_outputs) for UnRegularized, Ridge and Lasso; a pair of such for ElasticNet; for
        GroupLasso s_g sqrt(p_g) of each group (n_groups,) and the group of each coefficient (n_features, n_outputs).

    Raises
    ------
    ValueError
        If the strength does not fit X, or a value is negative, NaN or infinite.
    """
    read, unknowns = read_unknowns(strength, prior, layout, free, output_shape=output_shape)
    refuse_random(unknowns)
    if unknowns.kinds:
        raise ValueError(f"{ARGUMENT} must be numbers here; got {unknowns.kinds[0]!r}.")
    return read


def refuse_random(unknowns):
    """Raise a ValueError that names the first strength that is random."""
    for label, index in unknowns.places.items():
        for kind in (unknowns.kinds[i] for i in index.ravel() if i >= 0):
            if kind != LEARNED[0]:
                what = repr(kind) if isinstance(kind, str) else f"a distribution ({type(kind).__name__})"
                raise ValueError(
                    f"{label} is {what}, for `sample` only: `fit` needs numbers or 'evidence', since the joint mode "
                    "over coefficients and strengths is degenerate."
                )


def read_unknowns(strength, prior, layout, free, *, output_shape):
    """Read a strength some of whose numbers may be unknown.

    Returns
    -------
    strength : as from `read_strength`
        With 1 in place of what is unknown.
    unknowns : Unknowns
    """
    n_outputs = free.shape[1]
    reader = _Reader(layout, output_shape)
    if isinstance(prior, UnRegularized):
        if strength is not None:
            raise ValueError(
                f"{ARGUMENT} is {strength!r}, but there is no regularizer for it: "
                "name one ('Ridge', 'Lasso', 'ElasticNet' or 'GroupLasso'), or set it to None, in a grid by a dict of "
                "its own for 'UnRegularized'."
            )
        return np.zeros((layout.n_features, n_outputs)), reader.unknowns(np.full(free.shape, -1))
    if isinstance(prior, GroupLasso):
        groups, n_groups = read_groups(prior.mask, layout, output_shape)
        groups = np.where(free, groups, n_groups)
        sizes = np.bincount(groups.ravel(), minlength=n_groups + 1)[:n_groups]
        numbers, index = _decode(reader.per_group(strength, n_groups, prior.mask is None))
        return (numbers * np.sqrt(sizes), groups), reader.unknowns(index)
    if isinstance(prior, ElasticNet):
        size, ratio = _split_elastic_net(strength)
        size, index = _decode(reader.per_coefficient(size, ARGUMENT))
        unknowns = reader.unknowns(np.where(free, index, -1))
        ratio = _decode(reader.per_coefficient(ratio, "the ratio of " + ARGUMENT))[0]
        if len(reader.kinds) > len(unknowns.kinds):
            raise ValueError(f"The ratio of {ARGUMENT} must be numbers; got {reader.kinds[-1]!r}.")
        if not ((ratio > 0) & (ratio <= 1)).all():
            wrong = ratio[~((ratio > 0) & (ratio <= 1))][0]
            raise ValueError(f"The ratio of {ARGUMENT} must be above 0 and at most 1 (0 is Ridge); got {wrong:g}.")
        return (np.where(free, size, 0.0), ratio), unknowns
    numbers, index = _decode(reader.per_coefficient(1.0 if strength is None else strength, ARGUMENT))
    return np.where(free, numbers, 0.0), reader.unknowns(np.where(free, index, -1))


def _decode(array):
    """Numbers, with 1 where one is unknown, and which unknown that is, -1 for none."""
    return np.where(array < 0, 1.0, array), np.where(array < 0, -array - 1, -1).astype(int)


def fill_strength(strength, prior, unknowns, values):
    """The user's strength with numbers in place of what was unknown."""
    if isinstance(prior, ElasticNet) and type(strength) is tuple:
        return _fill(strength[0], ARGUMENT, unknowns.places, values), strength[1]
    return _fill(strength, ARGUMENT, unknowns.places, values)


def _fill(value, label, places, values):
    if label in places:
        index = places[label]
        known = np.where(index < 0, value, 0) if (index < 0).any() else 0.0
        filled = np.where(index < 0, np.asarray(known, float), np.append(values, 0.0)[index])
        return filled if filled.ndim else float(filled)
    if isinstance(value, dict):
        return {key: _fill(child, f"{label}[{key!r}]", places, values) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(child, f"{label}[{i}]", places, values) for i, child in enumerate(value)]
    return value


def read_feature_mask(mask, layout, output_shape):
    """Read which coefficients are free, the others being held at zero.

    Parameters
    ----------
    mask : None, array_like (n_features, *output_shape) or tree like X
        Zeros and ones. At a leaf of a tree: `output_shape`, one per output for all features of the leaf;
        (leaf's features, *output_shape); or a number.
    output_shape : tuple
        Axes that coefficients have beside the features.

    Returns
    -------
    numpy.ndarray of bool, shape (n_features, n_outputs)
    """
    if mask is None:
        return np.ones((layout.n_features, math.prod(output_shape)), bool)

    def read_leaf(value, index, label):
        width = layout.widths[index]
        value = by_columns(value, layout.columns[index], label) if np.ndim(value) == 1 + len(output_shape) else value
        array = as_numbers(value, label)
        full = (width, *output_shape)
        allowed = [full] if layout.is_array else [output_shape, full, ()]
        if array.shape not in allowed:
            expected = " or ".join(map(str, allowed)).replace(" or ()", ", or be one number")
            raise ValueError(f"{label} must have shape {expected}; got shape {array.shape}.")
        if not np.isin(array, (0, 1)).all():
            raise ValueError(f"{label} must hold zeros and ones; got {array[~np.isin(array, (0, 1))][0]:g}.")
        return np.broadcast_to(array.astype(bool), full).reshape(width, -1)

    if not layout.is_array and not isinstance(mask, dict | list | tuple) and np.ndim(mask) > 1:
        raise ValueError(
            f"feature_mask must be a container like X, with one mask per leaf of {list(layout.names)}; got an array of "
            f"shape {np.shape(mask)}."
        )
    leaves = walk(mask, layout.skeleton(), "feature_mask", read_leaf)
    return np.concatenate([leaves[index] for index in range(len(layout.widths))])


def read_positive(positive, layout, output_shape):
    """Read which coefficients may not be negative.

    Parameters
    ----------
    positive : bool, array_like or tree like X
        At a leaf: one value, or one for each coefficient, in the shapes that a strength may have.

    Returns
    -------
    numpy.ndarray of bool, shape (n_features, n_outputs)
    """

    def read_leaf(value, index, label):
        width = layout.widths[index]
        value = by_columns(value, layout.columns[index], label)
        array = np.asarray(value)
        allowed = _shapes(width, output_shape)
        if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
            raise ValueError(f"{label} must be True or False, or an array or tree like X of such; got {_came(value)}.")
        if array.shape not in allowed:
            shapes = " or ".join(map(str, allowed[1:]))
            raise ValueError(f"{label} must be one bool or an array of shape {shapes}; got shape {array.shape}.")
        return _spread(array, width, output_shape).astype(bool)

    leaves = walk(positive, layout.skeleton(), "positive", read_leaf)
    return np.concatenate([leaves[index] for index in range(len(layout.widths))])


def _shapes(width, output_shape):
    """Shapes that values of a leaf's coefficients may have."""
    shapes = [(), (width,)]
    if output_shape:
        shapes += list(itertools.product(*((1, length) for length in (width, *output_shape))))[1:]
    return shapes


def _spread(array, width, output_shape):
    """Values of one of `_shapes`, one for each coefficient (width, outputs)."""
    if array.ndim == 1:
        array = array.reshape(-1, *(1,) * len(output_shape))
    return np.broadcast_to(array, (width, *output_shape)).reshape(width, -1)


def read_groups(mask, layout, output_shape):
    """Read the groups of GroupLasso.

    Returns
    -------
    groups : numpy.ndarray of int, shape (n_features, n_outputs)
        Group of each coefficient; n_groups for those in no group.
    n_groups : int

    Raises
    ------
    ValueError
        If the mask does not fit X, is not 0/1, has an empty group or puts a coefficient into two.
    """
    n_outputs = math.prod(output_shape)
    if mask is None:
        leaf = np.repeat(np.arange(len(layout.widths)), layout.widths)
        return leaf[:, None] * n_outputs + np.arange(n_outputs), len(layout.widths) * n_outputs
    array = _read_mask(mask, layout, output_shape)
    n_groups = len(array)
    if n_groups == 0:
        raise ValueError("mask has no groups: its first axis is empty.")
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"mask must hold zeros and ones; got {array[~np.isin(array, (0, 1))][0]:g}.")
    member = array.astype(bool)
    empty = np.flatnonzero(~member.any(axis=(1, 2)))
    if empty.size:
        raise ValueError(f"mask has groups without a member: {empty.tolist()}.")
    twice = np.argwhere(member.sum(axis=0) > 1)
    if twice.size:
        where = tuple(int(i) for i in (twice[0] if output_shape else twice[0][:1]))
        raise ValueError(
            f"mask puts coefficient {where} into more than one group; a coefficient may be in one at most."
        )
    return np.where(member.any(axis=0), member.argmax(axis=0), n_groups), n_groups


class _Reader:
    """Reads strengths for one layout of X."""

    def __init__(self, layout, output_shape):
        self.layout = layout
        self.output_shape = output_shape
        self.n_outputs = math.prod(output_shape)
        self.kinds: list[Any] = []
        self.places: dict[str, np.ndarray] = {}
        self.random: dict[int, np.ndarray] = {}

    def unknowns(self, index):
        """What was met so far."""
        return Unknowns(index, tuple(self.kinds), dict(self.places))

    def numbers(self, value, label):
        """An array of finite numbers >= 0; -1, -2, ... are the first, second, ... unknown."""
        if is_distribution(value):
            self.places[label] = self._random(value, label)
            return -1.0 - self.places[label]
        entries = np.asarray(value, object) if isinstance(value, str | list | tuple | np.ndarray) else None
        if entries is None or not any(isinstance(entry, str) or is_distribution(entry) for entry in entries.ravel()):
            return _read_numbers(value, label)
        if label not in self.places:
            index = np.full(entries.shape, -1)
            for place, entry in np.ndenumerate(entries):
                if is_distribution(entry):
                    index[place] = self._random(entry, label, shape=())
                elif isinstance(entry, str):
                    if entry not in LEARNED:
                        raise ValueError(
                            f"{label} must be a number, an array of numbers, 'evidence', 'learn' or a distribution; "
                            f"got {entry!r}."
                        )
                    index[place] = len(self.kinds)
                    self.kinds.append(entry)
            self.places[label] = index
        index = self.places[label]
        known = np.where(index < 0, entries, 0.0)
        return np.where(index < 0, _read_numbers(known.astype(float) if known.ndim else 0.0, label), -1.0 - index)

    def _random(self, prior, label, shape=None):
        """Which strengths a distribution stands for, an array of its batch shape: the same wherever it comes again."""
        check_prior(prior, dist.constraints.positive, "the positive numbers", label)
        if shape is not None and prior.batch_shape != shape:
            raise ValueError(f"{label} holds a distribution of batch shape {prior.batch_shape}; expected {shape}.")
        if id(prior) not in self.random:
            first, count = len(self.kinds), math.prod(prior.batch_shape)
            self.kinds += [prior] * count
            self.random[id(prior)] = np.arange(first, first + count).reshape(prior.batch_shape)
        return self.random[id(prior)]

    def per_coefficient(self, value, argument):
        """One number per coefficient, shape (n_features, n_outputs)."""
        leaves = walk(value, self.layout.skeleton(), argument, self._coefficients)
        return np.concatenate([leaves[index] for index in range(len(self.layout.widths))])

    def per_group(self, value, n_groups, default_groups):
        """One number per group, shape (n_groups,)."""
        value = 1.0 if value is None else value
        one_list = isinstance(value, list | tuple) and all(map(_is_scalar, value))
        if one_list or not isinstance(value, dict | list | tuple):
            array = self.numbers(value, ARGUMENT)
            if array.ndim == 0 or array.shape == (n_groups,):
                return np.array(np.broadcast_to(array, (n_groups,)))
            per_leaf = one_list and isinstance(self.layout.skeleton(), list | tuple)
            if array.ndim == 1 and not per_leaf:
                raise ValueError(f"{ARGUMENT} must have one number per group, shape ({n_groups},); got {_came(value)}.")
        if not default_groups:
            raise ValueError(
                f"{ARGUMENT} must be a number or one number per group, shape ({n_groups},); got {_came(value)}."
            )
        leaves = walk(value, self.layout.skeleton(), ARGUMENT, self._group_of_leaf)
        return np.concatenate([leaves[index] for index in range(len(self.layout.widths))])

    def _coefficients(self, value, index, label):
        """Broadcast a value to one leaf's coefficients."""
        width = self.layout.widths[index]
        value = by_columns(value, self.layout.columns[index], label)
        if isinstance(value, dict) and self.layout.is_array:
            raise ValueError(
                f"{label} must be a number or an array of numbers where X is one array; got {_came(value)}. A pandas "
                "Series gives them by the names of the columns."
            )
        array = self.numbers(value, label)
        allowed = _shapes(width, self.output_shape)
        if array.shape not in allowed:
            raise ValueError(
                f"{self._at_leaf(label, index)} must be a number or an array of shape "
                f"{' or '.join(map(str, allowed[1:]))}; got shape {array.shape}."
            )
        return _spread(array, width, self.output_shape)

    def _group_of_leaf(self, value, index, label):
        """Broadcast a value to one leaf's default groups, one per output."""
        array = self.numbers(value, label)
        each = (1, *self.output_shape)
        if array.shape not in [(), each][: 2 if self.output_shape else 1]:
            expected = "a number, since the leaf is one group"
            if self.output_shape:
                expected = f"a number or an array of shape {each}, since the leaf is one group per output"
            raise ValueError(f"{self._at_leaf(label, index)} must be {expected}; got shape {array.shape}.")
        return np.broadcast_to(array.ravel(), (self.n_outputs,))

    def _at_leaf(self, label, index):
        """Label of a value at a leaf, also when one value was given for several leaves."""
        leaf = self.layout.leaf_paths()[index]
        return label if label.endswith(leaf) else f"{label} at the leaf X{leaf}"


def walk(value, node, label, read_leaf):
    """Values of the leaves below `node`, by index of the leaf."""
    if isinstance(node, int):
        return {node: read_leaf(value, node, label)}
    if isinstance(node, dict) and isinstance(value, dict):
        _same_keys(value, node, label)
        pairs = [(value[key], child, f"{label}[{key!r}]") for key, child in node.items()]
    elif isinstance(node, list | tuple) and isinstance(value, list | tuple):
        if len(value) != len(node):
            raise ValueError(f"{label} must have one element per element of X, {len(node)}; got {len(value)}.")
        pairs = [(v, child, f"{label}[{i}]") for i, (v, child) in enumerate(zip(value, node, strict=True))]
    elif isinstance(value, dict):
        raise ValueError(f"{label} must be a {type(node).__name__} like X there, or one number; got {_came(value)}.")
    else:
        children = node.values() if isinstance(node, dict) else node
        pairs = [(value, child, label) for child in children]
    merged: dict[int, np.ndarray] = {}
    for child_value, child, child_label in pairs:
        merged |= walk(child_value, child, child_label, read_leaf)
    return merged


def _same_keys(value, node, label):
    missing = [key for key in node if key not in value]
    extra = [key for key in value if key not in node]
    if missing or extra:
        parts = [f"missing {missing}"] * bool(missing) + [f"unknown {extra}"] * bool(extra)
        raise ValueError(f"{label} must have the keys of X, {list(node)}: {', '.join(parts)}.")


def _read_numbers(value, label):
    """An array of finite numbers >= 0."""
    if value is None or isinstance(value, str | dict):
        raise ValueError(f"{label} must be a number or an array of numbers; got {_came(value)}.")
    array = as_numbers(value, label).astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{label} must be finite; got {array[~np.isfinite(array)][0] if array.ndim else array}.")
    if (array < 0).any():
        raise ValueError(f"{label} must not be negative; got {array.min():g}.")
    return array


def _split_elastic_net(strength):
    """Strength and ratio; only a plain tuple at the root is a pair."""
    if strength is None:
        return 1.0, 0.5
    if type(strength) is not tuple:  # a list is a tree
        return strength, 0.5
    if len(strength) != 2:
        raise ValueError(f"{ARGUMENT} of ElasticNet must be a pair (strength, ratio); got {len(strength)} elements.")
    return strength


def _read_mask(mask, layout, output_shape):
    """Mask as one array of shape (n_groups, n_features, n_outputs)."""
    if isinstance(mask, dict) or (isinstance(mask, list | tuple) and not layout.is_array):
        if isinstance(layout.skeleton(), dict) and not isinstance(mask, dict):
            raise ValueError(f"mask must be an array or a dict like X; got {type(mask).__name__}.")
        by_leaf = walk(mask, layout.skeleton(), "mask", lambda leaf, index, label: leaf)
        leaves = [by_leaf[index] for index in range(len(layout.widths))]
        labels = [layout.leaf_label(i, "mask") for i in range(len(leaves))]
    else:
        leaves, labels = [mask], ["mask"]
    arrays = [as_numbers(leaf, label) for leaf, label in zip(leaves, labels, strict=True)]
    widths = layout.widths if len(arrays) == len(layout.widths) else (layout.n_features,)
    for array, width, label in zip(arrays, widths, labels, strict=True):
        expected = (width, *output_shape)
        if array.ndim != 1 + len(expected) or array.shape[1:] != expected:
            raise ValueError(f"{label} must have shape (n_groups, {', '.join(map(str, expected))}); got {array.shape}.")
        if len(array) != len(arrays[0]):
            raise ValueError(
                f"All leaves of mask must have the same number of groups: {labels[0]} has "
                f"{len(arrays[0])}, {label} has {len(array)}."
            )
    return np.concatenate(
        [a.reshape(len(a), w, math.prod(output_shape)) for a, w in zip(arrays, widths, strict=True)], axis=1
    )


def _is_scalar(value):
    return not isinstance(value, dict | list | tuple) and np.ndim(value) == 0


def _came(value):
    """How an error message shows what came."""
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__} of shape {shape}" if shape is not None else repr(value)
