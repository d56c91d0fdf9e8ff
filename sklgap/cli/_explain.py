"""``python -m sklgap explain DATA``: why the large batch loses accuracy."""

import argparse
from collections.abc import Sequence
from typing import Any

from sklgap.cli import _options as options
from sklgap.cli._load import Loaded, add_data_arguments, load


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = options.Parser(
        prog="python -m sklgap explain",
        description="Find out why the large batch loses accuracy. The command trains with a small and with a large "
        "batch. It then removes the possible causes from the large-batch training one after the other: fewer updates, "
        "the learning rate, batch norm, the last weights.",
        epilog="example: python -m sklgap explain data.csv --target late --small 64 --large 2048. "
        f"{options.EXIT_CODES}.",
    )
    add_data_arguments(p)
    p.add_argument(
        "--small",
        type=options.size_or_name,
        default="SB",
        metavar="SIZE",
        help="small batch size, as a number of samples or a fraction of the training samples (default: SB, which is "
        "256 samples, fewer if there are fewer than 10,240 training samples)",
    )
    p.add_argument(
        "--large",
        type=options.size_or_name,
        default="LB",
        metavar="SIZE",
        help="large batch size, in the same form (default: LB, which is 10 %% of the training samples)",
    )
    options.add_training_arguments(p)
    options.add_measurement_arguments(p)
    options.add_output_argument(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    arguments = options.parsed(parser(), argv)
    data = load(arguments)
    options.check_scored(arguments, data)
    options.check_output(arguments.output)
    options.say("\n".join(data.said))
    from sklgap.experiments import explain_gap

    found = explain_gap(
        options.estimator(arguments, data),
        data.X,
        data.y,
        data.X_test,
        data.y_test,
        small=arguments.small,
        large=arguments.large,
        **options.measurement(arguments),
        **options.runs(arguments),
    )
    with options.part("the report"):
        answers = options.so_far(found.verdict, found.interrupted)
        options.say(f"\n{found}\n")
        _write(arguments, data, found, answers)
    options.say(answers[0])
    return options.INTERRUPTED if found.interrupted else options.ANSWERED


def _write(arguments: argparse.Namespace, data: Loaded, found: Any, answers: Sequence[str]) -> None:
    from sklgap.cli import _report as report

    plt, figure = report.pyplot(), None
    if plt is not None and found.total().n:
        figure = found.plot().figure_
    title = f"{data.name}: why does the large batch lose accuracy?"
    paths = report.write(arguments.output, title, answers, [found], figure, data.said)
    if figure is not None:
        plt.close(figure)
    options.say("written: " + ", ".join(str(path) for path in paths))
