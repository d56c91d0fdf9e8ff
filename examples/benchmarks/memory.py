"""Peak memory of fits and sharpness evaluations of F1 on MNIST, with few and many epochs and gradients.

Each measurement runs in a separate process and reports its peak resident memory, minus that of a process that has only
loaded the same data and libraries.

    python examples/benchmarks/memory.py        # needs $SKLGAP_DATA; about three minutes on one core
"""

import resource
import subprocess
import sys

TASKS = {
    "nothing (libraries and data)": "pass",
    "fit SB, 1 epoch": "fit('SB', 1)",
    "fit SB, 4 epochs": "fit('SB', 4)",
    "fit LB, 2 epochs": "fit('LB', 2)",
    "fit LB, 8 epochs": "fit('LB', 8)",
    "sharpness, 10,000 samples, 5 gradients": "sharp(5)",
    "sharpness, 10,000 samples, 20 gradients": "sharp(20)",
    "sharpness in 100 dimensions, 5 gradients": "sharp(5, subspace_dim=100, n_restarts=0)",
}


def fit(regime, n_epochs):
    from sklgap import LBGapClassifier

    return LBGapClassifier("F1", batch_regime=regime, max_epochs=n_epochs, tol=None, random_state=0).fit(X, y)


def sharp(max_iter, **kwargs):
    import torch

    from sklgap import sharpness
    from sklgap.nets import F1

    pair = (F1(784, 10), torch.nn.CrossEntropyLoss())
    return sharpness(pair, X, y, max_iter=max_iter, max_samples=10_000, random_state=0, **kwargs)


if __name__ == "__main__" and len(sys.argv) == 1:
    floor = None
    for name, task in TASKS.items():
        result = subprocess.run([sys.executable, __file__, task], capture_output=True, text=True, check=True)
        megabytes = float(result.stdout.split()[-1])
        floor = megabytes if floor is None else floor
        print(f"{name:42s} {megabytes:7.0f} MB   {megabytes - floor:+7.0f} MB", flush=True)
elif __name__ == "__main__":
    import torch

    import sklgap  # noqa: F401 - part of the floor
    from sklgap.datasets import fetch_mnist

    torch.set_num_threads(1)
    X, y = fetch_mnist(return_X_y=True, flat=True)
    exec(sys.argv[1])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
