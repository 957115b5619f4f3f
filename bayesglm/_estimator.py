"""The estimator: arguments, data and strengths read, the penalized fit, predictions and scores."""

from copy import deepcopy
from dataclasses import replace

import jax
import numpy as np
from sklearn.exceptions import NotFittedError

from bayesglm._design import read_design, same_layout
from bayesglm._fitted import warn_of_fit
from bayesglm._fitting import Setup, Start, fit_path
from bayesglm._formula import read_formula
from bayesglm._options import check_prior_shapes, drops_missing, resolve
from bayesglm._parameters import Parameters
from bayesglm._problem import Data, Outputs, repeat_first, roomy_length, without_missing, without_unseen
from bayesglm._score import SCORE_TYPES, score_fit, scores_each
from bayesglm._sparse_matrix import refuse_sparse
from bayesglm._strength import (
    fill_strength,
    read_feature_mask,
    read_positive,
    read_strength,
    read_unknowns,
    refuse_random,
)
from bayesglm._targets import (
    check_counts,
    check_output_names,
    output_names,
    read_offset,
    read_successes,
    read_targets,
    read_weights,
)

__all__ = ["PenalizedGLM", "targets_of_formula"]


class PenalizedGLM(Parameters):
    """What all models share as penalized fits."""

    @classmethod
    def from_formula(cls, formula, data, *, sample_weight=None, offset=None, **settings):
        """Fit a model that a formula describes; each of its terms is a leaf of X.

        Parameters
        ----------
        formula : str
            As in R, read by formulaic: ``"visits ~ 0 + plan + poly(age, 2)"``. With ``0 +`` a factor has a
            coefficient for each level, which a prior makes sense of; `fit_intercept` decides about the intercept.
        data : data frame
            Missing values are an error, unless `nan_policy` is "drop".
        sample_weight, offset
            As in `fit`.
        **settings
            The constructor's other arguments; strengths may be a dict by term.

        Returns
        -------
        GLM or PopulationGLM
            Fitted. Its methods take data frames with the formula's columns for X, and need no y.
        """
        return cls(**settings, formula=formula).fit(data, sample_weight=sample_weight, offset=offset)

    def fit(self, X, y=None, *, sample_weight=None, offset=None):
        """Find the penalized fit, which is the mode of the posterior.

        Parameters
        ----------
        X : array_like (n, p), a sparse matrix of SciPy or JAX (BCOO), or a pytree of such
            Features; with a formula, a data frame. If one is sparse, all are read as sparse and stay so.
        y : array_like (n,) for GLM, (n, outputs) for PopulationGLM
            Observations; a formula has its own.
        sample_weight : array_like (n,), optional
            Frequencies: a weight of 2 is the sample twice. Only their ratios matter for the fit; their sum
            is the n of the posterior.
        offset : array_like (n,) or, for PopulationGLM, (n, outputs), optional
            Added to the linear predictor, such as the logarithm of the exposure.

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
            If the solver stopped before the optimality conditions held.
        """
        self._release()
        setup, strength, unknowns = self._read_all(X, y, sample_weight, offset)
        refuse_random(unknowns)
        warn_of_fit(self._fit(setup, strength, unknowns, start=self._last_fit(setup)))
        return self

    def predict(self, X, *, offset=None):
        """Mean of y at the fit, shape (n,) for GLM and (n, outputs) for PopulationGLM.

        Under ``nan_policy="drop"`` it is NaN where an entry of X or `offset` is missing.
        """
        return self._predict(X, offset, missing=drops_missing(self.nan_policy))

    def _predict(self, X, offset, *, missing=False):
        spec = self._spec()
        matrix = self._read_new(X, spec, missing=missing)
        with jax.enable_x64(matrix.dtype == np.float64):
            eta = self._linear_predictor(matrix, offset, missing=missing)
            roomy = repeat_first(eta, roomy_length(len(eta), eta.size))
            return np.array(spec.form.link.inverse(roomy))[: len(eta)]

    def score(
        self, X, y=None, *, sample_weight=None, offset=None, score_type=None, multioutput="uniform_average"
    ):  # fmt: skip
        """Score the fit on data.

        Parameters
        ----------
        X, y, sample_weight, offset
            As in `fit`.
        score_type : {"log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"}, optional
            By default the fraction of the deviance explained, D2 (R2 for Gaussian observations), for several
            outputs the mean of theirs. The log-likelihood is that of one sample, the mean over samples and
            outputs; McFadden's score is 1 - log-likelihood / that of the null model, Cohen's
            1 - deviance / that of the null model, each of all outputs together. The null model predicts the
            mean of the y that is scored.
        multioutput : {"uniform_average", "raw_values"}
            Whether the outputs make one score, or have one each.

        Returns
        -------
        float, or numpy.ndarray (outputs,)
        """
        if not isinstance(score_type, str | None) or score_type not in SCORE_TYPES:
            raise ValueError(f"score_type must be one of {SCORE_TYPES}; got {score_type!r}.")
        each = scores_each(multioutput)
        spec = self._spec(needs_dispersion=score_type in ("log-likelihood", "pseudo-r2-McFadden"))
        # In double precision whatever X is: the deviance is a small difference of large sums.
        missing = drops_missing(self.nan_policy)
        matrix = self._read_new(X, spec, missing=missing, with_targets=True).astype(np.float64)
        if spec.layout.terms is not None:
            y = targets_of_formula(spec.layout.terms, X, y, missing=missing, labels=self._has_labels)
        targets, _ = self._read_targets(
            y, len(matrix), spec.form.family, matrix.dtype, spec.outputs.classes, missing=missing
        )
        check_output_names(y, spec.outputs.names)
        weight, _ = self._weights(sample_weight, y, len(matrix), spec.form.family, matrix.dtype, missing=missing)
        with jax.enable_x64(True):
            eta = self._linear_predictor(matrix, offset, missing=missing).reshape(targets.shape)
            kept = ~np.isnan(weight) & ~np.isnan(targets).any(1) & ~np.isnan(eta).any(1) if missing else slice(None)
            if missing and not (weight[kept] > 0).any():
                raise ValueError("nan_policy='drop' leaves no sample to score.")
            targets, eta, weight = targets[kept], eta[kept], weight[kept]
            length = roomy_length(len(eta), eta.size)
            weight = np.append(weight, np.zeros(length - len(eta)))
            roomy = repeat_first(targets, length), repeat_first(eta, length), [weight]
            (found,) = score_fit(*roomy, spec.form, spec.scale, score_type, each=each)
            return found if each else float(found)

    def _release(self):
        """Let go of the data of the last fit before those of the next are put together."""
        for name in ("training_data_", "memory_"):
            if name in vars(self):
                delattr(self, name)

    def _read_all(self, X, y, sample_weight, offset, *, for_sampling=False, terms=None, classes=None):
        """Check all arguments; return a Setup, the strength, and what is unknown of it."""
        setup = self._read(X, y, sample_weight, offset, for_sampling=for_sampling, terms=terms, classes=classes)
        strength, unknowns = read_unknowns(
            self.regularizer_strength, setup.parts.prior, setup.layout, setup.free, output_shape=setup.outputs.shape
        )
        if setup.outputs.classes is not None and unknowns.kinds:
            raise ValueError(
                f"regularizer_strength must be numbers for {type(self).__name__}; got {unknowns.kinds[0]!r}. GLMCV "
                "chooses one."
            )
        if setup.positive is not None and unknowns.kinds:
            kind = unknowns.kinds[0] if isinstance(unknowns.kinds[0], str) else type(unknowns.kinds[0]).__name__
            raise ValueError(
                f"regularizer_strength must be numbers where positive bounds coefficients; got {kind!r}. "
                "GLMCV chooses among numbers."
            )
        return setup, strength, unknowns

    def _last_fit(self, setup):
        """Coefficients and intercepts to start from, or None."""
        if not isinstance(self.warm_start, bool | np.bool_):
            raise ValueError(f"warm_start must be True or False; got {self.warm_start!r}.")
        if not self.warm_start or "coef_" not in vars(self):
            return None
        alike = [
            (layout.treedef, layout.widths, outputs.n_responses, outputs.n_classes)
            for layout, outputs in ((self.spec_.layout, self.spec_.outputs), (setup.layout, setup.outputs))
        ]
        if alike[0] != alike[1]:
            return None
        coef = np.concatenate(jax.tree.leaves(self.coef_)).reshape(setup.free.shape)
        start = Start(np.where(setup.free, coef, 0.0), self.intercept_.ravel() * setup.parts.fit_intercept)
        return start if np.isfinite(coef).all() and np.isfinite(self.intercept_).all() else None

    def _fit(self, setup, strength, unknowns, *, for_sampling=False, start=None):
        """Fit; set the fitted attributes and return a Fitted."""
        prior, given = setup.parts.prior, self.regularizer_strength
        if unknowns.kinds:
            refuse_sparse(setup.data.X, "regularizer_strength='evidence'")
            # Loads what draws need.
            from bayesglm._evidence import most_likely_strengths

            values, fitted = most_likely_strengths(setup, strength, unknowns)
            given = fill_strength(given, prior, unknowns, values)
        else:
            (fitted,) = fit_path(setup, [strength], for_sampling=for_sampling, start=None if start is None else [start])
            if start is not None and not fitted.converged:
                # The last fit may be where the likelihood of other data is flat, or none.
                (fitted,) = fit_path(setup, [strength], for_sampling=for_sampling)
        self._set_fitted(fitted, given)
        return fitted

    def _resolve(self):
        return resolve(
            self.observation_model,
            self.inverse_link_function,
            self.regularizer,
            self.solver_name,
            self.solver_kwargs,
            self.intercept_prior,
            self.dispersion_prior,
            self.fit_intercept,
            self.positive,
        )

    def _read(self, X, y, sample_weight, offset, *, for_sampling=False, terms=None, classes=None):
        """Check all arguments but the strength; return a Setup.

        What an earlier fit knows of the `terms` of the formula and of the `classes` may be handed over.
        """
        parts, missing = self._resolve(), drops_missing(self.nan_policy)
        if self.formula is not None:
            if terms is None:
                terms = read_formula(self.formula, X, missing=missing, fit_intercept=parts.fit_intercept)
            kept = terms.complete(X, with_targets=True) if missing else None
            y = targets_of_formula(terms, X, y, kept=kept, labels=self._has_labels)
            X = terms.design(X, kept=kept)
        matrix, layout = read_design(X, missing=missing)
        if for_sampling:
            refuse_sparse(matrix, "sample")
        layout = replace(layout, terms=terms)
        dtype = matrix.dtype
        family = type(parts.family)
        targets, outputs = self._read_targets(y, len(matrix), family, dtype, classes, missing=missing)
        if for_sampling:
            check_counts(targets, family)
        check_prior_shapes(parts, outputs)
        weight, trials = self._weights(sample_weight, y, len(matrix), family, dtype, missing=missing)
        shift = read_offset(offset, len(matrix), outputs, dtype, missing=missing)
        data, lost = Data(matrix, targets, weight, shift, trials), None
        if missing:
            data, lost = without_missing(data)
        free = read_feature_mask(self.feature_mask, layout, outputs.shape)
        positive = read_positive(self.positive, layout, outputs.shape) & free if parts.prior.has_bounds else None
        return Setup(parts, without_unseen(data), layout, free, outputs, positive, lost)

    def _read_targets(self, y, n_samples, family, dtype, classes=None, *, missing=False):
        """y as an array (n_samples, outputs), and what outputs are."""
        if family.counts_trials:
            if self._population:
                raise ValueError("observation_model 'Binomial' is for GLM, one output; got PopulationGLM.")
            y, _ = read_successes(y, n_samples, missing=missing)
        targets = read_targets(y, n_samples, family, dtype, population=self._population, missing=missing)
        return targets, Outputs(targets.shape[1], self._population, names=output_names(y) if self._population else None)

    @staticmethod
    def _weights(sample_weight, y, n_samples, family, dtype, *, missing):
        """Weights of the samples, times the trials where y counts them, and these."""
        weight = read_weights(sample_weight, n_samples, dtype, missing=missing)
        if not family.counts_trials:
            return weight, None
        _, trials = read_successes(y, n_samples, missing=missing)
        return weight * trials.astype(dtype), trials

    @staticmethod
    def _read_strengths(setup, strengths, labels=("",)):
        """Check strengths against a Setup. Labels begin error messages."""
        read = []
        for label, each in zip(labels, strengths, strict=True):
            try:
                read.append(
                    read_strength(each, setup.parts.prior, setup.layout, setup.free, output_shape=setup.outputs.shape)
                )
            except ValueError as error:
                raise ValueError(f"{label}{error}") from error
        return read

    def _set_fitted(self, fitted, strength):
        spec = fitted.spec
        self.regularizer_strength_ = deepcopy(strength) if strength is self.regularizer_strength else strength
        self.spec_ = spec
        self.training_data_ = fitted.data
        outputs = spec.outputs
        self.coef_ = spec.layout.split(fitted.coef.reshape(-1, *outputs.shape))
        self.intercept_ = fitted.intercept.reshape(outputs.shape or 1)
        self.scale_ = spec.scale[:: outputs.n_classes]
        self.dof_resid_ = fitted.total - fitted.edf
        self.n_samples_dropped_ = fitted.n_dropped
        self.n_features_in_ = spec.layout.n_features
        if spec.layout.is_array and spec.layout.columns[0] is not None:
            self.feature_names_in_ = np.array(spec.layout.columns[0], object)
        elif "feature_names_in_" in vars(self):
            del self.feature_names_in_
        self.n_iter_ = fitted.n_iter
        self.kkt_residual_ = fitted.residual
        self.converged_ = fitted.converged
        if "posterior_" in vars(self):
            del self.posterior_

    def _spec(self, *, needs_dispersion=False):
        """What the fit fixed; a ValueError if it left the dispersion open and that is needed."""
        if "spec_" not in vars(self):
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet: call fit or sample first.")
        if needs_dispersion and np.isnan(self.spec_.scale).any():
            raise ValueError(
                "This needs the dispersion, and scale_ is NaN: the fit has as many effective degrees of freedom as "
                f"samples. Give it, as in {self.spec_.form.family.__name__}(scale=1.0), or use a stronger regularizer."
            )
        return self.spec_

    @staticmethod
    def _read_new(X, spec, *, missing=False, with_targets=False):
        terms = spec.layout.terms
        if terms is not None:
            X = terms.design(X, kept=terms.complete(X, with_targets=with_targets) if missing else None)
        matrix, layout = read_design(X, missing=missing)
        same_layout(layout, spec.layout)
        return matrix

    def _linear_predictor(self, matrix, offset, *, missing=False):
        """At the fit; shape (n,) for GLM and (n, outputs) for PopulationGLM."""
        outputs = self._spec().outputs
        coef = np.concatenate(jax.tree.leaves(self.coef_)).reshape(-1, outputs.count)
        shift = read_offset(offset, len(matrix), outputs, matrix.dtype, missing=missing)
        eta = matrix @ coef + self.intercept_.ravel() + shift
        return eta.reshape(len(matrix), *outputs.shape)


def targets_of_formula(terms, data, y, *, missing=False, kept=None, labels):
    """What a formula has as y, numbers or labels; a ValueError if another y was handed over, too."""
    kept = terms.complete(data, with_targets=True) if missing else kept
    found = terms.labels(data, kept) if labels else terms.targets(data, kept)
    if y is not None:
        some = slice(None) if kept is None else kept
        given, own = np.asarray(y), np.asarray(found)
        if given.size != own.size or not (given.reshape(own.shape)[some] == own[some]).all():
            raise ValueError(
                "y must be None, or what the formula has on its left side, for a model with a formula: hand over the "
                "data frame alone."
            )
    return found
