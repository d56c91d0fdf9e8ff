"""``python -m sklgap compare DATA``: the papers' tables for several batch sizes."""

import argparse
from collections.abc import Sequence
from typing import Any

from sklgap.cli import _options as options
from sklgap.cli._load import Loaded, add_data_arguments, load


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = options.Parser(
        prog="python -m sklgap compare",
        description="Compare small-batch and large-batch training over paired trials. The report shows accuracy, "
        "sharpness (Metric 2.1 of Keskar et al. 2017) and the distance from the starting weights.",
        epilog="examples (they take hours on a CPU): python -m sklgap compare mnist --net F1 --epochs 100 --tol 1e-4 "
        "--subspace-dim 100; python -m sklgap compare cifar10 --net C1 --epochs 100 --tol 1e-4. "
        f"{options.EXIT_CODES}.",
    )
    add_data_arguments(p)
    p.add_argument(
        "--regimes",
        type=options.size_or_name,
        nargs="+",
        default=["SB", "LB"],
        metavar="SIZE",
        help="batch sizes to compare: SB (small batch: 256 samples, fewer if there are fewer than 10,240 training "
        "samples), LB (large batch: 10 %% of the training samples), numbers of samples, or fractions of the training "
        "samples; the first one is the reference (default: SB LB)",
    )
    options.add_training_arguments(p)
    options.add_measurement_arguments(p, epsilon=(1e-3, 5e-4))
    options.add_output_argument(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    arguments = options.parsed(parser(), argv)
    data = load(arguments)
    options.check_scored(arguments, data)
    options.check_output(arguments.output)
    options.say("\n".join(data.said))
    from sklgap.experiments import compare_regimes

    found = compare_regimes(
        options.estimator(arguments, data),
        data.X,
        data.y,
        data.X_test,
        data.y_test,
        regimes=arguments.regimes,
        reference=arguments.regimes[0],
        **options.measurement(arguments),
        **options.runs(arguments),
    )
    with options.part("the report"):
        answers = found.verdict or [f"Only {found.done[0]} was trained, so there is nothing to compare it with."]
        answers = options.so_far(answers, found.interrupted)
        options.say(f"\n{found}\n")
        _write(arguments, data, found, answers)
    options.say(answers[0])
    return options.INTERRUPTED if found.interrupted else options.ANSWERED


def _write(arguments: argparse.Namespace, data: Loaded, found: Any, answers: Sequence[str]) -> None:
    from sklgap.cli import _report as report

    plt, figure = report.pyplot(), None
    if plt is not None:
        figure = _figure(plt, arguments, data, found)
        name = report.without_mathematics(data.name)
        figure.suptitle(f"{name}: {found.settings['n_train']:,} training samples, {found.trials_line()}")
    title = f"{data.name}: {', '.join(found.labels)}"
    paths = report.write(arguments.output, title, answers, [found], figure, data.said)
    if figure is not None:
        plt.close(figure)
    options.say("written: " + ", ".join(str(path) for path in paths))


def _figure(plt: Any, arguments: argparse.Namespace, data: Loaded, found: Any) -> Any:
    """Draw the scores and the sharpness; if X holds numbers, also the loss between the first two solutions."""
    from sklgap.inspection import ParametricPlotDisplay

    n_own = 2 if found.settings["epsilon"] else 1
    line = len(found.done) > 1 and data.head is None
    figure, axes = plt.subplots(1, n_own + line, figsize=(5 * (n_own + line), 4.2), layout="constrained", squeeze=False)
    found.plot(axes=axes[0, :n_own])
    if line:
        start, end = (found.estimators_[label][0] for label in found.done[:2])
        policy = {"batch_norm": arguments.batch_norm, "max_samples": arguments.max_samples, "random_state": 0}
        names = (found.done[0], found.done[1])
        ParametricPlotDisplay.from_estimators(
            start, end, data.X, data.y, data.X_test, data.y_test, names=names, ax=axes[0, -1], **policy
        )
    return figure
