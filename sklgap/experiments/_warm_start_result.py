"""The result of `warm_start_curve`: its statistics and its printed form."""

from typing import Any

import numpy as np

from sklgap.experiments._result import ExperimentResult, convergence_warnings, count, describe_policy, mean_std
from sklgap.experiments._statistics import Estimate, mean_estimate, ratio_estimate
from sklgap.experiments._trial_records import LOSS_RATIO
from sklgap.experiments._trials import sharpness_key


class WarmStartCurve(ExperimentResult):
    """What `warm_start_curve` found; ``print`` it.

    Parameters
    ----------
    records : list of dict
        One per finished large-batch training: what `compare_regimes` records; ``small_epochs``, the small-batch epochs
        before it; and, with ``small_`` before their names, losses, accuracies, updates and distance from the start of
        the small-batch training itself by then.
    settings : dict
        What was trained and measured, and on which versions.
    interrupted : bool
        Whether Ctrl-C ended it early.

    Attributes
    ----------
    records : list of dict
        Sorted by trial and small-batch epochs: accuracies as fractions, sharpness in percent, seconds.
    small_epochs : ndarray of shape (n_points,)
        Small-batch epochs that large-batch trainings started after; the first is 0.
    """

    def __init__(self, records: list[dict[str, Any]], settings: dict[str, Any], interrupted: bool) -> None:
        records = sorted(records, key=lambda record: (record["trial"], record["small_epochs"]))
        super().__init__(records, settings, interrupted)
        self.small_epochs = np.array(settings["small_epochs"])

    # -- statistics ------------------------------------------------------------------------------------------------

    def by_trial(self, key: str) -> np.ndarray:
        """Return one quantity, an array of shape (n_trials, n_points), NaN where the fit had not finished."""
        values = np.full((self.settings["n_trials"], len(self.small_epochs)), np.nan)
        for record in self.records:
            values[record["trial"], np.flatnonzero(self.small_epochs == record["small_epochs"])] = record[key]
        return values

    def gain(self) -> list[Estimate]:
        """Return, per point, the test accuracy of the large batch minus that of the large batch from scratch."""
        accuracy = self.by_trial("test_accuracy")
        return [mean_estimate(column) for column in (accuracy - accuracy[:, :1]).T]

    def cost(self) -> list[Estimate]:
        """Return, per point, the test accuracy of the small batch minus that of the large batch started from it."""
        return [mean_estimate(c) for c in (self.by_trial("small_test_accuracy") - self.by_trial("test_accuracy")).T]

    def sharpness_ratio(self, epsilon: float) -> list[Estimate]:
        """Return, per point, the sharpness of the large batch relative to the large batch from scratch."""
        values = self.by_trial(sharpness_key(epsilon, None)).T
        return [ratio_estimate(column, values[0]) for column in values]

    def _last(self) -> int | None:
        """Return the last point that can be compared with point 0 in some trial; None where there is none."""
        paired = [i for i, gain in enumerate(self.gain()) if i and gain.n]
        return paired[-1] if paired else None

    def warnings(self) -> list[str]:
        """Return, in plain sentences, what a reader must know before believing the figures."""
        s, found = self.settings, []
        total = s["n_trials"] * len(self.small_epochs)
        if self.interrupted:
            found.append(f"Interrupted: {len(self.records)} of {total} large-batch fits had finished and are reported.")
        elif len(self.records) < total:
            found.append(
                f"{total - len(self.records)} of {total} starting points are missing: the small-batch training ended "
                "before them, or had diverged."
            )
        found += convergence_warnings(f"{s['large']}", [record["converged"] for record in self.records])
        losses = self.by_trial("train_loss")
        if not np.isfinite(losses[~np.isnan(self.by_trial("trial"))]).all():
            found.append(f"The loss of {s['large']} is not finite in some trainings: they diverged.")
        last = self._last()
        if last is None:
            return [*found, "No large-batch training after small-batch epochs can be compared with one from scratch."]
        gain = self.gain()[last]
        if not gain.has_interval:
            found.append("There are no intervals: they need at least 2 paired trials.")
        elif not gain.excludes(0):
            found.append(
                f"The interval of the gain after {self.small_epochs[last]} small-batch epochs contains 0: these trials "
                "do not show that the warm start helps the large batch here."
            )
        if gain.has_interval and last > 1:
            found.append(
                f"Each interval is one of its own: of {last} intervals some may miss the truth, and the best of "
                "the points is best partly by chance."
            )
        both = np.isfinite(losses[:, last] + losses[:, 0])
        scratch, warm = (losses[both, i].mean() if both.any() else np.nan for i in (0, last))
        if s["epsilons"] and max(scratch, warm) > LOSS_RATIO * min(scratch, warm):
            found.append(
                f"Training losses of {s['large']} from scratch ({scratch:.1e}) and after {self.small_epochs[last]} "
                f"{s['small']} epochs ({warm:.1e}) differ by more than a factor of {LOSS_RATIO:g}. Sharpness falls as "
                "the training loss does: read it beside the losses."
            )
        found.append(
            f"A warm-started {s['large']} has made the updates of {s['small']} besides: a gain over {s['large']} from "
            f"scratch shows what those do; read {s['small']} beside it."
        )
        return found

    # -- printing --------------------------------------------------------------------------------------------------

    def _head(self) -> list[str]:
        s = self.settings
        trials = "one trial" if s["n_trials"] == 1 else f"{s['n_trials']} paired trials, mean ± std"
        head = [
            f"{s['large']} started from the weights of {s['small']} (the optimiser's state anew): "
            f"{s['n_train']:,} training and {s['n_test']:,} test samples, {trials}",
            describe_policy(s["batch_norm"]),
        ]
        if s["epsilons"]:
            head.append(f"sharpness in %, on {s['n_samples_sharpness']:,} training samples, solver {s['solver']!r}")
        return head

    def _table(self) -> list[list[str]]:
        s = self.settings
        columns = [
            (f"{s['small']}, test (%)", "small_test_accuracy", 100, ".2f"),
            (f"{s['large']}, test (%)", "test_accuracy", 100, ".2f"),
            (f"{s['small']}, train loss", "small_train_loss", 1, ".1e"),
            (f"{s['large']}, train loss", "train_loss", 1, ".1e"),
            *((f"{s['large']}, sharpness {e:g} (%)", sharpness_key(e, None), 1, ".3g") for e in s["epsilons"]),
        ]
        rows = [[f"{s['small']} epochs", *(name for name, *_ in columns), "gain (points)"]]
        values = {key: self.by_trial(key) for _, key, _, _ in columns}
        for i, gain in enumerate(self.gain()):
            cells = [mean_std(f * _there(values[key][:, i]), spec) for _, key, f, spec in columns]
            points = gain.scaled(100)
            interval = f" [{points.low:+.2f}, {points.high:+.2f}]" if gain.has_interval else ""
            rows.append([str(self.small_epochs[i]), *cells, f"{points.value:+.2f}{interval}" if i and gain.n else "-"])
        return rows

    def _reading(self) -> list[str]:
        s, i = self.settings, self._last()
        lines = [f"gain: test accuracy of {s['large']} minus that of {s['large']} from scratch, paired, 95 % interval"]
        if i is None:
            return lines
        n, epochs = self.gain()[i].n, count(int(self.small_epochs[i]), f"{s['small']} epoch")
        gain, cost = (estimates[i].scaled(100).text("+.2f", " points") for estimates in (self.gain(), self.cost()))
        lines += [
            f"after {epochs}: {s['large']} gains {gain}, over {count(n, 'paired trial')} "
            "(seeds, not the draw of the test set)",
            f"after {epochs}: test accuracy of {s['small']} itself minus that of the {s['large']} from it: {cost}",
        ]
        for epsilon in s["epsilons"]:
            ratio = self.sharpness_ratio(epsilon)[i].text(".2g", " times")
            lines.append(f"after {epochs}: sharpness {epsilon:g} of {s['large']}, relative to from scratch: {ratio}")
        return lines

    def _statistics(self) -> dict[str, Any]:
        points = []
        for i, (epochs, gain, cost) in enumerate(zip(self.small_epochs, self.gain(), self.cost(), strict=True)):
            ratios = {f"{e:g}": vars(self.sharpness_ratio(e)[i]) for e in self.settings["epsilons"]}
            points.append({"small_epochs": epochs, "gain": vars(gain), "cost": vars(cost), "sharpness_ratio": ratios})
        return {"points": points}

    def plot(self, axes: Any = None) -> Any:
        """Draw test accuracy and sharpness against the small-batch epochs; return a `WarmStartDisplay`."""
        from sklgap.experiments._plot._warm_start import WarmStartDisplay

        return WarmStartDisplay.from_curve(self, axes=axes)


def _there(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]
