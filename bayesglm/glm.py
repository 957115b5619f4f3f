"""Penalized generalized linear models: the mode by `fit`, the posterior by `sample`."""

import numbers
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from bayesglm import links, observation_models, priors
from bayesglm._design import read_design, same_layout
from bayesglm._map import find_modes
from bayesglm._model import Spec, glm_model, read_traced_design
from bayesglm._posterior import Form
from bayesglm._problem import Data, make_batches, per_output
from bayesglm._strength import read_strength
from bayesglm._targets import check_counts, read_offset, read_targets, read_weights

__all__ = ["GLM", "PopulationGLM"]

FAMILIES: dict[str, type] = {
    "Poisson": observation_models.PoissonObservations,
    "Gaussian": observation_models.GaussianObservations,
    "Bernoulli": observation_models.BernoulliObservations,
}
REGULARIZERS: dict[str, type] = {
    "UnRegularized": priors.UnRegularized,
    "Ridge": priors.Ridge,
    "Lasso": priors.Lasso,
    "ElasticNet": priors.ElasticNet,
    "GroupLasso": priors.GroupLasso,
}
LINKS = {link.name: link for link in (links.EXP, links.IDENTITY, links.LOGISTIC)}
SOLVERS = ("Newton", "ProximalNewton")
METHODS = ("nuts",)


class _Parts(NamedTuple):
    """The constructor's arguments, resolved."""

    family: Any
    link: links.Link
    prior: Any
    tol: float | None
    max_iter: int


class _Fitted(NamedTuple):
    """What `sample` takes over from the fit."""

    data: Data
    batches: list
    modes: list
    spec: Spec


class _PenalizedGLM(BaseEstimator):
    """What GLM and PopulationGLM share; they differ in whether coefficients have an output axis."""

    _population: ClassVar[bool]

    def __init__(
        self,
        observation_model="Poisson",
        inverse_link_function=None,
        regularizer=None,
        regularizer_strength=None,
        solver_name=None,
        solver_kwargs=None,
        intercept_prior=None,
    ):
        self.observation_model = observation_model
        self.inverse_link_function = inverse_link_function
        self.regularizer = regularizer
        self.regularizer_strength = regularizer_strength
        self.solver_name = solver_name
        self.solver_kwargs = solver_kwargs
        self.intercept_prior = intercept_prior

    def fit(self, X, y, *, sample_weight=None, offset=None):
        """Find the penalized fit, which is the mode of the posterior.

        Parameters
        ----------
        X : array_like (n, p), or a pytree of such
            Features.
        y : array_like (n,) for GLM, (n, outputs) for PopulationGLM
            Observations.
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
        self._fit(X, y, sample_weight, offset)
        return self

    def predict(self, X, *, offset=None):
        """Mean of y at the fit, shape (n,) for GLM and (n, outputs) for PopulationGLM."""
        spec = self._spec()
        matrix = self._read_new(X, spec)
        with jax.enable_x64(matrix.dtype == np.float64):
            return np.asarray(spec.form.link.inverse(self._linear_predictor(matrix, offset)))

    def score(self, X, y, *, sample_weight=None, offset=None):
        """Fraction of the deviance explained, D2; R2 for Gaussian observations.

        The null model predicts the weighted mean of the y that is scored. For several outputs, the mean of
        their scores.
        """
        spec = self._spec()
        matrix = self._read_new(X, spec)
        family = spec.form.family
        targets = read_targets(y, len(matrix), family, matrix.dtype, population=self._population)
        weight = read_weights(sample_weight, len(matrix), matrix.dtype)
        with jax.enable_x64(matrix.dtype == np.float64):
            eta = self._linear_predictor(matrix, offset).reshape(targets.shape)
            deviance = weight @ (family.nll(targets, eta, spec.form.link) - family.saturated_nll(targets))
            mean = np.broadcast_to(weight @ targets / weight.sum(), targets.shape)
            varies = np.ptp(targets, axis=0) > 0
            inside = np.where(varies, mean, 0.5)
            null = weight @ (family.nll(targets, inside, links.IDENTITY) - family.saturated_nll(targets))
            explained = 1 - np.asarray(deviance) / np.where(varies, np.asarray(null), 1.0)
        return float(np.mean(np.where(varies, explained, np.asarray(deviance) == 0)))

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
        spec = self._spec()
        mean = self.predict(X, offset=offset)
        entropy = key if isinstance(key, numbers.Integral) else np.asarray(jax.random.key_data(key)).tolist()
        dispersion = spec.dispersion if self._population else spec.dispersion[0]
        return spec.form.family.draw(np.random.default_rng(entropy), mean, dispersion), mean

    def sample(
        self,
        X,
        y,
        *,
        sample_weight=None,
        offset=None,
        num_samples=1000,
        num_warmup=500,
        num_chains=4,
        seed=0,
        method="nuts",
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
            Draws kept per chain, draws before them that tune the sampler, and chains.
        seed : int
        method : {"nuts"}
        target_accept_prob : float
            Between 0 and 1; closer to 1 takes smaller steps and diverges less.
        max_tree_depth : int
            A trajectory makes at most 2**max_tree_depth - 1 steps.
        progress_bar : bool
        log_likelihood, posterior_predictive : bool, optional
            Whether to store these groups, one number per draw and sample each. By default they are stored
            up to 1e8 numbers.

        Returns
        -------
        xarray.DataTree
            Groups posterior, sample_stats, log_prior, observed_data, constant_data and, up to their size,
            log_likelihood and posterior_predictive; also kept as `posterior_`.

        Raises
        ------
        ValueError
            If an argument does not make sense, or the posterior is improper: some direction has no prior and
            the data do not hold it.

        Warns
        -----
        UserWarning
            If transitions diverge, chains disagree or the effective sample size is small.
        """
        # ArviZ loads on first use: a fit does not need it.
        from bayesglm._sampling import Run, check_propriety, draw_posterior

        if method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}; got {method!r}.")
        counts = {"num_samples": num_samples, "num_warmup": num_warmup, "num_chains": num_chains}
        for name, value in {**counts, "max_tree_depth": max_tree_depth}.items():
            if not isinstance(value, numbers.Integral) or value < (0 if name == "num_warmup" else 1):
                raise ValueError(f"{name} must be a positive integer; got {value!r}.")
        if not isinstance(seed, numbers.Integral):
            raise ValueError(f"seed must be an integer; got {seed!r}.")
        if not 0 < target_accept_prob < 1:
            raise ValueError(f"target_accept_prob must lie between 0 and 1; got {target_accept_prob!r}.")
        run = Run(
            int(num_samples), int(num_warmup), int(num_chains), int(seed), float(target_accept_prob),
            int(max_tree_depth), progress_bar, log_likelihood, posterior_predictive,
        )  # fmt: skip
        data, batches, modes, spec = self._fit(X, y, sample_weight, offset, for_sampling=True)
        with jax.enable_x64(data.X.dtype == np.float64):
            eta = data.offset + per_output(batches, [m.intercept for m in modes])
            eta = eta + data.X @ per_output(batches, [m.coef for m in modes])
            flat = np.asarray(spec.form.prior.is_flat(spec.strength))
            check_propriety(data, eta, spec, flat)
            self.posterior_ = draw_posterior(batches, modes, data, spec, run)
        return self.posterior_

    def numpyro_model(self, X, y=None, *, sample_weight=None, offset=None):
        """NumPyro model of the fitted GLM, for use with NumPyro's own inference or in a larger model.

        ``MCMC(NUTS(model.numpyro_model), ...).run(key, X, y)`` samples the posterior that `sample` does. The
        priors, k included, are those of the last `fit` or `sample`, whatever X comes here. Returns the
        linear predictor.
        """
        spec = self._spec()
        matrix = read_traced_design(X, spec.layout)
        weight = np.ones(len(matrix)) if sample_weight is None else sample_weight
        return glm_model(spec, matrix, y, weight, 0.0 if offset is None else offset)

    def _fit(self, X, y, sample_weight, offset, *, for_sampling=False):
        """Check all arguments, then fit; sets the fitted attributes and returns a _Fitted."""
        parts = self._resolve()
        matrix, layout = read_design(X)
        dtype = matrix.dtype
        family = type(parts.family)
        targets = read_targets(y, len(matrix), family, dtype, population=self._population)
        if for_sampling:
            check_counts(targets, family)
        n_outputs = targets.shape[1]
        data = Data(
            matrix,
            targets,
            read_weights(sample_weight, len(matrix), dtype),
            read_offset(offset, len(matrix), n_outputs, dtype, population=self._population),
        )
        strength = read_strength(
            self.regularizer_strength, parts.prior, layout, n_outputs, population=self._population
        )
        batches = make_batches(data, strength)
        tol = parts.tol if parts.tol is not None else (1e-10 if dtype == np.float64 else 1e-5)
        with jax.enable_x64(dtype == np.float64):
            modes = [
                jax.tree.map(
                    np.asarray,
                    find_modes(
                        data.X, data.weight, batch.y, batch.offset, batch.strength, tol, parts.max_iter,
                        family=family, link=parts.link, prior=type(parts.prior),
                    ),
                )
                for batch in batches
            ]  # fmt: skip
        spec = _make_spec(parts, self.intercept_prior, layout, self._population, strength, batches, modes, data)
        self._set_fitted(spec, batches, modes, float(data.weight.sum()))
        return _Fitted(data, batches, modes, spec)

    def _set_fitted(self, spec, batches, modes, total):
        coef = per_output(batches, [mode.coef for mode in modes])
        edf = per_output(batches, [mode.edf for mode in modes])
        self.spec_ = spec
        self.coef_ = spec.layout.split(coef if self._population else coef[:, 0])
        self.intercept_ = per_output(batches, [mode.intercept for mode in modes])
        self.scale_ = spec.dispersion
        self.dof_resid_ = total - edf
        self.n_features_in_ = spec.layout.n_features
        self.n_iter_ = int(max(mode.n_iter.max() for mode in modes))
        self.kkt_residual_ = float(max(mode.residual.max() for mode in modes))
        self.converged_ = bool(all(mode.converged.all() for mode in modes))
        if "posterior_" in vars(self):
            del self.posterior_
        _warn_of_fit(self, spec, total, edf)

    def _resolve(self):
        """Turn the constructor's arguments into objects; nothing is stored."""
        family = _from_name(self.observation_model, FAMILIES, "observation_model")
        link = _resolve_link(self.inverse_link_function, family)
        regularizer = "UnRegularized" if self.regularizer is None else self.regularizer
        prior = _from_name(regularizer, REGULARIZERS, "regularizer")
        if self.solver_name is not None and self.solver_name not in SOLVERS:
            raise ValueError(f"solver_name must be None or one of {SOLVERS}; got {self.solver_name!r}.")
        if self.solver_name == "Newton" and not prior.smooth:
            raise ValueError(f"solver_name 'Newton' needs a smooth regularizer; {prior} wants 'ProximalNewton'.")
        tol, max_iter = _read_solver_kwargs(self.solver_kwargs)
        _check_distribution(self.intercept_prior, "intercept_prior")
        if family.has_dispersion:
            _check_scale(family.scale)
        return _Parts(family, link, prior, tol, max_iter)

    def _spec(self):
        if "spec_" not in vars(self):
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet: call fit or sample first.")
        return self.spec_

    @staticmethod
    def _read_new(X, spec):
        matrix, layout = read_design(X)
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
        "Poisson", "Gaussian", "Bernoulli", or an object of `bayesglm.observation_models`.
    inverse_link_function : str or Link, optional
        "exp", "identity", "logistic". By default the family's: exp for Poisson, identity for Gaussian,
        logistic for Bernoulli.
    regularizer : str or object, optional
        "UnRegularized" (default), "Ridge", "Lasso", "ElasticNet", "GroupLasso", or an object of
        `bayesglm.priors`.
    regularizer_strength : number, array_like or tree, optional
        One number, one per leaf of X, one per coefficient, or any mixture; see the page on strengths. None
        is 1.0, for ElasticNet (1.0, 0.5).
    solver_name : str, optional
        "Newton" (smooth regularizers) or "ProximalNewton"; by default chosen by the regularizer.
    solver_kwargs : dict, optional
        ``tol``, the largest correlation of a feature with the residuals that optimality leaves (default 1e-10
        in float64, 1e-5 in float32), and ``maxiter`` (default 100).
    intercept_prior : NumPyro distribution, optional
        Prior of the intercept in `sample`; flat by default. `fit` never penalizes the intercept.

    Attributes
    ----------
    coef_ : numpy.ndarray (p,), or the container of X with one such per leaf
    intercept_ : numpy.ndarray, shape (1,)
    scale_ : numpy.ndarray, shape (1,)
        Dispersion: 1 for Poisson and Bernoulli; for Gaussian the variance, Pearson's chi-square divided by
        `dof_resid_`.
    dof_resid_ : numpy.ndarray, shape (1,)
        Sum of the weights minus the effective degrees of freedom.
    n_iter_ : int
    converged_ : bool
    kkt_residual_ : float
        Largest violation of the optimality conditions, as a correlation of a feature with the residuals.
    n_features_in_ : int
    posterior_ : xarray.DataTree
        After `sample`.
    """

    _population = False


class PopulationGLM(_PenalizedGLM):
    """Generalized linear models of several outputs that share the features.

    Arguments and attributes are those of `GLM`, with one more axis for the outputs: leaves of `coef_` are
    (p, outputs), `intercept_` and `scale_` are (outputs,). Outputs are independent given the features unless
    a group of GroupLasso spans them.
    """

    _population = True


def _make_spec(parts, intercept_prior, layout, population, strength, batches, modes, data):
    """Everything of the Bayesian model that the fit fixes."""
    n_outputs = data.y.shape[1]
    total = float(data.weight.sum())
    family = parts.family
    blocks = tuple(block for batch in batches for block in batch.outputs)
    dispersion = np.ones(n_outputs, data.X.dtype)
    scale = getattr(family, "scale", None)
    if isinstance(scale, numbers.Real):
        dispersion[:] = scale
    elif family.has_dispersion:
        edf = per_output(batches, [mode.edf for mode in modes])
        pearson = per_output(batches, [mode.pearson for mode in modes])
        for block in blocks:
            freedom = len(block) * total - edf[block].sum()
            dispersion[block] = pearson[block].sum() / freedom if freedom >= 1 else np.nan
    mean = data.weight @ data.y / total
    variance = data.weight @ (data.y - mean) ** 2 / total
    spread = np.empty(n_outputs, data.X.dtype)
    for block in blocks:
        spread[block] = np.sqrt(variance[block].mean()) or 1.0
    form = Form(type(family), parts.link, type(parts.prior), family.has_dispersion and not isinstance(scale, numbers.Real))
    return Spec(
        form, layout, population, strength, blocks, total / dispersion, dispersion, spread,
        intercept_prior,
        scale if isinstance(scale, dist.Distribution) else None,
    )  # fmt: skip


def _warn_of_fit(model, spec, total, edf):
    """At most one warning each on convergence and on the dispersion."""
    if not model.converged_:
        warnings.warn(
            f"The fit did not converge: after {model.n_iter_} iterations the optimality conditions are violated "
            f"by a correlation of {model.kkt_residual_:.1e}. Raise solver_kwargs={{'maxiter': ...}}, or use a "
            "(stronger) regularizer if features without one separate the data.",
            ConvergenceWarning,
            stacklevel=4,
        )
    if not spec.form.samples_dispersion:
        return
    left = float((total - edf).min())
    if np.isnan(spec.dispersion).any():
        warnings.warn(
            f"scale_ is NaN: the fit has {edf.max():.1f} effective degrees of freedom for {total:g} samples, "
            "which leaves none for the dispersion. Use a stronger regularizer, or give the dispersion: "
            f"{spec.form.family.__name__}(scale=...).",
            stacklevel=4,
        )
    elif left < 0.1 * total:
        warnings.warn(
            f"scale_ rests on {left:.1f} of {total:g} degrees of freedom: the fit nearly interpolates, and the "
            "prior hardly depends on the strength any more. Use a stronger regularizer, or give the "
            f"dispersion: {spec.form.family.__name__}(scale=...).",
            stacklevel=4,
        )


def _from_name(value, known, argument):
    """An instance: of a known name, or the object itself if it is of a known type."""
    if isinstance(value, str):
        if value not in known:
            raise ValueError(f"{argument} must be one of {list(known)}; got {value!r}.")
        return known[value]()
    if isinstance(value, tuple(known.values())):
        return value
    raise ValueError(f"{argument} must be one of {list(known)} or such an object; got {value!r}.")


def _resolve_link(link, family):
    if link is None:
        return family.default_link
    if isinstance(link, links.Link):
        return link
    if isinstance(link, str) and link in LINKS:
        return LINKS[link]
    for known in LINKS.values():
        if link is known.inverse:
            return known
    raise ValueError(f"inverse_link_function must be None or one of {list(LINKS)}; got {link!r}.")


def _read_solver_kwargs(kwargs):
    if kwargs is None:
        return None, 100
    if not isinstance(kwargs, Mapping) or not set(kwargs) <= {"tol", "maxiter"}:
        raise ValueError(f"solver_kwargs must be a dict with the keys 'tol' and 'maxiter'; got {kwargs!r}.")
    tol, max_iter = kwargs.get("tol"), kwargs.get("maxiter", 100)
    if tol is not None and not (isinstance(tol, numbers.Real) and 0 < tol < 1):
        raise ValueError(f"solver_kwargs['tol'] must be a number between 0 and 1; got {tol!r}.")
    if not isinstance(max_iter, numbers.Integral) or max_iter < 1:
        raise ValueError(f"solver_kwargs['maxiter'] must be a positive integer; got {max_iter!r}.")
    return tol, int(max_iter)


def _check_distribution(value, argument):
    if value is not None and not isinstance(value, dist.Distribution):
        raise ValueError(f"{argument} must be None or a NumPyro distribution; got {value!r}.")


def _check_scale(scale):
    if scale is None or isinstance(scale, dist.Distribution):
        return
    if not isinstance(scale, numbers.Real) or not 0 < scale < np.inf:
        raise ValueError(f"The scale of the observation model must be a positive number; got {scale!r}.")
