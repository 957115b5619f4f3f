"""What is Bayesian of the estimator: draws from posterior and prior, and inference at the mode."""

import numbers
from dataclasses import replace

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from bayesglm._draws import draw_y, draw_y_at, prior_draws, thin
from bayesglm._fitted import warn_of_fit
from bayesglm._fitting import fit_path
from bayesglm._incremental import IncrementalGLM
from bayesglm._model import glm_model, read_traced
from bayesglm._options import (
    check_draws,
    check_method,
    check_random_strengths,
    check_run_options,
    drops_missing,
    read_key,
)
from bayesglm._sparse_matrix import refuse_sparse
from bayesglm._strength import fill_strength
from bayesglm._targets import read_offset

__all__ = ["BayesianGLM"]


# Fitted attributes that are not for the user.
INTERNAL = ("memory_", "spec_", "training_data_")


class BayesianGLM(IncrementalGLM):
    """What all models share as posteriors."""

    def __str__(self):
        """The arguments and, once fitted, which prior each strength is."""
        if "spec_" not in vars(self):
            return repr(self)
        from bayesglm._prior_summary import priors_as_text

        with jax.enable_x64(True):
            return f"{self!r}\n{priors_as_text(self.spec_)}"

    def _get_fitted_attr_html(self, doc_link=""):
        """What scikit-learn shows of a fit: what is stored, not what is computed when asked for."""
        stored = {name: value for name, value in vars(self).items() if name not in INTERNAL}
        shown = type(type(self).__name__, (), {"__doc__": type(self).__doc__} | stored)
        return BaseEstimator._get_fitted_attr_html(shown(), doc_link)

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
            Shape (n,) for GLM, (n, outputs) for PopulationGLM; NaN where `predict` is.
        """
        spec = self._spec(needs_dispersion=True)
        entropy = read_key(key)
        mean = self._predict(X, offset, missing=drops_missing(self.nan_policy))
        flat = mean.reshape(len(mean), -1)
        known = ~np.isnan(flat).any(1)
        y = draw_y_at(flat[known], spec, np.random.default_rng(entropy))
        return _in_place(y, known).reshape(len(mean), *spec.outputs.response_shape), mean

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
            normals; "auto" is "mixture", but for "laplace" with fewer features than samples, and where coefficients
            may not be negative. The posterior is the same.
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
        matrix, shift, known = self._read_for_draws(X, offset, "posterior_predictive")
        with jax.enable_x64(matrix.dtype == np.float64):
            draws, labels = read_posterior(self.posterior_, spec)
            draws, labels = thin(draws, labels, num_samples)
            drawn = draw_y(draws, matrix[known], shift[known], spec, np.random.default_rng(seed))
            y, mean = (_in_place(each, known, axis=2) for each in drawn)
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
        matrix, shift, known = self._read_for_draws(X, offset, "prior_predictive")
        with jax.enable_x64(matrix.dtype == np.float64):
            draws = prior_draws(spec, num_samples, seed, matrix.dtype)
            y, _ = draw_y(draws, matrix[known], shift[known], spec, np.random.default_rng(seed))
        groups = prior_groups(draws, _in_place(y, known, axis=2), spec)
        if "posterior_" not in vars(self):
            return groups
        self.posterior_.update(groups.children)
        return self.posterior_

    def _read_for_draws(self, X, offset, what):
        """A dense matrix, the offset (n, outputs), and which samples lack nothing."""
        spec, missing = self._spec(), drops_missing(self.nan_policy)
        matrix = self._read_new(X, spec, missing=missing)
        refuse_sparse(matrix, what)
        shift = read_offset(offset, len(matrix), spec.outputs, matrix.dtype, missing=missing)
        return matrix, shift, ~np.isnan(matrix).any(1) & ~np.isnan(shift).any(1)

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
        matrix = None
        if X is not None:
            matrix, _, known = self._read_for_draws(X, None, "sd_of_effect")
            matrix = matrix[known].astype(np.float64)
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

        For classes (classes, 1 + p, classes, 1 + p), with an axis of responses before if there are several.

        That of the normal approximation of the posterior at the mode; NaN where a parameter is held at zero, as the
        intercept is without `fit_intercept`. It is computed when asked for, from the data of the fit, which stay with
        the model but not with pickles of it (for a container X these are a copy), or from what `partial_fit` keeps.
        """
        covariance, outputs = self._covariance(), self._spec().outputs
        if outputs.classes is None:
            covariance = covariance[:, 0, :, 0]
        return covariance if outputs.several else covariance[0]

    @property
    def standard_errors_(self):
        """Roots of the diagonal of `covariance_`, shaped as `coef_`."""
        from bayesglm._summary import standard_errors

        spec, errors = self._spec(), standard_errors(self._covariance()).T[1:]
        return spec.layout.split(errors.reshape(-1, *spec.outputs.shape))

    @property
    def criteria_(self):
        """Dictionary of edf (effective degrees of freedom), deviance, log_likelihood, aic and bic.

        Floats; for a population arrays, one element per output. Where `fit` estimates the dispersion, the
        log-likelihood is that at deviance / n, as in R.
        """
        from bayesglm._summary import fit_criteria

        found = fit_criteria(self._training_data(), *self._mode())
        values = found if self._spec().outputs.several else map(float, map(np.squeeze, found))
        return dict(zip(found._fields, values, strict=True))

    def _covariance(self, *, expected=False):
        from bayesglm._summary import mode_covariance, remembered_covariance

        if "memory_" in vars(self):
            if expected:
                raise ValueError(
                    'information must be "observed" after partial_fit, which keeps that one; got "expected".'
                )
            spec, coef, _ = self._mode(needs_dispersion=True)
            return remembered_covariance(self.memory_, spec, coef)
        return mode_covariance(self._training_data(), *self._mode(needs_dispersion=True), expected=expected)

    def _mode(self, *, needs_dispersion=False):
        """Spec, coefficients (p, outputs) and intercepts of the fit."""
        coef = np.concatenate(jax.tree.leaves(self.coef_))
        return self._spec(needs_dispersion=needs_dispersion), coef.reshape(len(coef), -1), self.intercept_.ravel()

    def _training_data(self):
        """Data of the fit."""
        self._spec()
        if "memory_" in vars(self):
            raise NotFittedError(
                f"This {type(self).__name__} no longer has the samples of its fit, which partial_fit does not keep: "
                "call fit with all of them."
            )
        if "training_data_" not in vars(self):
            raise NotFittedError(
                f"This {type(self).__name__} no longer has the data of its fit, which files and pickles leave behind, "
                "and which a call of fit that fails lets go of: call fit again."
            )
        refuse_sparse(self.training_data_.X, "Inference at the mode (covariance_, summary, criteria_)")
        return self.training_data_

    def numpyro_model(self, X, y=None, *, sample_weight=None, offset=None):
        """NumPyro model of the fitted GLM, for use with NumPyro's own inference or in a larger model.

        ``MCMC(NUTS(model.numpyro_model), ...).run(key, X, y)`` samples the posterior that `sample` does. The
        priors, k included, are those of the last `fit` or `sample`, whatever X comes here. Returns the
        linear predictor.
        """
        spec = self._spec(needs_dispersion=True)
        return glm_model(spec, *read_traced(X, y, sample_weight, offset, spec))


def _in_place(values, known, axis=0):
    """Values of the samples that are known (n,), along an axis of all of them: NaN for the others."""
    if known.all():
        return values
    values = np.moveaxis(values, axis, 0)
    whole = np.full((len(known), *values.shape[1:]), np.nan, np.result_type(values.dtype, np.float32))
    whole[known] = values
    return np.moveaxis(whole, 0, axis)
