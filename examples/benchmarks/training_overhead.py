"""How much slower than a hand-written PyTorch loop is a fit? Ours, the loop and plain skorch in one run.

The same net, starting weights' distribution, data, optimiser, batch size and number of updates in all three; the time
of a whole ``fit`` divided by the loop's. What ours does beside the loop is inside the time: validation of the data,
history (clean loss, accuracy, distance), and two passes over the data at the end: batch-norm statistics, and the
accuracy of the final weights.

    python examples/benchmarks/training_overhead.py             # digits, a minute; MNIST too where $SKLGAP_DATA is set
    python examples/benchmarks/training_overhead.py --quick     # digits only, few repeats
"""

import argparse
import os

import numpy as np
import torch
from _common import environment, interleaved_medians
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier
from torch import nn

from sklgap import LBGapClassifier
from sklgap.datasets import fetch_mnist
from sklgap.nets import F1


class DigitsNet(nn.Sequential):
    """64-32-10, the size at which overhead shows most."""

    def __init__(self):
        super().__init__(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class MnistF1(F1):
    """F1 with its sizes filled in."""

    def __init__(self):
        super().__init__(784, 10)


def loop(net_class, X, y, batch_size, n_epochs):
    """The floor: what one writes by hand."""
    net = net_class()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(n_epochs):
        total = torch.zeros(())
        for rows in torch.randperm(len(X)).split(batch_size):
            optimizer.zero_grad()
            loss = criterion(net(X[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        total.item()
    return net


def ours(net_class, X, y, batch_size, n_epochs):
    return LBGapClassifier(net_class, batch_size=batch_size, max_epochs=n_epochs, tol=None, device="cpu").fit(X, y)


def plain_skorch(net_class, X, y, batch_size, n_epochs):
    return NeuralNetClassifier(
        net_class,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=batch_size,
        max_epochs=n_epochs,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    ).fit(X, y)


def compare(name, net_class, X, y, batch_size, n_epochs, repeats, with_skorch=True):
    runs = {
        "loop": lambda: loop(net_class, X, y, batch_size, n_epochs),
        "sklgap": lambda: ours(net_class, X, y, batch_size, n_epochs),
    }
    if with_skorch:
        runs["skorch"] = lambda: plain_skorch(net_class, X, y, batch_size, n_epochs)
    medians = interleaved_medians(runs, repeats)
    ratios = {key: value / medians["loop"] for key, value in medians.items()}
    skorch_ratio = f"{ratios['skorch']:.2f}x" if with_skorch else "-"
    print(f"{name:32s} {medians['loop']:9.3f} s   sklgap {ratios['sklgap']:5.2f}x   skorch {skorch_ratio}", flush=True)
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits only, few repeats")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(environment())
    print(f"{'':32s} {'loop':>9s}     times the loop's time")
    X, y = load_digits(return_X_y=True)
    X, y = (X / 16).astype(np.float32), y.astype(np.int64)
    repeats = 3 if arguments.quick else 9
    # Roughly equal times: the larger the batch, the more epochs.
    for batch_size, n_epochs in ((32, 20), (144, 60), (len(X), 200)):
        compare(f"digits 64-32-10, batch {batch_size}", DigitsNet, X, y, batch_size, n_epochs, repeats)
    if os.environ.get("SKLGAP_DATA") and not arguments.quick:
        X, y = fetch_mnist(return_X_y=True, flat=True)
        # The paper's fits take 25 epochs and more; the two passes at the end weigh more in a shorter one.
        for n_epochs in (2, 8):
            compare(f"F1 on MNIST, batch 256, {n_epochs} epochs", MnistF1, X, y, 256, n_epochs, repeats=1)


if __name__ == "__main__":
    main()
