"""The result of a comparison: its statistics, its printed form, its files."""

from typing import Any

import numpy as np

from sklgap.model_selection._result import aligned, convergence_warnings, count, mean_std
from sklgap.model_selection._trial_records import LOSS_RATIO, TrialRecords
from sklgap.model_selection._trials import sharpness_key

_REGIMES_ABREAST = 6


class RegimeComparison(TrialRecords):
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

    # -- statistics ------------------------------------------------------------------------------------------------

    def warnings(self) -> list[str]:
        """Return, in plain sentences, what a reader must know before believing the figures."""
        reference = self.settings["reference"]
        found = self._interrupted()
        finished = [label for label in self.labels if len(self.values(label, "trial"))]
        ruled = [label for label in finished if not np.isnan(self.values(label, "converged")).all()]
        if finished and not ruled:
            found.append("All were trained for max_epochs, without a stopping rule.")
        for label in finished if ruled else []:
            converged = [None if np.isnan(value) else bool(value) for value in self.values(label, "converged")]
            found += convergence_warnings(label, converged)
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

    def _head(self) -> list[str]:
        s = self.settings
        samples = f"{s['n_train']:,} training and {s['n_test']:,} test samples, {self._trials()}"
        return [samples, *self._measured_how()]

    def _table_lines(self) -> list[str]:
        rows = self._table()
        blocks = range(1, len(rows[0]), _REGIMES_ABREAST)
        parts = [aligned([[row[0], *row[first : first + _REGIMES_ABREAST]] for row in rows]) for first in blocks]
        return [line for part in parts for line in ["", *part]][1:]

    def _table(self) -> list[list[str]]:
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
        return rows

    def _reading(self) -> list[str]:
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

    def plot(self, axes: Any = None) -> Any:
        """Draw test accuracy and sharpness of every trial; return a `RegimeComparisonDisplay`."""
        from sklgap.model_selection._plot._compare import RegimeComparisonDisplay

        return RegimeComparisonDisplay.from_comparison(self, axes=axes)
