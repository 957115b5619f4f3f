"""X: from the user's container to one matrix, and coefficients back to the same container.

Nothing below this module sees a tree: a `Layout` remembers how to cut an array of coefficients, whose first
axis runs over all features, into the leaves of the container.
"""

import numbers
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy import sparse
from sklearn.utils import _safe_indexing

from bayesglm._sparse_matrix import SparseMatrix, as_csr, is_sparse

__all__ = [
    "ALIGNMENT",
    "Design",
    "Layout",
    "aligned_empty",
    "as_numbers",
    "by_columns",
    "check_columns",
    "check_finite",
    "column_names",
    "is_container",
    "read_design",
    "same_layout",
    "take_rows",
]

# Bytes, at a multiple of which JAX takes an array without copying it.
ALIGNMENT = 64
MAKE_NUMBERS = "make it numbers, such as one column of zeros and ones for each level, or use a formula"


class Design:
    """A container X as one object with rows, so that tools for arrays can split it.

    ``GridSearchCV``, ``cross_val_score`` and ``train_test_split`` take the rows of ``Design({"a": A, "b": B})`` as they
    do those of a matrix. A model reads it as the container itself: `coef_` and strengths have the container's shape.

    Parameters
    ----------
    tree : pytree of array_like (n, p)
        Leaves may be data frames; they have the same number of rows.

    Attributes
    ----------
    tree : the same
    shape : tuple of int
        Number of rows, and of columns of all leaves.

    Raises
    ------
    ValueError
        If the leaves have no rows, or not the same number.
    """

    tree: Any

    def __init__(self, tree):
        tree = tree.tree if isinstance(tree, Design) else tree
        leaves = jax.tree.leaves(tree, is_leaf=_is_leaf)
        shapes = [np.shape(leaf) for leaf in leaves]
        if not leaves or any(len(shape) != 2 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"tree must hold matrices with the same number of rows; got the shapes {shapes}.")
        self.tree = tree
        self.shape = shapes[0][0], sum(shape[1] for shape in shapes)

    def __len__(self):
        return self.shape[0]

    def __array__(self, *args, **options):
        raise TypeError("A Design is no array: it holds a container of them, its `tree`.")

    def __iter__(self):
        raise TypeError("A Design has no single rows: take several, design[first:last], or its `tree`.")

    def __getitem__(self, key):
        """Rows of all leaves: indices, a mask or a slice; also as ``(rows, ...)``, as scikit-learn asks for them."""
        rows = key[0] if isinstance(key, tuple) else key
        if isinstance(key, tuple) and any(rest not in (Ellipsis, slice(None)) for rest in key[1:]):
            raise IndexError(f"A Design is indexed by its rows alone; got {key!r}.")
        if np.ndim(rows) == 0 and not isinstance(rows, slice):
            raise IndexError(f"A Design is indexed by several rows: a list, an array or a slice; got {rows!r}.")
        return Design(take_rows(self.tree, rows))

    def __repr__(self):
        shapes = jax.tree.map(np.shape, self.tree, is_leaf=_is_leaf)
        return f"Design({shapes})"


@dataclass(frozen=True)
class Layout:
    """How the columns of the design matrix are spread over the leaves of the user's container.

    Parameters
    ----------
    treedef : jax.tree_util.PyTreeDef
        The container.
    names : tuple of str
        Dotted path of each leaf; ("",) if X is one array.
    widths : tuple of int
        Number of features of each leaf.
    columns : tuple
        Names of the columns of each leaf, or None for a leaf without names.
    terms : Terms or None
        Of the formula that made the container.
    """

    treedef: Any
    names: tuple[str, ...]
    widths: tuple[int, ...]
    columns: tuple[tuple[str, ...] | None, ...]
    terms: Any = None

    @property
    def n_features(self):
        """Number of features of all leaves."""
        return sum(self.widths)

    @property
    def is_array(self):
        """Whether X is one array rather than a container."""
        return jax.tree_util.treedef_is_leaf(self.treedef)

    @property
    def slices(self):
        """Rows of the coefficient array that belong to each leaf."""
        ends = np.cumsum(self.widths)
        return [slice(int(end - width), int(end)) for end, width in zip(ends, self.widths, strict=True)]

    def unflatten(self, leaves):
        """Put one object per leaf into the user's container."""
        return jax.tree.unflatten(self.treedef, list(leaves))

    def skeleton(self):
        """X's container, with the index of the leaf in place of each leaf."""
        return self.unflatten(range(len(self.widths)))

    def split(self, coef):
        """Cut an array whose first axis runs over the features into the user's container."""
        return self.unflatten([coef[rows] for rows in self.slices])

    def leaf_label(self, index, argument="X"):
        """How an error message names a leaf: ``X`` or ``X['a']['b']``."""
        return argument + self.leaf_paths()[index]

    def leaf_paths(self):
        """Path of each leaf in Python's notation."""
        paths, _ = jax.tree_util.tree_flatten_with_path(self.skeleton())
        return [jax.tree_util.keystr(path) for path, _ in paths]


def is_container(node):
    """Whether a part of X is a container of leaves rather than an array-like.

    A dict is; a sequence is if one of its elements is a container or has two dimensions.
    """
    if isinstance(node, dict):
        return True
    if not isinstance(node, list | tuple):
        return False
    return any(is_container(child) or _ndim(child) == 2 for child in node)


def take_rows(X, rows):
    """Some rows of an array, of a data frame, or of each leaf of a container."""

    def take(leaf):
        return as_csr(leaf)[rows] if is_sparse(leaf) else _safe_indexing(leaf, rows)

    return jax.tree.map(take, X, is_leaf=_is_leaf)


def read_design(X, argument="X", *, missing=False):
    """Read X into one matrix.

    Parameters
    ----------
    X : array_like (n, p), or a pytree of such
        Features; leaves share n.
    missing : bool
        Whether NaN is allowed.

    Returns
    -------
    matrix : numpy.ndarray, shape (n, n_features), or SparseMatrix
        float32 if every leaf is float32, otherwise float64. An array X of that type is not copied. Sparse, and in
        double precision, if a leaf is sparse.
    layout : Layout

    Raises
    ------
    ValueError
        If a leaf is not a finite numeric matrix, leaves differ in length, or there is nothing in X.
    """
    X = X.tree if isinstance(X, Design) else X
    try:
        paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(X, is_leaf=_is_leaf)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{argument} must be an array or a dict, list or tuple of arrays, with keys that can be sorted: {error}"
        ) from error
    if not paths_and_leaves:
        raise ValueError(f"{argument} has no features: it is an empty {type(X).__name__}.")
    labels = [argument + jax.tree_util.keystr(path) for path, _ in paths_and_leaves]
    names = tuple(_dotted(path) for path, _ in paths_and_leaves)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{argument} has different leaves with the same dotted name {twice}; rename the keys.")
    leaves = [leaf for _, leaf in paths_and_leaves]
    arrays = [_read_leaf(leaf, label) for leaf, label in zip(leaves, labels, strict=True)]
    lengths = [array.shape[0] for array in arrays]
    if len(set(lengths)) > 1:
        listed = ", ".join(f"{label} has {length}" for label, length in zip(labels, lengths, strict=True))
        raise ValueError(f"All leaves of {argument} must have the same number of samples: {listed}.")
    matrix = _join(arrays)
    layout = Layout(
        treedef, names, tuple(array.shape[1] for array in arrays), tuple(column_names(leaf) for leaf in leaves)
    )
    if len(matrix) == 0:
        raise ValueError(f"{argument} has no samples: its shape is {matrix.shape}.")
    for label, array in zip(labels, arrays, strict=True):
        check_finite(array, label, missing=missing)
    return matrix, layout


def _join(arrays):
    """Leaves beside each other."""
    if any(map(sparse.issparse, arrays)):
        joined = sparse.csr_array(sparse.hstack(arrays)) if len(arrays) > 1 else arrays[0]
        return SparseMatrix(joined.astype(np.float64))
    dtype = np.float32 if all(array.dtype == np.float32 for array in arrays) else np.float64
    if len(arrays) == 1:
        return arrays[0].astype(dtype, copy=False)
    matrix = aligned_empty((len(arrays[0]), sum(array.shape[1] for array in arrays)), dtype)
    np.concatenate(arrays, axis=1, out=matrix)
    return matrix


def aligned_empty(shape, dtype):
    """Array without values whose memory JAX can share on a CPU."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)


def same_layout(layout, fitted, argument="X"):
    """Raise a ValueError unless X has the structure that the model was fitted with."""
    if layout.treedef != fitted.treedef:
        raise ValueError(
            f"{argument} must have the structure that the model was fitted with, "
            f"{_describe(fitted)}; got {_describe(layout)}."
        )
    for index, (width, expected) in enumerate(zip(layout.widths, fitted.widths, strict=True)):
        if width != expected:
            raise ValueError(
                f"{layout.leaf_label(index, argument)} has {width} features, but GLM is expecting {expected} features "
                "as input: those of the fit."
            )
    for index, (columns, expected_columns) in enumerate(zip(layout.columns, fitted.columns, strict=True)):
        check_columns(columns, expected_columns, layout.leaf_label(index, argument))


def check_columns(columns, fitted, label):
    """Raise a ValueError if both have names and they differ."""
    if columns is not None and fitted is not None and columns != fitted:
        raise ValueError(f"{label} has the columns {list(columns)}; the model was fitted with {list(fitted)}.")


def as_numbers(value, label):
    """Read an array-like of real numbers; strings, objects, complex and ragged input are a ValueError."""
    if np.ma.is_masked(value):
        raise ValueError(f"{label} has masked entries; drop those samples or fill them in.")
    try:
        array = _frame_to_array(value) if _is_frame(value) else np.asarray(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{label} cannot be read as an array of numbers: {error}") from error
    if array.dtype.kind in "biuf":
        return array
    array = _all_numbers(array)
    if array.dtype.kind == "f":
        return array
    hint = " Complex data not supported." if array.dtype.kind == "c" else ""
    if label == "y" and array.dtype.kind in "OUST":
        hint = " Labels are for ClassifierGLM."
    raise ValueError(f"{label} must hold real numbers; got {type(value).__name__} of dtype {array.dtype}.{hint}")


def check_finite(array, label, *, missing=False):
    """Raise a ValueError that says how many entries are NaN or infinite, and where the first one is.

    With `missing`, NaN is allowed. The array may be sparse.
    """
    held = array.data if sparse.issparse(array) else array
    with np.errstate(all="ignore"):
        if np.isfinite(np.sum(held)):
            return
    bad = np.isinf(held) if missing else ~np.isfinite(held)
    count = int(bad.sum())
    if count:
        places = np.argwhere(bad) if held is array else np.transpose(_places(array, bad))
        first = tuple(int(i) for i in places[0])
        where = first[0] if len(first) == 1 else first
        what = "infinite" if missing else "NaN or infinite"
        hint = ", or say nan_policy='drop'" if np.isnan(held).any() and not missing else ""
        raise ValueError(
            f"{label} has {count} {what} {'entry' if count == 1 else 'entries'}, the first at {where}; "
            f"drop those samples or fill them in{hint}."
        )


def _places(matrix, chosen):
    """Rows and columns of some of the entries that a csr_array holds."""
    held = matrix.tocoo()
    return held.row[chosen], held.col[chosen]


def _read_leaf(leaf, label):
    if leaf is None:
        raise ValueError(f"{label} is None; expected an array of shape (samples, features).")
    array = _read_sparse(leaf, label) if is_sparse(leaf) else as_numbers(leaf, label)
    if array.ndim == 2 and array.shape[1] == 0:
        raise ValueError(
            f"{label} has no features: 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
        )
    if array.ndim != 2:
        hint = " Reshape your data: .reshape(-1, 1) if it is one feature." if array.ndim == 1 else ""
        raise ValueError(f"{label} must have two dimensions (samples, features); got shape {array.shape}.{hint}")
    return array


def _read_sparse(leaf, label):
    """Read a sparse matrix into a csr_array without duplicates; the user's own is left alone."""
    if leaf.ndim != 2:
        return np.empty(leaf.shape)  # which says what is wrong with it
    matrix = as_csr(leaf)
    matrix = sparse.csr_array((as_numbers(matrix.data, label), matrix.indices, matrix.indptr), shape=matrix.shape)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def _is_leaf(node):
    return not is_container(node)


def _ndim(node):
    if isinstance(node, list | tuple):
        return 1 + _ndim(node[0]) if node else 1
    return np.ndim(node)


def _all_numbers(array):
    """The array; in double precision where it holds Python's numbers, or JAX's small float types (bfloat16)."""
    small = array.dtype.kind == "V" and jax.numpy.issubdtype(array.dtype, jax.numpy.floating)
    if small or (array.dtype.kind == "O" and array.ndim and all(isinstance(one, numbers.Real) for one in array.flat)):
        return array.astype(np.float64)
    return array


def _is_frame(value):
    return getattr(value, "columns", None) is not None


def column_names(leaf):
    """Names of the columns of a data frame, or of a matrix of xarray; None if there are none."""
    if _is_frame(leaf):
        return tuple(str(column) for column in leaf.columns)
    dims: Any = getattr(leaf, "dims", None)
    if not isinstance(dims, tuple) or len(dims) != 2 or dims[1] not in leaf.indexes:
        return None
    return tuple(str(label) for label in leaf.indexes[dims[1]])


def by_columns(value, columns, label):
    """Values of columns, along the first axis; those of a pandas object whose labels are these, in their order.

    Raises
    ------
    ValueError
        If it has other labels.
    """
    index = getattr(value, "index", None)
    if columns is None or index is None or callable(index):
        return value
    names = [str(name) for name in index]
    if sorted(names) != sorted(columns):
        if names == list(map(str, range(len(names)))):
            return value
        raise ValueError(f"{label} has the labels {names}; X has the columns {list(columns)}.")
    return value.iloc[[names.index(column) for column in columns]]


def _frame_to_array(frame):
    """Read a data frame, column by column where a mixture of types would become an array of objects."""
    names = list(frame.columns)
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the column names {repeated} occur more than once")
    dtypes = getattr(frame, "dtypes", None)
    for name, dtype in zip(names, () if dtypes is None or callable(dtypes) else dtypes, strict=False):
        if str(dtype) == "category":
            raise ValueError(f"column {name!r} is of dtype category: {MAKE_NUMBERS}")
    whole = np.asarray(frame)
    if whole.dtype.kind in "biuf":
        return np.ascontiguousarray(whole)
    columns = [_all_numbers(np.asarray(frame[column])) for column in frame.columns]
    for name, column in zip(frame.columns, columns, strict=True):
        if column.dtype.kind not in "biuf":
            raise ValueError(f"column {name!r} is of dtype {column.dtype}: {MAKE_NUMBERS}")
    return np.stack(columns, axis=1) if columns else np.empty((len(frame), 0))


def _dotted(path):
    return jax.tree_util.keystr(path, simple=True, separator=".").replace("/", ".")


def _describe(layout):
    return "one array" if layout.is_array else f"{layout.treedef.node_data()[0].__name__} of {list(layout.names)}"
