"""Checks of a finished run: one warning that says what is wrong and what to do.

R-hat and effective sample sizes are those of Vehtari, Gelman, Simpson, Carpenter and Bürkner (Rank-normalization,
folding, and localization: an improved R-hat, 2021), for all variables at once: ArviZ takes 4 ms for each.
"""

import numpy as np
from scipy import fft
from scipy.stats import chi2, norm

from bayesglm._warn import warn_user

__all__ = ["check_importance", "check_run", "convergence"]

MAX_RHAT = 1.01
# Share of the draws that the effective sample size is at least, for r-hat's noise.
LEAST_EFFICIENCY = 0.25
MIN_ESS_PER_CHAIN = 100
MIN_BFMI = 0.3
MAX_KHAT = 0.7
# Numbers that are looked at together.
BLOCK = 5_000_000


def check_run(variables, stats, max_tree_depth):
    """Warn once if the draws of a Markov chain cannot be trusted.

    Parameters
    ----------
    variables : dict of str to numpy.ndarray
        Draws, (chain, draw, ...).
    stats : dict of str to numpy.ndarray
        Of the sampler, (chain, draw, problems).
    max_tree_depth : int or None
        None if the sampler has no such limit.
    """
    problems = []
    diverging, n_steps, energy = stats["diverging"], stats["n_steps"], stats["energy"]
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
    if n_draws >= 100 and (bfmi := _least_bfmi(energy)) < MIN_BFMI:
        problems.append(
            f"the energy moves slowly (E-BFMI {bfmi:.2f}, should be above {MIN_BFMI}): the tails are heavier than the "
            "sampler's steps; raise num_warmup, or use a stronger prior"
        )
    if max_tree_depth is not None:
        saturated = float((n_steps >= 2**max_tree_depth - 1).mean())
        if saturated > 0.05:
            problems.append(f"{saturated:.0%} of the trajectories reached max_tree_depth={max_tree_depth}: raise it")
    if problems:
        warn_user("The posterior draws need a second look. " + "; ".join(problems) + ".")


def check_importance(khat):
    """Warn if the importance weights of some problem (B,) are too heavy-tailed."""
    bad = khat > MAX_KHAT
    if bad.any():
        where = f" for {bad.sum()} of {len(khat)} outputs" if len(khat) > 1 else ""
        warn_user(
            f"The normal approximation is not close to the posterior{where} (Pareto k-hat {khat.max():.2f}, should be "
            f"below {MAX_KHAT}): its draws are not to be trusted. Sample with method='auto'."
        )


def convergence(draws):
    """R-hat of the ranks and of the folded ranks, whichever is larger, and bulk and tail effective sample sizes.

    Parameters
    ----------
    draws : (chain, draw, V)

    Returns
    -------
    rhat, bulk, tail : numpy.ndarray, shape (V,)
    """
    split = _split(draws)
    ranks = _normal_ranks(split)
    folded = _normal_ranks(np.abs(split - np.median(split, axis=(0, 1))))
    low, high = np.quantile(draws, (0.05, 0.95), axis=(0, 1))
    tails = [_effective(_split((draws <= limit).astype(float))) for limit in (low, high)]
    return np.maximum(_rhat(ranks), _rhat(folded)), _effective(ranks), np.minimum(*tails)


def _mixing(draws):
    """Problems of draws (chain, draw, component)."""
    n_chains, n_draws, n_variables = draws.shape
    width = max(1, BLOCK // (n_chains * n_draws))
    parts = [draws[:, :, first : first + width] for first in range(0, n_variables, width)]
    worst, bulk, tail = (np.concatenate(found) for found in zip(*map(convergence, parts), strict=True))
    problems = []
    if n_chains > 1:
        limit = max(MAX_RHAT, _rhat_by_chance(draws))
        if worst.max() > limit:
            problems.append(
                f"r-hat reaches {worst.max():.3f} (should be below {limit:.3f}): the chains disagree; "
                "raise num_samples, and num_warmup if that does not help"
            )
    smallest = min(bulk.min(), tail.min())
    least = MIN_ESS_PER_CHAIN * n_chains
    if smallest < least:
        problems.append(
            f"the effective sample size falls to {smallest:.0f} (should be above {least}): raise num_samples"
        )
    return problems


def _least_bfmi(energy):
    """Smallest energy fraction of missing information of energies (chain, draw, problems)."""
    spread = energy.var(axis=1, ddof=1)
    moved = (np.diff(energy, axis=1) ** 2).mean(axis=1)
    return float(np.where(spread > 0, moved / np.where(spread > 0, spread, 1.0), np.inf).min())


def _split(draws):
    """Chains cut in half: (2 chains, draw / 2, V)."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_ranks(draws):
    """Draws of each variable, replaced by the normal quantiles of their ranks; ties share their mean rank."""
    size = draws.shape[0] * draws.shape[1]
    flat = np.ascontiguousarray(draws.reshape(size, -1).T)
    order = np.argsort(flat, axis=1)
    ordered = np.take_along_axis(flat, order, axis=1)
    starts = np.ones(flat.shape, bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    place = np.arange(size)
    first = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    ends = np.append(starts[:, 1:], np.ones((len(flat), 1), bool), axis=1)
    last = np.minimum.accumulate(np.where(ends, place, size)[:, ::-1], axis=1)[:, ::-1]
    scores = norm.ppf((np.arange(2 * size) / 2 + 1 - 3 / 8) / (size + 1 / 4))
    ranked = np.empty(flat.shape)
    np.put_along_axis(ranked, order, scores[first + last], axis=1)
    return ranked.T.reshape(draws.shape)


def _rhat(draws):
    between = draws.mean(1).var(0, ddof=1)
    within = draws.var(1, ddof=1).mean(0)
    n = draws.shape[1]
    return np.sqrt(between / within + (n - 1) / n)


def _effective(draws):
    """Effective sample size (V,) by Geyer's initial monotone sequence."""
    n_chains, n, _ = draws.shape
    # Transforms are faster along the last axis.
    centered = np.ascontiguousarray(np.moveaxis(draws - draws.mean(1, keepdims=True), 1, 2))
    spectrum = fft.rfft(centered, fft.next_fast_len(2 * n))
    power = (spectrum.real**2 + spectrum.imag**2).mean(0)
    covariance = fft.irfft(power, fft.next_fast_len(2 * n)).T[:n] / n
    within = covariance[0] * n / (n - 1)
    total = covariance[0] + (draws.mean(1).var(0, ddof=1) if n_chains > 1 else 0.0)
    total = np.where(total > 0, total, 1.0)
    correlation = 1 - (within - covariance) / total
    correlation[0] = 1.0
    pairs = correlation[0 : n - n % 2 : 2] + correlation[1::2]
    positive = np.minimum.accumulate(pairs > 0, axis=0)
    positive[(n - 3) // 2 + 1 :] = False
    count = positive.sum(0)
    monotone = np.minimum.accumulate(np.where(positive, pairs, np.inf), axis=0)
    # One more even lag, if it is positive, makes the estimate better.
    following = np.take_along_axis(correlation, np.minimum(2 * count, n - 1)[None], axis=0)[0]
    time = -1 + 2 * np.where(positive, monotone, 0.0).sum(0) + np.maximum(following, 0.0)
    size = n_chains * n
    return np.where(np.ptp(draws, axis=(0, 1)) > 0, size / np.maximum(time, 1 / np.log10(size)), size)


def _rhat_by_chance(draws):
    """Largest r-hat that chains which agree show once in a hundred runs.

    r-hat compares the halves of all chains; if they agree, its square exceeds 1 by about a chi-square variable
    of as many degrees of freedom, less one, divided by the effective sample size.
    """
    n_chains, n_draws, n_variables = draws.shape
    surprise = chi2.ppf(1 - 0.01 / n_variables, 2 * n_chains - 1)
    return np.sqrt(1 + surprise / (LEAST_EFFICIENCY * n_chains * n_draws))
