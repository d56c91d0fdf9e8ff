"""``python -m sklgap sharpness DATA --params FILE``: the metric of a saved model."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklgap.cli import _options as options
from sklgap.cli._load import Loaded, add_data_arguments, load


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = argparse.ArgumentParser(
        prog="python -m sklgap sharpness",
        description="Measure the sharpness (Metric 2.1 of Keskar et al. 2017) of saved weights on training data. The "
        "file holds a state_dict, as net_.save_params(f_params=...) of skorch or torch.save(module.state_dict(), ...) "
        "write it. No pickle is loaded.",
        epilog="example: python -m sklgap sharpness mnist --net F1 --params weights.pt --epsilon 1e-3 5e-4",
    )
    add_data_arguments(p)
    p.add_argument("--params", type=Path, required=True, metavar="FILE", help="the saved weights")
    p.add_argument("--net", help="F1, F2, C1 to C4, ResNet44 or WRN16-4 (as compare and curve choose it)")
    p.add_argument("--epsilon", type=float, nargs="+", default=[1e-3], help="box sizes (1e-3)")
    p.add_argument("--subspace-dim", type=int, help="measure in a random subspace of so many dimensions")
    p.add_argument(
        "--solver", choices=["auto", "lbfgsb", "lbfgsb-scaled", "power"], default="auto", help="solver (auto)"
    )
    p.add_argument("--batch-norm", choices=["batch", "population", "running"], default="batch", help="policy (batch)")
    p.add_argument("--max-samples", type=int, default=10_000, help="training samples (10,000)")
    p.add_argument("--seed", type=int, default=0, help="random state (0)")
    p.set_defaults(epochs=None, tol=None, target_loss=None, optimizer="adam", lr=None, device="cpu")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    arguments = options.parsed(parser(), argv)
    try:
        data = load(arguments)
        found = _measure(arguments, data)
    except (ValueError, TypeError, OSError) as error:
        return options.complain(error)
    options.say("\n".join(data.said) + "\n")
    for record in found:
        options.say(str(record))
    last = found[-1]
    options.say(f"sharpness {last.epsilon:g}: {last.value:.4g} % at a training loss of {last.f0:.3g}")
    return options.ANSWERED


def _measure(arguments: argparse.Namespace, data: Loaded) -> list[Any]:
    import numpy as np
    from torch import nn

    from sklgap.inspection import sharpness

    X = data.X if data.head is None else data.head.fit_transform(data.X, data.y)
    y = np.unique(data.y, return_inverse=True)[1]
    module = _module(arguments, data, X, y)
    module.load_state_dict(_state(arguments.params, module))
    X = X.toarray() if hasattr(X, "toarray") else X
    return sharpness(
        (module, nn.CrossEntropyLoss()),
        np.asarray(X, dtype=np.float32),
        y,
        epsilon=arguments.epsilon,
        subspace_dim=arguments.subspace_dim,
        solver=arguments.solver,
        batch_norm=arguments.batch_norm,
        max_samples=arguments.max_samples,
        random_state=arguments.seed,
    )


def _module(arguments: argparse.Namespace, data: Loaded, X: Any, y: Any) -> Any:
    """Return the net as a fit on these data would make it."""
    from sklgap.experiments._cost import time_steps

    return time_steps(options.classifier(arguments, data), {}, X, y).net_.module_.cpu()


def _state(path: Path, module: Any) -> dict[str, Any]:
    """Return saved weights that belong to the module."""
    import torch

    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file.") from None
    except Exception as error:  # torch raises many kinds
        raise ValueError(
            f"{path}: is no file of weights that torch reads without a pickle: save module.state_dict()."
        ) from error
    wanted = module.state_dict()
    if not isinstance(state, dict) or state.keys() != wanted.keys():
        raise ValueError(f"{path}: must hold the weights of this net, {', '.join(list(wanted)[:3])}, ...: see --net.")
    wrong = [name for name, value in wanted.items() if getattr(state[name], "shape", None) != value.shape]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{path}: {name} must have shape {tuple(wanted[name].shape)} for this net and these data; it has "
            f"{tuple(getattr(state[name], 'shape', ()))}: see --net."
        )
    return dict(state)
