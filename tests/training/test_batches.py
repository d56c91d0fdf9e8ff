from hypothesis import given
from hypothesis import strategies as st

from sklgap.regimes import n_batches, split_rows
from sklgap.training import plan_epoch
from tests.cases import no_global_random_numbers


@given(n_rows=st.integers(1, 300), batch_size=st.integers(1, 320))
def test_slices(n_rows, batch_size):
    slices = split_rows(n_rows, batch_size)
    assert [row for rows in slices for row in range(n_rows)[rows]] == list(range(n_rows))
    sizes = [rows.stop - rows.start for rows in slices]
    assert len(sizes) == n_batches(n_rows, batch_size)
    assert set(sizes[:-1]) <= {batch_size}
    least = 8 if batch_size >= 16 else 2
    assert sizes[-1] < batch_size + least
    assert batch_size == 1 or n_rows < least or sizes[-1] >= least


def test_a_rest_of_a_few_rows_joins():
    assert split_rows(39, 16) == [slice(0, 16), slice(16, 39)]
    assert split_rows(40, 16) == [slice(0, 16), slice(16, 32), slice(32, 40)]
    assert split_rows(7, 16) == [slice(0, 7)]


def test_a_single_last_row_joins_small_batches():
    assert split_rows(9, 4) == [slice(0, 4), slice(4, 9)]
    assert split_rows(10, 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert split_rows(3, 1) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert split_rows(1, 4) == [slice(0, 1)]


@given(n_rows=st.integers(1, 200), batch_size=st.integers(1, 200), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0))
def test_every_row_once(n_rows, batch_size, seed, epoch):
    permutation, slices = plan_epoch(n_rows, batch_size, seed, epoch)
    assert sorted(permutation) == list(range(n_rows))
    assert slices == split_rows(n_rows, batch_size)


def test_the_plan_depends_on_seed_and_epoch_alone():
    with no_global_random_numbers():
        plans = {(seed, epoch): plan_epoch(50, 8, seed, epoch)[0] for seed in range(3) for epoch in range(3)}
    assert len({tuple(p) for p in plans.values()}) == 9
    for (seed, epoch), permutation in plans.items():
        # The order of the rows does not depend on the batch size: paired regimes see the same permutation.
        assert (plan_epoch(50, 13, seed, epoch)[0] == permutation).all()
