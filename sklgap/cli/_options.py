"""The arguments that several commands share, and what they make of them."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from sklgap.cli._load import Loaded
    from sklgap.estimator import LBGapClassifier

ANSWERED, WRONG_USAGE, NOT_SAFE, INTERRUPTED = 0, 2, 3, 130
EXIT_CODES = "exit codes: 0 answered, 2 wrong usage or a file that cannot be read, 130 interrupted"
OPTIMIZERS = {"adam": ("Adam", 1e-3), "adamw": ("AdamW", 1e-3), "sgd": ("SGD", 0.1), "rmsprop": ("RMSprop", 1e-3)}
NETS = ("F1", "F2", "C1", "C2", "C3", "C4", "ResNet44", "WRN16-4")
# A dense net for a table has so many units a layer and layers; F1's 512 units are made for MNIST.
TABLE_NET = {"module__width": 64, "module__n_layers": 3}
_EPOCHS = 30
# What the functions behind the commands call an option.
_OPTIONS = {
    "batch_sizes": "--batch-sizes",
    "margin": "--margin",
    "n_trials": "--trials",
    "random_state": "--seed",
    "max_epochs": "--epochs",
    "tol": "--tol",
    "lr": "--lr",
    "lr of the estimator": "--lr",
    "target_loss": "--target-loss",
    "target_loss of the estimator": "--target-loss",
    "regimes": "--regimes",
    "small": "--small",
    "large": "--large",
    "scoring": "--scoring",
    "epsilon": "--epsilon",
    "subspace_dim": "--subspace-dim",
    "subspace_dims": "--subspace-dim",
    "max_samples": "--max-samples",
    "n_jobs": "--jobs",
    "device": "--device",
    "memory": "--memory",
    "net": "--net",
}


class Parser(argparse.ArgumentParser):
    """A parser that says in one sentence what is wrong, instead of all that there is."""

    def error(self, message: str) -> NoReturn:
        """End the program with 2."""
        self.exit(WRONG_USAGE, f"sklgap: {message.rstrip('.')}. See {self.prog} --help.\n")


def add_training_arguments(p: argparse.ArgumentParser, *, lr: str = "learning rate (default: {})") -> None:
    """Add the arguments that say what is trained, and how often."""
    usual = ", ".join(f"{rate:g} for {name}" for name, (_, rate) in OPTIMIZERS.items())
    p.add_argument(
        "--net", choices=NETS, help="net (default: C1 for CIFAR, else F1, with 3 layers of 64 units for tables)"
    )
    p.add_argument("--epochs", type=int, help=f"train for at most so many epochs (default: {_EPOCHS})")
    p.add_argument(
        "--tol",
        type=float,
        help="stop when the training loss has fallen by less than this fraction in 10 epochs (default: never)",
    )
    p.add_argument("--target-loss", type=float, help="stop at this training loss (default: never)")
    p.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adam", help="optimiser (default: adam)")
    p.add_argument("--lr", type=float, help=lr.format(usual))
    p.add_argument("--trials", type=int, default=5, help="paired trials, each with its own seed (default: 5)")
    p.add_argument("--seed", type=int, default=0, help="seed of all that is drawn at random (default: 0)")
    p.add_argument("--jobs", type=int, default=-1, help="fits at the same time (default: -1, one per core)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    p.add_argument("--memory", type=Path, metavar="FOLDER", help="save finished fits here, and load them next time")


def add_measurement_arguments(p: argparse.ArgumentParser, *, epsilon: Sequence[float] = ()) -> None:
    """Add the arguments that say what is measured."""
    p.add_argument(
        "--scoring",
        nargs="+",
        metavar="NAME",
        help="scores of scikit-learn, such as average_precision; the first one decides (default: accuracy)",
    )
    boxes = " ".join(f"{value:g}" for value in epsilon) or "none: sharpness is not measured"
    p.add_argument(
        "--epsilon", type=float, nargs="*", default=list(epsilon), help=f"box sizes of sharpness (default: {boxes})"
    )
    p.add_argument(
        "--subspace-dim",
        type=int,
        nargs="*",
        default=[],
        help="also measure sharpness in random subspaces of so many dimensions",
    )
    add_policy_arguments(p)


def add_policy_arguments(p: argparse.ArgumentParser) -> None:
    """Add the arguments that say how batch norm is treated, and on how many samples sharpness is measured."""
    p.add_argument(
        "--batch-norm",
        choices=["batch", "population", "running"],
        default="batch",
        help="statistics of batch norm in measurements (default: batch)",
    )
    p.add_argument(
        "--max-samples",
        type=int,
        default=10_000,
        help="measure sharpness on at most so many training samples (default: 10000)",
    )


def add_output_argument(p: argparse.ArgumentParser) -> None:
    """Add the folder that a command writes to."""
    p.add_argument(
        "--output",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="folder for report.html, report.json and report.png (default: the current one)",
    )


def parsed(p: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments; wrong usage ends the program with 2 and one sentence."""
    return p.parse_args(argv)


def check_output(folder: Path) -> None:
    """Make the folder of the report; an OSError before hours of training, not after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output: {folder} cannot be made a folder ({error.strerror}).") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--output: nothing can be written to the folder {folder}.")


def resampled(arguments: argparse.Namespace) -> list[str]:
    """Return the scores that are no mean over samples: their intervals draw test samples again, of every class."""
    return [name for name in arguments.scoring or () if name not in ("accuracy", "neg_log_loss")]


def check_scored(arguments: argparse.Namespace, data: "Loaded") -> None:
    """Refuse test samples that are too few for the interval of a score, before hours of training."""
    import numpy as np

    from sklgap.experiments._estimate import LEAST_ROWS_OF_A_CLASS

    rarest = min(int((data.y_test == label).sum()) for label in np.unique(data.y))
    for name in resampled(arguments):
        if rarest < LEAST_ROWS_OF_A_CLASS:
            raise ValueError(
                f"--scoring {name} needs at least {LEAST_ROWS_OF_A_CLASS} test samples of each class, and the rarest "
                f"has {rarest}: use more samples, or a larger --test-fraction."
            )


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


def size_or_name(text: str) -> int | float | str:
    """Return SB or LB, a batch size, or a fraction of the training samples."""
    return text if text in ("SB", "LB") else size_or_fraction(text)


def say(text: str) -> None:
    """Print what a person reads, at once: what follows may take hours."""
    print(text, flush=True)


def complain(error: BaseException | str) -> int:
    """Print an error in one sentence; return the exit code of wrong usage."""
    text = " ".join(str(error).split())
    found = re.match(rf"({'|'.join(_OPTIONS)}) (?=must|cannot)", text)
    if found:
        text = _OPTIONS[found[1]] + text[found.end(1) :]
    print(f"sklgap: {text}", file=sys.stderr)
    return WRONG_USAGE
