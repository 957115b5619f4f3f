"""Which strength: paths, grids, cross-validation and leave-one-out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from tqdm.auto import tqdm

from bayesglm._cross_validation import fit_folds, score_path
from bayesglm._design import take_rows
from bayesglm._fitted import warn_of_fit
from bayesglm._fitting import fit_path
from bayesglm._leave_one_out import leave_out
from bayesglm._passes import correlate, expected_curvature, moments, value_and_slope
from bayesglm._score import SCORE_TYPES, score_fit
from bayesglm._sparse_matrix import SparseMatrix, refuse_sparse
from bayesglm._strength import refuse_random
from bayesglm._warn import warn_user
from bayesglm.glm import GLM, ClassifierGLM, PopulationGLM
from bayesglm.observation_models import BernoulliObservations
from bayesglm.priors import ElasticNet, UnRegularized, bound

__all__ = ["GLMCV", "LeaveOneOut", "approximate_loo", "largest_strength", "strength_grid", "strength_path"]


def strength_path(model, X, y, strengths, *, sample_weight=None, offset=None):
    """Fit a model at each of several strengths, faster than one after the other.

    Smooth and small problems are fitted as one batch; a Ridge with more features than samples factorizes one matrix
    of the samples for all strengths that differ by a factor. Large problems whose penalty has kinks go from strong to
    weak strengths, each from the fit before.

    Parameters
    ----------
    model : GLM or PopulationGLM
        Neither changed nor fitted; its `regularizer_strength` has no effect.
    X, y, sample_weight, offset
        As in `GLM.fit`.
    strengths : iterable
        Each in any form that `regularizer_strength` may have; for ElasticNet, a list of pairs.

    Returns
    -------
    list of GLM or PopulationGLM
        One fitted model for each strength, in their order.

    Raises
    ------
    ValueError
        As in `GLM.fit`, or if there are no strengths.

    Warns
    -----
    ConvergenceWarning
        As in `GLM.fit`, for each fit that calls for it.
    """
    _check_model(model, "model")
    models, setup, read = _read_path(model, X, y, _listed(strengths), sample_weight, offset)
    for each, fitted in zip(models, fit_path(setup, read), strict=True):
        each._set_fitted(fitted, each.regularizer_strength)
        warn_of_fit(fitted)
    return models


def _check_model(model, argument):
    if not isinstance(model, GLM | PopulationGLM | ClassifierGLM):
        raise ValueError(f"{argument} must be a GLM, PopulationGLM or ClassifierGLM; got {model!r}.")


def _listed(strengths):
    """A list of strengths, of at least one."""
    if (
        isinstance(strengths, str | Mapping)
        or getattr(strengths, "ndim", 1) == 0
        or not isinstance(strengths, Iterable)
    ):
        raise ValueError(f"strengths must be a list of regularizer strengths; got {strengths!r}.")
    strengths = list(strengths)
    if not strengths:
        raise ValueError("strengths is empty; expected at least one regularizer strength.")
    return strengths


def _read_path(model, X, y, strengths, sample_weight, offset, *, labelled=True):
    """A model for each strength, the data, and the strengths, all checked."""
    models = [clone(model).set_params(regularizer_strength=strength) for strength in strengths]
    setup = models[0]._read(X, y, sample_weight, offset)
    labels = [f"strengths[{k}]: " for k in range(len(models))] if labelled else [""] * len(models)
    return models, setup, models[0]._read_strengths(setup, strengths, labels)


def largest_strength(model, X, y, *, sample_weight=None, offset=None, per_leaf=False):
    """Strength from which on the penalized coefficients are zero.

    Under Ridge they never are: there it is the strength that leaves no coefficient more than a hundredth of its
    degree of freedom, however little of it the data hold.

    Parameters
    ----------
    model : GLM or PopulationGLM
        Neither changed nor fitted. Its `regularizer_strength` is the direction: the smallest multiple of it is sought.
    X, y, sample_weight, offset
        As in `GLM.fit`.
    per_leaf : bool
        Whether to seek one number for each leaf of X instead, the other leaves being held at zero.

    Returns
    -------
    strength
        In the form of the model's `regularizer_strength`; with `per_leaf`, a container like X of numbers (the first of
        a pair, for ElasticNet).

    Raises
    ------
    ValueError
        As in `GLM.fit`, or if the model has no regularizer.
    """
    factors, setup = _thresholds(model, X, y, sample_weight, offset, plain=per_leaf)
    if not per_leaf:
        return _times(model, float(factors.max()))
    sizes = [float(factors[rows].max()) for rows in setup.layout.slices]
    tree = jax.tree.unflatten(setup.layout.treedef, sizes)
    return (tree, _base(model)[1]) if _is_pair(model) else tree


def strength_grid(model, X, y, num=100, *, smallest=None, sample_weight=None, offset=None):
    """Strengths from the largest useful one down, evenly spaced on a logarithmic scale.

    Parameters
    ----------
    model : GLM or PopulationGLM
        Its `regularizer_strength` (1 by default) is what is multiplied: its leaves keep their proportions, and the
        ratio of ElasticNet stays.
    X, y, sample_weight, offset
        As in `GLM.fit`.
    num : int
        How many.
    smallest : float, optional
        The last strength as a share of the first, between 0 and 1; by default 1e-4, or 1e-2 for a penalty with kinks
        and more features than samples, where smaller strengths interpolate.

    Returns
    -------
    list
        Strengths in the form of the model's.
    """
    multiples = _multiples(model, X, y, num, smallest, sample_weight, offset)
    return [_times(model, float(multiple)) for multiple in multiples]


def _multiples(model, X, y, num, smallest, sample_weight, offset, argument="num"):
    """Multiples of the model's strength that make a grid, shape (num,)."""
    if isinstance(num, bool) or not isinstance(num, int | np.integer) or num < 1:
        raise ValueError(f"{argument} must be an integer of at least 1; got {num!r}.")
    if smallest is not None and not (isinstance(smallest, int | float) and 0 < smallest < 1):
        raise ValueError(f"smallest must be a number between 0 and 1; got {smallest!r}.")
    factors, setup = _thresholds(model, X, y, sample_weight, offset)
    if smallest is None:
        crowded = setup.data.X.shape[1] > setup.data.X.shape[0] and not setup.parts.prior.smooth
        smallest = 1e-2 if crowded else 1e-4
    largest = float(factors.max())
    if largest == 0:
        raise ValueError("X tells nothing about y: every strength above zero gives coefficients of zero.")
    return largest * np.geomspace(1.0, smallest, num)


def _thresholds(model, X, y, sample_weight, offset, *, plain=False):
    """Multiples of the model's strength from which on each coefficient is zero (p, outputs), and the data.

    `plain` is whether to take the strength 1 instead.
    """
    _check_model(model, "model")
    base = _base(model)
    if plain:
        base = (1.0, base[1]) if _is_pair(model) else 1.0
    if isinstance(model._resolve().prior, UnRegularized):
        raise ValueError(f"This {type(model).__name__} has no regularizer, and so no strength.")
    _, setup, (strength,) = _read_path(model, X, y, [base], sample_weight, offset, labelled=False)
    if not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(strength)[:1]):
        raise ValueError("regularizer_strength is 0 everywhere: no multiple of it is another strength.")
    parts, data = setup.parts, setup.data
    within = bound(strength, setup.positive)
    flat = np.asarray(parts.prior.is_flat(within))
    (null,) = fit_path(setup._replace(free=setup.free & flat), [strength], rough=True)
    X, y, weight, shift = data.in_double()
    is_sparse = isinstance(X, SparseMatrix)
    with jax.enable_x64(True):
        eta = shift + null.intercept + X @ null.coef
        share = weight / weight.sum()

        def loss(y, eta):
            return parts.family.nll(y, eta, parts.link, np.nan_to_num(null.spec.scale, nan=1.0))

        slope = share[:, None] * np.asarray(value_and_slope(loss, y, eta, joint=parts.family.joint)[1])
        bend = share @ np.asarray(_own_curvature(loss, eta, parts))
        if is_sparse:
            mean, square = X.moments(share, centered=parts.fit_intercept)
            products = X.correlate(mean, slope)
        else:
            mean, square = map(np.asarray, moments(X, share, centered=parts.fit_intercept))
            products = np.asarray(correlate(X, mean, slope))
        grad = np.where(square[:, None] > 0, products, 0.0)
        factors = np.asarray(parts.prior.threshold(grad, square[:, None] * bend, within))
    return np.where(setup.free, factors, 0.0), setup


def _own_curvature(loss, eta, parts):
    """Expected second derivatives (n, outputs) of the loss by each linear predictor alone."""
    if not parts.family.joint:
        return expected_curvature(loss, parts.link.inverse, eta)
    mean = np.asarray(parts.link.inverse(eta))
    return parts.family.unit_variance(mean, 1.0)


def _base(model):
    """The model's strength, the default spelled out."""
    if model.regularizer_strength is not None:
        return model.regularizer_strength
    return (1.0, 0.5) if _is_elastic_net(model) else 1.0


def _is_elastic_net(model):
    return isinstance(model._resolve().prior, ElasticNet)


def _is_pair(model):
    """Whether the strength is a pair (strength, ratio)."""
    return _is_elastic_net(model) and type(_base(model)) is tuple


def _times(model, factor):
    """A multiple of the model's strength, in its form."""
    base = _base(model)
    if _is_pair(model):
        return _scaled(base[0], factor), base[1]
    return _scaled(base, factor)


def _scaled(tree, factor):
    if isinstance(tree, dict):
        return type(tree)((key, _scaled(value, factor)) for key, value in tree.items())
    if isinstance(tree, tuple) and type(tree) is not tuple:
        return type(tree)(*(_scaled(value, factor) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(_scaled(value, factor) for value in tree)
    return factor * (np.asarray(tree, float) if np.ndim(tree) else float(tree))


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """What each sample looks like to the fit to all others.

    Attributes
    ----------
    predictor : numpy.ndarray, the shape of y
        Linear predictor of each sample at the mode without it.
    mean : numpy.ndarray, the shape of y
        The inverse link of it.
    """

    predictor: np.ndarray
    mean: np.ndarray
    _fitted: Any

    def __repr__(self):
        return f"LeaveOneOut(predictor and mean of shape {self.predictor.shape})"

    def score(self, score_type=None):
        """Score of the left-out samples, as `GLM.score` scores a fit; at the dispersion of the fit to all samples.

        Parameters
        ----------
        score_type : {"log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"}, optional

        Returns
        -------
        float
        """
        if not isinstance(score_type, str | None) or score_type not in SCORE_TYPES:
            raise ValueError(f"score_type must be one of {SCORE_TYPES}; got {score_type!r}.")
        return float(_score_left_out(self._fitted, self.predictor, score_type))


def _score_left_out(fitted, predictor, score_type):
    y, weight = fitted.data.y.astype(np.float64), fitted.data.weight.astype(np.float64)
    with jax.enable_x64(True):
        spec = fitted.spec
        return score_fit(y, predictor.reshape(y.shape), [weight], spec.form, spec.scale, score_type)[0]


def approximate_loo(model, X, y=None, *, sample_weight=None, offset=None):
    """Leave out each sample in turn, without refitting.

    The fit without a sample is taken to be one Newton step away from the fit to all, with the coefficients that are
    zero kept at zero; all steps follow from one factorization. The prior is held, as in PSIS-LOO: that is a strength
    that grows by n / (n - 1).

    Parameters
    ----------
    model : GLM or PopulationGLM
        Neither changed nor fitted: a clone is.
    X, y, sample_weight, offset
        As in `GLM.fit`. Of a sample of weight above 1, one of so many equal samples is left out.

    Returns
    -------
    LeaveOneOut
    """
    _check_model(model, "model")
    twin = clone(model)
    setup, strength, unknowns = twin._read_all(X, y, sample_weight, offset)
    refuse_random(unknowns)
    refuse_sparse(setup.data.X, "approximate_loo")
    fitted = twin._fit(setup, strength, unknowns)
    warn_of_fit(fitted)
    predictor = leave_out(fitted)
    predictor = predictor.reshape(-1, *fitted.spec.outputs.shape)
    with jax.enable_x64(True):
        mean = np.asarray(fitted.spec.form.link.inverse(predictor))
    return LeaveOneOut(predictor, mean, fitted)


def _has_classes(search):
    return isinstance(search.estimator, ClassifierGLM)


class GLMCV(BaseEstimator):
    """Choose the strength by cross-validation, then fit it to all samples.

    Parameters
    ----------
    estimator : GLM or PopulationGLM
        Neither changed nor fitted.
    strengths : int or iterable
        How many strengths to try: multiples of the estimator's `regularizer_strength`, as `strength_grid` makes them.
        Or the strengths themselves, in any form that `regularizer_strength` may have (for ElasticNet, pairs).
    cv : int, splitter, iterable or "loo", optional
        As scikit-learn's `check_cv` takes it: a number of folds (5 by default; stratified for Bernoulli and classes), a
        splitter such as `GroupKFold` or `TimeSeriesSplit`, or pairs of index arrays. "loo" leaves one sample out at a
        time, approximately and without refitting (`approximate_loo`).
    scoring : str or callable, optional
        By default the fraction of the deviance explained; "log-likelihood", "pseudo-r2-McFadden" or
        "pseudo-r2-Cohen", as in `GLM.score`; or any scorer of scikit-learn, by name or as a callable.
    one_standard_error : bool
        Whether to take the strongest strength whose mean score is within one standard error of the best.
    progress_bar : bool

    Attributes
    ----------
    best_estimator_ : GLM or PopulationGLM
        Fitted to all samples, at the strength chosen.
    best_strength_ : strength
    best_index_ : int
    strengths_ : list
    multiples_ : numpy.ndarray, shape (n_strengths,), or None
        Of the estimator's strength, where the grid was made from it.
    train_scores_, validation_scores_ : numpy.ndarray, shape (n_strengths, n_folds)
    mean_scores_, standard_errors_ : numpy.ndarray, shape (n_strengths,)
        Of the validation scores; over the samples for "loo", where there is one column of scores and the standard
        errors are NaN.
    coef_, intercept_, n_features_in_, feature_names_in_, classes_
        Those of `best_estimator_`, where it has them.
    """

    def __init__(
        self, estimator, strengths=100, cv=None, scoring=None, one_standard_error=False, progress_bar=True
    ):  # fmt: skip
        self.estimator = estimator
        self.strengths = strengths
        self.cv = cv
        self.scoring = scoring
        self.one_standard_error = one_standard_error
        self.progress_bar = progress_bar

    def __sklearn_tags__(self):
        tags = BaseEstimator.__sklearn_tags__(self)
        of_model = get_tags(self.estimator)
        for name in ("estimator_type", "classifier_tags", "regressor_tags", "target_tags", "input_tags"):
            setattr(tags, name, getattr(of_model, name))
        return tags

    def fit(self, X, y=None, *, sample_weight=None, offset=None, groups=None):
        """Choose the strength and fit it.

        Parameters
        ----------
        X, y, sample_weight, offset
            As in `GLM.fit`. Folds are scored by the weights of their samples.
        groups : array_like (n,), optional
            For splitters that need it.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an argument does not make sense; it is named, with what came and what was expected.

        Warns
        -----
        ConvergenceWarning
            If fits to folds, or the last one to all samples, did not converge.
        """
        _check_model(self.estimator, "estimator")
        if not isinstance(self.one_standard_error, bool | np.bool_):
            raise ValueError(f"one_standard_error must be True or False; got {self.one_standard_error!r}.")
        self.multiples_ = None
        if isinstance(self.strengths, int | np.integer):
            several = self.strengths, None, sample_weight, offset
            self.multiples_ = _multiples(self.estimator, X, y, *several, argument="strengths, if it is a number,")
            strengths = [_times(self.estimator, float(multiple)) for multiple in self.multiples_]
        else:
            strengths = _listed(self.strengths)
        models, setup, read = _read_path(self.estimator, X, y, strengths, sample_weight, offset)
        self.strengths_ = strengths
        fits = self._score(models, setup, read, X, y, groups)
        self.mean_scores_ = self.validation_scores_.mean(1)
        n_folds = self.validation_scores_.shape[1]
        deviation = self.validation_scores_.std(1, ddof=1) if n_folds > 1 else np.full(len(strengths), np.nan)
        self.standard_errors_ = deviation / np.sqrt(n_folds)
        self.best_index_ = self._choose(setup, read)
        self.best_strength_ = strengths[self.best_index_]
        self.best_estimator_ = models[self.best_index_]
        (fitted,) = fit_path(setup, [read[self.best_index_]], start=[fits[self.best_index_]])
        self.best_estimator_._set_fitted(fitted, self.best_strength_)
        for name in ("coef_", "intercept_", "n_features_in_", "feature_names_in_", "classes_"):
            if name in vars(self.best_estimator_):
                setattr(self, name, getattr(self.best_estimator_, name))
            elif name in vars(self):
                delattr(self, name)
        warn_of_fit(fitted)
        return self

    def predict(self, X, *, offset=None):
        """Mean of y, or labels, at the chosen fit, as `GLM.predict`."""
        return self._chosen().predict(X, offset=offset)

    @available_if(_has_classes)
    def predict_proba(self, X, *, offset=None):
        """Probabilities of the classes at the chosen fit, as `ClassifierGLM.predict_proba`."""
        return self._chosen().predict_proba(X, offset=offset)

    @available_if(_has_classes)
    def predict_log_proba(self, X, *, offset=None):
        """Their logarithms."""
        return self._chosen().predict_log_proba(X, offset=offset)

    @available_if(_has_classes)
    def decision_function(self, X, *, offset=None):
        """Linear predictors of the classes, as `ClassifierGLM.decision_function`."""
        return self._chosen().decision_function(X, offset=offset)

    def score(
        self, X, y=None, *, sample_weight=None, offset=None, score_type=None, multioutput="uniform_average"
    ):  # fmt: skip
        """Score the chosen fit, as `GLM.score`."""
        settings = {"sample_weight": sample_weight, "offset": offset, "multioutput": multioutput}
        return self._chosen().score(X, y, score_type=score_type, **settings)

    def _chosen(self):
        if "best_estimator_" not in vars(self):
            raise NotFittedError("This GLMCV is not fitted yet: call fit first.")
        return self.best_estimator_

    def _score(self, models, setup, read, X, y, groups):
        """Set the scores; return the fits to all samples."""
        own = isinstance(self.scoring, str | None) and self.scoring in SCORE_TYPES
        scorer = None if own else get_scorer(self.scoring)
        if isinstance(self.cv, str):
            if self.cv != "loo" or not own:
                raise ValueError(
                    "cv must be 'loo', a number of folds, a splitter or pairs of indices, and 'loo' needs scoring to "
                    f"be one of {SCORE_TYPES}; got cv={self.cv!r}, scoring={self.scoring!r}."
                )
            return self._score_left_out(setup, read)
        splits = _splits(self.cv, setup, X, y, groups)
        folds = [_fold_weights(split, setup.data.weight) for split in splits]
        rough = own and self.scoring in (None, "pseudo-r2-Cohen")
        paths = fit_folds(setup, read, [seen for seen, _ in folds], rough=rough)
        paths = iter(tqdm(paths, total=len(folds) + 1, disable=not self.progress_bar, desc="folds"))
        start, unconverged, scores = next(paths), 0, []
        for path, weights, split in zip(paths, folds, splits, strict=True):
            unconverged += sum(not fitted.converged for fitted in path)
            if own:
                scores.append(score_path(path, setup.data, weights, self.scoring))
            else:
                seen = split if setup.missing is None else [_without(setup.missing, index) for index in split]
                scores.append([_score_models(scorer, models, path, X, y, index) for index in seen])
        self.train_scores_, self.validation_scores_ = np.moveaxis(np.array(scores), 0, -1)
        if unconverged:
            warn_user(
                f"{unconverged} of {len(folds) * len(read)} fits to folds did not converge. Raise "
                "solver_kwargs={'maxiter': ...}, or leave out the weakest strengths.",
                ConvergenceWarning,
            )
        return start

    def _score_left_out(self, setup, read):
        refuse_sparse(setup.data.X, "cv='loo'")
        fits = fit_path(setup, read)
        self.train_scores_ = score_path(fits, setup.data, [setup.data.weight], self.scoring)[0][:, None]
        left_out = [leave_out(fitted) for fitted in tqdm(fits, disable=not self.progress_bar, desc="strengths")]
        scores = [_score_left_out(*pair, self.scoring) for pair in zip(fits, left_out, strict=True)]
        self.validation_scores_ = np.array(scores)[:, None]
        return fits

    def _choose(self, setup, read):
        """Index of the strength to take."""
        if not np.isfinite(self.mean_scores_).any():
            raise ValueError(
                "No strength has a finite validation score: every fit predicts means outside the family's domain."
            )
        scores = np.where(np.isnan(self.mean_scores_), -np.inf, self.mean_scores_)
        best = int(np.argmax(scores))
        if not self.one_standard_error:
            return best
        if np.isnan(self.standard_errors_[best]):
            raise ValueError("one_standard_error needs at least two folds.")
        near = np.flatnonzero(scores >= scores[best] - self.standard_errors_[best])
        sizes = [jax.tree.leaves(strength)[0].sum() for strength in read]
        return int(max(near, key=lambda k: sizes[k]))


def _score_models(scorer, models, fits, X, y, index):
    """Scores by a scorer of scikit-learn, shape (S,), on the samples at `index`."""
    some, targets = take_rows(X, index), take_rows(y, index)
    scores = []
    for model, fitted in zip(models, fits, strict=True):
        model._set_fitted(fitted, model.regularizer_strength)
        scores.append(scorer(model, some, targets))
    return scores


def _without(missing, index):
    """The indices of a split, without those of samples with a missing entry."""
    index = np.arange(len(missing))[index]
    return index[~missing[index]]


def _splits(cv, setup, X, y, groups):
    """Pairs of index arrays."""
    targets = setup.data.y[:, 0]
    if setup.parts.family.joint:
        targets = setup.data.y[:, : setup.outputs.n_classes].argmax(1)
    classifies = setup.parts.family.joint or isinstance(setup.parts.family, BernoulliObservations)
    splitter = check_cv(5 if cv is None else cv, targets, classifier=classifies)
    return list(splitter.split(np.zeros((len(targets), 1)), targets, groups))


def _fold_weights(split, weight):
    """Weights of the samples of a fold and of those left out."""
    pair = []
    for index, name in zip(split, ("train", "test"), strict=True):
        counts = np.bincount(np.arange(len(weight))[index], minlength=len(weight))
        pair.append((weight * counts).astype(weight.dtype))
        if not pair[-1].any():
            raise ValueError(f"cv has a fold whose {name} samples have no weight.")
    return tuple(pair)
