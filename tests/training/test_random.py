import pytest
import torch

from sklgap.training._random import derive_seed, seeded
from tests.tiny import blobs, small


def test_seeds_depend_on_every_word():
    # The streams of a fit: (seed, stream) and (seed, stream, epoch).
    words = [(seed, stream) for seed in range(5) for stream in (0, 1)]
    words += [(seed, stream, epoch) for seed in range(5) for stream in (2, 3) for epoch in range(5)]
    seeds = [derive_seed(*w) for w in words]
    assert len(set(seeds)) == len(words)
    assert seeds == [derive_seed(*w) for w in words]
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("fails", [True, False])
def test_the_global_generator_is_as_it_was(fails):
    state = torch.get_rng_state()
    draws = []
    for _ in range(2):
        try:
            with seeded(3, torch.device("cpu")):
                draws.append(torch.rand(3))
                if fails:
                    raise RuntimeError
        except RuntimeError:
            assert fails
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*draws)


def test_generators_of_other_devices_are_not_seeded(monkeypatch):
    """``torch.manual_seed`` seeds all devices; only that of the training is put back afterwards."""

    def fail(*args):
        pytest.fail("another device was seeded")

    for module, name in [(torch.cuda, "manual_seed_all"), (torch.cuda, "manual_seed"), (torch.mps, "manual_seed")]:
        monkeypatch.setattr(module, name, fail)
    small().fit(*blobs())
