"""Penalized generalized linear models: the mode by `fit`, the posterior by `sample`."""

import jax
import numpy as np
from sklearn.utils import ClassifierTags

from bayesglm._bayesian import BayesianGLM
from bayesglm._estimator import targets_of_formula
from bayesglm._options import drops_missing, resolve
from bayesglm._problem import Outputs
from bayesglm._score import scores_each
from bayesglm._targets import (
    check_output_names,
    label_array,
    missing_labels,
    output_names,
    read_classes,
    read_labels,
    read_weights,
)
from bayesglm.observation_models import CategoricalObservations

__all__ = ["GLM", "ClassifierGLM", "PopulationGLM"]


class GLM(BayesianGLM):
    """Generalized linear model of one output whose regularizer strengths are priors.

    Parameters
    ----------
    observation_model : str or object
        "Poisson", "Gaussian", "Bernoulli", "Gamma", "NegativeBinomial", "Binomial" (y of shape (n, 2), successes and
        trials), or an object of `bayesglm.observation_models`.
    inverse_link_function : str, callable or Link, optional
        "exp", "identity", "logistic", "softplus", "norm.cdf", "cloglog", "one_over_x", or an increasing function of
        JAX arrays. By default the family's.
    regularizer : str or object, optional
        "UnRegularized" (default), "Ridge", "Lasso", "ElasticNet", "GroupLasso", or an object of
        `bayesglm.priors`.
    regularizer_strength : number, array_like or tree, optional
        One number, one per leaf of X, one per coefficient, or any mixture; see the page on strengths. None
        is 1.0, for ElasticNet (1.0, 0.5). "evidence" in place of a number: the strength at which the data are most
        likely, the coefficients integrated out.
    solver_name : str, optional
        "Newton" (smooth regularizers) or "ProximalNewton"; by default chosen by the regularizer.
    solver_kwargs : dict, optional
        ``tol``, the largest correlation of a feature with the residuals that optimality leaves (default 1e-10
        in float64, 2e-6 in float32), and ``maxiter`` (default 100; for large problems with kinks, of each working set).
    intercept_prior : NumPyro distribution, optional
        Prior of the intercept in `sample`; flat by default. `fit` never penalizes the intercept.
    dispersion_prior : {"plug-in", "conditional"}, optional
        Where the variance of Gaussian or the dispersion of Gamma observations is sampled: whether the priors of the
        coefficients keep that of the fit ("plug-in"), or follow the sampled one (k = n / dispersion in each draw).
    formula : str, optional
        What makes y and X from a data frame: see `from_formula`.
    fit_intercept : bool
        Whether the model has an intercept. Without one, `intercept_` is 0, features are not centered, and a constant
        column of X is an intercept with a penalty.
    positive : bool, array_like or tree
        Which coefficients may not be negative: all, those of some leaves of X, or one by one, in the forms that
        `regularizer_strength` may have. The penalty is the same, and so is the prior where it is not zero: half-normal
        for Ridge, exponential for Lasso, flat on [0, inf) without a regularizer. Strengths have to be numbers then.
    nan_policy : {"raise", "drop"}
        What to do about NaN in X, y, `sample_weight` and `offset`: refuse it, or leave those samples out of `fit`,
        `sample` and `score`, and predict NaN for them. Infinite entries are refused always.
    warm_start : bool
        Whether `fit` starts from the coefficients of the last one, if X has the same structure: the same fit, found
        sooner where little changed.

    Attributes
    ----------
    coef_ : numpy.ndarray (p,), or the container of X with one such per leaf
    intercept_ : numpy.ndarray, shape (1,)
    scale_ : numpy.ndarray, shape (1,)
        The family's second parameter: the variance of Gaussian and the dispersion of Gamma observations, Pearson's
        chi-square divided by `dof_resid_`; the overdispersion of NegativeBinomial; 1 for the others.
    dof_resid_ : numpy.ndarray, shape (1,)
        Sum of the weights minus the effective degrees of freedom. Where `scale_` does not rest on them, large problems
        make do with an approximate trace of the hat matrix: that of some samples (smooth penalties), or of the
        solver's last Hessian. For a sparse X under a smooth penalty, beyond 2000 features and samples (500, where
        `scale_` does not rest on it; of classes, 2000 coefficients, also where X is dense) the trace is estimated from
        random vectors, the same ones each time.
    regularizer_strength_ : number, array_like or tree
        The strengths of the fit: `regularizer_strength` with numbers in place of "evidence".
    n_iter_ : int
    converged_ : bool
    kkt_residual_ : float
        Largest violation of the optimality conditions, as a correlation of a feature with the residuals.
    n_features_in_ : int
    n_samples_dropped_ : int
        Samples with a missing entry, that were left out.
    feature_names_in_ : numpy.ndarray of str
        Where X is a data frame.
    posterior_ : xarray.DataTree
        After `sample`.
    memory_ : object
        After `partial_fit`: what it keeps of the samples.
    """

    _population = False


class PopulationGLM(BayesianGLM):
    """Generalized linear models of several outputs that share the features.

    Arguments and attributes are those of `GLM`, with one more axis for the outputs: leaves of `coef_` are
    (p, outputs), `intercept_` and `scale_` are (outputs,). Outputs are independent given the features unless
    a group of GroupLasso spans them.

    Parameters
    ----------
    feature_mask : array_like (p, outputs) or tree like X, optional
        Zeros and ones: coefficients with a zero are not part of the model. In a tree, a leaf may be (outputs,),
        whether the output sees the features of the leaf, or (leaf's features, outputs).
    """

    _population = True

    def __init__(
        self,
        observation_model="Poisson",
        inverse_link_function=None,
        regularizer=None,
        regularizer_strength=None,
        solver_name=None,
        solver_kwargs=None,
        intercept_prior=None,
        dispersion_prior="plug-in",
        feature_mask=None,
        formula=None,
        fit_intercept=True,
        positive=False,
        nan_policy="raise",
        warm_start=False,
    ):
        super().__init__(
            observation_model,
            inverse_link_function,
            regularizer,
            regularizer_strength,
            solver_name,
            solver_kwargs,
            intercept_prior,
            dispersion_prior,
            formula,
            fit_intercept,
            positive,
            nan_policy,
            warm_start,
        )
        self.feature_mask = feature_mask


class ClassifierGLM(BayesianGLM):
    """Generalized linear model of classes whose regularizer strengths are priors: multinomial logistic regression.

    Each class has a linear predictor, and the softmax of these are the probabilities of the classes. All classes have
    coefficients, two as well. What has no prior, as the intercepts, sums to zero over the classes: only differences
    between classes mean something.

    Parameters are those of `GLM` but for bounds, and one more. Strengths are numbers, and may have an axis of classes,
    as those of `PopulationGLM` have one of outputs.

    Parameters
    ----------
    feature_mask : array_like (p, classes) or tree like X, optional
        Zeros and ones: coefficients with a zero are not part of the model. In a tree, a leaf may be (classes,),
        whether the features of the leaf matter for the class, or (leaf's features, classes). For y of several
        columns an axis of responses comes before that of the classes.

    Attributes
    ----------
    classes_ : numpy.ndarray (classes,)
        Labels, in ascending order.
    coef_ : numpy.ndarray (p, classes), or the container of X with one such per leaf
        For y of shape (n, responses), here and below, an axis of responses comes before that of the classes: the
        responses have the same classes, and are independent given the features.
    intercept_ : numpy.ndarray (classes,)
    scale_, dof_resid_ : numpy.ndarray (responses,)
    """

    _population = False
    _has_labels = True
    observation_model = "Categorical"
    inverse_link_function = None
    dispersion_prior = "plug-in"
    positive = False

    def __init__(
        self,
        regularizer=None,
        regularizer_strength=None,
        solver_name=None,
        solver_kwargs=None,
        intercept_prior=None,
        feature_mask=None,
        formula=None,
        fit_intercept=True,
        nan_policy="raise",
        warm_start=False,
    ):
        self.regularizer = regularizer
        self.regularizer_strength = regularizer_strength
        self.solver_name = solver_name
        self.solver_kwargs = solver_kwargs
        self.intercept_prior = intercept_prior
        self.feature_mask = feature_mask
        self.formula = formula
        self.fit_intercept = fit_intercept
        self.nan_policy = nan_policy
        self.warm_start = warm_start

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier"
        tags.regressor_tags = None
        tags.classifier_tags = ClassifierTags()
        tags.target_tags.positive_only = False
        return tags

    def partial_fit(self, X, y=None, classes=None, *, sample_weight=None, offset=None):
        """Fit to more samples, together with those of the calls before: see `GLM.partial_fit`.

        Parameters
        ----------
        X, y, sample_weight, offset
            As in `fit`.
        classes : array_like
            All labels that may come; the first call needs them.

        Returns
        -------
        self
        """
        is_first = "classes_" not in vars(self)
        if is_first and classes is None:
            raise ValueError("classes must hold all labels that may come, at the first call of partial_fit; got None.")
        known = self.classes_ if classes is None else read_classes(classes)
        if not is_first and not np.array_equal(known, self.classes_):
            raise ValueError(
                f"classes must be those of the calls before, {self.classes_.tolist()}; got {known.tolist()}."
            )
        return self._fit_more(X, y, sample_weight, offset, known)

    def predict(self, X, *, offset=None):
        """Label of the most probable class, shape (n,) or (n, responses); nothing of X may be missing."""
        missing = drops_missing(self.nan_policy)
        share = self._predict(X, offset, missing=missing)
        if missing and (lost := np.isnan(share).reshape(len(share), -1).any(1)).any():
            raise ValueError(
                f"X or offset lack an entry in {int(lost.sum())} samples, the first at {int(np.argmax(lost))}, which "
                "have no label then; predict_proba is NaN there."
            )
        return self.classes_[share.argmax(-1)]

    def predict_proba(self, X, *, offset=None):
        """Probability of each class at the fit, shape (n, classes) or (n, responses, classes); in double precision."""
        eta = self._predictor(X, offset)
        with jax.enable_x64(True):
            return np.array(jax.nn.softmax(eta))

    def predict_log_proba(self, X, *, offset=None):
        """Logarithm of `predict_proba`."""
        eta = self._predictor(X, offset)
        with jax.enable_x64(True):
            return np.array(jax.nn.log_softmax(eta))

    def decision_function(self, X, *, offset=None):
        """Linear predictor of each class, (..., classes); of two classes, (...), by how much the second leads."""
        eta = self._predictor(X, offset)
        return eta[..., 1] - eta[..., 0] if eta.shape[-1] == 2 else eta

    def _predictor(self, X, offset):
        missing = drops_missing(self.nan_policy)
        matrix = self._read_new(X, self._spec(), missing=missing)
        return self._linear_predictor(matrix, offset, missing=missing).astype(np.float64)

    def score(
        self, X, y=None, *, sample_weight=None, offset=None, score_type=None, multioutput="uniform_average"
    ):  # fmt: skip
        """Score the fit on data.

        Parameters
        ----------
        X, y, sample_weight, offset
            As in `fit`.
        score_type : {"log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"}, optional
            By default the accuracy, the share of labels that are right; the others as in `GLM.score`.
        multioutput : {"uniform_average", "raw_values"}
            Whether the responses make one score, or have one each.

        Returns
        -------
        float, or numpy.ndarray (responses,)
        """
        each = scores_each(multioutput)
        if score_type is not None:
            settings = {"sample_weight": sample_weight, "offset": offset, "multioutput": multioutput}
            return super().score(X, y, score_type=score_type, **settings)
        terms, missing = self._spec().layout.terms, drops_missing(self.nan_policy)
        share = self._predict(X, offset, missing=missing)
        if terms is not None:
            y = targets_of_formula(terms, X, y, missing=missing, labels=True)
        check_output_names(y, self._spec().outputs.names)
        # Labels that the fit has not seen are wrong, as for scikit-learn.
        labels = label_array(y, len(share))
        if labels.shape != share.shape[:-1]:
            raise ValueError(f"y must have shape {share.shape[:-1]}, as in the fit; got {labels.shape}.")
        lost = missing_labels(labels)
        if lost.any() and not missing:
            raise ValueError("y has missing labels (None, NaN, NA or NaT): drop those samples.")
        if lost.any() and labels.dtype.kind == "O":
            # pandas's NA is neither equal to a label nor different.
            labels = np.where(lost, None, labels)
        right = (self.classes_[share.argmax(-1)] == labels).reshape(len(labels), -1)
        weight = read_weights(sample_weight, len(right), np.float64, missing=missing)
        if missing:
            known = ~lost.reshape(right.shape).any(1) & np.isfinite(share.reshape(len(right), -1)).all(1)
            weight = np.where(known, np.nan_to_num(weight), 0.0)
        found = np.average(right, axis=0, weights=weight)
        return found if each else float(found.mean())

    def simulate(self, key, X, *, offset=None):
        """Draw labels at the fit: y of shape (n,) or (n, responses), and the probabilities of the classes.

        Nothing of X may be missing.
        """
        self.predict(X, offset=offset)
        y, mean = super().simulate(key, X, offset=offset)
        return self.classes_[y], mean

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
            families={"Categorical": CategoricalObservations},
        )

    def _read_targets(self, y, n_samples, family, dtype, classes=None, *, missing=False):
        targets, classes, several = read_labels(y, n_samples, dtype, classes, missing=missing)
        return targets, Outputs(
            targets.shape[1] // len(classes), several, classes, output_names(y) if several else None
        )

    def _set_fitted(self, fitted, strength):
        super()._set_fitted(fitted, strength)
        self.classes_ = fitted.spec.outputs.classes
