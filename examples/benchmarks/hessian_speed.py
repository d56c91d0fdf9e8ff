"""Time to the five largest Hessian eigenvalues of F1 on MNIST, by sklgap, PyHessian, curvlinops and by hand.

All methods measure the same function: the mean cross-entropy of 2,000 samples in float32, with batch norm in evaluation
mode. All methods get the same number as tolerance, but they use it differently. It limits residuals in sklgap and in
SciPy's eigsh, which runs on curvlinops' operator and on a product written by hand. In PyHessian it limits the change
between two power iterations. The error is the largest relative error of the five eigenvalues against eigsh in float64
at tolerance 1e-6. The floor is a loop of as many bare products as sklgap made. The script needs PyHessian 0.1 and
curvlinops 3.0.

The target is to be as fast as the faster of the two libraries, and more accurate.

    python examples/benchmarks/hessian_speed.py             # trains both nets first (10 minutes on one core)
    python examples/benchmarks/hessian_speed.py --quick     # digits instead of MNIST, about a minute
"""

import argparse
import copy
import importlib
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _common import environment
from scipy.sparse.linalg import LinearOperator, eigsh
from sharpness_solvers import solutions

from sklgap import check_objective
from sklgap.inspection import hessian_eigenvalues

K = 5


def by_hand(module, criterion, X, y):
    """Return v -> H v over one stored graph of the gradient, as one writes it by hand."""
    params = list(module.parameters())
    gradients = torch.autograd.grad(criterion(module(X), y), params, create_graph=True)

    def product(v):
        parts = torch.split(torch.from_numpy(v).to(X.dtype), [p.numel() for p in params])
        vectors = [part.view_as(p) for part, p in zip(parts, params, strict=True)]
        products = torch.autograd.grad(gradients, params, vectors, retain_graph=True)
        return torch.cat([part.flatten() for part in products]).numpy()

    return product


def largest(product, n_params, tol):
    """Return the K largest eigenvalues by eigsh, and its number of products."""
    n_products = 0

    def counted(v):
        nonlocal n_products
        n_products += 1
        return product(v)

    operator = LinearOperator((n_params, n_params), matvec=counted, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n_params)
    return eigsh(operator, k=K, which="LA", tol=tol, v0=start, return_eigenvectors=False), n_products


def with_curvlinops(module, criterion, X, y, tol):
    import curvlinops

    params = [p for p in module.parameters() if p.requires_grad]
    operator = curvlinops.HessianLinearOperator(module, criterion, params, [(X, y)], check_deterministic=False)
    return largest(operator.to_scipy(dtype=np.float32).matvec, sum(p.numel() for p in params), tol)


def with_pyhessian(module, criterion, X, y, tol):
    package = importlib.import_module("pyhessian.hessian")
    original, n_products = package.hessian_vector_product, 0

    def counted(*arguments):
        nonlocal n_products
        n_products += 1
        return original(*arguments)

    package.hessian_vector_product = counted
    try:
        # PyHessian leaves gradients in its module.
        tool = package.hessian(copy.deepcopy(module), criterion, data=(X, y), cuda=False)
        return tool.eigenvalues(tol=tol, top_n=K)[0], n_products
    finally:
        package.hessian_vector_product = original


def with_sklgap(objective, tol):
    record = hessian_eigenvalues(objective, k=K, tol=tol, random_state=0)
    return record.eigenvalues, record.n_products


def bare_products(product, n_params, n_products):
    v = np.ones(n_params, dtype=np.float32)
    for _ in range(n_products):
        product(v)
    return None, n_products


def compare(model, X, y, n_samples, tol, repeats):
    """Print the table of one model."""
    objective = {
        policy: check_objective(model, X, y, max_samples=n_samples, random_state=0, batch_norm=policy)
        for policy in ("running", "batch")
    }
    module, criterion = model if isinstance(model, tuple) else (model.module_, torch.nn.CrossEntropyLoss())
    module = copy.deepcopy(module).cpu().float().eval()
    rows = np.sort(np.random.RandomState(0).choice(len(X), min(n_samples, len(X)), replace=False))
    data = torch.as_tensor(X[rows], dtype=torch.float32), torch.as_tensor(y[rows]).long()
    n_params = objective["running"].n_params

    exact = by_hand(copy.deepcopy(module).double(), criterion, data[0].double(), data[1])
    truth = {"running": np.sort(largest(exact, n_params, 1e-6)[0])}
    wide = check_objective(
        model, X, y, max_samples=n_samples, random_state=0, batch_norm="batch", dtype=torch.float64
    ).hessian_operator()
    truth["batch"] = np.sort(largest(lambda v: wide(v).numpy(), n_params, 1e-6)[0])
    n_ours = with_sklgap(objective["running"], tol)[1]
    runs = {
        "sklgap": lambda: with_sklgap(objective["running"], tol),
        "PyHessian 0.1": lambda: with_pyhessian(module, criterion, *data, tol),
        "curvlinops + eigsh": lambda: with_curvlinops(module, criterion, *data, tol),
        "by hand + eigsh": lambda: largest(by_hand(module, criterion, *data), n_params, tol),
        "floor: bare products": lambda: bare_products(by_hand(module, criterion, *data), n_params, n_ours),
        "sklgap, batch statistics": lambda: with_sklgap(objective["batch"], tol),
    }
    wall, cpu, results = {name: [] for name in runs}, {name: [] for name in runs}, {}
    for _ in range(repeats):  # in turn
        for name, run in runs.items():
            started = time.perf_counter(), time.process_time()
            results[name] = run()
            wall[name].append(time.perf_counter() - started[0])
            cpu[name].append(time.process_time() - started[1])
    ours = statistics.median(cpu["sklgap"])
    for name, (values, n_products) in results.items():
        expected = truth["batch" if "batch" in name else "running"]
        error = "" if values is None else f"error {np.abs(np.sort(values) / expected - 1).max():.1e}"
        seconds, busy = statistics.median(wall[name]), statistics.median(cpu[name])
        print(
            f"  {name:25s} {seconds:8.2f} s  {busy:8.2f} CPU s  {busy / ours:5.2f} x  "
            f"{n_products:4d} products  {error}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use digits, which are not the paper's setting")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--tol", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="file for the two trained models, which later runs load")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)  # in curvlinops
    print(environment())
    X, y, models = solutions(arguments.quick, arguments.cache)
    for name, model in models.items():
        for tol in arguments.tol:
            print(f"\n{name}, {min(arguments.samples, len(X)):,} samples, tol {tol:g}")
            compare(model, X, y, arguments.samples, tol, arguments.repeats)


if __name__ == "__main__":
    main()
