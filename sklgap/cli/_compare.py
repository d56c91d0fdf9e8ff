"""``python -m sklgap compare DATA``: the papers' tables for several regimes."""

import argparse
from collections.abc import Sequence
from typing import Any

from sklgap.cli import _options as options
from sklgap.cli._load import Loaded, add_data_arguments, load


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = argparse.ArgumentParser(
        prog="python -m sklgap compare",
        description="Compare small- and large-batch training over paired trials: accuracy, sharpness (Metric 2.1 of "
        "Keskar et al. 2017), distance from the start.",
        epilog="examples (hours on a CPU): python -m sklgap compare mnist --net F1 --epochs 100 --tol 1e-4 "
        "--subspace-dim 100; python -m sklgap compare cifar10 --net C1 --epochs 100 --tol 1e-4",
    )
    add_data_arguments(p)
    p.add_argument(
        "--regimes", nargs="+", default=["SB", "LB"], help="SB, LB, batch sizes or fractions; first = reference"
    )
    options.add_training_arguments(p)
    options.add_measurement_arguments(p, epsilon=(1e-3, 5e-4))
    options.add_output_argument(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    arguments = options.parsed(parser(), argv)
    regimes = [_number_or_name(regime) for regime in arguments.regimes]
    try:
        data = load(arguments)
        from sklgap.experiments import compare_regimes

        found = compare_regimes(
            options.estimator(arguments, data),
            data.X,
            data.y,
            data.X_test,
            data.y_test,
            regimes=regimes,
            reference=regimes[0],
            **options.measurement(arguments),
            **options.runs(arguments),
        )
    except (ValueError, TypeError, OSError) as error:
        return options.complain(error)
    except KeyboardInterrupt:
        options.say("Interrupted before the first fit had finished.")
        return options.INTERRUPTED
    options.say("\n".join(data.said) + f"\n\n{found}\n")
    _write(arguments, data, found)
    options.say(found._verdict()[0] if found._verdict() else "Only one regime has finished: nothing can be compared.")
    return options.INTERRUPTED if found.interrupted else options.ANSWERED


def _write(arguments: argparse.Namespace, data: Loaded, found: Any) -> None:
    from sklgap.cli import _report as report
    from sklgap.inspection import ParametricPlotDisplay

    plt, figure = report.pyplot(), None
    if plt is not None:
        two = len(found.done) > 1 and data.head is None
        figure, axes = plt.subplots(1, 3 if two else 2, figsize=(15, 4.2), layout="constrained")
        found.plot(axes=axes[: 2 if found.settings["epsilon"] else 1])
        if two:
            start, end = (found.estimators_[label][0] for label in found.done[:2])
            policy = {"batch_norm": arguments.batch_norm, "max_samples": arguments.max_samples, "random_state": 0}
            names = (found.done[0], found.done[1])
            ParametricPlotDisplay.from_estimators(
                start, end, data.X, data.y, data.X_test, data.y_test, names=names, ax=axes[2], **policy
            )
        figure.suptitle(f"{data.name}: {found.settings['n_train']:,} training samples, {found.trials_line()}")
    title = f"{data.name}: {', '.join(found.labels)}"
    paths = report.write(arguments.output, title, found._verdict(), [found], figure, data.said)
    if plt is not None:
        plt.close(figure)
    options.say("written: " + ", ".join(str(path) for path in paths))


def _number_or_name(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
