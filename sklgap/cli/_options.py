"""The arguments that several commands share, and what they make of them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklgap.cli._load import Loaded
    from sklgap.estimator import LBGapClassifier

ANSWERED, WRONG_USAGE, NOT_SAFE, INTERRUPTED = 0, 2, 3, 130
OPTIMIZERS = {"adam": ("Adam", 1e-3), "adamw": ("AdamW", 1e-3), "sgd": ("SGD", 0.1), "rmsprop": ("RMSprop", 1e-3)}
# A dense net for a table has so many units a layer and layers; F1's 512 units are made for MNIST.
TABLE_NET = {"module__width": 64, "module__n_layers": 3}
_EPOCHS = 30


def add_training_arguments(p: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is trained, and how often."""
    p.add_argument("--net", help="F1, F2, C1 to C4, ResNet44 or WRN16-4 (F1, with 3 layers of 64 units for tables)")
    p.add_argument("--epochs", type=int, help=f"largest number of epochs ({_EPOCHS})")
    p.add_argument("--tol", type=float, help="stop when the loss falls by less than this fraction in 10 epochs (never)")
    p.add_argument("--target-loss", type=float, help="stop at this training loss")
    p.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adam", help="optimiser (adam)")
    p.add_argument("--lr", type=float, help="learning rate")
    p.add_argument("--trials", type=int, default=5, help="paired trials (5)")
    p.add_argument("--seed", type=int, default=0, help="random state (0)")
    p.add_argument("--jobs", type=int, default=-1, help="fits at once (-1: one per core)")
    p.add_argument("--device", default="auto", help="auto (the default), cpu, cuda, ...")
    p.add_argument("--memory", type=Path, help="folder of saved work: what has finished is never done again")


def add_measurement_arguments(p: argparse.ArgumentParser, *, epsilon: Sequence[float] = ()) -> None:
    """Add the arguments that say what is measured."""
    p.add_argument("--scoring", nargs="+", help="scores of scikit-learn, such as average_precision (accuracy)")
    p.add_argument(
        "--epsilon", type=float, nargs="*", default=list(epsilon), help="box sizes of sharpness (the paper: 1e-3 5e-4)"
    )
    p.add_argument("--subspace-dim", type=int, nargs="*", default=[], help="also measure sharpness in random subspaces")
    p.add_argument("--batch-norm", choices=["batch", "population", "running"], default="batch", help="policy (batch)")
    p.add_argument("--max-samples", type=int, default=10_000, help="training samples for sharpness (10,000)")


def add_output_argument(p: argparse.ArgumentParser) -> None:
    """Add the folder that a command writes to."""
    p.add_argument("--output", type=Path, default=Path(), help="folder for report.html, report.json, report.png (here)")


def parsed(p: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments; wrong usage ends the program with 2 and one sentence."""
    return p.parse_args(argv)


def measurement(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `Measurement`."""
    return {
        "epsilon": arguments.epsilon,
        "subspace_dims": [None, *arguments.subspace_dim],
        "batch_norm": arguments.batch_norm,
        "max_samples": arguments.max_samples,
        "scoring": arguments.scoring,
    }


def runs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that all experiments share."""
    return {
        "n_trials": arguments.trials,
        "random_state": arguments.seed,
        "n_jobs": arguments.jobs,
        "memory": arguments.memory,
        "verbose": 1,
    }


def classifier(arguments: argparse.Namespace, data: "Loaded") -> "LBGapClassifier":
    """Return the classifier that the arguments describe."""
    import torch

    from sklgap.estimator import LBGapClassifier

    net = arguments.net or ("C1" if data.name.startswith("cifar") else "F1")
    sizes: dict[str, Any] = {}
    small = data.name in ("digits", "MNIST-1D") or data.head is not None
    if net in ("F1", "F2") and small:
        sizes = dict(TABLE_NET) if net == "F1" else {"module__width": 64}
    elif data.name == "digits":
        sizes = {"input_shape": (1, 8, 8)}
    name, rate = OPTIMIZERS[arguments.optimizer]
    return LBGapClassifier(
        net,
        max_epochs=_EPOCHS if arguments.epochs is None else arguments.epochs,
        tol=arguments.tol,
        target_loss=arguments.target_loss,
        optimizer=getattr(torch.optim, name),
        lr=rate if arguments.lr is None else arguments.lr,
        device=arguments.device,
        **sizes,
    )


def estimator(arguments: argparse.Namespace, data: "Loaded") -> Any:
    """Return the classifier, behind what makes numbers of the columns of a table."""
    model = classifier(arguments, data)
    if data.head is None:
        return model
    from sklearn.pipeline import make_pipeline

    return make_pipeline(data.head, model)


def size_or_fraction(text: str) -> int | float:
    """Return a batch size, or a fraction of the training samples."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a batch size or a fraction; got {text!r}") from None


def say(text: str) -> None:
    """Print what a person reads."""
    print(text)


def complain(error: BaseException | str) -> int:
    """Print an error in one sentence; return the exit code of wrong usage."""
    text = " ".join(str(error).split())
    print(f"sklgap: {text}", file=sys.stderr)
    return WRONG_USAGE
