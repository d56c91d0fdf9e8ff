"""Tables of other shapes, from the file to the verdict, and the same study in Python."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

from sklgap import LBGapClassifier, batch_size_curve, largest_safe_batch_size
from sklgap.cli import _curve
from sklgap.cli._load import load
from tests.cli.tables import QUICK, run, write

pytest.importorskip("pandas")


def ten_classes():
    X, y = load_digits(return_X_y=True)
    header = [f"p{i}" for i in range(64)]
    return [[*header, "digit"], *([*map(str, row), f"d{label}"] for row, label in zip(X[:400], y[:400], strict=True))]


def two_columns():
    rng = np.random.default_rng(0)
    values = rng.normal(size=300)
    return [["value", "kind"], *([f"{v:.3f}", "high" if v + 0.3 * rng.normal() > 0 else "low"] for v in values)]


STORIES = {"ten classes": (ten_classes, "digit"), "two columns": (two_columns, "kind")}


@pytest.mark.parametrize("story", STORIES)
def test_the_verdict_is_that_of_the_same_study_in_python(story, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sklgap.cli._report.pyplot", lambda: None)
    lines, target = STORIES[story]
    table = write(tmp_path / "table.csv", lines())
    options = ("--target", target, "--batch-sizes", "8", "64", "--output", tmp_path / "out", *QUICK)
    found = run(capsys, "curve", table, *options)
    assert found.code == 0
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    data = load(_curve.parser().parse_args([str(table), "--target", target]))
    net = LBGapClassifier("F1", max_epochs=2, tol=None, lr=0.01, module__width=64, module__n_layers=3)
    curve = batch_size_curve(
        make_pipeline(data.head, net),
        *(data.X, data.y, data.X_test, data.y_test),
        batch_sizes=[8, 64],
        validation_fraction=content["settings"]["n_valid"] / len(data.y),
        n_trials=2,
        epsilon=[],
        random_state=0,
        verbose=0,
    )
    safe = largest_safe_batch_size(curve, 0.2)
    assert [r["valid_accuracy"] for r in content["records"]] == [r["valid_accuracy"] for r in curve.records]
    assert content["more"][0]["batch_size"] == int(safe)
    assert ("is 64" in found.lines[-1]) == (int(safe) == 64)
