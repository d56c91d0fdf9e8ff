"""The result of a comparison: its statistics, its printed form, its files."""

from typing import Any

import numpy as np

from sklgap.experiments._result import aligned, convergence_warnings, count, listed, mean_std
from sklgap.experiments._trial_records import LOSS_RATIO, TrialRecords
from sklgap.experiments._trials import sharpness_key

# Characters of a line of the table: regimes beyond them stand in a table below.
_LINE = 120


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
        gaps = self.gaps()
        losses = {gap.regime: [loss.mean() for loss in self.paired(gap.regime, "train_loss")] for gap in gaps}
        diverged = [label for label, (one, other) in losses.items() if not np.isfinite(one + other)]
        unequal = [
            f"{label} ({other:.1e})"
            for label, (one, other) in losses.items()
            if label not in diverged and max(one, other) > LOSS_RATIO * min(one, other)
        ]
        if diverged:
            found.append(f"The loss of {reference} or {listed(diverged)} is not finite: that training diverged.")
        if unequal:
            trained = self.values(reference, "train_loss")
            mean = trained[np.isfinite(trained)].mean()
            found.append(
                f"Training losses of {reference} ({mean:.1e}) and {listed(unequal)} differ by more than a factor of "
                f"{LOSS_RATIO:g}: part of any difference may be that one is trained further."
            )
        single = [gap.regime for gap in gaps if gap.n_trials < 2]
        if single:
            found.append(f"The gap of {listed(single)} has no interval: it needs at least 2 paired trials.")
        undecided = [gap.regime for gap in gaps if gap.low <= 0 <= gap.high]
        if undecided:
            found.append(
                f"The interval of the gap contains 0 for {listed(undecided)}: these trials do not show a difference in "
                f"accuracy from {reference}."
            )
        better = [gap.regime for gap in gaps if gap.high < 0]
        if better:
            found.append(f"More accurate than {reference} here: {listed(better)}.")
        return found + self._flatter([gap.regime for gap in gaps])

    def _flatter(self, labels: list[str]) -> list[str]:
        """Say so where the sharpness of a regime is below the reference's: the papers find the opposite for LB."""
        if not self.settings["epsilons"]:
            return []
        key = sharpness_key(max(self.settings["epsilons"]), self.settings["subspace_dims"][0])
        means = {label: [values.mean() for values in self.paired(label, key)] for label in labels}
        flatter = [label for label, (one, other) in means.items() if other < one]
        if not flatter:
            return []
        return [
            f"Not sharper than {self.settings['reference']} here: {listed(flatter)}. Sharpness also falls as the "
            "training loss does: read it beside the losses."
        ]

    # -- printing --------------------------------------------------------------------------------------------------

    def _head(self) -> list[str]:
        s = self.settings
        samples = f"{s['n_train']:,} training and {s['n_test']:,} test samples, {self._trials()}"
        return [samples, *self._measured_how()]

    def _table_lines(self) -> list[str]:
        rows = self._table()
        lines: list[str] = []
        while len(rows[0]) > 1:
            n = len(rows[0]) - 1
            while n > 1 and len(aligned([row[: n + 1] for row in rows])[0]) > _LINE:
                n -= 1
            lines += ["", *aligned([row[: n + 1] for row in rows])]
            rows = [[row[0], *row[n + 1 :]] for row in rows]
        return lines[1:]

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
        return [*rows, *self._gap_rows(columns)]

    def _gap_rows(self, columns: list[str]) -> list[list[str]]:
        """Return the rows that compare training with test data, and each regime with the reference."""
        gaps = {gap.regime: gap for gap in self.gaps()}
        rows: dict[str, list[str]] = {"train-test gap (points)": [], "regime gap (points)": [], "distance ratio": []}
        own, regime, distance = rows.values()
        for label in columns:
            gap_of_one = self.values(label, "train_accuracy") - self.values(label, "test_accuracy")
            own.append(mean_std(100 * gap_of_one, ".2f"))
            gap = gaps.get(label)
            regime.append("" if gap is None else gap.in_points())
            one, other = self.paired(label, "weight_distance")
            distance.append("" if gap is None else mean_std(one / other, ".2f"))
        return [[name, *cells] for name, cells in rows.items() if any(cells)]

    def _reading(self) -> list[str]:
        reference, n_trials = self.settings["reference"], sorted({gap.n_trials for gap in self.gaps()})
        if not n_trials:
            return []
        fewest = "" if len(n_trials) == 1 else f"{n_trials[0]} to "
        interval = ", with its 95 % interval" if n_trials[-1] > 1 else ""
        return [
            f"regime gap, test accuracy: {reference} minus the regime{interval} over {fewest}"
            f"{count(n_trials[-1], 'paired trial')} (seeds, not the draw of the test set)",
            f"distance ratio: distance from start of {reference} divided by that of the regime",
        ]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def plot(self, axes: Any = None) -> Any:
        """Draw test accuracy and sharpness of every trial; return a `RegimeComparisonDisplay`."""
        from sklgap.experiments._plot._compare import RegimeComparisonDisplay

        return RegimeComparisonDisplay.from_comparison(self, axes=axes)
