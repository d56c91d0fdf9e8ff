"""
Which reading of Table 4 comes near its figures?
================================================

One column of Keskar et al. (2017) is not reproduced by sklgap: sharpness in random
subspaces of 100 dimensions. For large-batch solutions of F1 the paper reports 9.22 % at
epsilon 1e-3, and sklgap finds less than a tenth of that. The paper does not say how the
columns of A are drawn and scaled, how long the net was trained, or how batch norm was
evaluated. This script measures one training at several lengths under each of these
readings.

The script takes an hour on one core. ``--quick`` uses the digits of scikit-learn, which
are not the paper's setting.
"""

# %%
# The data, and the sizes of the experiment.
import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits

import sklgap
from sklgap import LBGapClassifier, check_objective, sharpness
from sklgap.datasets import fetch_mnist
from sklgap.objective import Subspace

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument(
    "--quick", action="store_true", help="use digits, which are not the paper's setting"
)
parser.add_argument(
    "--samples", type=int, default=2000, help="samples to measure sharpness on (2000)"
)
parser.add_argument(
    "--epochs",
    type=int,
    nargs="+",
    default=[5, 10, 20, 50],
    help="lengths of the trainings (5 10 20 50)",
)
parser.add_argument("--output", type=Path, help="file to write the table to, as JSON")
arguments = parser.parse_args()

if arguments.quick:
    X, y = load_digits(return_X_y=True)
    X, lengths, search = X / 16, (2,), {"max_samples": 200, "max_iter": 5}
    estimator = LBGapClassifier("F1", module__width=16)
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    lengths, search = tuple(arguments.epochs), {"max_samples": arguments.samples}
    estimator = LBGapClassifier("F1")
epsilons = (1e-3, 5e-4)


# %%
# The readings of A. One of these functions draws the columns, and a factor scales them.
def gaussian(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Independent N(0, 1) entries, which sklgap uses."""
    return torch.randn(shape, generator=generator)


def uniform(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Independent entries, uniform in [0, 1], as from a plain ``rand``."""
    return torch.rand(shape, generator=generator)


def symmetric(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Independent entries, uniform in [-1, 1]."""
    return 2 * torch.rand(shape, generator=generator) - 1


def unit(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """Columns of unit length."""
    columns = torch.randn(shape, generator=generator)
    return columns / columns.norm(dim=1, keepdim=True)


draws = {
    "N(0, 1)": gaussian,
    "U(0, 1)": uniform,
    "U(-1, 1)": symmetric,
    "unit length": unit,
}
readings = [(name, 1.0, "batch", 5000) for name in draws]
readings += [("N(0, 1)", scale, "batch", 5000) for scale in (2.0, 4.0, 8.0)]
readings += [("N(0, 1)", 1.0, policy, 5000) for policy in ("running", "population")]
readings += [("N(0, 1)", 1.0, "batch", chunk) for chunk in (250, 1000)]

# %%
# A separate training for each number of epochs, always from the same weights.
table = []
for n_epochs in lengths:
    model = clone(estimator).set_params(
        batch_regime="LB",
        max_epochs=n_epochs,
        tol=None,
        random_state=0,
        recompute_batch_norm=False,
    )
    model.fit(X, y)
    full = sharpness(model, X, y, epsilon=epsilons, random_state=0, **search)
    print(
        f"LB after {n_epochs} epochs: loss {full[0].f0:.2e}, full space "
        + ", ".join(f"{found.value:.1f} % at {found.epsilon:g}" for found in full),
        flush=True,
    )
    for name, scale, policy, chunk_size in readings:
        objective = check_objective(
            model,
            X,
            y,
            max_samples=search["max_samples"],
            random_state=0,
            batch_norm=policy,
            chunk_size=chunk_size,
        )
        generator = torch.Generator().manual_seed(0)
        basis = scale * draws[name]((100, objective.n_params), generator)
        restricted = objective.restrict(Subspace(objective.theta0, basis))
        found = sharpness(
            restricted,
            epsilon=epsilons,
            random_state=0,
            max_iter=search.get("max_iter"),
        )
        row = {
            "epochs": n_epochs,
            "train_loss": full[0].f0,
            "full": [record.value for record in full],
            "entries": name,
            "scale": scale,
            "batch_norm": policy,
            "chunk_size": chunk_size,
            "value": [record.value for record in found],
            "box_ratio": [record.box_ratio for record in found],
            "spread": [record.spread for record in found],
        }
        table.append(row)
        print(
            f"  {name:12s} x {scale:g}, {policy:10s} in chunks of {chunk_size:5,}: "
            + ", ".join(
                f"{record.value:9.4g} % at {record.epsilon:g}" for record in found
            )
            + f"  (steps up to {max(row['box_ratio']):.1f} times the full box)",
            flush=True,
        )

# %%
# The readings that come nearest to the paper's 9.22 % at 1e-3.
for row in sorted(
    table, key=lambda row: abs(np.log(max(row["value"][0], 1e-12) / 9.22))
)[:5]:
    print(
        f"{row['value'][0]:.3g} % and {row['value'][1]:.3g} %: "
        f"{row['entries']} x {row['scale']:g}, "
        f"{row['batch_norm']}, chunks of {row['chunk_size']:,}, {row['epochs']} epochs"
    )
if arguments.output:
    arguments.output.write_text(
        json.dumps(
            {
                "command": f"python examples/{Path(sys.argv[0]).name} "
                + " ".join(sys.argv[1:]),
                "versions": {
                    "sklgap": sklgap.__version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                },
                "rows": table,
            },
            indent=1,
        )
        + "\n"
    )
