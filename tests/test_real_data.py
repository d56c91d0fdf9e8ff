"""The package's main claims on real data: run where $SKLGAP_DATA is set (``pytest -m realdata``)."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklgap import (
    LBGapClassifier,
    batch_size_curve,
    generalization_gap_score,
    largest_safe_batch_size,
    loss_along_line,
    sharpness,
)
from sklgap.datasets import fetch_cifar10, fetch_mnist

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not os.environ.get("SKLGAP_DATA"), reason="$SKLGAP_DATA is not set"),
]


@pytest.fixture(scope="module")
def mnist():
    """Three thousand training and two thousand test images of MNIST."""
    X, y = fetch_mnist(return_X_y=True, flat=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    return X[:3000], y[:3000], X_test[:2000], y_test[:2000]


@pytest.fixture(scope="module")
def solutions(mnist):
    """F1 trained with batches of 32 and of 750 from the same weights, both to 100 % training accuracy or nearly."""
    X, y, *_ = mnist
    models = {
        size: LBGapClassifier("F1", batch_size=size, max_epochs=epochs, tol=None, random_state=0, device="cpu").fit(
            X, y
        )
        for size, epochs in ((32, 12), (750, 40))
    }
    assert all(model.train_score_ > 0.98 for model in models.values())
    return models


def test_large_batch_stays_near_and_is_sharp(mnist, solutions):
    """Keskar et al.: LB minima lie nearer to the start and are sharper.

    By how much is for the whole data set and converged solutions (docs/results): 3,000 images show the order only.
    """
    X, y, *_ = mnist
    small, large = solutions[32], solutions[750]
    assert small.history_[-1, "weight_distance"] > 2 * large.history_[-1, "weight_distance"]
    values = {
        size: sharpness(model, X, y, max_samples=1000, max_iter=12, random_state=0).value
        for size, model in solutions.items()
    }
    assert values[750] > values[32]


def test_both_learn_and_the_line_between_them_ends_at_them(mnist, solutions):
    _, _, X_test, y_test = mnist
    small, large = solutions[32], solutions[750]
    # Six seeds come to 0.893 to 0.907 with batches of 32, with and without a fused optimiser, and chance to 0.1.
    assert min(small.score(X_test, y_test), large.score(X_test, y_test)) > 0.87
    assert 0 < generalization_gap_score(large, X_test, y_test) < 0.1
    curve = loss_along_line(small, large, X_test, y_test, alphas=[0, 1], batch_norm="running")
    # Under "running" the buffers are the start's: only that end is the model that predicts.
    np.testing.assert_allclose(curve.accuracy[0], small.score(X_test, y_test), atol=1e-3)


def test_c1_learns_cifar10_images():
    X, y = fetch_cifar10(return_X_y=True)
    X, y = X[:600], y[:600]
    model = LBGapClassifier("C1", batch_size=50, max_epochs=6, tol=None, random_state=0, device="cpu").fit(X, y)
    assert X.shape[1:] == (3, 32, 32)
    assert model.train_score_ > 0.35  # chance is 0.1
    assert model.history_[-1, "train_loss"] < model.history_[0, "train_loss"]


@pytest.fixture(scope="module")
def flights():
    """Flights with words and gaps; 1: more than an hour late, which 8.8 % are."""
    pd = pytest.importorskip("pandas")
    frame = pd.read_csv(Path(os.environ["SKLGAP_DATA"]) / "flights.csv.gz")
    y = (frame.pop("late") == "late").astype(int).to_numpy()
    return train_test_split(frame, y, test_size=6000, stratify=y, random_state=0)


@pytest.fixture(scope="module")
def flights_curve(flights):
    """Batches of 128 and 512 on 9,000 flights."""
    X, X_test, y, y_test = flights
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="?"), OneHotEncoder(min_frequency=50, handle_unknown="ignore")
    )
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    columns = make_column_transformer(
        (words, make_column_selector(dtype_exclude=np.number)),
        (numbers, make_column_selector(dtype_include=np.number)),
        sparse_threshold=0,
    )
    net = LBGapClassifier(module__width=64, max_epochs=8, tol=None, device="cpu")
    return batch_size_curve(
        make_pipeline(columns, net), X[:12_000], y[:12_000], X_test, y_test, batch_sizes=[128, 512], n_trials=3,
        validation_fraction=0.25, epsilon=[], scoring={"accuracy": "accuracy", "ap": "average_precision"},
        random_state=0, verbose=0,
    )  # fmt: skip


def test_accuracy_says_nothing_about_late_flights(flights, flights_curve):
    y_test = flights[-1]
    for size in (128, 512):
        assert flights_curve.values(size, "test_accuracy").mean() <= 1 - y_test.mean()
    (sentence,) = [sentence for sentence in flights_curve.notes if "average_precision" in sentence]
    assert "91.2 %" in sentence
    safe = largest_safe_batch_size(flights_curve)
    assert any(sentence in note for note in safe.notes)


def test_average_precision_decides_about_late_flights(flights, flights_curve):
    y_test = flights[-1]
    values = {size: flights_curve.values(size, "test_ap") for size in (128, 512)}
    assert all((own > 1.5 * y_test.mean()).all() for own in values.values())  # both have learnt something
    safe = largest_safe_batch_size(flights_curve, 0.1, scoring="ap")
    (test,) = safe.tests
    valid = [flights_curve.values(size, "valid_ap") for size in (128, 512)]
    assert test.lost == pytest.approx((valid[0] - valid[1]).mean())
    assert test.bound > test.lost
    assert int(safe) == (512 if test.shown else 128)
    assert "samples" in flights_curve.gap(512, "ap").covers


def test_flights_from_the_shell(capsys, tmp_path):
    """A table with words and gaps, as it lies there: read, tried and answered in one line."""
    from sklgap.cli import main

    path = Path(os.environ["SKLGAP_DATA"]) / "flights.csv.gz"
    options = ["--target", "late", "--scoring", "average_precision", "--batch-sizes", "128", "1024", "--margin", "0.05"]
    quick = ["--train-samples", "6000", "--epochs", "3", "--trials", "2", "--lr", "0.001"]
    assert main(["curve", str(path), *options, *quick, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "two classes, late and ok; the positive class is late, with 8.8 % of the samples (see --positive)" in said
    assert any(line.startswith("gaps are filled (") and "wind_gust" in line for line in said)
    assert "of average_precision on validation data" in said[-1]
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    mean = {
        size: np.mean([r["test_average_precision"] for r in content["records"] if r["batch_size"] == size])
        for size in (128, 1024)
    }
    assert mean[128] > 2 * 0.088  # by chance it is the share of late flights
    assert mean[128] > mean[1024]
