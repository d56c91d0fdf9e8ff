"""``python -m sklgap``: answer all three questions on MNIST-1D in about a minute."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklgap.cli import _options as options

if TYPE_CHECKING:
    from sklgap.experiments import BatchSizeCurve, Estimate, RegimeComparison, SafeBatchSize

# Four batch sizes: the small batch, the large batch (a tenth of the training data), one between them, and one above.
SMALL, LARGE = 40, 400
SIZES = (SMALL, 100, LARGE, 1000)
REMEDIES: dict[str, dict[str, Any]] = {
    f"{LARGE}, scaled rate": {"lr_scaling": "sqrt"},
    f"{LARGE}, scaled rate, ghost batch norm": {"lr_scaling": "sqrt", "ghost_batch_size": SMALL},
}
REMEDIED = list(REMEDIES)[-1]
# Validation and test samples are generated, so there are many. A batch size may cost two points of accuracy.
N_TRAIN, N_VALID, N_TEST, MARGIN = 4000, 2500, 10_000, 0.02
# Every batch size trains to the same training loss, so that each has fitted the data when it is judged.
SETTING: dict[str, Any] = {
    "module__width": 100,
    "module__n_layers": 3,
    "lr": 2e-3,
    "target_loss": 0.3,
    "tol": None,
    "max_epochs": 500,
}
EPSILON, N_MEASURED = 1e-3, 1000


@dataclass(frozen=True)
class Demo:
    """Result of the main job: a table of all settings, the curve of the batch sizes, and the safe batch size."""

    table: "RegimeComparison"
    curve: "BatchSizeCurve"
    safe: "SafeBatchSize | None"

    def sharpness_ratio(self, label: Any = LARGE) -> "Estimate":
        """Return the ratio of the sharpness of a setting to the sharpness of the small batch, over paired trials."""
        from sklgap.experiments._estimate import ratio_estimate

        small, other = self.table.paired(SMALL, label, next(iter(self.table.sharpness_names())))
        return ratio_estimate(other, small)

    def distance_ratio(self) -> "Estimate":
        """Return the ratio of the small batch's distance from the starting point to the large batch's distance."""
        from sklgap.experiments._estimate import ratio_estimate

        return ratio_estimate(*self.table.paired(SMALL, LARGE, "weight_distance"))

    @property
    def can_answer(self) -> bool:
        """Whether enough fits finished to answer the questions."""
        return self.safe is not None and {str(SMALL), str(LARGE), REMEDIED} <= set(self.table.done)

    def answers(self) -> list[str]:
        """Return the three answers: how large the batch may be, why a larger one is worse, and what wins it back."""
        if not self.can_answer:
            return ["Interrupted: too few fits finished to answer the questions."]
        return [self._how_large(), self._why(), self._what_wins_it_back()]

    def _how_large(self) -> str:
        assert self.safe is not None
        margin = f"{100 * MARGIN:g} points of accuracy"
        answer = (
            f"How large may the batch be here? {int(self.safe):,} is the largest batch size that is shown to lose less "
            "than "
        )
        failed = [test.batch_size for test in self.safe.tests if not test.shown]
        if not failed:
            return f"{answer}{margin}."
        lost = self.curve.difference(SMALL, failed[0], "valid_accuracy")
        return f"{answer}{margin}; batches of {failed[0]:,} lose {_points(lost)} on validation data."

    def _why(self) -> str:
        sharpness = next(iter(self.table.sharpness_names()))
        sharp = [self.table.values(label, sharpness).mean() for label in (SMALL, LARGE)]
        far = [self.table.values(label, "weight_distance").mean() for label in (SMALL, LARGE)]
        return (
            f"Why is a larger one worse? Trained to the same training loss, batches of {LARGE} score "
            f"{_points(self.table.gap(LARGE))} lower on test data than batches of {SMALL}. Their minima are "
            f"{_times(self.sharpness_ratio())} times as sharp ({sharp[1]:.1f} against {sharp[0]:.1f} %), and "
            f"{_times(self.distance_ratio())} times closer to the starting point ({far[1]:.0f} against {far[0]:.0f})."
        )

    def _what_wins_it_back(self) -> str:
        gap, rest = self.table.gap(LARGE), self.table.gap(REMEDIED)
        return (
            "What wins it back? A learning rate scaled by the square root of the batch size, together with batch norm "
            f"over {SMALL} samples at a time (ghost batch norm). The lost accuracy falls from {100 * gap.value:.1f} to "
            f"{_points(rest)}."
        )


def _points(estimate: "Estimate") -> str:
    interval = f" [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]" if estimate.has_interval else ""
    return f"{100 * estimate.value:.1f} points{interval}"


def _times(estimate: "Estimate") -> str:
    interval = f" [{estimate.low:.1f}, {estimate.high:.1f}]" if estimate.has_interval else ""
    return f"{estimate.value:.1f}{interval}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    p = options.Parser(
        prog="python -m sklgap",
        description="Answer three questions on the generated data set MNIST-1D: how large can a batch be before "
        "accuracy drops, why does it drop, and what wins it back? It takes about a minute on two cores.",
        epilog="To analyse your own data, see python -m sklgap curve --help. With --dataset or --net, this command is "
        "the command compare.",
    )
    p.add_argument("--trials", type=int, default=5, help="number of paired trials (default: 5)")
    p.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: 0)")
    p.add_argument(
        "--jobs", type=int, default=-1, help="number of fits that run at the same time (default: -1, one per core)"
    )
    p.add_argument(
        "--memory",
        type=Path,
        metavar="FOLDER",
        help="save finished fits in this folder, and load them in the next run (default: nothing is saved)",
    )
    options.add_output_argument(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if any(argument.split("=")[0] in ("--dataset", "--net") for argument in argv):
        from sklgap.cli import _compare

        return _compare.main(argv)
    arguments = options.parsed(parser(), argv)
    if arguments.trials == 1:
        raise ValueError("--trials must be at least 2, because one trial gives no bound; got 1.")
    options.check_output(arguments.output)
    found = study(arguments.seed, n_trials=arguments.trials, n_jobs=arguments.jobs, memory=arguments.memory, verbose=1)
    with options.part("the report"):
        answers = options.so_far(found.answers(), found.table.interrupted and found.can_answer)
        options.say("\n" + "\n\n".join(answers) + "\n")
        options.say("\n".join(_said(found)) + "\n")
        options.say(found.table.text(verdict=False, head=False) + "\n")
        _write(arguments.output, found, answers)
    options.say(answers[0])
    return options.INTERRUPTED if found.table.interrupted else options.ANSWERED


def study(
    seed: int = 0, *, n_trials: int = 5, n_jobs: int | None = None, memory: Path | None = None, verbose: int = 0
) -> Demo:
    """Train with every batch size and every remedy from the same starting points."""
    from sklgap._checks import check_integer, check_random_state
    from sklgap.datasets import make_mnist1d
    from sklgap.estimator import LBGapClassifier
    from sklgap.experiments import BatchSizeCurve, Measurement, RegimeComparison, largest_safe_batch_size
    from sklgap.experiments._inputs import check_keepable, common_settings, described
    from sklgap.experiments._protocol import Trial, draw_different_seeds
    from sklgap.experiments._records import targets_of
    from sklgap.experiments._run import interruptible
    from sklgap.experiments._trials import run_trials

    check_integer("n_trials", n_trials)
    check_keepable(memory, seed)
    rng = check_random_state(seed)
    parts = {
        name: make_mnist1d(n, random_state=int(rng.randint(2**31 - 1)))
        for name, n in (("train", N_TRAIN), ("valid", N_VALID), ("test", N_TEST))
    }
    measuring = Measurement(epsilon=EPSILON, max_samples=N_MEASURED).settle(N_TRAIN, rng)
    arms: dict[str, dict[str, Any]] = {str(size): {"batch_size": size} for size in SIZES}
    arms |= {label: {"batch_size": LARGE, "base_batch_size": SMALL, **own} for label, own in REMEDIES.items()}
    seeds = draw_different_seeds(n_trials, rng)
    model = LBGapClassifier("F1", **SETTING)
    # The longest fits come first, so that no core is idle in the last minute of a parallel run.
    trials = [Trial(label, own, trial, s) for label, own in arms.items() for trial, s in enumerate(seeds)]
    run = interruptible(run_trials)
    outcomes, interrupted = run(model, trials, parts, measuring, n_jobs=n_jobs, verbose=verbose, memory=memory)
    if not outcomes:
        raise KeyboardInterrupt
    common = {
        "n_train": N_TRAIN,
        "n_valid": N_VALID,
        "n_test": N_TEST,
        "n_trials": n_trials,
        "reference": str(SMALL),
        "regimes": described(arms),
        **measuring.settings(),
        **common_settings(model, seed),
    }
    of_curve = {
        "batch_sizes": list(SIZES),
        "lr": "fixed",
        "learning_rates": [],
        "budget": "loss",
        "max_epochs": SETTING["max_epochs"],
        "target_loss": SETTING["target_loss"],
        "tuning_seeds": [],
    }
    targets = targets_of(parts)
    table = RegimeComparison(outcomes, list(arms), common, interrupted, targets=targets)
    sizes = [
        o._replace(record={**o.record, "lr": SETTING["lr"]}) for o in outcomes if o.record["regime"] not in REMEDIES
    ]
    curve = BatchSizeCurve(sizes, {**common, **of_curve}, interrupted, targets=targets)
    try:
        safe = largest_safe_batch_size(curve, MARGIN)
    except ValueError:  # there is one trial only, or the run was interrupted before the small batch finished
        safe = None
    return Demo(table, curve, safe)


# -- output ------------------------------------------------------------------------------------------------------------


def _said(found: Demo) -> list[str]:
    return [
        f"MNIST-1D (Greydanus and Kobak, arXiv:2011.14439), generated: {N_TRAIN:,} training, {N_VALID:,} validation "
        f"and {N_TEST:,} test samples",
        f"dense net, {SETTING['module__n_layers']} layers of {SETTING['module__width']} units with batch norm, ADAM; "
        f"{found.table.trials_line()}; every fit stops at a mean training loss of {SETTING['target_loss']} in an epoch",
        f"small batch (SB): {SMALL}; large batch (LB): {LARGE}, a tenth of the training data",
    ]


def _write(folder: Path, found: Demo, answers: list[str]) -> None:
    from sklgap.cli import _report as report

    plt = report.pyplot()
    figure = None if plt is None else draw(plt, found)
    results = [found.table, *([found.safe] if found.safe is not None else [])]
    paths = report.write(folder, "How large may the batch be, and why?", answers, results, figure, _said(found))
    if plt is not None:
        plt.close(figure)
    options.say("written: " + ", ".join(str(path) for path in paths))


def draw(plt: Any, found: Demo) -> Any:
    """Return a figure: accuracy, sharpness and distance from the start against batch size, with the remedies."""
    from matplotlib.ticker import NullLocator

    from sklgap.inspection._plot._axes import plain_log_labels
    from sklgap.inspection._plot._style import ACCURACY, DISTANCE, GUIDE, SHARPNESS, other_style

    table = found.table
    quantities = [
        ("test accuracy (%)", "test_accuracy", 100, ACCURACY),
        ("sharpness at 1e-3 (%)", next(iter(table.sharpness_names())), 1, SHARPNESS),
        ("distance from the start", "weight_distance", 1, DISTANCE),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
    sizes = [size for size in SIZES if str(size) in table.done]
    for ax, (name, key, factor, colour) in zip(axes, quantities, strict=True):
        values = [factor * table.values(size, key) for size in sizes]
        for size, own in zip(sizes, values, strict=True):
            ax.plot([size] * len(own), own, "o", color=colour, alpha=0.35, markersize=4)
        ax.plot(sizes, [own.mean() for own in values], "-o", color=colour)
        for number, label in enumerate(REMEDIES):
            if label in table.done:
                own = factor * table.values(label, key)
                style = other_style(number)
                ax.plot([LARGE] * len(own), own, **style.points, alpha=0.35, markersize=4)
                ax.plot([LARGE], [own.mean()], **style.points, markersize=8, label=label.partition(", ")[2])
        ax.set_xscale("log")
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.xaxis.set_minor_locator(NullLocator())
        if key.startswith("sharpness"):
            ax.set_yscale("log")
            plain_log_labels(ax.yaxis)
        ax.set_xlabel("batch size (samples)")
        ax.set_title(name, fontsize="medium")
        ax.grid(alpha=0.3)
    # Each panel has its own colour, so the entry without a remedy has no colour.
    plain = plt.Line2D([], [], color=GUIDE, marker="o", label="no remedy")
    remedied = axes[0].get_legend_handles_labels()[0]
    title = "small points: trials; large points: their means"
    figure.legend(handles=[plain, *remedied], title=title, loc="outside lower center", ncols=3, frameon=False)
    return figure
