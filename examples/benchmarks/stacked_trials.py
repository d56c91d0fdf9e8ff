"""Are several trials faster at once? Nets stacked by ``torch.func.vmap`` against trainings one after the other.

On very small nets the interpreter takes most of the time, and one call for all trials could save most of it. Both
ways make the same updates, with batch norm, cross-entropy and ADAM. ADAM uses torch's fused kernel over the
parameters of all nets at once. Times are medians of interleaved repeats on one thread, in processor time.

    python examples/benchmarks/stacked_trials.py             # a minute
    python examples/benchmarks/stacked_trials.py --quick
"""

import argparse
import copy
import time

import torch
from _common import environment, interleaved_medians
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from sklgap.nets import F1

N_FEATURES, N_CLASSES = 40, 10
CE = nn.CrossEntropyLoss()


def one_after_the_other(nets: list[nn.Module], X: Tensor, y: Tensor, n_updates: int) -> None:
    """Train the nets one after the other, each on its batch."""
    for net, rows, labels in zip(nets, X, y, strict=True):
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        for _ in range(n_updates):
            optimizer.zero_grad()
            CE(net(rows), labels).backward()
            optimizer.step()


def at_once(nets: list[nn.Module], X: Tensor, y: Tensor, n_updates: int) -> None:
    """Train all nets with one call per update."""
    params, buffers = stack_module_state(nets)
    shell = copy.deepcopy(nets[0]).to("meta")

    def loss(own: dict[str, Tensor], state: dict[str, Tensor], rows: Tensor, labels: Tensor) -> Tensor:
        return CE(functional_call(shell, (own, state), (rows,)), labels)

    losses = vmap(loss, randomness="different")
    trained = {name: nn.Parameter(p.detach().clone()) for name, p in params.items()}
    optimizer = torch.optim.Adam(trained.values(), fused=True)
    for _ in range(n_updates):
        optimizer.zero_grad()
        losses(trained, buffers, X, y).sum().backward()
        optimizer.step()


def main() -> None:
    """Print a line for each net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use few updates and few repeats")
    parser.add_argument("--trials", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    n_updates, repeats = (10, 2) if arguments.quick else (100, 5)
    print(environment())
    for width, n_layers, batch_size in ((64, 3, 40), (64, 3, 400), (32, 2, 32), (128, 5, 40)):
        torch.manual_seed(0)
        nets = [F1(N_FEATURES, N_CLASSES, width=width, n_layers=n_layers) for _ in range(arguments.trials)]
        X = torch.randn(arguments.trials, batch_size, N_FEATURES)
        y = torch.randint(N_CLASSES, (arguments.trials, batch_size))
        runs = {
            "alone": lambda nets=nets, X=X, y=y: one_after_the_other(nets, X, y, n_updates),
            "stacked": lambda nets=nets, X=X, y=y: at_once(nets, X, y, n_updates),
        }
        medians = interleaved_medians(runs, repeats, time.process_time)
        alone, stacked = (1000 * medians[name] / n_updates for name in ("alone", "stacked"))
        print(
            f"{n_layers} layers of {width:3d}, batches of {batch_size:3d}: an update of all {arguments.trials} takes "
            f"{alone:.2f} ms one after the other and {stacked:.2f} ms at once, {alone / stacked:.2f} times as fast",
            flush=True,
        )


if __name__ == "__main__":
    main()
