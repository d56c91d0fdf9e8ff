"""Randomness that comes from a seed and does not change the global generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from sklgap._random import TURN


def derive_seed(*words: int) -> int:
    """Return a 63-bit seed that depends on all the words (a seed, an epoch, the number of a stream)."""
    return int(np.random.SeedSequence(list(words)).generate_state(1, np.uint64)[0] >> 1)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of ``device`` only; ``torch.manual_seed`` seeds all devices."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def global_state() -> torch.Tensor:
    """Return the state of torch's global generator outside the trainings of other threads."""
    with TURN:
        return torch.default_generator.get_state()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Start the global generators at ``seed`` within this context, and restore them afterwards.

    Dropout and the initialisation of modules draw from the global generators, and cannot be seeded in another way.
    Other threads wait.
    """
    with TURN, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
        try:
            seed_generators(seed, device)
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)
