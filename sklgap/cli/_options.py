"""The arguments that several commands share, and the functions that read them."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from sklgap.cli._load import Loaded
    from sklgap.estimator import LBGapClassifier

ANSWERED, WRONG_USAGE, NOT_SAFE, INTERRUPTED = 0, 2, 3, 130
EXIT_CODES = "exit codes: 0 answered, 2 wrong usage or a file that cannot be read, 130 interrupted"
OPTIMIZERS = {"adam": ("Adam", 1e-3), "adamw": ("AdamW", 1e-3), "sgd": ("SGD", 0.1), "rmsprop": ("RMSprop", 1e-3)}
_WITH_MOMENTUM = ("sgd", "rmsprop")
NETS = ("F1", "F2", "C1", "C2", "C3", "C4", "ResNet44", "WRN16-4")
# Width and depth of the dense net for a table. F1's own 512 units per layer are made for MNIST.
TABLE_NET = {"module__width": 64, "module__n_layers": 3}
_EPOCHS = 30
# The parameter names of the functions behind the commands, and the options that set them.
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
    """A parser that reports a usage error in one sentence instead of printing the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end the program with exit code 2."""
        self.exit(WRONG_USAGE, f"sklgap: {message.rstrip('.')}. See {self.prog} --help.\n")


def add_training_arguments(p: argparse.ArgumentParser, *, lr: str = "learning rate (default: {})") -> None:
    """Add the arguments that control what is trained, and how often."""
    usual = ", ".join(f"{rate:g} for {name}" for name, (_, rate) in OPTIMIZERS.items())
    p.add_argument(
        "--net",
        choices=NETS,
        help="network (default: C1 for CIFAR, otherwise F1; for tables F1 has 3 layers of 64 units)",
    )
    p.add_argument("--epochs", type=int, help=f"largest number of epochs (default: {_EPOCHS})")
    p.add_argument(
        "--tol",
        type=float,
        help="stop when the training loss falls by less than this fraction within 10 epochs (default: do not stop "
        "early)",
    )
    p.add_argument(
        "--target-loss", type=float, help="stop when the training loss reaches this value (default: do not stop early)"
    )
    p.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adam", help="optimiser (default: adam)")
    p.add_argument(
        "--momentum", type=float, help="momentum of sgd or rmsprop, from 0 up to but not including 1 (default: 0)"
    )
    p.add_argument("--lr", type=float, help=lr.format(usual))
    p.add_argument("--trials", type=int, default=5, help="number of paired trials, each with its own seed (default: 5)")
    p.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: 0)")
    p.add_argument(
        "--jobs", type=int, default=-1, help="number of fits that run at the same time (default: -1, one per core)"
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    p.add_argument(
        "--memory",
        type=Path,
        metavar="FOLDER",
        help="save finished fits in this folder, and load them in the next run (default: nothing is saved)",
    )


def add_measurement_arguments(p: argparse.ArgumentParser, *, epsilon: Sequence[float] = ()) -> None:
    """Add the arguments that control what is measured."""
    p.add_argument(
        "--scoring",
        nargs="+",
        metavar="NAME",
        help="names of scikit-learn scores, such as average_precision; the first one decides (default: accuracy)",
    )
    boxes = " ".join(f"{value:g}" for value in epsilon) or "sharpness is not measured"
    p.add_argument(
        "--epsilon",
        type=float,
        nargs="*",
        default=list(epsilon),
        help=f"sizes of the box around the weights in which sharpness is measured (default: {boxes})",
    )
    p.add_argument(
        "--subspace-dim",
        type=int,
        nargs="*",
        default=[],
        metavar="N",
        help="measure sharpness also in random subspaces of N dimensions",
    )
    add_policy_arguments(p)


def add_policy_arguments(p: argparse.ArgumentParser) -> None:
    """Add the arguments for the batch-norm policy and for the number of samples that sharpness is measured on."""
    p.add_argument(
        "--batch-norm",
        choices=["batch", "population", "running"],
        default="batch",
        help="batch-norm statistics that measurements use: those of fixed chunks of the samples (batch), of all "
        "training samples (population), or the running averages of the training (running) (default: batch)",
    )
    p.add_argument(
        "--max-samples",
        type=int,
        default=10_000,
        metavar="N",
        help="measure sharpness on at most N training samples (default: 10000)",
    )


def add_output_argument(p: argparse.ArgumentParser) -> None:
    """Add the argument for the folder that a command writes to."""
    p.add_argument(
        "--output",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="folder for report.html, report.json and report.png (default: the current folder)",
    )


def parsed(p: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed arguments. Wrong usage ends the program with one sentence and exit code 2."""
    return p.parse_args(argv)


def check_output(folder: Path) -> None:
    """Make the folder of the report, so that a wrong folder is found before hours of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output: the folder {folder} cannot be created ({error.strerror}).") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--output: there is no permission to write to the folder {folder}.")


def resampled(arguments: argparse.Namespace) -> list[str]:
    """Return the scores that are not means over samples. Their intervals resample the test samples of every class."""
    return [name for name in arguments.scoring or () if name not in ("accuracy", "neg_log_loss")]


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Give an interruption within this context the name of the part of the command that it interrupts."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(name) from None


def so_far(answers: Sequence[str], interrupted: bool) -> list[str]:
    """Return the answers. The first one, which is the last line of a command, says so if fits are missing."""
    return [f"Interrupted before all fits finished. So far: {answers[0]}", *answers[1:]] if interrupted else [*answers]


def check_scored(arguments: argparse.Namespace, data: "Loaded") -> None:
    """Raise a ValueError, before hours of training, if a score is unknown or its interval needs more test samples."""
    import numpy as np

    from sklgap.experiments._estimate import LEAST_ROWS_OF_A_CLASS
    from sklgap.experiments._scores import check_scoring

    check_scoring(arguments.scoring)

    rarest = min(int((data.y_test == label).sum()) for label in np.unique(data.y))
    for name in resampled(arguments):
        if rarest < LEAST_ROWS_OF_A_CLASS:
            raise ValueError(
                f"--scoring {name} needs at least {LEAST_ROWS_OF_A_CLASS} test samples of each class, but the rarest "
                f"class has {rarest}. Use more samples or a larger --test-fraction."
            )


def measurement(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of `Measurement`."""
    return {
        "epsilon": arguments.epsilon,
        "subspace_dims": [None, *arguments.subspace_dim],
        "batch_norm": arguments.batch_norm,
        "max_samples": arguments.max_samples,
        "scoring": arguments.scoring,
    }


def runs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments that all experiments share."""
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
    if arguments.momentum is not None:
        sizes["optimizer__momentum"] = _checked_momentum(arguments)
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


def _checked_momentum(arguments: argparse.Namespace) -> float:
    momentum: float = arguments.momentum
    if arguments.optimizer not in _WITH_MOMENTUM:
        raise ValueError(
            f"--momentum needs --optimizer {' or '.join(_WITH_MOMENTUM)}, because {arguments.optimizer} has no such "
            "parameter."
        )
    if not 0 <= momentum < 1:
        raise ValueError(f"--momentum must be at least 0 and below 1; got {momentum:g}.")
    return momentum


def estimator(arguments: argparse.Namespace, data: "Loaded") -> Any:
    """Return the classifier; for a table, a pipeline that first turns the columns into numbers."""
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
    """Print a text at once, because the next step may take hours."""
    print(text, flush=True)


def complain(error: BaseException | str) -> int:
    """Print an error in one sentence; return the exit code of wrong usage."""
    text = " ".join(str(error).split())
    found = re.match(rf"({'|'.join(_OPTIONS)}) (?=must|cannot)", text)
    if found:
        text = _OPTIONS[found[1]] + text[found.end(1) :]
    print(f"sklgap: {text}", file=sys.stderr)
    return WRONG_USAGE
