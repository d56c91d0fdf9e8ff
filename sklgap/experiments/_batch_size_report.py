"""The result of ``batch_size_curve``: its table, its reading, its files."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sklgap.experiments._result import count, mean_std
from sklgap.experiments._trial_records import LOSS_RATIO, TrialRecords
from sklgap.experiments._trials import sharpness_key

_BUDGETS = {
    "epochs": "{max_epochs} epochs for every size",
    "updates": "as many updates for every size as the reference makes in {max_epochs} epochs",
    "loss": "to a training loss of {target_loss}, within {max_epochs} epochs",
}
_RATES = {
    "fixed": "the same for all sizes",
    "sqrt": "grows with the square root of the batch size",
    "linear": "grows in proportion to the batch size",
    "tuned": "chosen for each size on the validation data, by seeds that the trials below do not use",
}


class BatchSizeCurve(TrialRecords):
    """What `batch_size_curve` found; ``print`` it.

    Parameters
    ----------
    results : list of (record, estimator)
        One flat record and one fitted estimator per finished fit; ``regime`` is the batch size as text.
    settings : dict
        What was trained and measured, and on which versions.
    interrupted : bool
        Whether Ctrl-C ended it early.
    tuning : list of dict
        One record per fit that a learning rate was chosen by: ``batch_size``, ``lr``, ``valid_accuracy`` and more.

    Attributes
    ----------
    batch_sizes : list of int
        In ascending order.
    reference : int
        The size that the others are compared with.
    records : list of dict
        One per finished fit: accuracies as fractions, sharpness in percent, seconds.
    tuning : list of dict
        As given.
    settings : dict
        As given; ``settings["cost"]`` is what the sweep was expected to cost, where it was measured.
    estimators_ : dict of lists
        The fitted estimators by batch size (as text), in the order of the trials.
    """

    def __init__(
        self,
        results: list[tuple[dict[str, Any], Any]],
        settings: dict[str, Any],
        interrupted: bool = False,
        tuning: list[dict[str, Any]] | None = None,
    ) -> None:
        self.batch_sizes: list[int] = list(settings["batch_sizes"])
        self.reference = int(settings["reference"])
        self.tuning = tuning or []
        super().__init__(results, [str(size) for size in self.batch_sizes], settings, interrupted)

    def by_trial(self, label: Any, key: str) -> np.ndarray:
        """Return one quantity of one batch size, an array of shape (n_trials,), NaN where the fit had not finished."""
        return super().by_trial(str(label), key)

    def quantity(self, key: str) -> np.ndarray:
        """Return one quantity, an array of shape (n_sizes, n_trials), NaN where the fit had not finished."""
        return np.array([self.by_trial(size, key) for size in self.batch_sizes])

    def sharpness_names(self) -> dict[str, str]:
        """Return what was measured of the sharpness: key of a record to what a reader calls it."""
        return {
            sharpness_key(epsilon, dim): f"sharpness {epsilon:g}" + ("" if dim is None else f", {dim} dims")
            for dim in self.settings["subspace_dims"]
            for epsilon in self.settings["epsilons"]
        }

    # -- printing --------------------------------------------------------------------------------------------------

    def warnings(self) -> list[str]:
        """Return, in plain sentences, what a reader must know before believing the figures."""
        done = [label for label in self.labels if len(self.values(label, "trial"))]
        converged = {label: self.values(label, "converged") for label in done}
        missed = {label: int((values == 0).sum()) for label, values in converged.items() if (values == 0).any()}
        found = self._interrupted()
        if missed:
            what = "reached target_loss" if self.settings["budget"] == "loss" else "converged under the stopping rule"
            sizes = ", ".join(f"{label} ({n} of {len(converged[label])} trials)" for label, n in missed.items())
            found.append(f"Not {what}: batches of {sizes}.")
        elif any(np.isnan(values).any() for values in converged.values()):
            found.append("Every size was trained for its whole budget, without a stopping rule.")
        found += self._unequal_losses()
        found += self._rates_at_the_edge(done)
        if self.settings["n_trials"] < 2:
            found.append("One trial has no interval: a difference may be that of two seeds.")
        return found

    def _rates_at_the_edge(self, labels: list[str]) -> list[str]:
        lrs = self.settings["lrs"]
        if len(lrs) < 2:
            return []
        rates = {label: self.values(label, "lr")[0] for label in labels}
        edge = [f"{label} ({rate:g})" for label, rate in rates.items() if rate in (min(lrs), max(lrs))]
        return [f"At the edge of lrs is the rate for batches of {', '.join(edge)}: try further ones."] if edge else []

    def _unequal_losses(self) -> list[str]:
        diverged, unequal = [], []
        for gap in self.gaps():
            one, other = (losses.mean() for losses in self.paired(gap.regime, "train_loss"))
            if not np.isfinite(one + other):
                diverged.append(gap.regime)
            elif max(one, other) > LOSS_RATIO * min(one, other):
                unequal.append(gap.regime)
        found = []
        if diverged:
            found.append(f"The loss is not finite for batches of {', '.join(diverged)}, or of the reference.")
        if unequal:
            found.append(
                f"Training losses of batches of {', '.join(unequal)} differ from that of {self.reference} by more than "
                f"a factor of {LOSS_RATIO:g}: part of any difference may be that one is trained further."
            )
        return found

    def _head(self) -> list[str]:
        s = self.settings
        budget = _BUDGETS[s["budget"]].format(**s)
        return [
            f"{s['n_train']:,} training, {s['n_valid']:,} validation and {s['n_test']:,} test samples, "
            f"{self._trials()}",
            f"learning rate (lr={s['lr']!r}): {_RATES[s['lr']]}",
            f"budget (budget={s['budget']!r}): {budget}",
            *self._measured_how(),
        ]

    def _table(self) -> list[list[str]]:
        columns: list[tuple[str, str, Callable[[np.ndarray], str]]] = [
            ("lr", "lr", lambda v: f"{v[0]:.3g}"),
            ("updates", "n_updates", lambda v: f"{v.mean():,.0f}"),
            ("train loss", "train_loss", lambda v: mean_std(v, ".1e")),
            ("train (%)", "train_accuracy", lambda v: mean_std(100 * v, ".2f")),
            ("valid. (%)", "valid_accuracy", lambda v: mean_std(100 * v, ".2f")),
            ("test (%)", "test_accuracy", lambda v: mean_std(100 * v, ".2f")),
        ]
        names = self.sharpness_names()
        columns += [(f"{name} (%)", key, lambda v: mean_std(v, ".3g")) for key, name in names.items()]
        columns.append(("s to fit", "fit_seconds", lambda v: f"{v.mean():.1f}"))
        gaps = {gap.regime: gap for gap in self.gaps()}
        header = ["batch size", *(name for name, _, _ in columns), "regime gap [95 %]"]
        rows = [header]
        for size, label in zip(self.batch_sizes, self.labels, strict=True):
            if len(self.values(label, "trial")):
                cells = [show(self.values(label, key)) for _, key, show in columns]
                own = gaps[label].in_points() if label in gaps else ""
                rows.append([f"{size:,}", *cells, "reference" if size == self.reference else own])
        return rows

    def _reading(self) -> list[str]:
        gaps = self.gaps()
        if not gaps:
            return ["No size has a trial that the reference has finished too: nothing can be compared."]
        gap = gaps[-1]
        many = (
            "regime gap: test accuracy of the reference minus that of the size, in points, over paired trials; each "
            "interval is for its own size, and covers seeds, not the draw of the test set"
        )
        size, points = int(gap.regime), 100 * abs(gap.mean)
        changes = f"is {points:.2f} points {'below' if gap.mean > 0 else 'above'}"
        doubt = "" if gap.n_trials < 2 or not gap.low <= 0 <= gap.high else " (its interval contains 0)"
        sentence = (
            f"Test accuracy with batches of {size:,} {changes} that with batches of {self.reference:,}{doubt}, "
            f"over {count(gap.n_trials, 'trial')}"
        )
        for key, name in list(self.sharpness_names().items())[:1]:
            one, other = (values.mean() for values in self.paired(gap.regime, key))
            sentence += f"; {name} is {other:.3g} % instead of {one:.3g} %"
        advice = ["How large a batch is safe: largest_safe_batch_size(curve)."] if self.settings["n_trials"] > 1 else []
        return [many, sentence + ".", *advice]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _statistics(self) -> dict[str, Any]:
        return {**super()._statistics(), "tuning": self.tuning}

    def plot(self, ax: Any = None, *, safe: Any = None) -> Any:
        """Draw Figure 4 of Keskar et al.; return a `BatchSizeCurveDisplay`.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None: a new figure.
        safe : int or SafeBatchSize, default=None
            A batch size to mark.
        """
        from sklgap.experiments._plot._batch_size_curve import BatchSizeCurveDisplay

        return BatchSizeCurveDisplay.from_curve(self, ax=ax, safe=safe)
