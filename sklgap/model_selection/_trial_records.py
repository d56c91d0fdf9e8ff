"""The records of many trials: pairing, gaps, and what every report prints and writes of them."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import scipy
import sklearn
import torch
from scipy import stats

from sklgap._version import __version__

CONFIDENCE = 0.95
# Beyond this ratio the mean training losses of two regimes are called clearly unequal.
LOSS_RATIO = 2.0


def environment() -> dict[str, Any]:
    """Return versions and hardware, for the record."""
    return {
        "sklgap": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "skorch": version("skorch"),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "joblib": joblib.__version__,
        "machine": platform.machine(),
        "n_cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def count(n: int, noun: str) -> str:
    """Return "1 trial", "2 trials"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def mean_std(values: np.ndarray, spec: str) -> str:
    """Return "mean ± std", or the one value."""
    mean = format(values.mean(), spec)
    return mean if len(values) < 2 else f"{mean} ± {format(values.std(ddof=1), spec)}"


def table(rows: list[list[str]]) -> list[str]:
    """Return lines with the first column at its left edge and all others at their right edges."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        row[0].ljust(widths[0]) + "".join("   " + cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]


def to_strict_json(content: Any, path: str | Path | None) -> str:
    """Return JSON, with null for numbers that JSON does not know; write it to ``path`` if given."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False)
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def to_frame(records: list[dict[str, Any]]) -> Any:
    """Return a pandas DataFrame with one row per record."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install pandas; to_json and records do not.") from error
    return pd.DataFrame(records)


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


class TrialRecords:
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
        self.records = [record for record, _ in results]
        self.labels = labels
        self.settings = settings
        self.interrupted = interrupted
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
        differences = reference - other
        n = len(differences)
        if n < 2:
            return Gap(label, float(differences.mean()), float("nan"), float("nan"), n)
        half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * differences.std(ddof=1) / np.sqrt(n)
        mean = float(differences.mean())
        return Gap(label, mean, mean - float(half), mean + float(half), n)

    # -- printing --------------------------------------------------------------------------------------------------

    def warnings(self) -> list[str]:
        """Return, in plain sentences, what a reader must know before believing the figures."""
        raise NotImplementedError

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
        policy = {
            "batch": "batch statistics of fixed chunks",
            "population": "population statistics",
            "running": "running averages",
        }[s["batch_norm"]]
        lines = [f"losses and accuracies with {policy} in batch norm (batch_norm={s['batch_norm']!r}), dropout off"]
        if s["epsilons"]:
            lines.append(f"sharpness in %, on {s['n_samples_sharpness']:,} training samples, solver {s['solver']!r}")
        return lines

    def _notes(self) -> list[str]:
        found = self.warnings()
        return [*(["", "Please note:"] if found else []), *(f"* {sentence}" for sentence in found)]

    # -- leaving ---------------------------------------------------------------------------------------------------

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per fit; needs pandas."""
        return to_frame(self.records)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return settings, records, gaps and warnings as JSON; write it to ``path`` if given."""
        return to_strict_json(self._content(), path)

    def _content(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "interrupted": self.interrupted,
            "gaps": [asdict(gap) for gap in self.gaps()],
            "warnings": self.warnings(),
            "records": self.records,
        }
