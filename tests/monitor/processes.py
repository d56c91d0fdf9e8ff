"""What the tests of the monitor run in every process of distributed data parallel."""

import contextlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from sklgap.monitor import BatchSizeMonitor
from tests.monitor.test_noise import SIGMA, TRACE, half_square, regression

# Micro-batches of an update in every process: (their number, which of them are outside no_sync).
WAYS = {"one": (1, [0]), "three": (3, [2]), "three, all averaged": (3, [0, 1, 2])}
N_UPDATES, SIZE = 9, 4


class Moody(nn.Module):
    """Has dropout, frozen weights, a layer that is used twice, and one that the second process alone uses."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.rare, self.frozen = nn.Linear(8, 1), nn.Linear(1, 1).requires_grad_(False)

    def forward(self, X):
        hidden = nn.functional.dropout(self.first(X).tanh(), 0.3)
        hidden = self.twice(self.twice(hidden).tanh())
        return self.last(hidden) + (self.rare(hidden) if distributed.get_rank() else 0)


def micro_batches(rank, n, dtype=torch.float32):
    """Return n micro-batches for each of the updates."""
    generator = torch.Generator().manual_seed(rank)
    X = torch.randn(N_UPDATES, n, SIZE, 5, generator=generator).to(dtype)
    return [list(zip(parts, parts.sum(2, keepdim=True), strict=True)) for parts in X]


def trained(way, measured):
    """Return the weights and gradients of a training, and the state of the monitor."""
    n, averaged = WAYS[way]
    torch.manual_seed(0)
    module = DistributedDataParallel(Moody(), find_unused_parameters=True, bucket_cap_mb=1e-4)
    torch.manual_seed(distributed.get_rank())
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    monitor, gradients = BatchSizeMonitor(module, every=1), []
    for update in micro_batches(distributed.get_rank(), n):
        optimizer.zero_grad()
        for i, (X, y) in enumerate(update):
            with contextlib.nullcontext() if i in averaged else module.no_sync():
                loss = half_square(module(X), y) / n
                if measured:
                    with monitor.accumulate(SIZE):
                        loss.backward()
                else:
                    loss.backward()
        if measured:
            monitor.step()
        gradients += [p.grad.clone() for p in module.parameters() if p.grad is not None]
        nn.utils.clip_grad_norm_(module.parameters(), 0.1)
        optimizer.step()
    return {"weights": [*module.state_dict().values()], "gradients": gradients, "state": monitor.state()}


def linear(n=2):
    """Return the state of a training in float64 that one process can repeat."""
    torch.manual_seed(0)
    module = DistributedDataParallel(nn.Linear(5, 1).double())
    monitor = BatchSizeMonitor(module, parameters={"weights": "weight", "bias": "bias"})
    update_all(module, monitor, [micro_batches(distributed.get_rank(), n, torch.float64)], n)
    return monitor.state()


def update_all(module, monitor, of_ranks, n):
    """Make the updates of one process, or in turn those of all."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for updates in zip(*of_ranks, strict=True):
        optimizer.zero_grad()
        micro = [batch for update in updates for batch in update]
        for i, (X, y) in enumerate(micro):
            last = i == len(micro) - 1 or not hasattr(module, "no_sync")
            with contextlib.nullcontext() if last else module.no_sync(), monitor.accumulate(SIZE):
                (half_square(module(X), y) / (n * len(of_ranks))).backward()
        monitor.step()
        optimizer.step()


def refusals():
    """Return what is said where the gradients are not a plain average of equal shares."""
    rank, said = distributed.get_rank(), {}
    X, y = torch.ones(SIZE, 3), torch.ones(SIZE, 1)

    def attempt(name, module, n_samples=SIZE, sync=True, twice=False):
        monitor = BatchSizeMonitor(module)
        try:
            for _ in range(2 if twice else 1):
                module.zero_grad()
                with contextlib.nullcontext() if sync else module.no_sync(), monitor.accumulate(n_samples):
                    half_square(module(X * (rank + 1)), y).backward()
            monitor.step()
        except ValueError as error:
            said[name] = str(error)

    torch.manual_seed(0)
    attempt("unequal", DistributedDataParallel(nn.Linear(3, 1)), n_samples=SIZE + rank)
    attempt("not averaged", DistributedDataParallel(nn.Linear(3, 1)), sync=False)
    attempt("no step", DistributedDataParallel(nn.Linear(3, 1)), twice=True)
    attempt("not the wrapper", DistributedDataParallel(nn.Linear(3, 1)).module)
    hooked = DistributedDataParallel(nn.Linear(3, 1))
    hooked.register_comm_hook(None, fp16_compress_hook)
    attempt("hook", hooked)
    joined = DistributedDataParallel(nn.Linear(3, 1))
    with joined.join():
        attempt("join", joined)
    return said


def coverage(n_runs=100, n_measured=24):
    """Return the share of runs whose interval covers the noise scale, with one micro-batch in each process."""
    module, _ = regression()
    module = DistributedDataParallel(module)
    generator = torch.Generator().manual_seed(distributed.get_rank())
    covered = []
    for _ in range(n_runs):
        monitor = BatchSizeMonitor(module, window=n_measured)
        for _ in range(n_measured):
            module.zero_grad()
            X = torch.randn(16, module.module.in_features, generator=generator, dtype=torch.float64)
            y = SIGMA * torch.randn(16, 1, generator=generator, dtype=torch.float64)
            with monitor.accumulate(16):
                half_square(module(X), y).backward()
            monitor.step()
        state = monitor.state()
        covered.append(state["noise_scale_low"] <= TRACE <= state["noise_scale_high"])
    return float(np.mean(covered))


def run_as(rank, folder, interface, task):
    """Leave the results of one of two processes in ``folder``."""
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(task(), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def all_of_it():
    """Return the results of all but the long run."""
    ways = {way: {measured: trained(way, measured) for measured in (False, True)} for way in WAYS}
    return {"ways": ways, "linear": linear(), "refusals": refusals()}
