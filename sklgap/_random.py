"""Random generators: make one for torch from one of NumPy, and read and restore the global ones."""

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np
import torch

# A process has one global generator of each kind. Threads that draw from it or restore it take turns.
TURN = threading.RLock()


def generator_of(rng: np.random.RandomState) -> torch.Generator:
    """Return a torch generator on the CPU whose seed is drawn from a NumPy generator."""
    return torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))


def random_states() -> list[str | bytes]:
    """Return the global random states of torch, NumPy and Python in a form that can be compared."""
    numpy_state = repr(np.random.get_state(legacy=False))  # noqa: NPY002 - the global one is what is looked at
    return [torch.get_rng_state().numpy().tobytes(), numpy_state, repr(random.getstate())]


@contextlib.contextmanager
def undisturbed(seed: int | None = None) -> Iterator[None]:
    """Restore the global random states of torch, NumPy and Python after the block, which starts from ``seed`` if given.

    Other threads wait in the meantime.
    """
    with TURN:
        torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 - put back below
        if seed is not None:
            # A user's transformation may draw from the global generators, and they are restored below.
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - as above
            random.seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(torch_state)
            np.random.set_state(numpy_state)  # noqa: NPY002 - as above
            random.setstate(python_state)
