"""Penalized generalized linear models: the mode by `fit`, the posterior by `sample`."""

import numbers
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import RegressorTags

from bayesglm import links
from bayesglm._design import read_design, same_layout
from bayesglm._draws import draw_y, draw_y_at, prior_draws, thin
from bayesglm._fitting import Setup, fit_path, warn_of_fit
from bayesglm._formula import read_formula
from bayesglm._model import glm_model, read_traced
from bayesglm._options import (
    check_draws,
    check_method,
    check_prior_shapes,
    check_random_strengths,
    check_run_options,
    read_key,
    resolve,
)
from bayesglm._problem import Data, without_unseen
from bayesglm._score import SCORE_TYPES, score_fit
from bayesglm._strength import fill_strength, read_feature_mask, read_strength, read_unknowns, refuse_random
from bayesglm._targets import check_counts, read_offset, read_targets, read_weights
from bayesglm.observation_models import GaussianObservations

__all__ = ["GLM", "PopulationGLM"]


class _PenalizedGLM(BaseEstimator):
    """What GLM and PopulationGLM share; they differ in whether coefficients have an output axis."""

    _population: ClassVar[bool]
    feature_mask: Any = None

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
        formula=None,
    ):
        self.observation_model = observation_model
        self.inverse_link_function = inverse_link_function
        self.regularizer = regularizer
        self.regularizer_strength = regularizer_strength
        self.solver_name = solver_name
        self.solver_kwargs = solver_kwargs
        self.intercept_prior = intercept_prior
        self.dispersion_prior = dispersion_prior
        self.formula = formula

    @classmethod
    def from_formula(cls, formula, data, *, sample_weight=None, offset=None, **settings):
        """Fit a model that a formula describes; each of its terms is a leaf of X.

        Parameters
        ----------
        formula : str
            As in R, read by formulaic: ``"visits ~ 0 + plan + poly(age, 2)"``. The model always has an intercept; with
            ``0 +`` a factor has a coefficient for each level, which a prior makes sense of.
        data : data frame
            Missing values are an error.
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

    def __sklearn_clone__(self):
        twin = BaseEstimator.__sklearn_clone__(self)
        # scikit-learn copies callables; a copy of a JAX function would compile anew.
        twin.inverse_link_function = self.inverse_link_function
        # It copies the elements of a list one by one; a distribution that comes twice is to stay one.
        twin.regularizer_strength = deepcopy(self.regularizer_strength)
        return twin

    def __sklearn_tags__(self):
        tags = BaseEstimator.__sklearn_tags__(self)
        tags.estimator_type = "regressor"
        tags.regressor_tags = RegressorTags()
        tags.target_tags.required = True
        tags.target_tags.multi_output = self._population
        tags.target_tags.single_output = not self._population
        tags.target_tags.positive_only = self.observation_model != "Gaussian" and not isinstance(
            self.observation_model, GaussianObservations
        )
        return tags

    def _repr_html_inner(self):
        return BaseEstimator._repr_html_inner(self) + self._priors_as_html()

    def _repr_mimebundle_(self, **options):
        bundle = BaseEstimator._repr_mimebundle_(self, **options)
        if "text/html" in bundle:
            bundle["text/html"] += self._priors_as_html()
        return bundle

    def _priors_as_html(self):
        """Which prior each strength is, below scikit-learn's diagram of a fitted model."""
        if "spec_" not in vars(self):
            return ""
        return "<p>The strengths as priors:</p>" + self.prior_summary().to_html(
            max_rows=20, float_format="{:.3g}".format
        )

    def __getstate__(self):
        state = dict(BaseEstimator.__getstate__(self))
        state.pop("training_data_", None)
        # JAX's functions cannot be pickled, and a copy of one would compile anew: their address travels.
        state["_link_address"] = links.public_address(self.inverse_link_function)
        if state["_link_address"] is not None:
            state["inverse_link_function"] = None
        return state

    def __setstate__(self, state):
        state = dict(state)
        address = state.pop("_link_address")
        if address is not None:
            state["inverse_link_function"] = getattr(links.PUBLIC_MODULES[address[0]], address[1])
        BaseEstimator.__setstate__(self, state)

    def fit(self, X, y=None, *, sample_weight=None, offset=None):
        """Find the penalized fit, which is the mode of the posterior.

        Parameters
        ----------
        X : array_like (n, p), or a pytree of such
            Features; with a formula, a data frame.
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
        warn_of_fit(self._fit(setup, strength, unknowns))
        return self

    def predict(self, X, *, offset=None):
        """Mean of y at the fit, shape (n,) for GLM and (n, outputs) for PopulationGLM."""
        spec = self._spec()
        matrix = self._read_new(X, spec)
        with jax.enable_x64(matrix.dtype == np.float64):
            return np.array(spec.form.link.inverse(self._linear_predictor(matrix, offset)))

    def score(self, X, y=None, *, sample_weight=None, offset=None, score_type=None):
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

        Returns
        -------
        float
        """
        if not isinstance(score_type, str | None) or score_type not in SCORE_TYPES:
            raise ValueError(f"score_type must be one of {SCORE_TYPES}; got {score_type!r}.")
        spec = self._spec(needs_dispersion=score_type in ("log-likelihood", "pseudo-r2-McFadden"))
        # In double precision whatever X is: the deviance is a small difference of large sums.
        matrix = self._read_new(X, spec).astype(np.float64)
        y = y if spec.layout.terms is None else spec.layout.terms.targets(X)
        targets = read_targets(y, len(matrix), spec.form.family, matrix.dtype, population=self._population)
        weight = read_weights(sample_weight, len(matrix), matrix.dtype)
        with jax.enable_x64(True):
            eta = self._linear_predictor(matrix, offset).reshape(targets.shape)
            return float(score_fit(targets, eta, [weight], spec.form, spec.scale, score_type)[0])

    def simulate(self, key, X, *, offset=None):
        """Draw y at the fit.

        Parameters
        ----------
        key : int or jax.random.key
            Source of randomness.
        X : as in `fit`
        offset : array_like, optional

        Returns
        -------
        y, mean : numpy.ndarray
            Shape (n,) for GLM, (n, outputs) for PopulationGLM.
        """
        spec = self._spec(needs_dispersion=True)
        entropy = read_key(key)
        mean = self.predict(X, offset=offset)
        y = draw_y_at(mean.reshape(len(mean), -1), spec, np.random.default_rng(entropy))
        return y.reshape(mean.shape), mean

    def sample(
        self,
        X,
        y=None,
        *,
        sample_weight=None,
        offset=None,
        num_samples=1000,
        num_warmup=None,
        num_chains=4,
        seed=0,
        method="auto",
        parametrization="auto",
        target_accept_prob=0.8,
        max_tree_depth=10,
        progress_bar=True,
        log_likelihood=None,
        posterior_predictive=None,
    ):
        """Fit, then draw from the posterior of the very same model.

        Parameters
        ----------
        X, y, sample_weight, offset
            As in `fit`.
        num_samples, num_warmup, num_chains : int
            Draws kept per chain, draws before them that tune a Markov chain (None: 200 for "hmc", 500 for "nuts"),
            and chains.
        seed : int
        method : {"auto", "exact", "hmc", "nuts", "laplace"}
            "exact": independent draws, for Gaussian observations with the identity link and normal or flat priors.
            "hmc": Hamiltonian Monte Carlo with trajectories of a quarter turn, in coordinates in which the posterior
            looks round at the mode. "nuts": NumPyro's No-U-Turn sampler in the same coordinates. "auto": "exact" where
            that is possible, otherwise "hmc", or "nuts" where the warm-up of "hmc" finds no steps that are accepted.
            "laplace": draws from the normal approximation at the mode, with Pareto-smoothed importance weights.
        parametrization : {"auto", "direct", "mixture"}
            Whether samplers see priors with kinks (Lasso, ElasticNet, GroupLasso) as they are or as scale mixtures of
            normals; "auto" is "mixture", but for "laplace" with fewer features than samples. The posterior is the same.
        target_accept_prob : float
            Acceptance of trajectories that tuning aims at, between 0 and 1; closer to 1 takes smaller steps and
            diverges less.
        max_tree_depth : int
            A trajectory of "nuts" makes at most 2**max_tree_depth - 1 steps.
        progress_bar : bool
        log_likelihood, posterior_predictive : bool, optional
            Whether to store these groups, one number per draw and sample each. By default they are stored
            up to 1e8 numbers.

        Returns
        -------
        xarray.DataTree
            Groups posterior, sample_stats, log_prior, observed_data, constant_data and, up to their size,
            log_likelihood and posterior_predictive; also kept as `posterior_`. The attributes of sample_stats tell the
            sampler and, for "laplace", k-hat and the effective number of draws (the worst of all outputs).

        Raises
        ------
        ValueError
            If an argument does not make sense, or the posterior is improper: some direction has no prior and
            the data do not hold it.

        Warns
        -----
        UserWarning
            If transitions diverge, chains disagree, the effective sample size is small, the energy moves slowly, or
            the normal approximation of "laplace" is not close to the posterior.
        """
        # ArviZ loads on first use: a fit does not need it.
        from bayesglm._sampling import Engine, Run, check_propriety, draw_posterior, in_safe_precision

        counts = {
            "num_samples": num_samples,
            "num_warmup": num_warmup,
            "num_chains": num_chains,
            "max_tree_depth": max_tree_depth,
        }
        check_run_options(method, parametrization, counts, seed, target_accept_prob)
        check_method(method, self._resolve())
        engine = Engine(
            method=method,
            num_samples=int(num_samples),
            num_warmup=None if num_warmup is None else int(num_warmup),
            num_chains=int(num_chains),
            seed=int(seed),
            target_accept_prob=float(target_accept_prob),
            max_tree_depth=int(max_tree_depth),
        )
        run = Run(engine, parametrization, progress_bar, log_likelihood, posterior_predictive)
        self._release()
        setup, strength, unknowns = self._read_all(X, y, sample_weight, offset, for_sampling=True)
        if unknowns.are_random:
            return self._sample_strengths(setup, strength, unknowns, run)
        fitted = self._fit(setup, strength, unknowns, for_sampling=True)
        with jax.enable_x64(fitted.data.X.dtype == np.float64):
            check_propriety(fitted)
            warn_of_fit(fitted)
        fitted = in_safe_precision(fitted)
        with jax.enable_x64(fitted.data.X.dtype == np.float64):
            self.posterior_, _ = draw_posterior(fitted, run)
        return self.posterior_

    def _sample_strengths(self, setup, strength, unknowns, run):
        """Draw from the posterior of strengths and coefficients; the fit is then that at the strengths' medians."""
        from bayesglm._hyperpriors import fit_at_medians, start_of_sampler
        from bayesglm._sampling import check_propriety, draw_posterior, in_safe_precision

        prior = setup.parts.prior
        check_random_strengths(run.engine.method, unknowns.kinds)
        with jax.enable_x64(setup.data.X.dtype == np.float64):
            fitted, medians = fit_at_medians(setup, strength, unknowns)
            check_propriety(fitted)
        start, values = start_of_sampler(setup, fitted, unknowns, medians)
        start = in_safe_precision(start)
        with jax.enable_x64(start.data.X.dtype == np.float64):
            tree, posterior = draw_posterior(start, run, values)
        medians = np.median(posterior.strength.reshape(-1, len(values)), axis=0).astype(float)
        (fitted,) = fit_path(setup, [unknowns.put(strength, medians)], for_sampling=True)
        warn_of_fit(fitted)
        # The priors are those of the draws.
        fitted = replace(fitted, spec=replace(fitted.spec, hyper=start.spec.hyper, k=start.spec.k))
        self._set_fitted(fitted, fill_strength(self.regularizer_strength, prior, unknowns, medians))
        self.posterior_ = tree
        return tree

    def posterior_predictive(self, X, *, offset=None, num_samples=None, seed=0):
        """Draw y for new samples, once per draw of the posterior.

        Parameters
        ----------
        X, offset
            As in `fit`, of any number of samples.
        num_samples : int, optional
            Draws of each chain to use, evenly spread; all by default.
        seed : int

        Returns
        -------
        xarray.DataTree
            `posterior_`, to which the groups predictions (y, and its mean in each draw) and
            predictions_constant_data were added, in place of those of an earlier call.

        Raises
        ------
        NotFittedError
            Before `sample`.

        Warns
        -----
        UserWarning
            If the link takes means out of the family's domain; their y are NaN.
        """
        from bayesglm._inference_data import prediction_groups, read_posterior

        spec = self._spec()
        if "posterior_" not in vars(self):
            raise NotFittedError(f"This {type(self).__name__} has no posterior yet: call sample first.")
        check_draws(num_samples, seed)
        matrix = self._read_new(X, spec)
        shift = read_offset(offset, len(matrix), len(spec.k), matrix.dtype, population=self._population)
        with jax.enable_x64(matrix.dtype == np.float64):
            draws, labels = read_posterior(self.posterior_, spec)
            draws, labels = thin(draws, labels, num_samples)
            y, mean = draw_y(draws, matrix, shift, spec, np.random.default_rng(seed))
        self.posterior_.update(prediction_groups(y, mean, matrix, shift, labels, spec).children)
        return self.posterior_

    def prior_predictive(self, X, *, offset=None, num_samples=1000, seed=0):
        """Draw the parameters from the priors of the last fit, and y at each draw.

        Parameters
        ----------
        X, offset
            As in `fit`, of any number of samples.
        num_samples, seed : int

        Returns
        -------
        xarray.DataTree
            Groups prior and prior_predictive, of one chain; added to `posterior_` if there is one.

        Raises
        ------
        ValueError
            If some prior is flat: nothing can be drawn from it.

        Warns
        -----
        UserWarning
            If the link takes means out of the family's domain; their y are NaN.
        """
        from bayesglm._inference_data import prior_groups

        check_draws(num_samples, seed, optional=False)
        spec = self._spec(needs_dispersion=True)
        if flat := spec.without_prior():
            raise ValueError(
                f"There is no prior predictive distribution, for the prior is flat of {' and of '.join(flat)}."
            )
        matrix = self._read_new(X, spec)
        shift = read_offset(offset, len(matrix), len(spec.k), matrix.dtype, population=self._population)
        with jax.enable_x64(matrix.dtype == np.float64):
            draws = prior_draws(spec, num_samples, seed, matrix.dtype)
            y, _ = draw_y(draws, matrix, shift, spec, np.random.default_rng(seed))
        groups = prior_groups(draws, y, spec)
        if "posterior_" not in vars(self):
            return groups
        self.posterior_.update(groups.children)
        return self.posterior_

    def prior_summary(self, X=None):
        """Tell which prior each strength is.

        Parameters
        ----------
        X : as in `fit`, optional
            For the column ``sd_of_effect``.

        Returns
        -------
        pandas.DataFrame
            One row per set of coefficients of a leaf that share a prior, in the order of the leaves, then the
            intercept and the dispersion where it is sampled. ``sd`` is the prior standard deviation of a
            coefficient, ``sd_of_effect`` that of its effect on the linear predictor: times the standard
            deviation of the feature (the root mean square over the features of the row). The priors are those
            of the last fit, at its dispersion.

        Raises
        ------
        NotFittedError
            Before `fit` and `sample`: a prior depends on the number of samples and on the dispersion.
        """
        from bayesglm._prior_summary import summarize_priors

        spec = self._spec()
        matrix = None if X is None else self._read_new(X, spec).astype(np.float64)
        with jax.enable_x64(True):
            return summarize_priors(matrix, spec)

    def summary(self, *, level=0.95, information="observed"):
        """Tabulate the fit with its uncertainty, from the curvature of the penalized likelihood at the mode.

        That is the posterior's but for an `intercept_prior`, of which `fit` knows nothing.
        Quick and approximate: `sample` does without the approximation. The table of a regularizer with zeros speaks of
        the coefficients that were selected, given that they were: a coefficient of zero has no standard error there,
        which does not mean that it is known to be zero.

        Parameters
        ----------
        level : float
            Probability of the intervals.
        information : {"observed", "expected"}
            Curvature of the likelihood: as it is, which is the posterior's, or its expectation over y, as in R's
            tables. They differ for links that are not canonical.

        Returns
        -------
        pandas.DataFrame
            One row per parameter that is not held at zero by `feature_mask`; columns estimate, se (standard error),
            the ends of the interval, and prior_sd, the standard deviation of the prior.

        Raises
        ------
        NotFittedError
            Before `fit`, and where the model was pickled since: its data did not travel along.
        ValueError
            If the data were changed in place so that the fit is no longer theirs, or the mode has no covariance
            (collinear features without a strength, no residuals).
        """
        from bayesglm._summary import summary_table

        if not isinstance(level, numbers.Real) or not 0 < float(level) < 1:
            raise ValueError(f"level must be a number between 0 and 1; got {level!r}.")
        if information not in ("observed", "expected"):
            raise ValueError(f'information must be "observed" or "expected"; got {information!r}.')
        covariance = self._covariance(expected=information == "expected")
        spec, coef, intercept = self._mode()
        return summary_table(covariance, spec, coef, intercept, float(level))

    @property
    def covariance_(self):
        """Covariance of the parameters, the intercept first: (1 + p, 1 + p); for a population (outputs, 1 + p, 1 + p).

        That of the normal approximation of the posterior at the mode; NaN where a coefficient is held at zero. It is
        computed when asked for, from the data of the fit, which stay with the model but not with pickles of it: for a
        container X these are a copy.
        """
        covariance = self._covariance()
        return covariance if self._population else covariance[0]

    @property
    def standard_errors_(self):
        """Roots of the diagonal of `covariance_`, shaped as `coef_`."""
        errors = np.sqrt(np.diagonal(self._covariance(), axis1=1, axis2=2)).T[1:]
        return self._spec().layout.split(errors if self._population else errors[:, 0])

    @property
    def criteria_(self):
        """Dictionary of edf (effective degrees of freedom), deviance, log_likelihood, aic and bic.

        Floats; for a population arrays, one element per output. Where `fit` estimates the dispersion, the
        log-likelihood is that at deviance / n, as in R.
        """
        from bayesglm._summary import fit_criteria

        found = fit_criteria(self._training_data(), *self._mode())
        values = found if self._population else map(float, map(np.squeeze, found))
        return dict(zip(found._fields, values, strict=True))

    def _covariance(self, *, expected=False):
        from bayesglm._summary import mode_covariance

        return mode_covariance(self._training_data(), *self._mode(needs_dispersion=True), expected=expected)

    def _mode(self, *, needs_dispersion=False):
        """Spec, coefficients (p, outputs) and intercepts of the fit."""
        coef = np.concatenate(jax.tree.leaves(self.coef_))
        return self._spec(needs_dispersion=needs_dispersion), coef.reshape(len(coef), -1), self.intercept_

    def _release(self):
        """Let go of the data of the last fit before those of the next are put together."""
        if "training_data_" in vars(self):
            del self.training_data_

    def _training_data(self):
        """Data of the fit."""
        self._spec()
        if "training_data_" not in vars(self):
            raise NotFittedError(
                f"This {type(self).__name__} no longer has the data of its fit, which pickles leave behind, and which "
                "a call of fit that fails lets go of: call fit again."
            )
        return self.training_data_

    def numpyro_model(self, X, y=None, *, sample_weight=None, offset=None):
        """NumPyro model of the fitted GLM, for use with NumPyro's own inference or in a larger model.

        ``MCMC(NUTS(model.numpyro_model), ...).run(key, X, y)`` samples the posterior that `sample` does. The
        priors, k included, are those of the last `fit` or `sample`, whatever X comes here. Returns the
        linear predictor.
        """
        spec = self._spec(needs_dispersion=True)
        return glm_model(spec, *read_traced(X, y, sample_weight, offset, spec))

    def _read_all(self, X, y, sample_weight, offset, *, for_sampling=False):
        """Check all arguments; return a Setup, the strength, and what is unknown of it."""
        setup = self._read(X, y, sample_weight, offset, for_sampling=for_sampling)
        strength, unknowns = read_unknowns(
            self.regularizer_strength, setup.parts.prior, setup.layout, setup.free, population=setup.population
        )
        return setup, strength, unknowns

    def _fit(self, setup, strength, unknowns, *, for_sampling=False):
        """Fit; set the fitted attributes and return a Fitted."""
        prior, given = setup.parts.prior, self.regularizer_strength
        if unknowns.kinds:
            # Loads what draws need.
            from bayesglm._evidence import most_likely_strengths

            values, fitted = most_likely_strengths(setup, strength, unknowns)
            given = fill_strength(given, prior, unknowns, values)
        else:
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
        )

    def _read(self, X, y, sample_weight, offset, *, for_sampling=False):
        """Check all arguments but the strength; return a Setup."""
        parts = self._resolve()
        terms = None
        if self.formula is not None:
            terms = read_formula(self.formula, X)
            X, y = terms.design(X), terms.targets(X)
        matrix, layout = read_design(X)
        layout = replace(layout, terms=terms)
        dtype = matrix.dtype
        family = type(parts.family)
        targets = read_targets(y, len(matrix), family, dtype, population=self._population)
        if for_sampling:
            check_counts(targets, family)
        n_outputs = targets.shape[1]
        check_prior_shapes(parts, n_outputs, population=self._population)
        weight = read_weights(sample_weight, len(matrix), dtype)
        shift = read_offset(offset, len(matrix), n_outputs, dtype, population=self._population)
        data = without_unseen(Data(matrix, targets, weight, shift))
        free = read_feature_mask(self.feature_mask, layout, n_outputs)
        return Setup(parts, data, layout, free, self._population)

    @staticmethod
    def _read_strengths(setup, strengths, labels=("",)):
        """Check strengths against a Setup. Labels begin error messages."""
        read = []
        for label, each in zip(labels, strengths, strict=True):
            try:
                read.append(
                    read_strength(each, setup.parts.prior, setup.layout, setup.free, population=setup.population)
                )
            except ValueError as error:
                raise ValueError(f"{label}{error}") from error
        return read

    def _set_fitted(self, fitted, strength):
        spec = fitted.spec
        self.regularizer_strength_ = strength
        self.spec_ = spec
        self.training_data_ = fitted.data
        self.coef_ = spec.layout.split(fitted.coef if self._population else fitted.coef[:, 0])
        self.intercept_ = fitted.intercept
        self.scale_ = spec.scale
        self.dof_resid_ = fitted.total - fitted.edf
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
    def _read_new(X, spec):
        terms = spec.layout.terms
        matrix, layout = read_design(X if terms is None else terms.design(X))
        same_layout(layout, spec.layout)
        return matrix

    def _linear_predictor(self, matrix, offset):
        """At the fit; shape (n,) for GLM and (n, outputs) for PopulationGLM."""
        coef = np.concatenate(jax.tree.leaves(self.coef_))
        intercept = self.intercept_ if self._population else self.intercept_[0]
        shift = read_offset(offset, len(matrix), len(self.intercept_), matrix.dtype, population=self._population)
        return matrix @ coef + intercept + (shift if self._population else shift[:, 0])


class GLM(_PenalizedGLM):
    """Generalized linear model of one output whose regularizer strengths are priors.

    Parameters
    ----------
    observation_model : str or object
        "Poisson", "Gaussian", "Bernoulli", "Gamma", "NegativeBinomial", or an object of
        `bayesglm.observation_models`.
    inverse_link_function : str, callable or Link, optional
        "exp", "identity", "logistic", "softplus", "norm.cdf", "one_over_x", or an increasing function of JAX
        arrays. By default the family's.
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
        solver's last Hessian.
    regularizer_strength_ : number, array_like or tree
        The strengths of the fit: `regularizer_strength` with numbers in place of "evidence".
    n_iter_ : int
    converged_ : bool
    kkt_residual_ : float
        Largest violation of the optimality conditions, as a correlation of a feature with the residuals.
    n_features_in_ : int
    feature_names_in_ : numpy.ndarray of str
        Where X is a data frame.
    posterior_ : xarray.DataTree
        After `sample`.
    """

    _population = False


class PopulationGLM(_PenalizedGLM):
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
        )
        self.feature_mask = feature_mask
