import pytest

from sklgap.regimes import n_batches, updates_of_epochs


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "n"),
    [(10, 5, 2), (12, 5, 3), (11, 5, 2), (5, 5, 1), (6, 5, 1), (1, 5, 1), (3, 5, 1), (7, 1, 7), (60000, 256, 235)],
)
def test_number_of_batches(n_samples, batch_size, n):
    assert n_batches(n_samples, batch_size) == n


@pytest.mark.parametrize("batch_size", [*range(1, 20), 40, 100])
def test_against_a_list_of_batches(batch_size):
    least = 8 if batch_size >= 16 else 2  # samples that are a batch of their own at the end
    for n_samples in range(1, 120):
        sizes = [len(range(n_samples)[i : i + batch_size]) for i in range(0, n_samples, batch_size)]
        if len(sizes) > 1 and batch_size > 1 and sizes[-1] < least:
            sizes[-2:] = [sizes[-2] + sizes[-1]]
        assert n_batches(n_samples, batch_size) == len(sizes), n_samples


def test_updates_of_epochs():
    assert updates_of_epochs(3, 5, 12) == 9
    assert updates_of_epochs(100, 256, 60000) == 23500
