"""Checks of a finished run: one warning that says what is wrong and what to do."""

from typing import Any

import numpy as np
from arviz_stats.base import array_stats
from scipy.stats import chi2

from bayesglm._warn import warn_user

__all__ = ["check_run"]

MAX_RHAT = 1.01
# Share of the draws that the effective sample size is at least, for r-hat's noise.
LEAST_EFFICIENCY = 0.25
MIN_ESS_PER_CHAIN = 100


def check_run(variables, diverging, n_steps, max_tree_depth):
    """Warn once if the draws cannot be trusted.

    Parameters
    ----------
    variables : dict of str to numpy.ndarray
        Draws, (chain, draw, ...).
    diverging, n_steps : numpy.ndarray
        Of the sampler, (chain, draw, ...).
    max_tree_depth : int
    """
    problems = []
    divergent = int(diverging.sum())
    if divergent:
        problems.append(
            f"{divergent} of {diverging.size} transitions diverged: raise target_accept_prob towards 0.99, "
            "or use a stronger prior where the data say little"
        )
    n_chains, n_draws = diverging.shape[:2]
    flat = np.concatenate([draws.reshape(n_chains, n_draws, -1) for draws in variables.values()], axis=2)
    moved = np.isfinite(flat).all((0, 1)) & (np.ptp(flat, axis=(0, 1)) > 0)
    if n_draws > 1 and not moved.all():
        problems.append(f"{(~moved).sum()} of {len(moved)} variables never moved or are not finite: rescale the data")
    if n_draws >= 4 and moved.any():
        problems += _mixing(flat[:, :, moved])
    saturated = float((n_steps >= 2**max_tree_depth - 1).mean())
    if saturated > 0.05:
        problems.append(f"{saturated:.0%} of the trajectories reached max_tree_depth={max_tree_depth}: raise it")
    if problems:
        warn_user("The posterior draws need a second look. " + "; ".join(problems) + ".")


def _mixing(draws):
    """Problems of draws (chain, draw, component)."""
    n_chains = len(draws)
    components = [draws[:, :, i] for i in range(draws.shape[2])]
    problems = []
    if n_chains > 1:
        rhat = np.array([array_stats.rhat(component, chain_axis=0, draw_axis=1) for component in components])
        limit = max(MAX_RHAT, _rhat_by_chance(draws))
        if rhat.max() > limit:
            problems.append(
                f"r-hat reaches {rhat.max():.3f} (should be below {limit:.3f}): the chains disagree; "
                "raise num_samples, and num_warmup if that does not help"
            )
    methods: tuple[dict[str, Any], ...] = ({"method": "bulk"}, {"method": "tail", "prob": (0.05, 0.95)})
    ess = np.array(
        [array_stats.ess(one, chain_axis=0, draw_axis=1, **method) for one in components for method in methods]
    )
    least = MIN_ESS_PER_CHAIN * n_chains
    if ess.min() < least:
        problems.append(
            f"the effective sample size falls to {ess.min():.0f} (should be above {least}): raise num_samples"
        )
    return problems


def _rhat_by_chance(draws):
    """Largest r-hat that chains which agree show once in a hundred runs.

    r-hat compares the halves of all chains; if they agree, its square exceeds 1 by about a chi-square variable
    of as many degrees of freedom, less one, divided by the effective sample size.
    """
    n_chains, n_draws, n_variables = draws.shape
    surprise = chi2.ppf(1 - 0.01 / n_variables, 2 * n_chains - 1)
    return np.sqrt(1 + surprise / (LEAST_EFFICIENCY * n_chains * n_draws))
