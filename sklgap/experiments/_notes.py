"""What a reader must know before believing a figure: each sentence is written once, as a function of the records.

Each function returns a list of sentences, empty where there is nothing to say.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sklgap.experiments._estimate import (
    CONFIDENCE,
    DEFAULT_MARGIN,
    LEAST_ROWS_OF_A_MARGIN,
    NEW_SEEDS,
    Estimate,
    needed_rows,
    round_up,
    smallest_margin,
    unseen_failure_rate,
)
from sklgap.experiments._records import Records
from sklgap.experiments._result import count, listed
from sklgap.experiments._scores import ACCURACY, Score

# Beyond this ratio the mean training losses of two models are called clearly unequal.
LOSS_RATIO = 2.0
# Below this factor of the loss of guessing, a model is near enough to a minimum for its sharpness to mean something.
FAR_FROM_A_MINIMUM = 0.5


def interrupted(was: bool, n_done: int, n_all: int, what: str = "fit") -> list[str]:
    """Say how much had finished before an interruption."""
    return [f"Interrupted: {n_done} of {count(n_all, what)} had finished and are reported."] if was else []


def not_converged(converged: Mapping[str, Sequence[bool | None] | np.ndarray], *, target: bool = False) -> list[str]:
    """Say which fits their stopping rule did not end, and which had none.

    Parameters
    ----------
    converged : dict of str to sequence
        By label, for each fit whether its stopping rule ended it; None or NaN where it had none.
    target : bool, default=False
        Whether the rule is a target loss.
    """
    by_label = {label: [_flag(value) for value in values] for label, values in converged.items() if len(values)}
    if by_label and all(value is None for values in by_label.values() for value in values):
        return ["All fits were trained for their whole budget, without a stopping rule."]
    missed = {label: sum(value is False for value in values) for label, values in by_label.items()}
    some = [f"{label} (in {n} of {count(len(by_label[label]), 'fit')})" for label, n in missed.items() if n]
    what = "did not reach the target loss" if target else "had not converged under the stopping rule"
    found = [f"These {what}: {listed(some)}."] if some else []
    free = [label for label, values in by_label.items() if all(value is None for value in values)]
    return found + ([f"Trained for the whole budget, without a stopping rule: {listed(free)}."] if free else [])


def _flag(value: object) -> bool | None:
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return None
    return bool(value)


def not_reached(reached: Mapping[str, np.ndarray]) -> list[str]:
    """Say which labels never, or not always, reached a target; by label, whether each training did."""
    never = [label for label, values in reached.items() if not values.any()]
    some = [
        f"{label} (in {count(int((~values).sum()), 'training')} of {len(values)})"
        for label, values in reached.items()
        if values.any() and not values.all()
    ]
    found = []
    if never:
        found.append(
            f"The target was never reached by {listed(never)}: the time it takes is not known, only that it is longer "
            "than they were trained."
        )
    if some:
        found.append(
            f"The target was not always reached: not by {listed(some)}. The figures are of the other trainings."
        )
    return found


def diverged(losses: Mapping[str, np.ndarray]) -> list[str]:
    """Say which labels have a training loss that is not finite."""
    found = [
        f"{label} (in {int((~np.isfinite(values)).sum())} of {count(len(values), 'fit')})"
        for label, values in losses.items()
        if not np.isfinite(values).all()
    ]
    return [f"The training loss is not finite, for training diverged: {listed(found)}."] if found else []


def left_out(scores: Mapping[str, np.ndarray], name: str) -> list[str]:
    """Say which labels have trials without a finite score, which no difference holds."""
    found = [
        f"{label} (in {int((~np.isfinite(values)).sum())} of {count(len(values), 'trial')})"
        for label, values in scores.items()
        if not np.isfinite(values).all()
    ]
    if not found:
        return []
    return [
        f"There is no finite {name} for {listed(found)}: differences leave these trials out, and make it look better."
    ]


def unequal_losses(reference: str, losses: Mapping[str, tuple[np.ndarray, np.ndarray]], advice: str = "") -> list[str]:
    """Say whose mean training loss is far from the reference's, over paired trials."""
    unequal, of_reference = [], math.nan
    for label, (one, other) in losses.items():
        finite = np.isfinite(one) & np.isfinite(other)
        if finite.any():
            own, beside = float(other[finite].mean()), float(one[finite].mean())
            if max(own, beside) > LOSS_RATIO * min(own, beside):
                unequal.append(f"{label} ({own:.1e})")
                of_reference = beside
    if not unequal:
        return []
    return [
        f"The training losses of {reference} ({of_reference:.1e}) and of {listed(unequal)} differ by more than a "
        f"factor of {LOSS_RATIO:g}: part of any difference may be that one is trained further{advice}."
    ]


def unequal_groups(losses: Sequence[np.ndarray], *, target: bool) -> list[str]:
    """Say so where the mean training losses of groups of minima are far apart.

    Parameters
    ----------
    losses : sequence of ndarray
        The finite training losses of each group.
    target : bool
        Whether training ended at a target loss.
    """
    means = [values.mean() for values in losses if len(values)]
    if not means or max(means) <= LOSS_RATIO * min(means):
        return []
    advice = "" if target else "; target_loss brings them nearer"
    return [
        f"Mean training losses of the groups lie between {min(means):.1e} and {max(means):.1e}: part of any "
        f"difference between groups may be that one is trained further{advice}."
    ]


def rates_at_the_edge(rates: Mapping[str, float], tried: Sequence[float]) -> list[str]:
    """Say which batch sizes have the smallest or the largest of the learning rates that were tried."""
    edge = [
        f"{label} ({rate:g})" for label, rate in rates.items() if len(tried) > 1 and rate in (min(tried), max(tried))
    ]
    if not edge:
        return []
    return [f"The rate of batches of {', '.join(edge)} is at the edge of learning_rates: try further ones."]


def no_interval(estimates: Mapping[str, Estimate]) -> list[str]:
    """Say which differences have no interval, and why."""
    few = [label for label, e in estimates.items() if not e.has_interval and e.n < 2]
    equal = [label for label, e in estimates.items() if not e.has_interval and e.n >= 2]
    found = [f"There is no interval for {listed(few)}: it needs at least 2 paired trials."] if few else []
    if equal:
        found.append(
            f"There is no interval for {listed(equal)}: all trials gave the same result, and identical trials say "
            "nothing about other seeds."
        )
    return found


def undecided(reference: str, estimates: Mapping[str, Estimate], what: str = "accuracy") -> list[str]:
    """Say which intervals contain 0."""
    found = [label for label, e in estimates.items() if e.has_interval and not e.excludes(0)]
    if not found:
        return []
    return [
        f"The interval of the difference contains 0 for {listed(found)}: these trials do not show a difference in "
        f"{what} from {reference}."
    ]


def better(reference: str, estimates: Mapping[str, Estimate], what: str = "accuracy") -> list[str]:
    """Say which labels are shown to be better than the reference."""
    found = [label for label, e in estimates.items() if e.high < 0]
    return [f"Better than {reference} here in {what}: {listed(found)}."] if found else []


def seeds_only(estimates: Mapping[str, Estimate]) -> list[str]:
    """Say which intervals of a score do not cover new samples."""
    found = [label for label, e in estimates.items() if e.has_interval and e.covers == NEW_SEEDS]
    if not found:
        return []
    return [
        f"The interval for {listed(found)} is for new seeds alone: on other samples the difference may lie outside of "
        "it more often."
    ]


def several_intervals(n: int) -> list[str]:
    """Say that many intervals are not right together."""
    if n < 2:
        return []
    return [f"Each of the {n} intervals is right in 95 % of cases by itself: of many, some may miss the truth."]


def flatter(records: Records) -> list[str]:
    """Say whose sharpness is below the reference's, for the papers find the opposite for the large batch."""
    if not records.settings["epsilon"]:
        return []
    reference, key = records.settings["reference"], next(iter(records.sharpness_names()))
    found = []
    for label in records.gaps():
        one, other = records.paired(reference, label, key)
        if len(one) and other.mean() < one.mean():
            found.append(label)
    if not found:
        return []
    return [
        f"Not sharper than {reference} here: {listed(found)}. Sharpness also falls as the training loss does: read it "
        "beside the losses."
    ]


def far_from_a_minimum(losses: Mapping[str, float], n_classes: int) -> list[str]:
    """Say which models have training losses that are not far below that of guessing."""
    found = [label for label, loss in losses.items() if loss > FAR_FROM_A_MINIMUM * math.log(n_classes)]
    if not found:
        return []
    return [
        f"Far from a minimum of the training loss: {listed(found)}. There the sharpness of Keskar et al. means little: "
        "it compares minima."
    ]


def majority_class(accuracies: Mapping[str, float], labels: np.ndarray, part: str = "test") -> list[str]:
    """Say so where no model is more accurate than always saying the largest class, by more than two standard errors.

    Parameters
    ----------
    accuracies : dict of str to float
        Mean accuracy of each label, as a fraction.
    labels : ndarray of shape (n_samples,)
        Of the samples that it was measured on.
    part : str, default="test"
        What these samples are called.
    """
    classes, counts = np.unique(labels, return_counts=True)
    share = counts.max() / counts.sum()
    known = [value for value in accuracies.values() if math.isfinite(value)]
    error = math.sqrt(share * (1 - share) / len(labels))
    if not known or max(known) > share + 2 * error:
        return []
    return [
        f"No model is more accurate on the {part} samples than always saying {classes[counts.argmax()]!s}, which is "
        f"right in {100 * share:.1f} % of them, by more than the sampling error: accuracy says nothing here. Try "
        "scoring='average_precision' or scoring='balanced_accuracy'."
    ]


def majority(records: Records, *others: Mapping[str, float]) -> list[str]:
    """Return `majority_class` of the test samples, where accuracy is among the scores asked for.

    ``others`` are accuracies of further models than those of the records.
    """
    if "test" not in records.targets or all(score.name != ACCURACY for score in records.scores):
        return []
    accuracies = {label: records.values(label, f"test_{ACCURACY}") for label in records.done}
    means = {label: float(values.mean()) for label, values in accuracies.items() if len(values)}
    for more in others:
        means |= more
    return majority_class(means, records.targets["test"])


def training_function(records: Records) -> list[str]:
    """Say what cannot be checked of a training function, and whether its trials differ at all."""
    name = records.settings.get("training_function")
    if name is None:
        return []
    found = [
        f"Whether trials are paired cannot be checked: all trainings of a trial have the same random_state, and {name} "
        "must draw initial weights and order of samples from it alone. Intervals cover what it draws so, and not what "
        "is the same in every trial.",
        "Nor can it be checked that the validation samples are not among those trained on, and that nothing was chosen "
        "by test samples.",
    ]
    n_valid = records.settings["n_valid"]
    if n_valid is None:
        found.append(
            f"{name} does not say which validation samples are right: with 'correct' in what it returns, intervals "
            "would cover new samples too."
        )
    else:
        found.append(
            f"'correct' must be of the same samples in the same order in every trial: only their number, {n_valid:,}, "
            "is checked."
        )
    different = [_different_trials(records, label) for label in records.done if len(records.values(label, "trial")) > 1]
    if different and max(different) == 1:
        found.append(
            f"All trials at one batch size gave exactly the same score: {name} seems not to use random_state, and "
            "nothing is known of other seeds."
        )
    return found


def _different_trials(records: Records, label: str) -> int:
    """Return how many trials of a label differ in the score, or in the samples that are right."""
    name = f"valid_{records.scores[0].name}"
    found = set()
    for trial in records.values(label, "trial").astype(int):
        samples = records.samples_of(label, trial, name)
        value = records.by_trial(label, name)[trial]
        found.add(str(value) if samples is None else samples.values.tobytes())
    return len(found)


def unseen_failures(n_trials: int) -> list[str]:
    """Say which rate of failing trials so many trials without a failure leave possible."""
    if not n_trials:
        return []
    rate = unseen_failure_rate(n_trials)
    return [
        f"A batch size that fails in up to {100 * rate:.0f} % of seeds would show no failure in "
        f"{count(n_trials, 'trial')} with a chance of {100 * (1 - CONFIDENCE):.0f} % or more."
    ]


def resolution(n_valid: int, score: Score) -> list[str]:
    """Say which margin of a safe batch size so few validation samples can show, where they cannot show the default."""
    if not score.is_fraction or n_valid >= needed_rows(DEFAULT_MARGIN):
        return []
    return [
        f"{n_valid:,} validation samples can show that a batch size is safe for a margin of at least "
        f"{round_up(smallest_margin(n_valid)):g} ({LEAST_ROWS_OF_A_MARGIN} samples). The default margin of "
        f"{DEFAULT_MARGIN:g} needs a hold-out of {needed_rows(DEFAULT_MARGIN):,}."
    ]
