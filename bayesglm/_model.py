"""The Bayesian reading: the fitted model as a NumPyro model."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesglm._design import Design, Layout, check_columns, column_names
from bayesglm._groups import spread
from bayesglm._numpyro import dist, numpyro
from bayesglm._posterior import Form, Priors
from bayesglm._problem import Outputs, against_last, balanced, is_grouped, shared_shifts
from bayesglm._sparse_matrix import refuse_sparse
from bayesglm._targets import read_labels
from bayesglm.priors import bound

__all__ = ["Hyper", "Spec", "glm_model", "read_traced", "rates"]


class Hyper(NamedTuple):
    """Random strengths of a model, L of them."""

    base: Any  # strength, as from `read_strength`, with 1 in place of what is random
    index: Any  # which random strength each coefficient (p, outputs), or each group, has; -1: none
    distributions: tuple  # of NumPyro; their batches, one after the other, are the strengths
    names: tuple  # of the variable that each distribution is of
    places: dict  # name of the variable: array of which strengths it holds, -1 for a number


@dataclass(frozen=True, eq=False)
class Spec:
    """What a fit fixes of the Bayesian model; NumPy arrays only.

    Parameters
    ----------
    form : Form
    layout : Layout
    outputs : Outputs
    strength : numpy.ndarray or tuple
        As from `read_strength`.
    free : numpy.ndarray of bool, shape (p, outputs)
        Coefficients that are not held at zero by `feature_mask`.
    blocks : tuple of numpy.ndarray
        Outputs that share a dispersion.
    total : float
        Sum of the weights.
    k : numpy.ndarray, shape (outputs,)
        total / dispersion; k * penalty is -log prior.
    scale : numpy.ndarray, shape (outputs,)
        The family's second parameter at the fit; NaN where it is undefined.
    y_spread : numpy.ndarray, shape (outputs,)
        Standard deviation of y, pooled where the dispersion is.
    intercept_prior, scale_prior : NumPyro distribution or None
    hyper : Hyper or None
        Random strengths; `strength` is the one of the fit.
    positive : numpy.ndarray of bool, shape (p, outputs), or None
        Coefficients that may not be negative; None if the prior knows no bounds.
    """

    form: Form
    layout: Layout
    outputs: Outputs
    strength: Any
    free: np.ndarray
    blocks: tuple
    total: float
    k: np.ndarray
    scale: np.ndarray
    y_spread: np.ndarray
    intercept_prior: Any
    scale_prior: Any
    hyper: Hyper | None = None
    positive: np.ndarray | None = None

    @property
    def population(self):
        """Whether coefficients have an output axis for the user."""
        return bool(self.outputs.shape)

    @property
    def shared_shifts(self):
        """Features (p, responses) in which only differences between classes mean something."""
        return shared_shifts(self.flat, self.free, self.outputs)

    @property
    def priors(self):
        """Distributions of what outputs share."""
        strengths = () if self.hyper is None else self.hyper.distributions
        return Priors(self.intercept_prior, self.scale_prior, strengths)

    @property
    def block_of_output(self):
        """Index into `blocks` of each output."""
        index = np.zeros(len(self.k), int)
        for number, block in enumerate(self.blocks):
            index[block] = number
        return index

    @property
    def flat(self):
        """Coefficients whose prior is flat, shape (p, outputs)."""
        # Also within a program that is being traced.
        with jax.ensure_compile_time_eval():
            return np.asarray(self.form.prior.is_flat(bound(self.strength, self.positive)))

    def without_prior(self):
        """What has a flat prior, in words with what would give it one; empty if nothing has."""
        flat = self.flat & self.free
        no_flat = self.intercept_prior is not None or not self.form.fit_intercept
        parts = [] if no_flat else ["the intercept (give an intercept_prior)"]
        for index, rows in enumerate(self.layout.slices):
            if flat[rows].any():
                label = self.layout.leaf_label(index)
                parts.append(f"{flat[rows].sum()} coefficients of {label} (give a regularizer_strength)")
        return parts


def rates(spec, strength, k):
    """Strength and k as `prior.distribution` takes them, the output axis dropped for a single output.

    Parameters
    ----------
    k : (outputs,)
    """
    strength, k = _rates(spec, strength, k)
    return bound(strength, _positive(spec)), k


def _positive(spec):
    """Coefficients that may not be negative, as `rates`."""
    return spec.positive if spec.population or spec.positive is None else spec.positive[:, 0]


def _rates(spec, strength, k):
    if is_grouped(strength):
        size, groups = strength
        output = np.zeros(len(size), int)
        for group in range(len(size)):
            output[group] = np.nonzero(groups == group)[1].min(initial=len(spec.k) - 1)
        return (size, groups if spec.population else groups[:, 0]), k[output]
    if spec.population:
        return strength, k
    return jax.tree.map(lambda leaf: leaf[:, 0], strength), k[0]


def glm_model(spec, X, y, weight, offset, trials=None):
    """NumPyro model of y given the matrix X (n, p); returns the linear predictor.

    Sample sites: ``coef`` (all leaves one below the other; with a mask ``coef_free``), ``intercept`` and
    ``dispersion`` where they are sampled, those of random strengths, ``y``. For a container X each leaf's coefficients
    are also deterministic sites ``coef.<leaf>``.
    """
    n_outputs = len(spec.k)
    shape = (n_outputs,) if spec.population else ()
    family_scale = _sample_scale(spec)
    coef = _sample_coef(spec, family_scale)
    if not spec.layout.is_array:
        for name, rows in zip(spec.layout.names, spec.layout.slices, strict=True):
            numpyro.deterministic(f"coef.{name}", coef[rows])
    eta = offset + X @ coef
    if spec.form.fit_intercept:
        prior = dist.Normal(0.0, 1.0).mask(False) if spec.intercept_prior is None else spec.intercept_prior
        if spec.outputs.classes is not None and spec.intercept_prior is None:
            eta = eta + _sample_flat_intercepts(prior, spec.outputs)
        else:
            eta = eta + numpyro.sample("intercept", prior.expand(shape).to_event(len(shape)))
    keep = weight > 0
    scale = jnp.where(keep, weight, 1.0)
    n_responses, several = spec.outputs.n_responses, spec.outputs.several
    if spec.outputs.classes is not None:
        eta = eta.reshape(-1, *spec.outputs.shape)
    if several:
        keep, scale = keep[:, None], scale[:, None]
    inside = keep[..., None] if spec.outputs.classes is not None else keep
    more: tuple[Any, ...] = ()
    if spec.form.family.counts_trials:
        more, scale = ((weight,), jnp.ones_like(scale)) if trials is None else ((trials,), scale)
    with numpyro.handlers.mask(mask=keep), numpyro.handlers.scale(scale=scale):
        # A mean outside the domain, or one that overflows, must not meet a weight of 0.
        usual = spec.form.link.predictor(jnp.full((), 0.5, eta.dtype))
        family = spec.form.family.distribution(jnp.where(inside, eta, usual), spec.form.link, family_scale, *more)
        if several:
            with numpyro.plate("obs", eta.shape[0], dim=-2), numpyro.plate("output", n_responses, dim=-1):
                numpyro.sample("y", family, obs=y)
        else:
            with numpyro.plate("obs", eta.shape[0]):
                numpyro.sample("y", family, obs=y)
    return eta


def _sample_flat_intercepts(prior, outputs):
    """Intercepts of classes, of which only differences mean something: those to the last class are the site."""
    free = numpyro.sample("intercept_free", prior.expand((outputs.n_responses, outputs.n_classes - 1)).to_event(2))
    return numpyro.deterministic("intercept", balanced(jnp.pad(free, ((0, 0), (0, 1))).ravel(), outputs))


def _sample_coef(spec, scale):
    """Coefficients; if some are held at zero, the others are one vector, the site ``coef_free``.

    So are classes without a prior: the last one is held.
    """
    k = spec.k
    if spec.form.conditional_prior:
        k = jnp.broadcast_to(spec.total / spec.form.family.phi(scale), k.shape)
    strength, k = _rates(spec, _sample_strength(spec), k)
    moves = against_last(spec.flat, spec.free, spec.outputs)
    if moves.all():
        return numpyro.sample("coef", spec.form.prior.distribution(bound(strength, _positive(spec)), k))
    if is_grouped(spec.strength):
        strength = strength[0], strength[1][moves]
    else:
        strength, k = jax.tree.map(lambda leaf: leaf[moves], (strength, jnp.broadcast_to(k, moves.shape)))
    strength = bound(strength, None if spec.positive is None else spec.positive[moves])
    free = numpyro.sample("coef_free", spec.form.prior.distribution(strength, k))
    coef = jnp.zeros(moves.shape, free.dtype).at[np.nonzero(moves)].set(free)
    return numpyro.deterministic("coef", balanced(coef, spec.outputs, spec.shared_shifts))


def _sample_strength(spec):
    """Strength of all coefficients, random where it is."""
    hyper = spec.hyper
    if hyper is None:
        return spec.strength
    sites = [
        numpyro.sample(name, prior.to_event(len(prior.batch_shape)))
        for name, prior in zip(hyper.names, hyper.distributions, strict=True)
    ]
    values = jnp.concatenate([jnp.ravel(site) for site in sites])
    return spec.form.prior.times(hyper.base, spread(values, hyper.index, 1.0))


def _sample_scale(spec):
    """Dispersion of each output (a scalar for one): fixed, or one random variable per block of outputs."""
    if not spec.form.samples_scale:
        return spec.scale if spec.population else spec.scale[0]
    if not spec.population:
        prior = spec.scale_prior
        return numpyro.sample("dispersion", spec.form.family.scale_prior(spec.y_spread[0]) if prior is None else prior)
    first = np.array([block[0] for block in spec.blocks])
    if spec.scale_prior is None:
        prior = spec.form.family.scale_prior(spec.y_spread[first])
    else:
        prior = spec.scale_prior.expand((len(first),))
    return numpyro.sample("dispersion", prior.to_event(1))[spec.block_of_output]


def read_traced(X, y, sample_weight, offset, spec):
    """Arrays of `glm_model` from arguments that may be, or hold, JAX tracers; only shapes can be checked.

    Returns
    -------
    X, y, weight, offset, trials
        Shapes (n, p), (n,) or (n, responses) or None, (n,), (n,) or (n, outputs), and (n,) or None. Of what counts
        trials without y, the weights are those.
    """
    try:
        parts = spec.layout.treedef.flatten_up_to(X.tree if isinstance(X, Design) else X)
        for part in parts:
            refuse_sparse(part, "numpyro_model")
        leaves = [_as_jax(leaf) for leaf in parts]
    except (ValueError, TypeError) as error:
        raise ValueError(f"X must have the structure that the model was fitted with: {error}") from error
    for index, (part, columns) in enumerate(zip(parts, spec.layout.columns, strict=True)):
        check_columns(column_names(part), columns, spec.layout.leaf_label(index))
    for index, (leaf, width) in enumerate(zip(leaves, spec.layout.widths, strict=True)):
        if leaf.ndim != 2 or leaf.shape[1] != width:
            label = spec.layout.leaf_label(index)
            raise ValueError(f"{label} must have shape (samples, {width}), as in the fit; got {leaf.shape}.")
    matrix = jnp.concatenate(leaves, axis=1)
    n = len(matrix)
    outputs = spec.outputs
    shape = (n, *outputs.shape)
    weight = jnp.ones(n) if sample_weight is None else _as_jax(sample_weight)
    offset = jnp.zeros(shape) if offset is None else _as_jax(offset)
    if outputs.several and outputs.classes is None and offset.shape == (n,):
        offset = jnp.broadcast_to(offset[:, None], shape)
    if y is not None and outputs.classes is not None:
        # Labels cannot be traced.
        y = read_labels(y, n, np.dtype(np.float32), outputs.classes)[0]
        y = y.reshape(n, *outputs.response_shape, -1).argmax(-1)
    y, trials = None if y is None else _as_jax(y), None
    if y is not None and spec.form.family.counts_trials:
        if y.shape != (n, 2):
            raise ValueError(f"y must have shape {(n, 2)}, successes and trials; got {y.shape}.")
        y, trials = y.T
    if y is not None and y.shape == (n, 1) and not outputs.several:
        y = y[:, 0]
    expected = {"y": (n, *outputs.response_shape), "sample_weight": (n,), "offset": shape}
    for name, array in (("y", y), ("sample_weight", weight), ("offset", offset)):
        if array is not None and array.shape != expected[name]:
            raise ValueError(f"{name} must have shape {expected[name]}; got {array.shape}.")
    return matrix, y, weight, offset.reshape(n, -1) if outputs.shape else offset, trials


def _as_jax(array):
    return array if isinstance(array, jax.Array) else jnp.asarray(np.asarray(array))
