"""The result of `minima_census`: spread of sharpness, and what goes with it."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from sklgap.experiments._result import ExperimentResult, convergence_warnings, count, describe_policy, mean_std
from sklgap.experiments._statistics import (
    CONFIDENCE,
    Estimate,
    mean_estimate,
    rank_correlation,
    ratio_estimate,
    share_larger,
)
from sklgap.experiments._trial_records import LOSS_RATIO
from sklgap.experiments._trials import sharpness_key

Group = tuple[str, str]

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Contrast:
    """Two groups of minima that differ in the regime or in the initialisation alone.

    Attributes
    ----------
    first, second : tuple (regime, init)
        The groups.
    sharpness_ratio : Estimate
        Geometric mean of the sharpness of the second relative to the first, over paired seeds.
    accuracy_difference : Estimate
        Mean test accuracy of the second minus that of the first, over paired seeds.
    share_sharper : float
        In which share of all pairs of one minimum each that of the second is the sharper one; ties count half.
    """

    first: Group
    second: Group
    sharpness_ratio: Estimate
    accuracy_difference: Estimate
    share_sharper: float


class MinimaCensus(ExperimentResult):
    """What `minima_census` found; ``print`` it.

    Parameters
    ----------
    records : list of dict
        One per finished fit: what `compare_regimes` records, and ``init``; ``trial`` is the number of the seed.
    groups : list of tuple (regime, init)
        In order.
    settings : dict
        What was trained and measured, and on which versions.
    interrupted : bool
        Whether Ctrl-C ended it early.

    Attributes
    ----------
    records : list of dict
        Sorted by group and seed: accuracies as fractions, sharpness in percent, seconds.
    groups : list of tuple (regime, init)
        Those with a finished fit.
    """

    def __init__(
        self, records: list[dict[str, Any]], groups: list[Group], settings: dict[str, Any], interrupted: bool
    ) -> None:
        records = sorted(records, key=lambda r: (groups.index((r["regime"], r["init"])), r["trial"]))
        super().__init__(records, settings, interrupted)
        self.n_groups = len(groups)
        self.groups = [group for group in groups if any((r["regime"], r["init"]) == group for r in records)]

    # -- statistics ------------------------------------------------------------------------------------------------

    @property
    def sharpness_name(self) -> str:
        """The name of the sharpness in the records."""
        return sharpness_key(self.settings["epsilon"], None)

    def by_seed(self, group: Group, key: str) -> np.ndarray:
        """Return one quantity of a group, of shape (n_seeds,), NaN where a fit had not finished or had diverged."""
        values = np.full(self.settings["n_seeds"], np.nan)
        for record in self.records:
            # The accuracy of weights that are no numbers is one, and no minimum's.
            if (record["regime"], record["init"]) == group and math.isfinite(record["train_loss"]):
                values[record["trial"]] = record[key]
        return values

    def values(self, group: Group, key: str) -> np.ndarray:
        """Return one quantity of a group, of the fits that finished and did not diverge, where it is a number."""
        values = self.by_seed(group, key)
        return values[np.isfinite(values)]

    def rank_correlation(self, group: Group, key: str = "test_accuracy") -> Estimate:
        """Return Spearman's correlation of sharpness with another quantity within a group."""
        return rank_correlation(self.by_seed(group, self.sharpness_name), self.by_seed(group, key))

    def contrasts(self) -> list[Contrast]:
        """Return all pairs of groups that differ in one thing alone: first those of regimes, then those of inits."""
        pairs = list(combinations(self.groups, 2))
        of_regimes = [pair for pair in pairs if pair[0][1] == pair[1][1]]
        of_inits = [pair for pair in pairs if pair[0][0] == pair[1][0]]
        return [self._contrast(*pair) for pair in of_regimes + of_inits]

    def _contrast(self, first: Group, second: Group) -> Contrast:
        one, other = (self.by_seed(group, self.sharpness_name) for group in (first, second))
        accuracies = [self.by_seed(group, "test_accuracy") for group in (second, first)]
        difference = mean_estimate(accuracies[0] - accuracies[1])
        return Contrast(first, second, ratio_estimate(other, one), difference, share_larger(other, one))

    def detectable(self) -> float:
        """Return the size beyond which a rank correlation over ``n_seeds`` minima is told from 0; NaN below 4."""
        n = self.settings["n_seeds"]
        if n < 4:
            return math.nan
        grid = np.linspace(0, 1, 1001)[:-1]
        half = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((1 + grid**2 / 2) / (n - 3))
        beyond = grid[np.arctanh(grid) > half]
        return float(beyond[0]) if len(beyond) else math.nan

    def warnings(self) -> list[str]:
        """Return, in plain sentences, what a reader must know before believing the figures."""
        found = []
        if self.interrupted:
            total = self.settings["n_seeds"] * self.n_groups
            found.append(f"Interrupted: {len(self.records)} of {total} fits had finished and are reported.")
        for group in self.groups:
            records = [r for r in self.records if (r["regime"], r["init"]) == group]
            converged = [record["converged"] for record in records]
            if self.settings["target_loss"] is None:
                found += convergence_warnings(_name(group), converged)
            elif not all(converged):
                missed = sum(not value for value in converged)
                found.append(f"{_name(group)} missed the target loss in {missed} of {count(len(records), 'fit')}.")
            diverged = sum(not math.isfinite(record["train_loss"]) for record in records)
            if diverged:
                found.append(f"{_name(group)} diverged in {diverged} of {count(len(records), 'fit')}: left out.")
            with_loss = self.rank_correlation(group, "train_loss")
            if with_loss.excludes(0):
                found.append(
                    f"In {_name(group)} sharpness goes with the training loss (rank correlation "
                    f"{with_loss.text('+.2f')}): what looks like sharpness there may be how far a fit was trained."
                )
        means = [losses.mean() for losses in (self.values(g, "train_loss") for g in self.groups) if len(losses)]
        if means and max(means) > LOSS_RATIO * min(means):
            advice = "" if self.settings["target_loss"] is not None else "; target_loss brings them nearer"
            found.append(
                f"Mean training losses of the groups lie between {min(means):.1e} and {max(means):.1e}: part of any "
                f"difference between groups may be that one is trained further{advice}."
            )
        found.append(
            "These are the minima that training finds, in the proportions in which it finds them: of others the loss "
            "surface may have they say nothing."
        )
        if len(self.contrasts()) + len(self.groups) > 1:
            found.append("Each interval is one of its own: of many, some may miss the truth.")
        return found

    # -- printing --------------------------------------------------------------------------------------------------

    def _head(self) -> list[str]:
        s = self.settings
        stop = "" if s["target_loss"] is None else f", trained to a loss of {s['target_loss']:g}"
        return [
            f"{count(s['n_seeds'], 'minimum').replace('minimums', 'minima')} a regime and initialisation{stop}: "
            f"{s['n_train']:,} training and {s['n_test']:,} test samples, mean ± std",
            describe_policy(s["batch_norm"]),
            f"sharpness {s['epsilon']:g} in %, on {s['n_samples_sharpness']:,} training samples, "
            f"solver {s['solver']!r}",
        ]

    def _table(self) -> list[list[str]]:
        quantiles = ["median" if q == 0.5 else f"{100 * q:.0f} %" for q in QUANTILES]
        names = ["n", "train loss", "test accuracy (%)", "sharpness (%)", *quantiles, "rank correlation"]
        rows = [["regime, init", *names]]
        for group in self.groups:
            sharpness = self.values(group, self.sharpness_name)
            rho = self.rank_correlation(group)
            interval = f" [{rho.low:+.2f}, {rho.high:+.2f}]" if rho.has_interval else ""
            rows.append(
                [
                    _name(group),
                    str(len(sharpness)),
                    mean_std(self.values(group, "train_loss"), ".1e"),
                    mean_std(100 * self.values(group, "test_accuracy"), ".2f"),
                    mean_std(sharpness, ".3g"),
                    *(f"{np.quantile(sharpness, q):.3g}" if len(sharpness) else "-" for q in QUANTILES),
                    "-" if math.isnan(rho.value) else f"{rho.value:+.2f}{interval}",
                ]
            )
        return rows

    def _reading(self) -> list[str]:
        lines = ["rank correlation: Spearman's, of sharpness with test accuracy within the group, 95 % interval"]
        detectable = self.detectable()
        if not math.isnan(detectable):
            lines[0] += f"; over {self.settings['n_seeds']} seeds it is told from 0 beyond ±{detectable:.2f}"
        for group in self.groups:
            rho = self.rank_correlation(group)
            if rho.excludes(0):
                worse = "worse" if rho.value < 0 else "better"
                lines.append(f"{_name(group)}: the sharper minima test {worse}")
            elif rho.has_interval:
                lines.append(f"{_name(group)}: no relation of sharpness and test accuracy is shown")
        for contrast in self.contrasts():
            lines.append(
                f"{_name(contrast.second)} against {_name(contrast.first)}: sharpness "
                f"{contrast.sharpness_ratio.text('.3g', ' times')}; the sharper one in "
                f"{100 * contrast.share_sharper:.0f} % of pairs; test accuracy "
                f"{contrast.accuracy_difference.scaled(100).text('+.2f', ' points')}"
            )
        return lines

    def _statistics(self) -> dict[str, Any]:
        groups = [
            {
                "regime": group[0],
                "init": group[1],
                "n": len(self.values(group, self.sharpness_name)),
                "rank_correlation": vars(self.rank_correlation(group)),
                "rank_correlation_with_train_loss": vars(self.rank_correlation(group, "train_loss")),
            }
            for group in self.groups
        ]
        contrasts = [
            {
                **vars(contrast),
                "sharpness_ratio": vars(contrast.sharpness_ratio),
                "accuracy_difference": vars(contrast.accuracy_difference),
            }
            for contrast in self.contrasts()
        ]
        return {"groups": groups, "contrasts": contrasts}

    def plot(self, ax: Any = None) -> Any:
        """Draw test accuracy against sharpness, a dot for each minimum; return a `MinimaCensusDisplay`."""
        from sklgap.experiments._plot._census import MinimaCensusDisplay

        return MinimaCensusDisplay.from_census(self, ax=ax)


def _name(group: Group) -> str:
    return ", ".join(group)
