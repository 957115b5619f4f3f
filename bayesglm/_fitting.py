"""Fits: data and strengths in; the mode of every output and the Bayesian model it fixes out."""

import numbers
from typing import Any, NamedTuple

import jax
import numpy as np

from bayesglm._design import Layout
from bayesglm._fitted import Fitted, is_singular, some_columns
from bayesglm._map import Mode, find_modes, find_smooth_modes, likeliest_scale
from bayesglm._model import Spec
from bayesglm._numpyro import is_distribution
from bayesglm._options import Parts
from bayesglm._posterior import Form
from bayesglm._problem import Data, Outputs, against_last, make_batches, on_device, with_room
from bayesglm._propriety import row_space
from bayesglm._sparse_matrix import SparseMatrix
from bayesglm._sparse_smooth import find_sparse_smooth_modes
from bayesglm._working_set import find_sparse_modes
from bayesglm.priors import bound

__all__ = [
    "TINY_SIZE",
    "Setup",
    "Start",
    "dispersions",
    "first_scale",
    "fit_path",
    "make_form",
    "make_problems",
    "make_spec",
    "tolerance",
]

# Penalties with kinks: features and entries of X up to which all features are solved for at once.
SMALL_WIDTH, SMALL_SIZE = 256, 10**6
# Entries of X, times outputs, up to which compiling takes so much longer than fitting that it should rather be quick.
TINY_SIZE = 2 * 10**4
# Coefficients of classes up to which smooth fits use a matrix of that size.
MOST_OF_CLASSES = 2048
# Strengths from which on smooth fits of a path share a Hessian rather than having their own.
FEWEST_OF_PATH = 4
# Steps that they may take with it: where strengths or separated classes make curvatures differ by much, own ones help.
MAX_SHARED_STEPS = 25
# Rounds of fitting the mean and the overdispersion in turn.
MAX_SCALE_STEPS = 50


class Setup(NamedTuple):
    """A model and its data, read and checked; only the strength is missing."""

    parts: Parts
    data: Data
    layout: Layout
    free: np.ndarray  # (p, outputs) bool: coefficients that are not held at zero
    outputs: Outputs
    positive: np.ndarray | None = None  # (p, outputs) bool: coefficients that may not be negative; None: all may be
    missing: Any = None  # (n,) bool: samples that were left out, for an entry of theirs is missing


class Start(NamedTuple):
    """Where a fit may start."""

    coef: np.ndarray  # (p, outputs)
    intercept: np.ndarray  # (outputs,)


class Effort(NamedTuple):
    """What a fit may cost."""

    tiny: int  # entries of X, times outputs, up to which the program should rather compile quickly
    rough: bool  # whether effective degrees of freedom do not matter
    n_paths: int = 1  # problems b, b + n_paths, b + 2 n_paths ... of a batch differ in their strengths alone


def fit_path(setup, strengths, *, for_sampling=False, start=None, rough=False):
    """Fit all outputs at each of several strengths.

    Parameters
    ----------
    setup : Setup
    strengths : list of numpy.ndarray or tuple
        Each as from `read_strength`.
    for_sampling : bool
        Whether draws are to follow, which take longer than any fit: then it should compile quickly.
    start : list of Fitted or Start, optional
        Fits to similar data, one for each strength, to start from.
    rough : bool
        Whether effective degrees of freedom and dispersions do not matter.

    Returns
    -------
    list of Fitted
        One for each strength.
    """
    parts, data = setup.parts, setup.data
    solved = setup._replace(data=with_room(data))
    split = [make_problems(solved, strength) for strength in strengths]
    with jax.enable_x64(data.X.dtype == np.float64):
        X = on_device(solved.data.X)
        effort = Effort(SMALL_SIZE if for_sampling else TINY_SIZE, rough)
        starts = [[None] * len(split[0])] * len(split)
        if start is not None:
            starts = [[_begin(each, batch) for batch in batches] for each, batches in zip(start, split, strict=True)]
        found = [
            _fit_batches(X, solved.data, batches, begins, parts, effort)
            for batches, begins in zip(zip(*split, strict=True), zip(*starts, strict=True), strict=True)
        ]
        fits = []
        for strength, batches, modes_and_scales in zip(strengths, split, zip(*found, strict=True), strict=True):
            modes, scales = zip(*modes_and_scales, strict=True)
            if solved.data is not data:
                batches = make_problems(setup, strength)
            spec = make_spec(setup, strength, batches, scales)
            n_dropped = 0 if setup.missing is None else int(setup.missing.sum())
            fits.append(Fitted(data, batches, list(modes), spec, tolerance(parts, data.X.dtype), n_dropped))
    return fits


def make_problems(setup, strength):
    """Batches of a Setup at a strength."""
    strength = bound(strength, setup.positive)
    free = against_last(np.asarray(setup.parts.prior.is_flat(strength)), setup.free, setup.outputs)
    batches = make_batches(setup.data, strength, free, n_classes=setup.outputs.n_classes)
    if setup.outputs.classes is not None and batches[-1].outputs.shape[1] > setup.outputs.n_classes:
        raise ValueError("mask has a group that spans responses; a group may span the classes of one response only.")
    return batches


def _begin(start, batch):
    """Coefficients and intercepts for the problems of a batch to start from."""
    dtype = batch.y.dtype
    coef = np.stack([start.coef[:, block] for block in batch.outputs]).astype(dtype)
    return coef, np.stack([start.intercept[block] for block in batch.outputs]).astype(dtype)


def _fit_batches(X, data, batches, starts, parts, effort):
    """Modes and second parameters of batches that differ in their strengths alone, one pair each."""
    order = list(range(len(batches)))
    if not parts.prior.smooth:
        # From strong to weak: each fit starts where the one before ended.
        order.sort(key=lambda k: -_size(batches[k]))
    found = {}
    if not parts.prior.smooth and not _is_small(X):
        last = None
        for k in order:
            found[k] = _fit_batch(X, data, batches[k], parts, starts[k] or last, effort)
            last = found[k][0].coef, found[k][0].intercept
        return [found[k] for k in range(len(batches))]
    joined = _join([batches[k] for k in order])
    start = None if starts[0] is None else _join([starts[k] for k in order])
    one_by_one = not parts.prior.smooth or parts.family.joint
    is_path = one_by_one or len(batches) >= FEWEST_OF_PATH
    n_paths = len(batches[0].y) if is_path else len(joined.y)
    shares = not one_by_one and n_paths < len(joined.y)
    first = parts._replace(max_iter=min(parts.max_iter, MAX_SHARED_STEPS)) if shares else parts
    modes, scale = _fit_batch(X, data, joined, first, start, effort, n_paths)
    if shares and not modes.converged.all():
        done = modes.n_iter
        modes, scale = _fit_batch(X, data, joined, parts, (modes.coef, modes.intercept), effort)
        modes = modes._replace(n_iter=done + modes.n_iter)
    ends = np.cumsum([len(batch.y) for batch in batches])[:-1]
    modes = [np.split(leaf, ends) for leaf in modes]
    for k, mode, second in zip(order, map(Mode._make, zip(*modes, strict=True)), np.split(scale, ends), strict=True):
        found[k] = mode, second
    return [found[k] for k in range(len(batches))]


def _join(parts):
    """Trees of arrays, put together along their first axes."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _is_small(X):
    return not isinstance(X, SparseMatrix) and X.shape[1] <= SMALL_WIDTH and X.size <= SMALL_SIZE


def _size(batch):
    """Size of a strength, to order a path by."""
    return jax.tree.leaves(batch.strength)[0].sum()


def _fit_batch(X, data, batch, parts, start, effort, n_paths=None):
    """Modes of a batch and the family's second parameter, shape (B,).

    Problems b, b + n_paths, b + 2 n_paths ... differ in their strengths alone.
    """
    effort = effort._replace(n_paths=n_paths or len(batch.y))
    family, scale = parts.family, first_scale(parts, batch)
    modes = _find_modes(X, data, batch, scale, start, parts, effort)
    if isinstance(family.scale, numbers.Real):
        return modes, scale
    if not family.scale_shapes_mean:
        return modes, dispersions(modes, data.weight.sum())
    for _ in range(MAX_SCALE_STEPS):
        arguments = X, data.weight, batch.y, batch.offset, modes.coef, modes.intercept
        if isinstance(X, SparseMatrix):
            arguments = _as_offset(X, arguments)
        new = np.asarray(likeliest_scale(*arguments, family=type(family), link=parts.link))
        settled = np.abs(np.log(new / scale)) < np.sqrt(np.finfo(new.dtype).eps) / 10
        scale = new
        modes = _find_modes(X, data, batch, scale, (modes.coef, modes.intercept), parts, effort)
        if settled.all():
            break
    return modes, scale


def first_scale(parts, batch):
    """The family's second parameter of the problems of a batch (B,) where it is given; 1 where it is not."""
    given = parts.family.scale
    return np.full(len(batch.y), given if isinstance(given, numbers.Real) else 1.0, batch.y.dtype)


def dispersions(modes, total):
    """Pearson's estimate for the problems of a batch (B,), at a sum of weights; NaN without degrees of freedom."""
    freedom = modes.coef.shape[2] * total - modes.edf.sum(1)
    return np.where(freedom >= 1, modes.pearson.sum(1) / np.where(freedom >= 1, freedom, 1), np.nan)


def _find_modes(X, data, batch, scale, start, parts, effort):
    """Modes of a batch."""
    (n_samples, n_features), dtype = X.shape, data.X.dtype
    tol = tolerance(parts, dtype)
    static = {"family": type(parts.family), "link": parts.link, "fit_intercept": parts.fit_intercept}
    if start is None:
        shape = batch.outputs.shape
        start = np.zeros((shape[0], n_features, shape[1]), dtype), np.full(shape, np.nan, dtype)
    problem = X, data.weight, batch.y, batch.offset, batch.strength, batch.free
    is_tiny = X.size * batch.outputs.size <= effort.tiny
    exact = not effort.rough and not parts.family.scale_shapes_mean and not isinstance(parts.family.scale, numbers.Real)
    many_of_classes = parts.family.joint and n_features * batch.outputs.shape[1] > MOST_OF_CLASSES
    if parts.prior.smooth and (isinstance(X, SparseMatrix) or many_of_classes):
        # By products with X alone: of many coefficients of classes, too, whose Hessian would be large.
        static["trace"] = "exact" if exact else "none" if effort.rough else "cheap"
        products = X if isinstance(X, SparseMatrix) else SparseMatrix.of(data.X)
        with jax.enable_x64(True):
            arguments = *jax.tree.map(_as_double, (*problem[1:], scale, start)), tol, parts.max_iter
            modes = find_sparse_smooth_modes(products, *arguments, **static)
        modes = modes._replace(coef=modes.coef.astype(dtype), intercept=modes.intercept.astype(dtype))
    elif parts.prior.smooth and not parts.family.joint:
        dual = n_features > n_samples and bool(((batch.strength > 0) | ~batch.free).all())
        static |= {"dual": dual, "alike": dual and _is_alike(batch), "n_paths": effort.n_paths}
        static["trace"] = "exact" if exact else "none" if effort.rough else "cheap"
        modes = find_smooth_modes[is_tiny](*problem, scale, start, tol, parts.max_iter, **static)
    elif _is_small(X) or parts.prior.smooth:
        static |= {"prior": type(parts.prior), "n_paths": effort.n_paths, "rough": effort.rough}
        modes = find_modes[is_tiny](*problem, scale, start, tol, parts.max_iter, **static)
    else:
        static["prior"] = type(parts.prior)
        modes = find_sparse_modes(
            *problem, scale, start, tol, parts.max_iter, **static, exact_trace=exact or X.size <= SMALL_SIZE
        )
    return _of_smallest_norm(jax.tree.map(np.asarray, modes), data, batch, parts)


def _as_double(array):
    array = np.asarray(array)
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _as_offset(X, arguments):
    """Arguments of `likeliest_scale` whose offset holds what a sparse X adds, and whose X has no features."""
    _, weight, y, offset, coef, intercept = arguments
    moved = np.stack([X @ one for one in coef])
    return np.zeros((len(X), 0)), weight, y, offset + moved, coef[:, :0], intercept


def _is_alike(batch):
    """Whether all problems have the same free coefficients, and strengths that are the same up to a factor."""
    if (batch.free != batch.free[0]).any():
        return False
    largest = batch.strength.max((1, 2), keepdims=True)
    return np.allclose(batch.strength * largest[0], batch.strength[0] * largest, rtol=1e-12, atol=0)


def tolerance(parts, dtype):
    """Largest correlation of a feature with the residuals that optimality leaves."""
    if parts.tol is not None:
        return parts.tol
    return 1e-10 if dtype == np.float64 else 2e-6


def _of_smallest_norm(modes, data, batch, parts):
    """Among the optima of collinear features without a penalty, take the one of smallest norm."""
    coef, intercept = modes.coef + 0.0, modes.intercept.copy()  # + 0.0 turns -0.0 into 0.0
    for b in np.flatnonzero(is_singular(modes, data.X.dtype)):
        strength = jax.tree.map(lambda leaf: leaf[b], batch.strength)  # noqa: B023
        is_flat = np.asarray(parts.prior.is_flat(strength))
        if parts.prior.has_bounds:
            is_flat = is_flat & ~strength.bounded
        for output, flat in enumerate((is_flat & batch.free[b]).T):
            if flat.any() and (some := some_columns(data.X, flat)) is not None:
                mean = data.weight @ some / data.weight.sum() * parts.fit_intercept
                seen = row_space((some - mean)[data.weight > 0])
                surplus = coef[b, flat, output] - seen @ (seen.T @ coef[b, flat, output])
                coef[b, flat, output] -= surplus
                intercept[b, output] += mean @ surplus
    return modes._replace(coef=coef, intercept=intercept)


def make_form(setup):
    """What decides the compiled programs of a Setup."""
    parts, family = setup.parts, setup.parts.family
    fixed = isinstance(family.scale, numbers.Real)
    return Form(
        type(family),
        parts.link,
        type(parts.prior),
        samples_scale=not fixed,
        conditional_prior=parts.conditional_prior and not fixed and not family.scale_shapes_mean,
        n_classes=setup.outputs.n_classes,
        fit_intercept=parts.fit_intercept,
    )


def make_spec(setup, strength, batches, scales):
    """Everything of the Bayesian model that the fit fixes."""
    parts, data = setup.parts, setup.data
    family = parts.family
    total = data.weight.sum()
    blocks = tuple(block for batch in batches for block in batch.outputs)
    scale, spread = np.empty(data.y.shape[1], data.X.dtype), np.empty(data.y.shape[1], data.X.dtype)
    mean = data.weight @ data.y / total
    variance = data.weight @ (data.y - mean) ** 2 / total
    for block, value in zip(blocks, np.concatenate(scales), strict=True):
        scale[block] = value
        spread[block] = np.sqrt(variance[block].mean()) or 1.0
    return Spec(
        form=make_form(setup),
        layout=setup.layout,
        outputs=setup.outputs,
        strength=strength,
        free=setup.free,
        blocks=blocks,
        total=total,
        k=_divide(total, np.asarray(family.phi(scale))),
        scale=scale,
        y_spread=spread,
        intercept_prior=parts.intercept_prior,
        scale_prior=family.scale if is_distribution(family.scale) else None,
        positive=setup.positive,
    )


def _divide(total, phi):
    """total / phi; a residual variance of zero, which `sample` refuses, gives infinity without a warning."""
    with np.errstate(divide="ignore"):
        return total / phi
