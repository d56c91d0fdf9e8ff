"""Kendall's tau of two quantities over trained models: over all pairs, and over pairs that differ in one setting alone.

The models of one trial have the same seed, and differ in settings such as batch size and learning rate. Intervals come
from resamples of whole trials.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from sklgap.experiments._estimate import CONFIDENCE, Estimate

COVERS = "new seeds, for these settings and samples"
# A resample in which all trials are the same has no tau. Below this share of resamples with a tau, there is no
# interval.
_LEAST_DEFINED = 0.5
_ROUNDING = 1e-12


class Taus(NamedTuple):
    """Result of `granulated_taus`.

    ``plain`` is tau over all pairs, and ``granulated`` tau over pairs that differ in one setting alone. ``axes`` are
    the parts of ``granulated`` in the order of the settings. ``within`` is tau over pairs that differ in the seed
    alone.
    """

    plain: Estimate
    granulated: Estimate
    axes: list[Estimate]
    within: Estimate


def granulated_taus(first: Any, second: Any, trials: Any, settings: Any, resamples: np.ndarray) -> Taus:
    r"""Return Kendall's tau of two quantities over models, plain and conditioned.

    Parameters
    ----------
    first, second : array-like of shape (n_models,)
        The two quantities. Models for which one of them is not finite are left out.
    trials : array-like of shape (n_models,), int
        The trial of each model, from 0.
    settings : array-like of shape (n_models, n_axes), int
        The value of each setting of each model, numbered; n_axes may be 0.
    resamples : ndarray of shape (n_resamples, n_trials), int
        How often each trial is in each resample, from `draw_resamples`.

    Returns
    -------
    Taus
        The taus; NaN if a quantity is constant, or if there is no such pair of models.

    Notes
    -----
    ``plain`` and ``within`` are tau-b, as in ``scipy.stats.kendalltau``; ``within`` is the mean over the settings for
    which tau-b is defined. ``granulated`` is that of Jiang et al. (2020): the mean over settings i of

    .. math:: \psi_i = \frac{1}{m_i} \sum_{\text{others fixed}} \tau, \qquad
        \tau = \operatorname{mean}_{\text{pairs}} \operatorname{sign}(\mu_1 - \mu_2) \operatorname{sign}(g_1 - g_2)

    in which a tie counts as 0. The trial is fixed, too.

    An interval is value ± t s, cut to [-1, 1]. Here s is the standard deviation over resamples of whole trials times
    :math:`\sqrt{J / (J - 1)}`, and t is Student's with J - 1 degrees of freedom, for J trials. For a mean over trials
    this is Student's interval. The interval between percentiles of the resamples would be too short for few trials.

    If ``granulated`` or one of its parts is 1 in all J trials, s is 0, and the interval is [2 x 0.05^(1/J) - 1, 1]. The
    interval for -1 is its mirror image. The reason: if the probability p of a trial with 1 is below 0.05^(1/J), then J
    such trials have a probability below 5 %; otherwise the mean is at least p - (1 - p).
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    known = np.isfinite(one) & np.isfinite(two)
    one, two, codes = one[known], two[known], np.asarray(trials)[known]
    axes = np.asarray(settings)[known]
    n_axes = axes.shape[1]
    n_trials = len(np.unique(codes))
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(two) == 0:
        none = Estimate(math.nan, math.nan, math.nan, n_trials, COVERS)
        return Taus(none, none, [none] * n_axes, none)
    weights = np.concatenate([np.ones((1, resamples.shape[1])), resamples])  # the first row has every trial once
    plain = _tau_b(one, two, codes, weights)
    parts = [_one_axis(one, two, codes, axes, axis, weights) for axis in range(n_axes)]
    there = [psi for psi, _ in parts if np.isfinite(psi[0])]
    granulated = np.mean(there, axis=0) if there else np.full(len(weights), math.nan)
    n_whole = min((n for psi, n in parts if np.isfinite(psi[0])), default=0)
    within = _within(one, two, codes, axes, weights)
    return Taus(
        _estimate(plain, n_trials),
        _estimate(granulated, n_trials, n_whole),
        [_estimate(psi, n_trials, n) for psi, n in parts],
        _estimate(within, n_trials),
    )


def draw_resamples(n_trials: int, n_resamples: int, rng: np.random.RandomState) -> np.ndarray:
    """Return how often each trial is in each resample, of shape (n_resamples, n_trials)."""
    return rng.multinomial(n_trials, np.full(n_trials, 1 / n_trials), size=n_resamples)


def _tau_b(one: np.ndarray, two: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return tau-b in every resample. All of its sums are quadratic forms in the counts of the trials."""
    n = weights.shape[1]
    sums = np.zeros((3, n, n))  # over pairs of a model of one trial and a model of another one
    for trial in np.unique(codes):
        own = codes == trial
        signs_one, signs_two = (np.sign(values[own, None] - values[None, :]) for values in (one, two))
        for place, signs in enumerate((signs_one * signs_two, signs_one != 0, signs_two != 0)):
            sums[place, trial] = np.bincount(codes, signs.sum(axis=0), minlength=n)
    agree, untied_one, untied_two = ((weights @ own * weights).sum(axis=1) for own in sums)
    untied = np.sqrt(untied_one * untied_two)
    return np.divide(agree, untied, out=np.full(len(weights), math.nan), where=untied > 0)


def _within(one: np.ndarray, two: np.ndarray, codes: np.ndarray, axes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of tau-b over the settings for which it is defined."""
    cells = np.unique(axes, axis=0, return_inverse=True)[1].ravel() if axes.shape[1] else np.zeros(len(one), dtype=int)
    found = [_tau_b(one[cells == c], two[cells == c], codes[cells == c], weights) for c in range(cells.max() + 1)]
    return _mean_of_known(np.array(found))


def _one_axis(
    one: np.ndarray, two: np.ndarray, codes: np.ndarray, axes: np.ndarray, axis: int, weights: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return the mean tau of the groups of models that differ in one setting alone, and its number of trials."""
    sums, counts = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    fixed = np.column_stack([codes, np.delete(axes, axis, axis=1)])
    groups = np.unique(fixed, axis=0, return_inverse=True)[1].ravel()
    for group in range(groups.max() + 1):
        rows = np.flatnonzero(groups == group)
        i, j = np.triu_indices(len(rows), 1)
        i, j = rows[i], rows[j]
        differ = axes[i, axis] != axes[j, axis]
        if differ.any():
            signs = np.sign(one[i] - one[j]) * np.sign(two[i] - two[j])
            sums[codes[rows[0]]] += signs[differ].mean()
            counts[codes[rows[0]]] += 1
    n_groups = weights @ counts
    psi = np.divide(weights @ sums, n_groups, out=np.full(len(weights), math.nan), where=n_groups > 0)
    return psi, int((counts > 0).sum())


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis without NaN values; NaN if all values are NaN."""
    known = np.isfinite(values)
    n_known = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, n_known, out=np.full(values.shape[1], math.nan), where=n_known > 0)


def _estimate(values: np.ndarray, n_trials: int, n_averaged: int = 0) -> Estimate:
    """Return the first value, with the interval from its resamples, which are the other values.

    ``n_averaged`` is the number of trials if the value is a mean over trials, and 0 otherwise.
    """
    value, drawn = float(values[0]), values[1:]
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan, n_trials, COVERS)
    defined = drawn[np.isfinite(drawn)]
    spread = float(defined.std()) if len(defined) >= max(_LEAST_DEFINED * len(drawn), 2) else 0.0
    if n_averaged > 1 and spread < _ROUNDING and abs(abs(value) - 1) < _ROUNDING:  # a perfect order in every trial
        inner = 2 * (1 - CONFIDENCE) ** (1 / n_averaged) - 1
        low, high = (inner, 1.0) if value > 0 else (-1.0, -inner)
        return Estimate(float(round(value)), low, high, n_trials, COVERS)
    if n_trials < 2 or spread < _ROUNDING:  # trials that are all equal say nothing about other seeds
        return Estimate(value, -math.inf, math.inf, n_trials, COVERS)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n_trials - 1)) * spread * math.sqrt(n_trials / (n_trials - 1))
    return Estimate(value, max(value - half, -1.0), min(value + half, 1.0), n_trials, COVERS)
