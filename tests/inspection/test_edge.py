import math

import numpy as np
import pytest

from sklgap.inspection._edge import late_records, place_of, share_at_edge


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
        ([], "below"),
        ([math.nan], "below"),
    ],
)
def test_places(late, place):
    assert place_of(np.array(late)) == place


def test_the_share_of_no_records_is_not_a_number():
    assert math.isnan(share_at_edge(np.array([])))
    assert share_at_edge(np.array([0.9, 0.89, 3.0, 0.1])) == 0.5


@pytest.mark.parametrize(
    ("n_updates", "expected"), [([1, 10, 20], [2.0, 3.0]), ([1, 9, 20], [3.0]), ([5], [1.0]), ([], [])]
)
def test_the_records_after_half_of_the_updates(n_updates, expected):
    relative = np.arange(1.0, 1 + len(n_updates))
    assert late_records(np.array(n_updates), relative).tolist() == expected
