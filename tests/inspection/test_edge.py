import math

import numpy as np
import pytest

from sklgap.inspection._edge import late_records, median_of, place_of, share_at_edge


@pytest.mark.parametrize(
    ("late", "place"),
    [
        ([0.1, 0.2, 0.3], "below"),
        ([0.89, 0.89, 5.0], "below"),
        ([0.2, 0.9], "at"),  # half of the records are enough
        ([0.95, 1.1, 1.2], "at"),
        ([1.0, 2.0, 2.0], "at"),
        ([2.1, 2.6, 2.7], "far above"),
        ([0.5, 2.6, 2.7], "far above"),
        ([], "unknown"),
        ([math.nan], "unknown"),
        ([0.1, math.nan, math.nan], "unknown"),  # most could not be measured
        ([1.0, math.nan, math.nan], "unknown"),
        ([0.1, math.nan], "below"),
        ([1.0, math.nan], "at"),
        ([2.5, 2.6, math.nan], "far above"),
    ],
)
def test_places(late, place):
    assert place_of(np.array(late)) == place


def test_the_share_of_no_records_is_not_a_number():
    assert math.isnan(share_at_edge(np.array([])))
    assert share_at_edge(np.array([0.9, 0.89, 3.0, 0.1])) == 0.5


def test_records_that_could_not_be_measured_are_left_out_unless_they_are_most():
    late = np.array([0.5, math.nan, 1.5, 1.0])
    assert share_at_edge(late) == pytest.approx(2 / 3)
    assert median_of(late) == 1
    few = np.array([0.5, math.nan, math.nan, math.nan])
    assert math.isnan(share_at_edge(few))
    assert math.isnan(median_of(few))


@pytest.mark.parametrize(
    ("n_updates", "expected"), [([1, 10, 20], [2.0, 3.0]), ([1, 9, 20], [3.0]), ([5], [1.0]), ([], [])]
)
def test_the_records_after_half_of_the_updates(n_updates, expected):
    relative = np.arange(1.0, 1 + len(n_updates))
    assert late_records(np.array(n_updates), relative).tolist() == expected
