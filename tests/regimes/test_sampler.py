import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

from sklgap.regimes import BatchSizeSampler, DynamicSampling, GrowingBatch, SwitchBatch, growing_milestones
from sklgap.training import plan_epoch


def _epoch(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize(
    ("schedule", "sizes"),
    [
        (20, [20, 20, 20, 20]),
        (0.5, [50, 50, 50, 50]),
        ({0: 10, 2: 50}, [10, 10, 50, 50]),
        ({3: 100, 0: 25}, [25, 25, 25, 100]),
        (SwitchBatch(1, 20, 0.5), [20, 50, 50, 50]),
        (GrowingBatch(10, 2, 1, 50), [10, 20, 40, 50]),
        (lambda epoch: 10 * (epoch + 1), [10, 20, 30, 40]),
    ],
)
def test_the_size_follows_the_schedule(schedule, sizes):
    sampler = BatchSizeSampler(100, schedule)
    assert isinstance(sampler, BatchSampler)
    for epoch, size in enumerate(sizes):
        batches = _epoch(sampler, epoch)
        assert sampler.batch_size == len(batches[0]) == size
        assert len(batches) == len(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(100))


@pytest.mark.parametrize(("n", "size"), [(100, 30), (67, 32), (17, 4), (5, 5)])
def test_the_batches_are_those_of_the_estimator(n, size):
    sampler = BatchSizeSampler(range(n), size, random_state=3)
    for epoch in (0, 4):
        order, slices = plan_epoch(n, size, 3, epoch)
        assert _epoch(sampler, epoch) == [order[part].tolist() for part in slices]


def test_without_shuffle_and_without_the_last():
    assert list(BatchSizeSampler(7, 3, shuffle=False)) == [[0, 1, 2], [3, 4, 5, 6]]
    dropping = BatchSizeSampler(8, 3, shuffle=False, drop_last=True)
    assert list(dropping) == [[0, 1, 2], [3, 4, 5]]
    assert len(dropping) == 2


def test_epochs_and_seeds_differ_and_the_global_generators_stay():
    torch.manual_seed(0)
    before, numpy_before = torch.get_rng_state(), repr(np.random.get_state(legacy=False))  # noqa: NPY002
    one, other = BatchSizeSampler(50, 10), BatchSizeSampler(50, 10, random_state=1)
    assert _epoch(one, 1) != _epoch(one, 2)
    assert _epoch(one, 1) != _epoch(other, 1)
    assert _epoch(one, 1) == _epoch(BatchSizeSampler(50, 10), 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(np.random.get_state(legacy=False)) == numpy_before  # noqa: NPY002


@pytest.mark.parametrize(("n", "size", "world"), [(96, 16, 4), (50, 12, 3), (101, 20, 2), (9, 8, 8)])
def test_processes_have_equal_shares_of_every_batch(n, size, world):
    whole = _epoch(BatchSizeSampler(n, size), 1)
    ranks = [_epoch(BatchSizeSampler(n, size, rank=r, world_size=world), 1) for r in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    for i, shares in enumerate(zip(*ranks, strict=True)):
        assert len({len(share) for share in shares}) == 1
        joined = [i for share in shares for i in share]
        assert joined == whole[i][: len(joined)]
        assert len(whole[i]) - len(joined) < world


def test_a_state_resumes_in_the_middle_of_an_epoch():
    full = _epoch(BatchSizeSampler(40, {0: 5, 1: 8}), 1)
    sampler = BatchSizeSampler(40, {0: 5, 1: 8})
    sampler.set_epoch(1)
    batches = iter(sampler)
    begun = [next(batches), next(batches)]
    state = sampler.state_dict()
    again = BatchSizeSampler(40, {0: 5, 1: 8})
    again.load_state_dict(state)
    assert again.state_dict() == state
    again.set_epoch(1)  # as a loop does that begins at sampler.epoch
    assert begun + list(again) == full
    assert list(again) == full  # the pass after it is a whole one
    again.load_state_dict(state)
    assert len(_epoch(again, 2)) == 5


def test_the_saved_size_holds_for_the_rest_of_the_epoch():
    noise = {"size": 10}
    sampler = BatchSizeSampler(40, lambda epoch: noise["size"])
    state = sampler.state_dict(batches_done=1)
    noise["size"] = 20
    again = BatchSizeSampler(40, lambda epoch: noise["size"])
    again.load_state_dict(state)
    assert [len(batch) for batch in again] == [10, 10, 10]
    assert [len(batch) for batch in _epoch(again, 1)] == [20, 20]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_takes_it(workers):
    data = TensorDataset(torch.arange(24))
    sampler = BatchSizeSampler(data, {0: 4, 1: 12})
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers)
    for epoch, n in ((0, 6), (1, 2)):
        sampler.set_epoch(epoch)
        assert len(loader) == n
        assert [batch.tolist() for (batch,) in loader] == _epoch(BatchSizeSampler(24, {0: 4, 1: 12}), epoch)


def test_a_loader_that_reads_ahead_must_say_how_far_the_loop_is():
    sampler = BatchSizeSampler(24, 4)
    batches = iter(DataLoader(torch.arange(24), batch_sampler=sampler, num_workers=1))
    next(batches)
    with pytest.raises(ValueError, match=r"^batches_done must be given .* num_workers above 0 reads ahead"):
        sampler.state_dict()
    assert sampler.state_dict(batches_done=1)["batches_done"] == 1


def test_forgotten_set_epoch_is_said_once_a_pass_repeats():
    sampler = BatchSizeSampler(24, 4)
    list(sampler)
    with pytest.warns(UserWarning, match="Call set_epoch"):
        list(sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = BatchSizeSampler(24, 4)
        assert _epoch(told, 0) == _epoch(told, 0)


@pytest.mark.parametrize(("rule", "rates"), [("linear", [0.1, 0.4, 0.05]), ("sqrt", [0.1, 0.2, 0.1 * 0.5**0.5])])
def test_rates(rule, rates):
    sampler = BatchSizeSampler(100, 20, lr=0.1, lr_scaling=rule)
    assert [sampler.rate_for(size) for size in (20, 80, 10)] == pytest.approx(rates)
    assert BatchSizeSampler(100, 20, lr=0.1, base_batch_size=5, lr_scaling=rule).rate_for(5) == 0.1


def test_growing_milestones_hold_the_noise():
    assert growing_milestones(10, [2, 4], decay=0.5) == {0: 10, 2: 20, 4: 40}
    assert growing_milestones(10, (2, 4), decay=0.5, lr_scaling="sqrt") == {0: 10, 2: 40, 4: 160}
    assert growing_milestones(10, [1, 2, 3], largest=500) == {0: 10, 1: 100, 2: 500, 3: 500}
    assert growing_milestones(7, []) == {0: 7}
    assert _epoch(BatchSizeSampler(100, growing_milestones(10, [1])), 1)[0].__len__() == 100


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: BatchSizeSampler(0, 1), "^dataset must be a Dataset with samples, or their number; got 0"),
        (lambda: BatchSizeSampler("abc", 1), "^dataset must be"),
        (lambda: BatchSizeSampler(10, 11), "^schedule must be at most the 10 samples of the dataset; got 11"),
        (lambda: BatchSizeSampler(10, {0: 4, 3: 11}), "^schedule must give .* 10 samples .* got 11 for epoch 3"),
        (lambda: BatchSizeSampler(10, lambda e: 11), "^schedule must give at most the 10 samples"),
        (lambda: BatchSizeSampler(10, lambda e: 0.5), "^schedule must give an integer of at least 1 for epoch 0"),
        (lambda: BatchSizeSampler(10, lambda e: 1 // e), "^schedule must give a batch size for epoch 0, but it failed"),
        (lambda: BatchSizeSampler(10, {1: 4}), "^schedule must be {epoch: batch size} with .* begin at 0"),
        (lambda: BatchSizeSampler(10, {}), "^schedule must be {epoch: batch size}"),
        (lambda: BatchSizeSampler(10, "XL"), "^schedule must be 'SB'"),
        (lambda: BatchSizeSampler(10, DynamicSampling()), "^schedule must not be an adaptive regime"),
        (lambda: BatchSizeSampler(10, 5, rank=0, world_size=2), "^schedule must give multiples of world_size=2"),
        (lambda: BatchSizeSampler(10, 4, rank=2, world_size=2), "^rank must be an integer from 0 to .* 1; got 2"),
        (lambda: BatchSizeSampler(10, 4, rank=0), "^rank and world_size must be given together"),
        (lambda: BatchSizeSampler(10, 4).rate_for(8), "^lr must be given"),
        (lambda: BatchSizeSampler(10, 4, lr=1.0).rate_for(8), "^lr_scaling must be 'sqrt'"),
        (lambda: BatchSizeSampler(10, 4, lr=-1.0), "^lr must be a number above 0"),
        (lambda: BatchSizeSampler(10, 4).set_epoch(-1), "^epoch must be"),
        (lambda: BatchSizeSampler(10, 4).state_dict(9), "^batches_done must be at most the 3 batches"),
        (lambda: BatchSizeSampler(10, 4).load_state_dict({}), "^state must be a result of state_dict"),
        (
            lambda: BatchSizeSampler(10, 4).load_state_dict(BatchSizeSampler(12, 4).state_dict()),
            "^state must come from a sampler with the same n_samples",
        ),
        (lambda: growing_milestones(4, [2, 1]), "^milestones must be increasing"),
        (lambda: growing_milestones(4, [1], decay=0), "^decay must be"),
        (lambda: growing_milestones(10**12, []), "^largest must be given if batch_size grows"),
        (lambda: growing_milestones(4, range(1, 30)), "^largest must be given"),
        (lambda: growing_milestones(4, [1], lr_scaling=None), "^lr_scaling must be"),
        (lambda: growing_milestones(4, [1], lr_scaling="sde"), "got 'sde', which also changes betas"),
        (lambda: BatchSizeSampler(10, 4, lr=1.0, lr_scaling="sde"), "got 'sde', which also changes betas"),
    ],
)
def test_refusals(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


class Wrapped:
    """As libraries wrap a batch sampler, to share batches among processes for example."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        yield from self.sampler


@pytest.mark.parametrize(
    ("wrap", "options"),
    [
        (lambda sampler: sampler, {"num_workers": 1}),
        (lambda sampler: sampler, {"num_workers": 2, "persistent_workers": True}),
        (Wrapped, {}),
        (Wrapped, {"num_workers": 1, "persistent_workers": True}),
    ],
)
def test_a_loader_resumes_in_the_middle_of_an_epoch(options, wrap):
    """A loader with workers calls ``iter`` twice before it asks for a batch."""
    whole = _epoch(BatchSizeSampler(30, {0: 3, 1: 10}), 0)
    sampler = BatchSizeSampler(30, {0: 3, 1: 10})
    sampler.load_state_dict(BatchSizeSampler(30, {0: 3, 1: 10}).state_dict(batches_done=7))
    loader = DataLoader(torch.arange(30), batch_sampler=wrap(sampler), **options)
    assert [batch.tolist() for batch in loader] == whole[7:]
    sampler.set_epoch(1)
    assert [batch.tolist() for batch in loader] == _epoch(BatchSizeSampler(30, {0: 3, 1: 10}), 1)


@pytest.mark.parametrize("wrap", [Wrapped, lambda sampler: Wrapped(Wrapped(sampler))])
def test_a_wrapper_does_not_hide_that_a_loader_reads_ahead(wrap):
    sampler = BatchSizeSampler(24, 4)
    batches = iter(DataLoader(torch.arange(24), batch_sampler=wrap(sampler), num_workers=1))
    next(batches)
    with pytest.raises(ValueError, match=r"^batches_done must be given"):
        sampler.state_dict()
    del batches
    sampler.set_epoch(1)
    next(iter(DataLoader(torch.arange(24), batch_sampler=wrap(sampler))))
    assert sampler.state_dict()["batches_done"] == 1


@pytest.mark.parametrize("n_older", [1, 2, 4])
def test_a_state_is_that_of_the_latest_pass(n_older):
    sampler = BatchSizeSampler(24, 4)
    older = iter(sampler)
    for _ in range(n_older):
        next(older)
    latest = iter(sampler)
    next(latest)
    next(older)
    assert sampler.state_dict()["batches_done"] == 1


@pytest.mark.parametrize(("drop_last", "done"), [(True, 3), (False, 4), (False, 10**6)])
def test_a_state_beyond_its_epoch_is_refused(drop_last, done):
    sampler = BatchSizeSampler(19, 9, drop_last=drop_last)  # 2 batches, and a rest of 1 that joins the last one
    state = {**sampler.state_dict(), "batches_done": done}
    with pytest.raises(ValueError, match=rf"^state\['batches_done'\] must be at most the 2 batches .* got {done}"):
        sampler.load_state_dict(state)
