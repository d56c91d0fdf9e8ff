"""What `gap_report` returns: its table, its sentences, its files."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklgap.experiments._candidates import Candidate
from sklgap.experiments._result import aligned, count, listed, to_frame, to_json

# A search may have thousands of candidates; the printed table has no more than this.
_MOST_ROWS = 50
# Below the reference's training accuracy by more than this, a candidate is called trained less far.
_LESS_FAR = 0.01


@dataclass(frozen=True)
class GapReport:
    """What `gap_report` read from a search; ``print`` it.

    Attributes
    ----------
    records : list of dict
        One per candidate, in the order of ``cv_results_``: accuracies and gaps as fractions, sharpness in percent,
        seconds; means over the folds, with ``_std`` (by n - 1). ``regime_gap`` has ``_low`` and ``_high``. NaN where
        there is none.
    settings : dict
        The reference, the metrics, the folds.
    warnings : list of str
        What a reader must know before believing the figures.
    """

    records: list[dict[str, Any]]
    settings: dict[str, Any]
    warnings: list[str]

    def __str__(self) -> str:
        s = self.settings
        head = [f"{count(len(self.records), 'candidate')}, {count(s['n_folds'], 'fold')}, mean ± std over the folds"]
        if s["sharpness"]:
            head.append("sharpness in %, of the training rows of each fold")
        lines = [*head, "", *self._table(), *self._explained()]
        notes = [f"* {sentence}" for sentence in self.warnings]
        return "\n".join([*lines, *(["", "Please note:", *notes] if notes else [])])

    __repr__ = __str__

    def _table(self) -> list[str]:
        s = self.settings
        columns: list[tuple[str, Any]] = [("candidate", lambda r: r["label"])]
        if s["resource"]:
            columns.append(("iteration", lambda r: f"{r['iteration']} ({r['resources']:,} {s['resource']})"))
        columns += [
            ("train accuracy (%)", lambda r: _mean_std(r, "train_accuracy", 100, ".2f")),
            ("test accuracy (%)", lambda r: _mean_std(r, "test_accuracy", 100, ".2f")),
            ("train-test gap", lambda r: _mean_std(r, "train_test_gap", 100, ".2f")),
        ]
        if s["reference"] is not None:
            columns.append(("regime gap [95 %]", lambda r: "reference" if r["is_reference"] else _regime_gap(r)))
        columns += [(f"{name} (%)", lambda r, name=name: _mean_std(r, name, 1, ".3g")) for name in s["sharpness"]]
        columns.append(("seconds to fit", lambda r: _mean_std(r, "fit_seconds", 1, ".1f")))
        shown = self.records[:_MOST_ROWS]
        rows = [[name for name, _ in columns], *([show(record) for _, show in columns] for record in shown)]
        lines = aligned(rows)
        more = len(self.records) - len(shown)
        return [*lines, f"... and {more:,} more: to_frame() has them all"] if more else lines

    def _explained(self) -> list[str]:
        s = self.settings
        if s["reference"] is None:
            return []
        return [
            "",
            f"regime gap: test accuracy of {s['reference']} minus the candidate's, in points, over the same folds.",
            "The training sets of the folds overlap, so that the usual t interval would be too short: this is the one",
            "of the corrected resampled t-test (Nadeau and Bengio 2003, test to training rows "
            f"{s['test_to_train_ratio']:.3g}), itself an",
            "approximation. It covers the draw of the rows, and seeds as far as the folds had different ones.",
        ]

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per candidate; needs pandas."""
        return to_frame(self.records)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return settings, warnings and records as JSON; write it to ``path`` if given."""
        return to_json({"settings": self.settings, "warnings": self.warnings, "records": self.records}, path)


def sentences_on(
    records: list[dict[str, Any]], settings: dict[str, Any], candidates: list[Candidate], sharing: int
) -> list[str]:
    """Return, in plain sentences, what a reader must know before believing the figures."""
    n_folds, reference = settings["n_folds"], settings["reference"]
    found = []
    failed = [f"{n_folds - r['n_finished']} of {_named(r)}" for r in records if r["n_finished"] < n_folds]
    if failed:
        found.append(f"Fits failed or have scores that are NaN, and are left out: {listed(failed)}.")
    if len(records) == 1:
        found.append("There is one candidate: nothing to compare it with, and no regime gap.")
    elif reference is None:
        found.append("The batch size does not vary over the candidates: there is no regime gap without a reference.")
    if sharing > 1:
        found.append(
            f"{sharing} candidates share the smallest batch; the first of them, {reference}, is the reference. Compare "
            "with what differs in one parameter only, by reference=."
        )
    if settings["resource"]:
        found.append(
            f"A halving search gives its iterations different amounts ({settings['resource']}): compare candidates "
            "within an iteration only. The regime gaps do; there is none where the reference had dropped out."
        )
    untrained = {key for candidate in candidates for key in candidate.scores if "sharpness" in key}
    if any(key.startswith("test_") and f"train_{key.removeprefix('test_')}" not in untrained for key in untrained):
        found.append(
            "Sharpness was scored on test rows only and is left out: the paper's f is the training loss "
            "(return_train_score=True)."
        )
    return found + _of_gaps([r for r in records if r.get("n_pairs")], records, settings)


def _of_gaps(gaps: list[dict[str, Any]], records: list[dict[str, Any]], settings: dict[str, Any]) -> list[str]:
    reference = settings["reference"]
    found = []
    if gaps and not settings["test_to_train_ratio_known"]:
        found.append(
            "The folds are taken for those of k-fold cross-validation in the intervals; test_ratio= says more."
        )
    if any(math.isnan(r["regime_gap_low"]) for r in gaps):
        found.append("A gap has no interval where fewer than two folds have both scores.")
    undecided = [_named(r) for r in gaps if r["regime_gap_low"] <= 0 <= r["regime_gap_high"]]
    if undecided:
        found.append(f"The interval of the gap contains 0, and shows no difference, for {listed(undecided)}.")
    better = [_named(r) for r in gaps if r["regime_gap_high"] < 0]
    if better:
        found.append(f"More accurate than {reference} here: {listed(better)}.")
    by_iteration = {r.get("iteration"): r["train_accuracy"] for r in records if r.get("is_reference")}
    less = [_named(r) for r in gaps if r["train_accuracy"] < by_iteration[r.get("iteration")] - _LESS_FAR]
    if less:
        found.append(
            f"Training accuracy more than {100 * _LESS_FAR:g} point below that of {reference}: {listed(less)}. Part of "
            "the gap may be that it is not trained as far."
        )
    if len(gaps) > 2:
        found.append(f"Each interval is for one comparison: of {len(gaps)}, some may miss 0 by chance.")
    return found


def _named(record: dict[str, Any]) -> str:
    return record["label"] + (f" (iteration {record['iteration']})" if "iteration" in record else "")


def _mean_std(record: dict[str, Any], name: str, scale: float, spec: str) -> str:
    mean, std = scale * record[name], scale * record[f"{name}_std"]
    if math.isnan(mean):
        return "-"
    return format(mean, spec) + ("" if math.isnan(std) else f" ± {format(std, spec)}")


def _regime_gap(record: dict[str, Any]) -> str:
    gap, low, high = (100 * record[f"regime_gap{end}"] for end in ("", "_low", "_high"))
    if math.isnan(gap):
        return "-"
    return f"{gap:+.2f}" + ("" if math.isnan(low) else f" [{low:+.2f}, {high:+.2f}]")
