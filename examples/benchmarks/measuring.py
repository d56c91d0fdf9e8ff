"""How much does a measurement cost beyond its passes over the data, with and without ``compile``?

The script compares three measurements with bare passes: a gradient of the sharpness search with a forward and backward
pass, a Hessian product with a double backward pass, and a point of a line with a forward pass. Both sides use the same
net on the same chunks, in evaluation mode with batch statistics in its batch norm. Each time is divided by that of the
bare passes, which are not compiled. Hessian products are never compiled. Times are medians of interleaved repeats. They
exclude work that is done once, such as building an objective, the graph of a gradient, and compiled code.

    python examples/benchmarks/measuring.py --json measuring.json   # some minutes, on an idle machine
    python examples/benchmarks/measuring.py --quick                 # few repeats
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from _common import environment, interleaved_medians, write_record
from torch import Tensor, nn

from sklgap.inspection import loss_along_line, sharpness
from sklgap.nets import C1, F1
from sklgap.objective import Objective

N_GRADIENTS = 20
N_POINTS = 20


@dataclass(frozen=True)
class Case:
    """A net and its samples."""

    name: str
    net: Callable[[], nn.Module]
    shape: tuple[int, ...]
    n: int
    repeats: int


CASES = [
    Case("64-32-10 on 500 samples", lambda: _dense(64, 32, 10), (64,), 500, 60),
    Case("F1 on 2,000 samples", lambda: F1(784, 10), (784,), 2_000, 7),
    Case("C1 on 200 samples", lambda: C1((3, 32, 32), 10), (3, 32, 32), 200, 5),
]


def _dense(*sizes: int) -> nn.Module:
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return nn.Sequential(layers[0], nn.ReLU(), *layers[1:])


class Bare:
    """The bare passes, as one writes them by hand."""

    def __init__(self, net: nn.Module, X: Tensor, y: Tensor) -> None:
        self.net, self.X, self.y, self.loss = net.eval(), X, y, nn.CrossEntropyLoss()
        for layer in net.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):  # batch statistics
                layer.running_mean = layer.running_var = None
                layer.track_running_stats = False
        self.params = list(net.parameters())
        loss = self.loss(self.net(X), y)
        self.graph = torch.autograd.grad(loss, self.params, create_graph=True)
        self.v = [torch.ones_like(p) for p in self.params]

    def forward(self) -> object:
        """Return the loss."""
        with torch.no_grad():
            return self.loss(self.net(self.X), self.y)

    def gradient(self) -> object:
        """Return the gradient of the loss."""
        return torch.autograd.grad(self.loss(self.net(self.X), self.y), self.params)

    def product(self) -> object:
        """Return a Hessian product from the graph of the gradient."""
        return torch.autograd.grad(self.graph, self.params, self.v, retain_graph=True)


def compare(case: Case, repeats: int, compile: bool | dict[str, Any]) -> dict[str, Any]:
    """Return seconds and ratios of one case."""
    torch.manual_seed(0)
    X, y = torch.rand(case.n, *case.shape), torch.randint(0, 10, (case.n,))
    start, end = case.net(), case.net()
    runs: dict[str, Callable[[], object]] = {}
    counts: dict[str, int] = {}
    bare = Bare(case.net(), X, y)
    for name in ("forward", "gradient", "product"):
        runs[f"bare {name}"] = getattr(bare, name)
    for name, on in (("", False), (", compiled", compile)):
        f, g = (Objective(net, nn.CrossEntropyLoss(), (X, y), compile=on) for net in (start, end))
        # Without restarts and extensions, the search evaluates ``max_iter`` gradients and one at its start.
        found = sharpness(f, max_iter=N_GRADIENTS, n_restarts=0)
        counts[f"gradient{name}"] = found.n_evaluations
        runs[f"gradient{name}"] = lambda f=f: sharpness(f, max_iter=N_GRADIENTS, n_restarts=0)
        alphas = [i / N_POINTS for i in range(N_POINTS)]
        counts[f"point{name}"] = N_POINTS
        runs[f"point{name}"] = lambda f=f, g=g, alphas=alphas: loss_along_line(f, g, alphas=alphas)
        if not on:
            operator, v = f.hessian_operator(), torch.ones(f.n_params)
            runs["product"] = lambda operator=operator, v=v: operator(v)
    seconds = interleaved_medians(runs, repeats)
    seconds = {name: value / counts.get(name, 1) for name, value in seconds.items()}
    of = {"gradient": "bare gradient", "product": "bare product", "point": "bare forward"}
    ratios = {
        name: value / seconds[of[name.partition(",")[0]]] for name, value in seconds.items() if "bare" not in name
    }
    return {"case": case.name, "seconds": seconds, "ratios": ratios, "aims": {"gradient": 1.05}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use few repeats")
    parser.add_argument("--repeats", type=int, help="repeats (default: 60 for the small net, 7 and 5 for the others)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backend", default="inductor", help="backend of torch.compile")
    parser.add_argument("--json", type=Path, help="file to write the figures to, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(environment())
    heads = ("gradient (aim 1.05), compiled", "Hessian product", "point of a line, compiled")
    print(f"{'times the time of the bare passes':35s}   {'   '.join(heads)}")
    records = []
    for case in CASES:
        repeats = arguments.repeats or (2 if arguments.quick else case.repeats)
        record = compare(case, repeats, {"backend": arguments.backend})
        records.append(record)
        r = record["ratios"]
        print(
            f"{case.name:35s}   {r['gradient']:8.2f}   {r['gradient, compiled']:8.2f}            "
            f"{r['product']:8.2f}          {r['point']:8.2f}   {r['point, compiled']:8.2f}",
            flush=True,
        )
    if arguments.json:
        write_record(arguments.json, cases=records)


if __name__ == "__main__":
    main()
