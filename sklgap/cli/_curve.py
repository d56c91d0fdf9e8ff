"""``python -m sklgap curve DATA``: how large the batch may be."""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from sklgap.cli import _options as options
from sklgap.cli._load import Loaded, add_data_arguments, load

# Learning rates that are tried for each batch size, as multiples of the usual one.
_FACTORS = (1 / 3, 1.0, 3.0)
_LEAST_HELD_OUT, _MOST_HELD_OUT = 0.2, 0.5


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = options.Parser(
        prog="python -m sklgap curve",
        description="Find the largest batch size that is shown to lose less than a margin. The command trains with "
        "several batch sizes from the same starting points. It tunes the learning rate for each batch size unless "
        "--lr is given.",
        epilog="example: python -m sklgap curve data.csv --target late --batch-sizes 128 512 2048 --margin 0.005 "
        f"--scoring average_precision. {options.EXIT_CODES}, 3 the batch size of --assert-safe is not shown to be "
        "safe.",
    )
    add_data_arguments(p)
    p.add_argument(
        "--batch-sizes",
        type=options.size_or_fraction,
        nargs="+",
        metavar="SIZE",
        help="batch sizes, as numbers of samples or fractions of the training samples; the smallest one is the "
        "reference (default: 256, fewer if there are few training samples, then doubled up to 20 %% of the training "
        "samples; with --assert-safe: the smallest of these, and the batch size to assert)",
    )
    p.add_argument(
        "--margin",
        type=float,
        help="loss of score that is acceptable against the reference; 0.005 is half a point of accuracy (default: "
        "0.005, or more if there are too few samples to show that; required for scores that do not lie in [0, 1])",
    )
    p.add_argument(
        "--validation-fraction",
        type=float,
        help="part of the training samples to validate on (default: a fifth, or more if the margin needs more, at most "
        "half)",
    )
    p.add_argument(
        "--budget",
        choices=["epochs", "updates", "loss"],
        default="epochs",
        help="quantity that is equal for all batch sizes: epochs, updates, or the training loss at the end (default: "
        "epochs)",
    )
    p.add_argument(
        "--assert-safe", type=int, metavar="SIZE", help="exit with code 3 unless batch size SIZE is shown to be safe"
    )
    options.add_training_arguments(
        p,
        lr="one learning rate for all batch sizes (default: tuned for each batch size, among a third, once and "
        "three times {})",
    )
    options.add_measurement_arguments(p)
    options.add_output_argument(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    arguments = options.parsed(parser(), argv)
    _check(arguments)
    data = load(arguments)
    options.check_scored(arguments, data)
    options.check_output(arguments.output)
    options.say("\n".join(data.said))
    curve, safe = _study(arguments, data)
    with options.part("the report"):
        verdict, code = _verdict(arguments, curve, safe)
        # The answer comes first. Its notes include those of the curve.
        options.say(f"\n{curve}\n" if safe is None else f"\n{safe}\n\n{curve.text(notes=False)}\n")
        _write(arguments, data, curve, safe, verdict)
    options.say(verdict)
    return code


def _check(arguments: argparse.Namespace) -> None:
    """Raise a ValueError for arguments that can be refused without reading the data."""
    if arguments.trials < 2:
        raise ValueError(f"--trials must be at least 2, because one trial gives no bound; got {arguments.trials}.")
    if arguments.budget == "loss" and arguments.target_loss is None:
        raise ValueError("--budget loss needs --target-loss, the training loss that every batch size trains to.")
    if arguments.lr is not None and not 0 < arguments.lr < np.inf:
        raise ValueError(f"--lr must be a number above 0; got {arguments.lr:g}.")
    if arguments.assert_safe is not None and arguments.assert_safe < 2:
        raise ValueError(f"--assert-safe must be a batch size of at least 2; got {arguments.assert_safe}.")


def _study(arguments: argparse.Namespace, data: Loaded) -> tuple[Any, Any]:
    """Return the curve and its safe batch size, or None for the latter if an interruption left too few fits."""
    from sklgap.experiments import batch_size_curve, largest_safe_batch_size

    n = len(data.y)
    fraction = _held_out(arguments, data.y)
    margin = _margin(arguments, round(fraction * n))
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
        batch_sizes=_sizes(arguments, n - round(fraction * n)),
        budget=arguments.budget,
        validation_fraction=fraction,
        **rate,
        **options.measurement(arguments),
        **options.runs(arguments),
    )
    try:
        with options.part("the report"):
            return curve, largest_safe_batch_size(curve, margin)
    except ValueError:
        if curve.interrupted:
            return curve, None
        raise


def _held_out(arguments: argparse.Namespace, y: Any) -> float:
    """Return the fraction to validate on: as given, or enough to show the margin if there are enough samples."""
    from sklgap.experiments._estimate import DEFAULT_MARGIN, LEAST_ROWS_OF_A_CLASS, needed_rows

    given: float | None = arguments.validation_fraction
    if given is not None and not 0 < given < 1:
        raise ValueError(f"--validation-fraction must be a number above 0 and below 1; got {given:g}.")
    margin = arguments.margin
    wanted = [
        _LEAST_HELD_OUT,
        needed_rows(margin if margin is not None and 0 < margin < 1 else DEFAULT_MARGIN) / len(y),
    ]
    resampled = options.resampled(arguments)
    if resampled:
        rarest = int(np.unique(y, return_counts=True)[1].min())
        of_rarest = (LEAST_ROWS_OF_A_CLASS + 1) / rarest  # one more: parts are rounded
        most = _MOST_HELD_OUT if given is None else given
        if of_rarest > most:
            more = "" if given is None else " or a larger --validation-fraction"
            raise ValueError(
                f"--scoring {resampled[0]} needs at least {LEAST_ROWS_OF_A_CLASS} validation samples of each class. "
                f"The rarest class has {rarest} training samples, of which at most {100 * most:g} % are held out. Use "
                f"more samples{more}."
            )
        wanted.append(of_rarest)
    return min(_MOST_HELD_OUT, max(wanted)) if given is None else given


def _margin(arguments: argparse.Namespace, n_valid: int) -> float | None:
    """Return the margin, checked before any training; without --margin, one that the samples can show."""
    from sklgap.experiments._estimate import DEFAULT_MARGIN, check_margin, round_up, smallest_margin
    from sklgap.experiments._scores import check_scoring

    margin: float | None = arguments.margin
    score = check_scoring(arguments.scoring)[0]
    if not score.is_fraction:
        if margin is None:
            raise ValueError(
                f"--margin must be given for {score.name}, in its units, because it does not lie in [0, 1]."
            )
        if not 0 < margin < np.inf:
            raise ValueError(f"--margin must be a number above 0, in the units of {score.name}; got {margin:g}.")
        return margin
    if margin is None:
        margin = max(DEFAULT_MARGIN, round_up(smallest_margin(n_valid)))
    check_margin(margin, n_valid)
    return margin


def _sizes(arguments: argparse.Namespace, n_train: int) -> Sequence[int | float] | None:
    """Return the batch sizes to try, including that of --assert-safe."""
    size = arguments.assert_safe
    sizes: Sequence[int | float] | None = arguments.batch_sizes
    if size is None:
        return sizes
    from sklgap.experiments._batch_size_curve import ladder
    from sklgap.regimes import check_batch_size

    if size > n_train:
        raise ValueError(f"--assert-safe must be at most the number of training samples, {n_train:,}; got {size:,}.")
    sizes = ladder(n_train)[:1] if sizes is None else sizes
    tried = [check_batch_size(one, n_train, "batch_sizes") for one in sizes]
    if size <= min(tried):
        raise ValueError(
            f"--assert-safe must be larger than the reference, {min(tried):,}, which is the smallest batch size; got "
            f"{size:,}."
        )
    return sizes if size in tried else [*sizes, size]


def _verdict(arguments: argparse.Namespace, curve: Any, safe: Any) -> tuple[str, int]:
    """Return the last line, and the exit code."""
    tuned = "" if arguments.lr is None else ", at a learning rate that was not tuned for each batch size (--lr)"
    if curve.interrupted:
        nothing = safe is None or not any(test.n_trials for test in safe.tests)
        so_far = "" if nothing else f"; so far {_answer(safe)}{tuned}"
        return f"Interrupted before all fits finished{so_far}.", options.INTERRUPTED
    if arguments.assert_safe is None:
        answer = _answer(safe)
        return f"{answer[0].upper()}{answer[1:]}{tuned}.", options.ANSWERED
    found, code = _assertion(arguments.assert_safe, curve, safe)
    return f"A batch size of {arguments.assert_safe:,} is {found}{tuned}.", code


def _answer(safe: Any) -> str:
    margin = f"less than {safe._margins_in_words()}"
    if not safe.tests:
        return f"no batch size other than the reference, {safe.reference:,}, was tested"
    if safe.batch_size == safe.reference:
        return f"no batch size above {safe.reference:,}, the reference, is shown to lose {margin}"
    return (
        f"the largest batch size shown to be safe is {safe.batch_size:,}: it loses {margin}, compared with batches of "
        f"{safe.reference:,}"
    )


def _assertion(size: int, curve: Any, safe: Any) -> tuple[str, int]:
    """Return whether a batch size is safe, in words, and the exit code."""
    margin = safe._margins_in_words()
    if size <= safe.batch_size:
        return f"shown to be safe: it loses less than {margin}", options.ANSWERED
    tests = [test for test in safe.tests if test.batch_size == size]
    failed = sum(test.n_failed for test in tests)
    if failed:
        return f"unsafe: it failed in {failed} of {tests[0].n_trials} trials", options.NOT_SAFE
    lost = [curve.difference(curve.reference, size, f"valid_{name}").low for name in safe.margins]
    if any(low > margin for low, margin in zip(lost, safe.margins.values(), strict=True)):
        return f"unsafe: it loses more than {margin}", options.NOT_SAFE
    if not tests:
        smaller = safe.tests[-1].batch_size
        return (
            f"not shown to be safe: batches of {smaller:,} are not shown to be safe, and no larger batch size is "
            "tested after that",
            options.NOT_SAFE,
        )
    return f"not shown to be safe: the trials are inconclusive at a margin of {margin}", options.NOT_SAFE


def _write(arguments: argparse.Namespace, data: Loaded, curve: Any, safe: Any, verdict: str) -> None:
    from sklgap.cli import _report as report

    plt, figure = report.pyplot(), None
    if plt is not None and curve.records:
        figure = curve.plot(safe=safe).figure_
        figure.suptitle(report.without_mathematics(data.name), fontsize="medium")
    results = [curve] if safe is None else [curve, safe]
    answers = [verdict, *([] if safe is None else safe._conclusion())]
    title = f"{data.name}: how large may the batch be?"
    paths = report.write(arguments.output, title, answers, results, figure, data.said)
    if figure is not None:
        plt.close(figure)
    options.say("written: " + ", ".join(str(path) for path in paths))
