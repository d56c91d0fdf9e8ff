"""Time of one gradient of an Objective on arrays, on a DataLoader over the same tensors, and on a plain Dataset.

The data are 20,000 samples of 784 numbers in chunks of 500. The module is F1 of the paper
(784-512-512-512-512-512-10 with batch norm). The loader over a TensorDataset gives slices of the tensors. The plain
Dataset gives single samples, which are then stacked, as in most users' code. Its time is mainly that of loading, which
``num_workers`` spreads over processes.

The target is that the loader takes at most 1.2 times as long as the arrays.

    python examples/benchmarks/loader_cost.py             # some minutes on one core
    python examples/benchmarks/loader_cost.py --quick     # a tenth of the samples
"""

import argparse

import torch
from _common import environment, interleaved_medians
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from sklgap.nets import F1
from sklgap.objective import Objective

TARGET = 1.2


class Rows(Dataset):
    """A Dataset of single samples."""

    def __init__(self, X: Tensor, y: Tensor) -> None:
        self.X, self.y = X, y

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.X[i], int(self.y[i])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="use a tenth of the samples")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    n, chunk = (2000 if arguments.quick else 20000), 500
    torch.manual_seed(0)
    X, y = torch.rand(n, 784), torch.randint(0, 10, (n,))
    module, criterion = F1(784, 10), nn.CrossEntropyLoss()
    data = {
        "arrays": (X, y),
        "loader over tensors": DataLoader(TensorDataset(X, y), batch_size=chunk),
        "loader over samples": DataLoader(Rows(X, y), batch_size=chunk),
        "dataset of samples": Rows(X, y),
    }
    objectives = {name: Objective(module, criterion, source, chunk_size=chunk) for name, source in data.items()}
    runs = {name: objective.gradient for name, objective in objectives.items()}
    seconds = interleaved_medians(runs, arguments.repeats)
    print(environment())
    print(f"{n:,} samples in chunks of {chunk}; median of {arguments.repeats} interleaved gradients")
    for name, value in seconds.items():
        print(f"{name:22s} {value:8.3f} s   {value / seconds['arrays']:5.2f} x arrays")
    ratio = seconds["loader over tensors"] / seconds["arrays"]
    print(f"target for the loader over tensors: at most {TARGET}; {'met' if ratio <= TARGET else 'missed'}")


if __name__ == "__main__":
    main()
