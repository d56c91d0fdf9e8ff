"""What fits, what is safe and what is useful, in one table."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from sklgap import batch_size_curve, largest_safe_batch_size
from sklgap.experiments import BatchSizeLimits, Estimate, batch_size_limits
from sklgap.monitor import BatchSizeMonitor
from tests.experiments.records import curve as of_an_estimator


def train(batch_size, random_state):
    """Large batches of 1,000 lose 30 points."""
    rng = np.random.RandomState([random_state % 1000, batch_size])
    return {"correct": rng.rand(2000) < (0.95 if batch_size < 1000 else 0.65)}


@pytest.fixture(scope="module")
def safe():
    curve = batch_size_curve(train, batch_sizes=[64, 256, 1024], n_trials=6, random_state=0, verbose=0)
    found = largest_safe_batch_size(curve, 0.03)
    assert int(found) == 256
    return found


@pytest.fixture(scope="module")
def monitor():
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    monitor = BatchSizeMonitor(net, nn.CrossEntropyLoss(), every=1)
    for _ in range(40):
        X = torch.randn(64, 4)
        monitor.step((X, (X[:, 0] > 0).long()))
    return monitor


@pytest.mark.parametrize(
    ("fits", "useful", "binding", "size"),
    [
        (4096, 900, ["safe"], 256),
        (128, 900, ["fits in memory"], 128),
        (4096, 100.9, ["useful"], 100),
        (256, None, ["fits in memory", "safe"], 256),
        (None, None, ["safe"], 256),
        (4096, Estimate(math.inf, 300.0, math.inf, 3), ["safe"], 256),
        (4096, Estimate(math.nan, math.nan, math.nan, 0), ["safe"], 256),
    ],
)
def test_the_smallest_limit_binds(safe, fits, useful, binding, size):
    found = batch_size_limits(safe, fits=fits, useful=useful)
    assert isinstance(found, BatchSizeLimits)
    assert (found.binding, int(found)) == (binding, size)
    assert len(found.verdict) == 1
    assert f"{size:,}" in found.verdict[0]
    for name in binding:
        assert name in found.verdict[0]


def test_the_table_has_all_three_and_says_what_is_not_known(safe):
    rows = batch_size_limits(safe, useful=900)._table()
    assert [row[0] for row in rows[1:]] == ["fits in memory", "safe", "useful"]
    assert [row[1] for row in rows[1:]] == ["not known", "256", "900"]
    assert [row[-1] for row in rows[1:]] == ["", "smallest", ""]


def test_an_interval_is_printed_with_what_it_covers(safe):
    found = batch_size_limits(safe, useful=Estimate(900.0, 600.0, 1400.0, 5, covers="new seeds and the noise"))
    assert "about 900 [600, 1,400]" in found.verdict[0]
    assert "new seeds and the noise" in str(found)
    assert "The interval of the useful batch size contains" not in " ".join(found.notes)


@pytest.mark.parametrize(
    ("low", "high", "doubt"), [(100.0, 1400.0, True), (300.0, 1400.0, False), (0.0, math.inf, True)]
)
def test_a_limit_within_the_interval_of_another_is_in_doubt(safe, low, high, doubt):
    notes = " ".join(batch_size_limits(safe, fits=10_000, useful=Estimate(900.0, low, high, 5)).notes)
    assert ("safe (256)" in notes) is doubt
    assert ("fits in memory (10,000)" in notes) is (high == math.inf)


def test_the_knee_of_a_monitor(safe, monitor):
    state = monitor.state()
    found = batch_size_limits(safe, fits=4096, useful=monitor)
    assert found.limits["useful"] == state["noise_scale"]
    (record,) = [r for r in found.records if r["limit"] == "useful"]
    assert (record["low"], record["high"]) == (state["noise_scale_low"], state["noise_scale_high"])
    assert "monitor's window" in str(found)


def test_a_monitor_that_has_measured_nothing_says_so(safe):
    found = batch_size_limits(safe, useful=BatchSizeMonitor(nn.Linear(2, 2)))
    assert "useful" not in found.limits
    assert "the monitor has measured nothing" in " ".join(found.notes)


def test_notes_say_what_a_limit_is_not(safe):
    notes = " ".join(batch_size_limits(safe, fits=32, useful=900).notes)
    assert "64, does not fit in memory" in notes
    assert "not about accuracy" in notes
    assert all(note in notes for note in safe.notes)


def test_sizes_that_were_not_tested_may_be_safe():
    curve = batch_size_curve(train, batch_sizes=[64, 256], n_trials=6, random_state=0, verbose=0)
    assert "No batch size above" in " ".join(batch_size_limits(largest_safe_batch_size(curve, 0.03)).notes)


def test_the_safe_size_of_an_estimator():
    found = batch_size_limits(
        largest_safe_batch_size(of_an_estimator({64: (0.90, 0.91, 0.92), 256: (0.90, 0.911, 0.92)}), 0.05), fits=10
    )
    assert found.binding == ["fits in memory"]
    assert "accuracy" in str(found)


def test_the_margin_is_printed_in_the_units_of_its_score(safe):
    assert "less than 3 points of accuracy on validation data, compared with batches of 64" in str(
        batch_size_limits(safe)
    )

    def scored(batch_size, random_state):
        return {"reward": 100 - batch_size / 64 + random_state % 7 / 100}

    curve = batch_size_curve(scored, batch_sizes=[64, 128], n_trials=4, random_state=0, verbose=0)
    own = largest_safe_batch_size(curve, {"reward": 2.5})
    assert "less than 2.5 of reward on validation data, compared with batches of 64" in str(batch_size_limits(own))


def test_it_leaves_in_every_form(safe, monitor):
    found = batch_size_limits(safe, fits=4096, useful=monitor)
    content = json.loads(found.to_json())
    assert content["binding"] == found.binding
    assert len(content["records"]) == 3
    for text in (found.to_latex(), found.to_markdown(), found._repr_html_()):
        assert "fits in memory" in text
    assert found.plot().safe == 256


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"fits": 0}, "fits must be None or an integer"),
        ({"fits": 12.5}, "fits must be None or an integer"),
        ({"fits": True}, "fits must be None or an integer"),
        ({"useful": 0}, "useful must be"),
        ({"useful": -3.0}, "useful must be"),
        ({"useful": math.inf}, "useful must be"),
        ({"useful": "900"}, "useful must be"),
        ({"useful": True}, "useful must be"),
        ({"useful": Estimate(-1.0, -2.0, 0.0, 3)}, "useful must be .*, an Estimate above 0"),
        ({"useful": {"noise_scale": 900.0}}, "useful must be the BatchSizeMonitor itself"),
        ({"safe": 256}, "safe must be a SafeBatchSize"),
    ],
)
def test_what_is_no_limit(safe, parameters, words):
    with pytest.raises((ValueError, TypeError), match=words):
        batch_size_limits(**{"safe": safe, **parameters})


@pytest.mark.parametrize("tokens", [2, 7, 0.5])
def test_a_monitor_that_counts_tokens_is_refused(safe, tokens):
    """600 tokens are not 600 samples."""
    monitor = BatchSizeMonitor(
        nn.Linear(3, 1), lambda model, batch: (model(batch).square().mean(), len(batch) * tokens), every=1
    )
    for _ in range(8):
        monitor.step(torch.randn(32, 3))
    with pytest.raises(ValueError, match=r"^useful must be in samples, .* such as tokens"):
        batch_size_limits(safe, useful=monitor)


@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0])
def test_a_monitor_under_class_weights_counts_samples(safe, scale):
    torch.manual_seed(0)
    monitor = BatchSizeMonitor(nn.Linear(3, 2), nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]) * scale), every=1)
    for _ in range(8):
        monitor.step((torch.randn(32, 3), torch.randint(2, (32,))))
    assert batch_size_limits(safe, useful=monitor).records[-1]["limit"] == "useful"
