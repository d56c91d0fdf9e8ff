import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklgap.regimes import n_batches, updates_of_epochs


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "n"),
    [(10, 5, 2), (12, 5, 3), (11, 5, 2), (5, 5, 1), (6, 5, 1), (1, 5, 1), (3, 5, 1), (7, 1, 7), (60000, 256, 235)],
)
def test_number_of_batches(n_samples, batch_size, n):
    assert n_batches(n_samples, batch_size) == n


@given(n_samples=st.integers(1, 500), batch_size=st.integers(1, 600))
def test_against_a_list_of_batches(n_samples, batch_size):
    rows = list(range(n_samples))
    batches = [rows[i : i + batch_size] for i in range(0, n_samples, batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1 and batch_size > 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    assert n_batches(n_samples, batch_size) == len(batches)


def test_updates_of_epochs():
    assert updates_of_epochs(3, 5, 12) == 9
    assert updates_of_epochs(100, 256, 60000) == 23500
