"""What the tests of data-parallel training run in every process, and once more in one process alone.

    torchrun --nproc_per_node 2 -m tests.training.processes FOLDER

leaves the results of process i in FOLDER/i.pt; ``run_as`` does the same in a process that torchrun has not started.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV
from skorch.dataset import ValidSplit
from torch import distributed, nn

from sklgap import SAM, Adversarial, EntropySGD, LabelSmoothing, Mixup, Proximal, SampleNoise, Stability
from sklgap._typing import Batch
from sklgap.training._data_parallel import share_out
from tests.cases import PLAIN, WITH_BATCH_NORM, seeded_module, vectors
from tests.remedies.steps import step_of
from tests.tiny import Mlp, TinyC1, blobs, images, small

REMEDIES = {
    "none": [],
    "sam": [SAM(0.1)],
    "sam of parts": [SAM(0.1, sub_batch_size=7)],
    "proximal": [Proximal(0.5)],
    "noise": [SampleNoise(0.5)],
    "stability": [Stability(weight=0.5)],
    "adversarial and sam": [Adversarial(), SAM(0.1)],
    "entropy": [EntropySGD(n_steps=3)],
    "mixup and smoothing": [Mixup(1.0), LabelSmoothing()],
    "sam, rarely": [SAM(0.1, every=2)],
}
# Rows of a batch: an odd number, an even one, some that leave the second process one row more or none at all.
N_ROWS = (23, 22, 5, 3, 2, 1)


class Moody(nn.Module):
    """A net that uses ``rare`` for rows with a large first feature, and ``never`` not at all."""

    def __init__(self):
        super().__init__()
        self.always, self.rare, self.never = (nn.Linear(4, 3) for _ in range(3))

    def forward(self, X):
        outputs, large = self.always(X), X[:, 0] > 10
        return outputs.index_put((large,), self.rare(X[large]), accumulate=True) if large.any() else outputs


def updates(problem, remedies, parallel, n_rows=23, weight=None, criterion=None, **kwargs):
    """Make three updates on the first rows; return the weights, buffers, loss and outputs."""
    module, plain, X, y = problem
    criterion = plain if criterion is None else criterion
    step = step_of(module, criterion, remedies, spread=share_out(module) if parallel else None, **kwargs)
    weight = None if weight is None else weight[:n_rows]
    results = [step(Batch(X[:n_rows], y[:n_rows], weight)) for _ in range(3)]
    return {
        **{f"weight {name}": value.clone() for name, value in module.named_parameters()},
        **{f"buffer {name}": value.clone() for name, value in module.named_buffers()},
        **{f"loss {i}": result["loss"] for i, result in enumerate(results)},
        **{f"y_pred {i}": result["y_pred"] for i, result in enumerate(results)},
    }


def gradients_of_moody(parallel):
    """Return the gradients of a step whose second process alone uses ``rare``."""
    X, y = vectors()
    X[20, 0] = 11
    module = seeded_module(Moody)
    step = step_of(module, nn.CrossEntropyLoss(), [], spread=share_out(module) if parallel else None)
    return step.gradient(Batch(X, y), torch.Generator())


def steps(parallel):
    """Return the results of all steps, in float64."""
    found = {f"remedy {name}": updates(PLAIN["tanh"](), given, parallel) for name, given in REMEDIES.items()}
    found |= {f"rows {n}": updates(PLAIN["tanh"](), [], parallel, n) for n in N_ROWS}
    found |= {f"net {name}": updates(problem(), [], parallel) for name, problem in PLAIN.items()}
    found |= {
        "micro": updates(PLAIN["tanh"](), [], parallel, micro_batch_size=4),
        "micro and sam": updates(PLAIN["conv"](), [SAM(0.1)], parallel, micro_batch_size=4),
        "moody": gradients_of_moody(parallel),
    }
    by_class = torch.tensor([1.0, 0.2, 3.0], dtype=torch.float64)
    # Of the 23 rows the second process has the last twelve: none of them counts.
    for kind, weight in {"some": torch.arange(23.0) % 4, "first half": (torch.arange(23) < 11).double()}.items():
        options = {"criterion": nn.CrossEntropyLoss(weight=by_class), "weight": weight.double()}
        found |= {
            f"weights {kind} {name}": updates(PLAIN["tanh"](), given, parallel, **options)
            for name, given in REMEDIES.items()
        }
        found[f"weights {kind} micro"] = updates(PLAIN["conv"](), [], parallel, micro_batch_size=4, **options)
    found["ignored"] = updates(PLAIN["relu"](), [], parallel, criterion=nn.CrossEntropyLoss(ignore_index=2))
    return found


def fits(parallel):
    """Return weights and history of fits through the estimator, in float32."""
    X, y = blobs(n=57)
    pictures = images(n=30)
    models = {
        "plain": small(net=Mlp, batch_size=20, data_parallel=parallel).fit(X, y),
        "regime": small(net=Mlp, batch_regime="LB", max_epochs=4, proximal_lambda=0.1, data_parallel=parallel).fit(
            X, y
        ),
        "validated": small(net=Mlp, batch_size=20, train_split=ValidSplit(3), data_parallel=parallel).fit(X, y),
    }
    heavy = np.arange(57) % 4
    models |= {
        "weighted": small(net=Mlp, batch_size=20, data_parallel=parallel).fit(X, y, heavy),
        "weights held out": small(
            net=Mlp, batch_size=20, micro_batch_size=4, train_split=ValidSplit(3), data_parallel=parallel
        ).fit(X, y, heavy),
        "classes": small(
            net=Mlp, batch_size=20, class_weight="balanced", criterion__weight=[1, 0.2, 3], data_parallel=parallel
        ).fit(X, y, heavy),
        "ignored": small(net=Mlp, batch_size=5, criterion__ignore_index=1, data_parallel=parallel).fit(X, y),
    }
    if parallel:  # what one process cannot repeat
        models |= {
            "batch norm and dropout": small(net=TinyC1, batch_size=9, data_parallel=True).fit(*pictures),
            "running": small(batch_size=9, recompute_batch_norm=False, data_parallel=True).fit(X, y),
            "no seed": small(net=Mlp, random_state=None, data_parallel=True).fit(X, y),
            "instance": small(net=Mlp(), data_parallel=True).fit(X, y),
        }
        warm = small(net=Mlp, batch_size=20, warm_start=True, data_parallel=True).fit(X, y)
        models["warm"] = warm.set_params(batch_size=30).fit(X, y)
        models["searched"] = GridSearchCV(models["no seed"], {"batch_size": [10, 20]}, cv=2).fit(X, y).best_estimator_
    return {
        name: {
            **{f"weight {key}": value for key, value in model.module_.state_dict().items()},
            "train_loss": torch.tensor(model.history_[:, "train_loss"]),
            "train_accuracy": torch.tensor(model.history_[:, "train_accuracy"]),
        }
        for name, model in models.items()
    }


def refusals(rank):
    """Return the sentences that say what differs between the processes."""
    X, y = blobs()
    wrong = {
        "other rows": lambda: small(data_parallel=True).fit(X[rank::2], y[rank::2]),
        "other number": lambda: small(data_parallel=True).fit(X[rank:], y[rank:]),
        "other labels": lambda: small(data_parallel=True).fit(X, y if rank else y[::-1]),
        "other weights": lambda: small(data_parallel=True).fit(X, y, np.arange(60) % (2 + rank)),
    }
    said = {}
    for name, fit in wrong.items():
        try:
            fit()
        except ValueError as error:
            said[name] = str(error)
    return said


def masks():
    """Return the dropout masks of a batch of eight equal rows, and the global generator's next number after them."""
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 2)).double()
    step = step_of(module, nn.CrossEntropyLoss(), [], spread=share_out(module))
    torch.manual_seed(0)
    result = step(Batch(torch.ones(8, 64, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)))
    return {"y_pred": result["y_pred"], "next": torch.rand(1)}


def batch_norm_updates():
    """Return a step of every net with batch norm on 22 rows, eleven for each of two processes."""
    found = {}
    for name, problem in WITH_BATCH_NORM.items():
        module, criterion, X, y = problem()
        step = step_of(module, criterion, [], spread=share_out(module))
        step(Batch(X[:22], y[:22]))
        found[name] = {key: value.clone() for key, value in module.state_dict().items()}
    return found


def run_as(rank, n_processes, folder, interface):
    """Do what ``main`` does in one of several processes on this machine."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n_processes)}
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    main(folder, init_method=f"file://{folder}/store", rank=rank, world_size=n_processes)


def main(folder, **group):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", **group)
    rank = distributed.get_rank()
    found = {
        "steps": steps(parallel=True),
        "batch norm": batch_norm_updates(),
        "masks": masks(),
        "fits": fits(parallel=True),
        "refusals": refusals(rank),
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
