"""``python -m sklgap sharpness DATA --params FILE``: the sharpness of saved weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklgap.cli import _options as options
from sklgap.cli._load import Loaded, add_data_arguments, load


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = options.Parser(
        prog="python -m sklgap sharpness",
        description="Measure the sharpness (Metric 2.1 of Keskar et al. 2017) of saved weights on training data. The "
        "file must hold a state_dict, as written by net_.save_params(f_params=...) of skorch or by "
        "torch.save(module.state_dict(), ...). No pickle is loaded.",
        epilog="example: python -m sklgap sharpness mnist --net F1 --params weights.pt --epsilon 1e-3 5e-4. "
        f"{options.EXIT_CODES}.",
    )
    add_data_arguments(p)
    p.add_argument("--params", type=Path, required=True, metavar="FILE", help="file with the saved weights")
    p.add_argument(
        "--net",
        choices=options.NETS,
        help="network that the weights belong to (default: C1 for CIFAR, otherwise F1; for tables F1 has 3 layers of "
        "64 units)",
    )
    p.add_argument(
        "--epsilon",
        type=float,
        nargs="+",
        default=[1e-3],
        help="sizes of the box around the weights in which the loss is maximised (default: 0.001)",
    )
    p.add_argument(
        "--subspace-dim",
        type=int,
        metavar="N",
        help="measure sharpness in a random subspace of N dimensions (default: in the full space)",
    )
    p.add_argument(
        "--solver",
        choices=["auto", "lbfgsb", "lbfgsb-scaled", "power"],
        default="auto",
        help="method that searches for the largest loss in the box; lbfgsb is the method of the paper (default: auto)",
    )
    options.add_policy_arguments(p)
    p.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: 0)")
    p.set_defaults(epochs=None, tol=None, target_loss=None, optimizer="adam", momentum=None, lr=None, device="cpu")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    arguments = options.parsed(parser(), argv)
    if not arguments.params.is_file():
        raise ValueError(f"{arguments.params}: the file does not exist.")
    with options.part("the measurement"):
        data = load(arguments)
        found, accuracy = _measure(arguments, data)
    options.say("\n".join([*data.said, _classes(data)]) + "\n")
    for record in found:
        options.say(str(record))
    _, counts = _counts(data.y)
    if accuracy <= max(counts) / sum(counts):
        options.say(
            f"\nPlease note:\n* The weights predict {100 * accuracy:.1f} % of the training samples correctly. That is "
            "no more than always predicting the largest class. The weights may have been trained on other data, with "
            "another scaling, or with another order of the classes."
        )
    values = " and ".join(f"{record.value:.4g} % at epsilon {record.epsilon:g}" for record in found)
    options.say(f"Sharpness is {values}, at a training loss of {found[-1].f0:.3g}.")
    return options.ANSWERED


def _counts(y: Any) -> tuple[list[Any], list[int]]:
    import numpy as np

    classes, counts = np.unique(y, return_counts=True)
    return classes.tolist(), counts.tolist()


def _classes(data: Loaded) -> str:
    """Return a line that says which output of the net stands for which class."""
    classes = [str(label) for label in _counts(data.y)[0]]
    first = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    return f"the outputs of the net stand for the classes in this order: {first}"


def _measure(arguments: argparse.Namespace, data: Loaded) -> tuple[list[Any], float]:
    """Return the sharpness of the weights for each box, and their training accuracy."""
    import numpy as np
    from torch import nn

    from sklgap.inspection import sharpness
    from sklgap.objective import Objective

    X = data.X if data.head is None else data.head.fit_transform(data.X, data.y)
    X = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32)
    y = np.unique(data.y, return_inverse=True)[1]
    module = _module(arguments, data, X, y)
    module.load_state_dict(_state(arguments.params, module))
    found = sharpness(
        (module, nn.CrossEntropyLoss()),
        X,
        y,
        epsilon=arguments.epsilon,
        subspace_dim=arguments.subspace_dim,
        solver=arguments.solver,
        batch_norm=arguments.batch_norm,
        max_samples=arguments.max_samples,
        random_state=arguments.seed,
    )
    accuracy = Objective(module, nn.CrossEntropyLoss(), (X, y), batch_norm=arguments.batch_norm).evaluate().accuracy
    return found, float(accuracy)


def _module(arguments: argparse.Namespace, data: Loaded, X: Any, y: Any) -> Any:
    """Return the net that a fit on these data would build."""
    from sklgap.experiments._cost import time_steps

    return time_steps(options.classifier(arguments, data), {}, X, y).net_.module_.cpu()


def _state(path: Path, module: Any) -> dict[str, Any]:
    """Return the saved weights, checked against the module."""
    import torch

    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # torch raises many kinds
        raise ValueError(
            f"{path}: the file holds no weights that can be loaded without running a pickle. Save module.state_dict()."
        ) from None
    wanted = module.state_dict()
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: the file must hold weights by name. Save module.state_dict() itself.")
    if state.keys() != wanted.keys():
        names = [*(wanted.keys() - state.keys()), *(state.keys() - wanted.keys())]
        which = f"{min(names)} is {'missing' if min(names) in wanted else 'not in this net'}"
        raise ValueError(f"{path}: the weights do not belong to this net ({which}). Check --net and DATA.")
    for name, value in wanted.items():
        if state[name].shape != value.shape:
            raise ValueError(
                f"{path}: {name} must have shape {tuple(value.shape)} for this net and these data; got "
                f"{tuple(state[name].shape)}. Check --net and DATA."
            )
    wrong = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} has numbers that are not finite, because the training diverged.")
    return dict(state)
