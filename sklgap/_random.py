"""Random generators: one of torch's made from one of NumPy's; the global ones looked at, and put back."""

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np
import torch

# There is one generator of each kind per process: threads that draw from it, or put it back, take turns.
TURN = threading.RLock()


def generator_of(rng: np.random.RandomState) -> torch.Generator:
    """Return a generator of torch's, on the CPU, whose seed is drawn from one of NumPy's."""
    return torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))


def random_states() -> list[str | bytes]:
    """Return the global random states of torch, NumPy and Python, to be compared."""
    numpy_state = repr(np.random.get_state(legacy=False))  # noqa: NPY002 - the global one is what is looked at
    return [torch.get_rng_state().numpy().tobytes(), numpy_state, repr(random.getstate())]


@contextlib.contextmanager
def undisturbed(seed: int | None = None) -> Iterator[None]:
    """Put the global random states of torch, NumPy and Python back afterwards; start from ``seed`` if there is one.

    Other threads wait.
    """
    with TURN:
        torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 - put back below
        if seed is not None:
            # The global generators are what a user's transformation may draw from, and they are put back below.
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - as above
            random.seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(torch_state)
            np.random.set_state(numpy_state)  # noqa: NPY002 - as above
            random.setstate(python_state)
