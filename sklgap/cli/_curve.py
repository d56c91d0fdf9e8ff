"""``python -m sklgap curve DATA`` says how large the batch may be."""

import argparse
from collections.abc import Sequence
from typing import Any

from sklgap.cli import _options as options
from sklgap.cli._load import Loaded, add_data_arguments, load

# Rates that are tried beside the usual one.
_FACTORS = (1 / 3, 1.0, 3.0)
_LEAST_HELD_OUT, _MOST_HELD_OUT = 0.2, 0.5


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = argparse.ArgumentParser(
        prog="python -m sklgap curve",
        description="Train with several batch sizes from the same starting points, and say which is the largest that "
        "is shown to lose less than a margin. The learning rate is tuned for each size unless --lr is given.",
        epilog="example: python -m sklgap curve data.csv --target late --batch-sizes 128 512 2048 --margin 0.005 "
        "--scoring average_precision. Exit codes: 0 answered, 2 wrong usage, 3 --assert-safe does not hold, "
        "130 interrupted.",
    )
    add_data_arguments(p)
    p.add_argument(
        "--batch-sizes",
        type=options.size_or_fraction,
        nargs="+",
        help="batch sizes, or fractions; the smallest is the reference (a ladder from the small batch up)",
    )
    p.add_argument("--margin", type=float, help="the loss of score that you put up with (0.005 for scores in [0, 1])")
    p.add_argument("--budget", choices=["epochs", "updates", "loss"], default="epochs", help="equal what (epochs)")
    p.add_argument("--assert-safe", type=int, metavar="SIZE", help="exit with 3 unless SIZE is shown to be safe")
    options.add_training_arguments(p)
    options.add_measurement_arguments(p)
    options.add_output_argument(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    arguments = options.parsed(parser(), argv)
    try:
        data = load(arguments)
        curve, safe = _study(arguments, data)
    except (ValueError, TypeError, OSError) as error:
        return options.complain(error)
    except KeyboardInterrupt:
        options.say("Interrupted before the first fit had finished.")
        return options.INTERRUPTED
    options.say("\n".join(data.said) + "\n")
    options.say(str(curve))
    if safe is None:
        return options.INTERRUPTED
    options.say(f"\n{safe}\n")
    _write(arguments, data, curve, safe)
    verdict, code = _verdict(arguments, curve, safe)
    options.say(verdict)
    return options.INTERRUPTED if curve.interrupted else code


def _study(arguments: argparse.Namespace, data: Loaded) -> tuple[Any, Any]:
    """Return the curve and its safe batch size; None in its place where an interruption left too little."""
    from sklgap.experiments import batch_size_curve, largest_safe_batch_size

    rate: dict[str, Any] = {"lr": "fixed"}
    if arguments.lr is None:
        usual = options.OPTIMIZERS[arguments.optimizer][1]
        rate = {"lr": "tuned", "learning_rates": [factor * usual for factor in _FACTORS]}
    curve = batch_size_curve(
        options.estimator(arguments, data),
        data.X,
        data.y,
        data.X_test,
        data.y_test,
        batch_sizes=arguments.batch_sizes,
        budget=arguments.budget,
        validation_fraction=_held_out(arguments.margin, len(data.y)),
        **rate,
        **options.measurement(arguments),
        **options.runs(arguments),
    )
    try:
        return curve, largest_safe_batch_size(curve, arguments.margin)
    except ValueError:
        if curve.interrupted:
            return curve, None
        raise


def _held_out(margin: float | None, n: int) -> float:
    """Return the part to validate on: enough to show the margin, where there are samples for it."""
    from sklgap.experiments._estimate import DEFAULT_MARGIN, needed_rows

    wanted = margin if margin is not None and 0 < margin < 1 else DEFAULT_MARGIN
    return min(_MOST_HELD_OUT, max(_LEAST_HELD_OUT, needed_rows(wanted) / n))


def _verdict(arguments: argparse.Namespace, curve: Any, safe: Any) -> tuple[str, int]:
    """Return the last line, and the exit code."""
    tuned = "" if arguments.lr is None else " The learning rate was not tuned: a size that fails may need another one."
    if arguments.assert_safe is None:
        return safe._verdict()[0][0].upper() + safe._verdict()[0][1:] + "." + tuned, options.ANSWERED
    size = arguments.assert_safe
    if size <= int(safe) and size in curve.batch_sizes:
        return f"A batch size of {size:,} is shown to be safe.{tuned}", options.ANSWERED
    if size not in curve.batch_sizes:
        return f"A batch size of {size:,} was not tried: add it to --batch-sizes.", options.NOT_SAFE
    tests = [test for test in safe.tests if test.batch_size == size]
    worse = any(test.n_failed or _shown_worse(curve, size, test, safe.margins[test.score]) for test in tests)
    if worse:
        return f"A batch size of {size:,} is unsafe: it loses more than the margin.{tuned}", options.NOT_SAFE
    return f"A batch size of {size:,} is not shown to be safe: the trials are inconclusive.{tuned}", options.NOT_SAFE


def _shown_worse(curve: Any, size: int, test: Any, margin: float) -> bool:
    low = curve.difference(curve.reference, size, f"valid_{test.score}").low
    return bool(low > margin)


def _write(arguments: argparse.Namespace, data: Loaded, curve: Any, safe: Any) -> None:
    from sklgap.cli import _report as report

    plt, figure = report.pyplot(), None
    if plt is not None:
        figure = curve.plot(safe=safe).figure_
        figure.suptitle(data.name, fontsize="medium")
    paths = report.write(
        arguments.output, f"{data.name}: how large may the batch be?", safe._verdict(), [safe, curve], figure, data.said
    )
    if plt is not None:
        plt.close(figure)
    options.say("written: " + ", ".join(str(path) for path in paths))
