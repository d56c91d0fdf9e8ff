"""``python -m sklgap explain DATA`` says why the large batch loses."""

import argparse
from collections.abc import Sequence

from sklgap.cli import _options as options
from sklgap.cli._load import add_data_arguments, load


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = argparse.ArgumentParser(
        prog="python -m sklgap explain",
        description="Train a small and a large batch, and the large one with one cause of its loss after the other "
        "removed: fewer updates, the learning rate, batch norm, the last weights.",
        epilog="example: python -m sklgap explain data.csv --target late --small 64 --large 2048",
    )
    add_data_arguments(p)
    p.add_argument(
        "--small", type=options.size_or_fraction, default="SB", help="the small batch (SB: 256, less for few)"
    )
    p.add_argument("--large", type=options.size_or_fraction, default="LB", help="the large batch (LB: 10 %%)")
    options.add_training_arguments(p)
    options.add_measurement_arguments(p)
    options.add_output_argument(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    arguments = options.parsed(parser(), argv)
    try:
        data = load(arguments)
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
    except (ValueError, TypeError, OSError) as error:
        return options.complain(error)
    except KeyboardInterrupt:
        options.say("Interrupted before the first fit had finished.")
        return options.INTERRUPTED
    from sklgap.cli import _report as report

    options.say("\n".join(data.said) + f"\n\n{found}\n")
    plt, figure = report.pyplot(), None
    if plt is not None:
        figure = found.plot().figure_
    title = f"{data.name}: why does the large batch lose?"
    paths = report.write(arguments.output, title, found._verdict(), [found], figure, data.said)
    if plt is not None:
        plt.close(figure)
    options.say("written: " + ", ".join(str(path) for path in paths))
    options.say(found._verdict()[0])
    return options.INTERRUPTED if found.interrupted else options.ANSWERED
