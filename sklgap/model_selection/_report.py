"""The result of a comparison: its statistics, its printed form, its files."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from sklgap.model_selection._result import aligned, count, describe_policy, mean_std, to_frame, to_json
from sklgap.model_selection._trials import sharpness_key

CONFIDENCE = 0.95
# Beyond this ratio the mean training losses of two regimes are called clearly unequal.
LOSS_RATIO = 2.0


@dataclass(frozen=True)
class Gap:
    """The regime gap: test accuracy of the reference minus that of a regime, over paired trials.

    Attributes
    ----------
    regime : str
        The regime compared with the reference.
    mean : float
        Mean difference, as a fraction of 1.
    low, high : float
        Its 95 % interval by Student's t over the paired differences; NaN with fewer than two trials. It covers the
        seeds, not the draw of the test set.
    n_trials : int
        Trials in which both were fitted.
    """

    regime: str
    mean: float
    low: float
    high: float
    n_trials: int


class RegimeComparison:
    """What `compare_regimes` found; ``print`` it.

    Parameters
    ----------
    results : list of (record, estimator)
        One flat record and one fitted estimator per finished fit.
    labels : list of str
        The regimes, in order.
    settings : dict
        What was compared and measured, and on which versions.
    interrupted : bool
        Whether Ctrl-C ended it early.

    Attributes
    ----------
    records : list of dict
        One per finished fit: accuracies as fractions, sharpness in percent, seconds.
    estimators_ : dict of lists
        The fitted estimators by regime, in the order of the trials.
    """

    def __init__(
        self, results: list[tuple[dict[str, Any], Any]], labels: list[str], settings: dict[str, Any], interrupted: bool
    ) -> None:
        results = sorted(results, key=lambda result: (result[0]["trial"], labels.index(result[0]["regime"])))
        self.records = [record for record, _ in results]
        self.labels = labels
        self.settings = settings
        self.interrupted = interrupted
        self.estimators_ = {
            label: [estimator for record, estimator in results if record["regime"] == label] for label in labels
        }

    # -- statistics ------------------------------------------------------------------------------------------------

    def values(self, label: str, key: str) -> np.ndarray:
        """Return one quantity of one regime in its finished trials, an array of shape (n_finished,)."""
        return self.by_trial(label, key)[self.finished(label)]

    def paired(self, label: str, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a quantity of the reference and of a regime in the trials that both finished."""
        both = self.finished(self.settings["reference"]) & self.finished(label)
        return self.by_trial(self.settings["reference"], key)[both], self.by_trial(label, key)[both]

    def by_trial(self, label: str, key: str) -> np.ndarray:
        """Return one quantity of one regime, an array of shape (n_trials,), NaN where the fit had not finished."""
        values = np.full(self.settings["n_trials"], np.nan)
        for record in self.records:
            if record["regime"] == label:
                values[record["trial"]] = record[key]
        return values

    def finished(self, label: str) -> np.ndarray:
        """Return which trials of a regime had finished, a boolean array of shape (n_trials,)."""
        return ~np.isnan(self.by_trial(label, "trial"))

    def gaps(self) -> list[Gap]:
        """Return the regime gap of every regime beside the reference."""
        others = [label for label in self.labels if label != self.settings["reference"]]
        return [self._gap(label) for label in others if len(self.paired(label, "trial")[0])]

    def _gap(self, label: str) -> Gap:
        reference, other = self.paired(label, "test_accuracy")
        differences = reference - other
        n = len(differences)
        if n < 2:
            return Gap(label, float(differences.mean()), float("nan"), float("nan"), n)
        half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n)
        mean = float(differences.mean())
        return Gap(label, mean, mean - float(half), mean + float(half), n)

    def warnings(self) -> list[str]:
        """Return, in plain sentences, what a reader must know before believing the figures."""
        reference = self.settings["reference"]
        found = []
        if self.interrupted:
            total = self.settings["n_trials"] * len(self.labels)
            found.append(f"Interrupted: {len(self.records)} of {total} fits had finished and are reported.")
        finished = [label for label in self.labels if len(self.values(label, "trial"))]
        for label in finished:
            converged = self.values(label, "converged")
            if (converged == 0).any():
                found.append(
                    f"{label} had not converged under its stopping rule in {int((converged == 0).sum())} "
                    f"of {len(converged)} trials."
                )
            elif np.isnan(converged).any():
                found.append(f"{label} was trained for max_epochs, without a stopping rule.")
        for gap in self.gaps():
            one, other = (losses.mean() for losses in self.paired(gap.regime, "train_loss"))
            if not np.isfinite(one + other):
                found.append(f"The loss of {reference} or {gap.regime} is not finite: that training diverged.")
            elif max(one, other) > LOSS_RATIO * min(one, other):
                found.append(
                    f"Training losses of {reference} ({one:.1e}) and {gap.regime} ({other:.1e}) differ by more than a "
                    f"factor of {LOSS_RATIO:g}: part of any difference may be that one is trained further."
                )
            if gap.n_trials < 2:
                found.append(f"The gap of {gap.regime} has no interval: it needs at least 2 paired trials.")
            elif gap.low <= 0 <= gap.high:
                found.append(
                    f"The interval of the gap of {gap.regime} contains 0: these trials do not show that the batch size "
                    "costs accuracy here."
                )
            elif gap.high < 0:
                found.append(f"{gap.regime} is the more accurate one here: on these data {reference} wins nothing.")
            found += self._flatter(gap.regime)
        return found

    def _flatter(self, label: str) -> list[str]:
        """Say so where the sharpness of a regime is below the reference's: the papers find the opposite for LB."""
        if not self.settings["epsilons"]:
            return []
        key = sharpness_key(max(self.settings["epsilons"]), self.settings["subspace_dims"][0])
        one, other = (values.mean() for values in self.paired(label, key))
        if not other < one:
            return []
        return [
            f"{label} is not sharper than {self.settings['reference']} here. Sharpness also falls as the training loss "
            "does: read it beside the losses."
        ]

    # -- printing --------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        s = self.settings
        trials = "one trial" if s["n_trials"] == 1 else f"{s['n_trials']} paired trials, mean ± std"
        head = [
            f"{s['n_train']:,} training and {s['n_test']:,} test samples, {trials}",
            describe_policy(s["batch_norm"]),
        ]
        if s["epsilons"]:
            head.append(f"sharpness in %, on {s['n_samples_sharpness']:,} training samples, solver {s['solver']!r}")
        lines = [*head, "", *self._table(), "", *self._gap_lines()]
        found = self.warnings()
        return "\n".join([*lines, *(["", "Please note:"] if found else []), *(f"* {sentence}" for sentence in found)])

    __repr__ = __str__

    def _table(self) -> list[str]:
        columns = [label for label in self.labels if len(self.values(label, "trial"))]
        quantities = [
            ("batch size", "batch_size", lambda v: f"{v[0]:,.0f}" if np.ptp(v) == 0 else mean_std(v, ",.0f")),
            ("train accuracy (%)", "train_accuracy", lambda v: mean_std(100 * v, ".2f")),
            ("test accuracy (%)", "test_accuracy", lambda v: mean_std(100 * v, ".2f")),
            ("train loss", "train_loss", lambda v: mean_std(v, ".2e")),
            ("test loss", "test_loss", lambda v: mean_std(v, ".4f")),
        ]
        for dim in self.settings["subspace_dims"]:
            for epsilon in self.settings["epsilons"]:
                name = f"sharpness {epsilon:g}" + ("" if dim is None else f", {dim} dims") + " (%)"
                quantities.append((name, sharpness_key(epsilon, dim), lambda v: mean_std(v, ".3g")))
        quantities += [
            ("distance from start", "weight_distance", lambda v: mean_std(v, ".2f")),
            ("epochs", "n_epochs", lambda v: mean_std(v, ".0f")),
            ("updates", "n_updates", lambda v: mean_std(v, ",.0f")),
            ("seconds to fit", "fit_seconds", lambda v: mean_std(v, ".1f")),
        ]
        rows = [["", *columns]]
        rows += [[name, *(show(self.values(label, key)) for label in columns)] for name, key, show in quantities]
        return aligned(rows)

    def _gap_lines(self) -> list[str]:
        reference = self.settings["reference"]
        lines = []
        for gap in self.gaps():
            interval = "" if np.isnan(gap.low) else f", 95 % interval [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]"
            lines.append(
                f"regime gap, test accuracy {reference} - {gap.regime}: {100 * gap.mean:+.2f} points{interval} "
                f"over {count(gap.n_trials, 'paired trial')} (seeds, not the draw of the test set)"
            )
            one, other = self.paired(gap.regime, "weight_distance")
            lines.append(f"distance from start, {reference} / {gap.regime}: {mean_std(one / other, '.2f')}")
        for label in self.labels:
            gap_of_one = self.values(label, "train_accuracy") - self.values(label, "test_accuracy")
            if len(gap_of_one):
                lines.append(f"train-test gap of {label}: {mean_std(100 * gap_of_one, '.2f')} points")
        return lines

    # -- leaving ---------------------------------------------------------------------------------------------------

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per fit; needs pandas."""
        return to_frame(self.records)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return settings, records, gaps and warnings as JSON; write it to ``path`` if given."""
        content = {
            "settings": self.settings,
            "interrupted": self.interrupted,
            "gaps": [asdict(gap) for gap in self.gaps()],
            "warnings": self.warnings(),
            "records": self.records,
        }
        return to_json(content, path)

    def plot(self, axes: Any = None) -> Any:
        """Draw test accuracy and sharpness of every trial; return a `RegimeComparisonDisplay`."""
        from sklgap.model_selection._plot._compare import RegimeComparisonDisplay

        return RegimeComparisonDisplay.from_comparison(self, axes=axes)
