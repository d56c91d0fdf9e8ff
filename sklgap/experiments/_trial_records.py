"""The records of many trials: pairing, gaps, and what every report prints and writes of them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sklgap.experiments._result import ExperimentResult, describe_policy
from sklgap.experiments._statistics import mean_estimate

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

    def in_points(self) -> str:
        """Return the gap and its interval, where there is one, in points."""
        interval = "" if np.isnan(self.low) else f" [{100 * self.low:+.2f}, {100 * self.high:+.2f}]"
        return f"{100 * self.mean:+.2f}{interval}"


class TrialRecords(ExperimentResult):
    """One flat record and one fitted estimator per finished fit of a comparison, and their statistics.

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
    """

    def __init__(
        self, results: list[tuple[dict[str, Any], Any]], labels: list[str], settings: dict[str, Any], interrupted: bool
    ) -> None:
        results = sorted(results, key=lambda result: (result[0]["trial"], labels.index(result[0]["regime"])))
        super().__init__([record for record, _ in results], settings, interrupted)
        self.labels = labels
        self.estimators_ = {
            label: [estimator for record, estimator in results if record["regime"] == label] for label in labels
        }

    # -- statistics ------------------------------------------------------------------------------------------------

    def values(self, label: Any, key: str) -> np.ndarray:
        """Return one quantity of one regime in its finished trials, an array of shape (n_finished,)."""
        return self.by_trial(label, key)[self.finished(label)]

    def paired(self, label: Any, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a quantity of the reference and of a regime in the trials that both finished."""
        both = self.finished(self.settings["reference"]) & self.finished(label)
        return self.by_trial(self.settings["reference"], key)[both], self.by_trial(label, key)[both]

    def by_trial(self, label: Any, key: str) -> np.ndarray:
        """Return one quantity of one regime, an array of shape (n_trials,), NaN where the fit had not finished."""
        values = np.full(self.settings["n_trials"], np.nan)
        for record in self.records:
            if record["regime"] == label:
                values[record["trial"]] = record[key]
        return values

    def finished(self, label: Any) -> np.ndarray:
        """Return which trials of a regime had finished, a boolean array of shape (n_trials,)."""
        return ~np.isnan(self.by_trial(label, "trial"))

    def gaps(self) -> list[Gap]:
        """Return the regime gap of every regime beside the reference."""
        others = [label for label in self.labels if label != self.settings["reference"]]
        return [self._gap(label) for label in others if len(self.paired(label, "trial")[0])]

    def _gap(self, label: str) -> Gap:
        reference, other = self.paired(label, "test_accuracy")
        gap = mean_estimate(reference - other)
        return Gap(label, gap.value, gap.low, gap.high, gap.n)

    # -- printing --------------------------------------------------------------------------------------------------

    def _interrupted(self) -> list[str]:
        if not self.interrupted:
            return []
        total = self.settings["n_trials"] * len(self.labels)
        return [f"Interrupted: {len(self.records)} of {total} fits had finished and are reported."]

    def _trials(self) -> str:
        n_trials = self.settings["n_trials"]
        return "one trial" if n_trials == 1 else f"{n_trials} paired trials, mean ± std"

    def _measured_how(self) -> list[str]:
        """Return what the head of a report says about batch norm and sharpness."""
        s = self.settings
        lines = [describe_policy(s["batch_norm"])]
        if s["epsilons"]:
            lines.append(f"sharpness in %, on {s['n_samples_sharpness']:,} training samples, solver {s['solver']!r}")
        return lines

    def _statistics(self) -> dict[str, Any]:
        return {"gaps": [asdict(gap) for gap in self.gaps()]}
