"""The result of `sharpness_trajectory`: sharpness at equal losses."""

import math
from typing import Any

import numpy as np

from sklgap.experiments._result import ExperimentResult, count, describe_policy, mean_std
from sklgap.experiments._statistics import Estimate, ratio_estimate
from sklgap.inspection import SharpnessTrajectoryDisplay

Curve = tuple[np.ndarray, np.ndarray]

# Losses of the table: two for every power of ten, from 10 down to 1e-8.
_LEVELS = [10 ** (k / 2) for k in range(2, -17, -1)]


class SharpnessTrajectory(ExperimentResult):
    """What `sharpness_trajectory` found; ``print`` it.

    Parameters
    ----------
    records : list of dict
        One per measurement along a training: regime, trial, updates, epoch, training loss and accuracy, sharpness in
        percent, Euclidean distance from the start.
    labels : list of str
        The regimes, in order.
    settings : dict
        What was trained and measured, and on which versions.
    interrupted : bool
        Whether Ctrl-C ended it early.

    Attributes
    ----------
    records : list of dict
        Sorted by trial, regime and updates.
    labels : list of str
        The regimes with a finished training; the others are compared with the first.
    """

    def __init__(
        self, records: list[dict[str, Any]], labels: list[str], settings: dict[str, Any], interrupted: bool
    ) -> None:
        records = sorted(records, key=lambda r: (r["trial"], labels.index(r["regime"]), r["n_updates"]))
        super().__init__(records, settings, interrupted)
        self.n_regimes = len(labels)
        self.labels = [label for label in labels if any(record["regime"] == label for record in records)]

    # -- statistics ------------------------------------------------------------------------------------------------

    def curves(self, label: str) -> dict[int, Curve]:
        """Return training loss and sharpness of a regime, in the order of training, by finished trial."""
        trials = sorted({r["trial"] for r in self.records if r["regime"] == label})
        return {trial: (self._column(label, trial, "train_loss"), self._column(label, trial)) for trial in trials}

    def mean_curve(self, label: str) -> Curve:
        """Return the geometric means over the trials, at the numbers of updates that all of them have."""
        trials = self.curves(label)
        updates = [self._column(label, trial, "n_updates") for trial in trials]
        common = np.array(sorted(set.intersection(*(set(steps) for steps in updates))))
        rows = [np.searchsorted(steps, common) for steps in updates]
        with np.errstate(divide="ignore"):
            stacked = [
                np.log([c[i][at] for c, at in zip(trials.values(), rows, strict=True)]).mean(axis=0) for i in (0, 1)
            ]
        return np.exp(stacked[0]), np.exp(stacked[1])

    def at_loss(self, loss: float) -> dict[str, np.ndarray]:
        """Return the sharpness where the training loss is first at ``loss``, by regime.

        Interpolated between records on logarithmic scales; arrays of shape (n_trials,), NaN where the loss was not
        reached, or the first record is below it.
        """
        found = {}
        for label in self.labels:
            found[label] = np.full(self.settings["n_trials"], np.nan)
            for trial, curve in self.curves(label).items():
                found[label][trial] = _value_at(*curve, loss)
        return found

    def levels(self) -> list[float]:
        """Return the losses, two for every power of ten, that some trial reached with all regimes."""
        return [level for level in _LEVELS if (~np.isnan(list(self.at_loss(level).values()))).all(axis=0).any()]

    def ratio(self, label: str, loss: float) -> Estimate:
        """Return how many times as sharp as the first regime a regime is at a loss, over paired trials."""
        values = self.at_loss(loss)
        return ratio_estimate(values[label], values[self.labels[0]])

    def _column(self, label: str, trial: int, key: str = "sharpness") -> np.ndarray:
        return np.array([r[key] for r in self.records if r["regime"] == label and r["trial"] == trial])

    def warnings(self) -> list[str]:
        """Return, in plain sentences, what a reader must know before believing the figures."""
        found = []
        if self.interrupted:
            finished, total = sum(len(self.curves(label)) for label in self.labels), self.n_regimes
            total *= self.settings["n_trials"]
            found.append(f"Interrupted: {finished} of {total} fits had finished and are reported.")
        failed = sum(not 0 < record["sharpness"] < math.inf for record in self.records)
        if failed:
            found.append(
                f"{failed} of {len(self.records)} measurements of sharpness failed, or found no rise, and are left out."
            )
        if not self.levels():
            found.append("There is no loss that all regimes passed between their records: they cannot be compared.")
        elif self.settings["n_trials"] == 1:
            found.append("One trial shows the curves; what another starting point would change it does not show.")
        elif len(self.levels()) > 1:
            found.append("Each interval is one of its own: of many, some may miss the truth.")
        for label in self.labels[1:] if self.levels() else []:
            if self.ratio(label, self.levels()[-1]).value < 1:
                found.append(
                    f"{label} is not sharper than {self.labels[0]} at the smallest loss of both here; in the paper the "
                    "large batch is."
                )
        return found

    # -- printing --------------------------------------------------------------------------------------------------

    def _head(self) -> list[str]:
        s = self.settings
        trials = "one trial" if s["n_trials"] == 1 else f"{s['n_trials']} paired trials, mean ± std"
        return [
            f"{s['n_train']:,} training samples, {trials}",
            describe_policy(s["batch_norm"]),
            f"sharpness {s['epsilon']:g} in %, on {s['n_samples_sharpness']:,} of them, where their loss is first as "
            f"low as that, solver {s['solver']!r}",
        ]

    def _table(self) -> list[list[str]]:
        reference, *others = self.labels
        rows = [["training loss", *self.labels, *(f"{label} / {reference}" for label in others)]]
        for level in self.levels():
            values = self.at_loss(level)
            ratios = [self.ratio(label, level) for label in others]
            shown = [f"{r.value:.2g}" + (f" [{r.low:.2g}, {r.high:.2g}]" if r.has_interval else "") for r in ratios]
            rows.append([f"{level:.2g}", *(mean_std(v[~np.isnan(v)], ".3g") for v in values.values()), *shown])
        for name, i in (("loss at the end", 0), ("sharpness at the end", 1)):
            ends = [np.array([curve[i][-1] for curve in self.curves(label).values()]) for label in self.labels]
            rows.append([name, *(mean_std(values, ".2g") for values in ends), *("" for _ in others)])
        return rows

    def _reading(self) -> list[str]:
        levels = self.levels()
        lines = []
        for label in self.labels[1:]:
            for level in dict.fromkeys(levels[:1] + levels[-1:]):
                ratio = self.ratio(label, level)
                lines.append(
                    f"at a training loss of {level:.2g}, sharpness of {label} / {self.labels[0]}: {ratio.text('.3g')}, "
                    f"over {count(ratio.n, 'paired trial')} (seeds)"
                )
        return lines

    def _statistics(self) -> dict[str, Any]:
        others = self.labels[1:]
        ratios = [
            {"loss": loss, **{label: vars(self.ratio(label, loss)) for label in others}} for loss in self.levels()
        ]
        return {"labels": self.labels, "ratios": ratios}

    def plot(self, ax: Any = None, **kwargs: Any) -> SharpnessTrajectoryDisplay:
        """Draw the mean curves, and every trial where there are several; return a `SharpnessTrajectoryDisplay`."""
        curves = {label: self.mean_curve(label) for label in self.labels}
        trials = {label: list(self.curves(label).values()) for label in self.labels}
        display = SharpnessTrajectoryDisplay(curves, batch_norm=self.settings["batch_norm"], trials=trials)
        return display.plot(ax=ax, **kwargs)


def _value_at(loss: np.ndarray, values: np.ndarray, level: float) -> float:
    """Return the value where the loss is first at the level, between records along a straight line in logarithms."""
    there = np.flatnonzero(loss <= level)
    if not len(there) or there[0] == 0:
        return math.nan
    i = int(there[0])
    tiny = np.finfo(float).tiny
    before, after = (math.log(max(loss[j], tiny)) for j in (i - 1, i))
    share = (before - math.log(level)) / (before - after)
    low, high = (math.log(values[j]) if values[j] > 0 else math.nan for j in (i - 1, i))
    return math.exp(low + share * (high - low))
