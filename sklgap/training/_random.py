"""Randomness that comes from a seed and leaves the global generators as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*words: int) -> int:
    """Return a 63-bit seed that depends on all the words (a seed, an epoch, the number of a stream)."""
    return int(np.random.SeedSequence(list(words)).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within it torch's global generators start from ``seed``; afterwards they are as they were before.

    Dropout and the initialisation of modules draw from the global generators; there is no other way to seed them.
    """
    devices = [torch.device(device)] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
