import json

import numpy as np
import pytest

from sklgap.experiments import overhead_efficiency, parallel_model

SIZES, UPDATES = [256, 6000, 60_000], [4000, 400, 30]


def time(updates, batch_size, n_processors, efficiency):
    """The paper's model."""
    return updates * batch_size / (n_processors * efficiency)


def test_the_efficiency_needed_makes_the_times_equal():
    model = parallel_model(SIZES, UPDATES)
    np.testing.assert_allclose(model.efficiency_needed, [1, 2_400_000 / 1_024_000, 1_800_000 / 1_024_000])
    small = time(UPDATES[0], SIZES[0], 16, 0.3)
    for size, updates, ratio in zip(SIZES, UPDATES, model.efficiency_needed, strict=True):
        assert time(updates, size, 16, 0.3 * ratio) == pytest.approx(small)
        assert time(updates, size, 16, 0.3 * ratio * 1.01) < small
    # Beyond this efficiency of the small batch not even a perfect large batch is faster.
    for i in (1, 2):
        limit = model.reference_efficiency_limit[i]
        assert time(UPDATES[0], SIZES[0], 16, limit) == pytest.approx(time(UPDATES[i], SIZES[i], 16, 1))


def test_speed_up_is_the_ratio_of_times():
    model = parallel_model(SIZES, UPDATES, reference=1)
    efficiencies = {256: 0.2, 6000: 0.5, 60_000: 0.9}
    found = model.speed_up(lambda batch_size, P: efficiencies[batch_size], 8)
    times = [time(i, b, 8, efficiencies[b]) for b, i in zip(SIZES, UPDATES, strict=True)]
    np.testing.assert_allclose(found, times[1] / np.array(times))
    curves = model.speed_up(lambda batch_size, P: 1 / (1 + 10 * P / batch_size), [1, 16, 256])
    assert curves.shape == (3, 3)
    np.testing.assert_array_equal(curves[1], 1)
    assert (np.diff(curves[2]) > 0).all()  # more processors favour the larger batch
    assert (np.diff(curves[0]) < 0).all()


def test_a_number_stands_for_an_overhead():
    model = parallel_model(SIZES, UPDATES)
    np.testing.assert_array_equal(model.speed_up(20, [1, 300]), model.speed_up(overhead_efficiency(20), [1, 300]))


@pytest.mark.parametrize("overhead", [0, 0.5, 40])
def test_overhead_efficiency_is_that_of_its_own_times(overhead):
    """One processor's rows over what all processors spend."""
    efficiency = overhead_efficiency(overhead)
    for batch_size in (10, 64):
        for processors in (1, 4, 10, 50):
            rows = max(1, batch_size / processors)  # some have nothing to do
            spent = processors * (rows + overhead)
            assert efficiency(batch_size, np.array(float(processors))) == pytest.approx(batch_size / spent)


def test_trials_are_averaged_and_what_was_not_always_reached_has_no_answer():
    model = parallel_model([10, 100, 1000, 2000], [[90, 110], [20, 20], [5, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(model.n_updates, [100, 20, np.nan, np.nan])
    np.testing.assert_array_equal(model.efficiency_needed, [1, 2, np.nan, np.nan])
    assert [record["n_reached"] for record in model.records] == [2, 2, 1, 0]
    assert [row[-1] for row in model._table()[3:]] == ["goal missed in some trials", "goal never reached"]
    assert any("1,000 (1 of 2)" in sentence and "2,000 (2 of 2)" in sentence for sentence in model.notes)


def test_it_prints():
    model = parallel_model([100, 200, 400], [100, 100, 20])
    assert model._table()[1:] == [
        ["100", "100", "1", "(reference)"],
        ["200", "100", "2", "50 %"],
        ["400", "20", "0.8", "(can be faster)"],
    ]
    text = str(model)
    assert "Batches of 400 take less time than batches of 100" in text.splitlines()[0]
    assert "more than 0.8 times" in text.splitlines()[0]
    assert any("spread of the efficiencies is not known" in sentence for sentence in model.notes)
    assert parallel_model([400, 100], [20, 100]).reference == 1


def test_nothing_to_compare_with():
    model = parallel_model([100, 200], [[100, 90], [50, np.nan]])
    assert model._verdict() == ["No other batch size reached the goal in every trial."]


def test_it_leaves_in_all_formats():
    model = parallel_model([100, 200], [[100, 90], [50, 60]])
    assert r"95 $\pm$ 7" in model.to_latex()
    assert "| 95 ± 7 |" in model.to_markdown()
    assert "<td>95 ± 7</td>" in model._repr_html_()
    assert [record["batch_size"] for record in json.loads(model.to_json())["records"]] == [100, 200]
    assert list(model.to_frame()["n_updates"]) == [95, 55]


@pytest.mark.parametrize(
    ("sizes", "updates", "reference", "message"),
    [
        ([1], [2], None, "batch_sizes must have shape"),
        ([1, 2], [2], None, "batch_sizes must have shape"),
        ([[1, 2]], [[2, 3]], None, "batch_sizes must have shape"),
        ([1, 0], [2, 3], None, "must be above 0"),
        ([1, 2], [2, -3], None, "must be above 0"),
        ([1, 2], [2, np.inf], None, "must be above 0"),
        ([1, np.nan], [2, 3], None, "must be above 0"),
        (["small", "large"], [2, 3], None, r"must be numbers; got \['small', 'large'\] and \[2, 3\]"),
        ([1, 2], [None, [3]], None, "must be numbers; got"),
        (
            [1, 2],
            [np.nan, 3],
            None,
            "reference must be the position, below 2, of a batch size that reached the goal; got 0",
        ),
        ([1, 2], [2, 3], 2, "reference must be"),
        ([1, 2], [2, 3], -1, "reference must be"),
    ],
)
def test_bad_input(sizes, updates, reference, message):
    with pytest.raises(ValueError, match=message):
        parallel_model(sizes, updates, reference=reference)


@pytest.mark.parametrize(
    ("efficiency", "processors", "message"),
    [
        (-1, 1, "efficiency must be a callable, or an overhead in samples of at least 0; got -1"),
        ("high", 1, "efficiency must be a callable"),
        (1.0, 0, "n_processors must be numbers of at least 1; got 0"),
        (1.0, [[1]], "n_processors must be"),
        (lambda batch_size, P: 1.2, 1, r"efficiency must return numbers in \(0, 1\]"),
        (lambda batch_size, P: 0 * P, [1, 2], "efficiency must return numbers"),
    ],
)
def test_bad_efficiencies(efficiency, processors, message):
    with pytest.raises(ValueError, match=message):
        parallel_model(SIZES, UPDATES).speed_up(efficiency, processors)
