"""Notes on results: the sentences that a reader must know before believing a figure.

Each sentence is written once, as a function of the records. A function returns a list of sentences, which is empty if
there is nothing to say.
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

# Mean training losses of two models count as unequal if their ratio exceeds this number.
LOSS_RATIO = 2.0
# A model counts as near a minimum if its training loss is below this fraction of the loss of guessing.
FAR_FROM_A_MINIMUM = 0.5


def interrupted(was: bool, n_done: int, n_all: int, what: str = "fit") -> list[str]:
    """Report how much finished before an interruption."""
    return [f"Interrupted: {n_done} of {count(n_all, what)} finished and are reported."] if was else []


def not_converged(converged: Mapping[str, Sequence[bool | None] | np.ndarray], *, target: bool = False) -> list[str]:
    """Report which fits did not end by their stopping rule, and which had no such rule.

    Parameters
    ----------
    converged : dict of str to sequence
        By label, whether each fit ended by its stopping rule; None or NaN for a fit without a stopping rule.
    target : bool, default=False
        Whether the stopping rule is a target loss.
    """
    by_label = {label: [_flag(value) for value in values] for label, values in converged.items() if len(values)}
    if by_label and all(value is None for values in by_label.values() for value in values):
        return ["All fits trained for their whole budget, because they have no stopping rule."]
    missed = {label: sum(value is False for value in values) for label, values in by_label.items()}
    some = [f"{label} (in {n} of {count(len(by_label[label]), 'fit')})" for label, n in missed.items() if n]
    what = "did not reach the target loss" if target else "had not converged under the stopping rule"
    found = [f"These fits {what}: {listed(some)}."] if some else []
    free = [label for label, values in by_label.items() if all(value is None for value in values)]
    whole = "These fits trained for their whole budget, because they have no stopping rule"
    return found + ([f"{whole}: {listed(free)}."] if free else [])


def _flag(value: object) -> bool | None:
    if value is None or (isinstance(value, float | np.floating) and math.isnan(value)):
        return None
    return bool(value)


def not_reached(reached: Mapping[str, np.ndarray]) -> list[str]:
    """Report which labels never, or not always, reached a target; ``reached`` says for each training whether it did."""
    never = [label for label, values in reached.items() if not values.any()]
    some = [
        f"{label} (in {count(int((~values).sum()), 'training')} of {len(values)})"
        for label, values in reached.items()
        if values.any() and not values.all()
    ]
    found = []
    if never:
        found.append(
            f"{listed(never)} never reached the target: the time to the target is not known, except that it is longer "
            "than the training."
        )
    if some:
        found.append(
            f"Some trainings did not reach the target: {listed(some)}. The figures describe the other trainings."
        )
    return found


def diverged(losses: Mapping[str, np.ndarray]) -> list[str]:
    """Report which labels have a training loss that is not finite."""
    found = [
        f"{label} (in {int((~np.isfinite(values)).sum())} of {count(len(values), 'fit')})"
        for label, values in losses.items()
        if not np.isfinite(values).all()
    ]
    return [f"Training diverged, so that the training loss is not finite: {listed(found)}."] if found else []


def left_out(scores: Mapping[str, np.ndarray], name: str) -> list[str]:
    """Report which labels have trials without a finite score. Differences leave these trials out."""
    found = [
        f"{label} (in {int((~np.isfinite(values)).sum())} of {count(len(values), 'trial')})"
        for label, values in scores.items()
        if not np.isfinite(values).all()
    ]
    if not found:
        return []
    return [
        f"There is no finite {name} for {listed(found)}. Differences leave these trials out, so that the setting looks "
        "better than it is."
    ]


def unequal_losses(reference: str, losses: Mapping[str, tuple[np.ndarray, np.ndarray]], advice: str = "") -> list[str]:
    """Report which labels have a mean training loss far from that of the reference, over paired trials."""
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
        f"factor of {LOSS_RATIO:g}. Part of any difference may come from longer training{advice}."
    ]


def unequal_groups(losses: Sequence[np.ndarray], *, target: bool) -> list[str]:
    """Report that the mean training losses of groups of minima are far apart.

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
    advice = "" if target else "; target_loss makes the losses more equal"
    return [
        f"The mean training losses of the groups lie between {min(means):.1e} and {max(means):.1e}. Part of any "
        f"difference between groups may come from longer training{advice}."
    ]


def rates_at_the_edge(rates: Mapping[str, float], tried: Sequence[float]) -> list[str]:
    """Report which batch sizes have the smallest or the largest of the learning rates that were tried."""
    edge = [
        f"{label} ({rate:g})" for label, rate in rates.items() if len(tried) > 1 and rate in (min(tried), max(tried))
    ]
    if not edge:
        return []
    return [
        f"For these batch sizes the best learning rate is at the edge of learning_rates: {', '.join(edge)}. Try "
        "learning rates beyond the edge."
    ]


def no_interval(estimates: Mapping[str, Estimate]) -> list[str]:
    """Report which differences have no interval, and why."""
    few = [label for label, e in estimates.items() if not e.has_interval and e.n < 2]
    equal = [label for label, e in estimates.items() if not e.has_interval and e.n >= 2]
    found = [f"There is no interval for {listed(few)}: an interval needs at least 2 paired trials."] if few else []
    if equal:
        found.append(
            f"There is no interval for {listed(equal)}: all trials gave the same result, which says nothing about "
            "other seeds."
        )
    return found


def undecided(reference: str, estimates: Mapping[str, Estimate], what: str = "accuracy") -> list[str]:
    """Report which intervals contain 0."""
    found = [label for label, e in estimates.items() if e.has_interval and not e.excludes(0)]
    if not found:
        return []
    return [
        f"The interval of the difference contains 0 for {listed(found)}: these trials do not show a difference in "
        f"{what} from {reference}."
    ]


def better(reference: str, estimates: Mapping[str, Estimate], what: str = "accuracy") -> list[str]:
    """Report which labels are shown to be better than the reference."""
    found = [label for label, e in estimates.items() if e.high < 0]
    return [f"These are better than {reference} in {what}: {listed(found)}."] if found else []


def seeds_only(estimates: Mapping[str, Estimate]) -> list[str]:
    """Report which intervals of a score do not cover new samples."""
    found = [label for label, e in estimates.items() if e.has_interval and e.covers == NEW_SEEDS]
    if not found:
        return []
    return [
        f"The interval for {listed(found)} covers new seeds but not new samples: on other samples the difference may "
        "lie outside the interval more often."
    ]


def several_intervals(n: int) -> list[str]:
    """Report that several intervals do not all hold together at their level."""
    if n < 2:
        return []
    return [
        f"Each of the {n} intervals holds by itself in 95 % of cases. If there are many, some may miss the true value."
    ]


def flatter(records: Records) -> list[str]:
    """Report whose sharpness is below that of the reference. The papers find the opposite for the large batch."""
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
        f"These are not sharper than {reference}: {listed(found)}. Sharpness also falls with the training loss, so "
        "compare it together with the training losses."
    ]


def far_from_a_minimum(losses: Mapping[str, float], n_classes: int) -> list[str]:
    """Report which models have training losses that are not far below the loss of guessing."""
    found = [label for label, loss in losses.items() if loss > FAR_FROM_A_MINIMUM * math.log(n_classes)]
    if not found:
        return []
    return [
        f"These are far from a minimum of the training loss: {listed(found)}. The sharpness of Keskar et al. compares "
        "minima, and means little there."
    ]


def majority_class(accuracies: Mapping[str, float], labels: np.ndarray, part: str = "test") -> list[str]:
    """Report that no model is more accurate than the largest class, by more than two standard errors.

    Parameters
    ----------
    accuracies : dict of str to float
        Mean accuracy of each label, as a fraction.
    labels : ndarray of shape (n_samples,)
        Labels of the samples that accuracy was measured on.
    part : str, default="test"
        Name of these samples in the sentence.
    """
    classes, counts = np.unique(labels, return_counts=True)
    share = counts.max() / counts.sum()
    known = [value for value in accuracies.values() if math.isfinite(value)]
    error = math.sqrt(share * (1 - share) / len(labels))
    if not known or max(known) > share + 2 * error:
        return []
    return [
        f"Always predicting {classes[counts.argmax()]!s}, the largest class, is right for {100 * share:.1f} % of the "
        f"{part} samples. No model is more accurate than that by more than the sampling error, so accuracy says "
        "nothing here. Try scoring='average_precision' or scoring='balanced_accuracy'."
    ]


def majority(records: Records, *others: Mapping[str, float]) -> list[str]:
    """Return `majority_class` for the test samples if accuracy is among the scores.

    ``others`` are the accuracies of models that are not in the records.
    """
    if "test" not in records.targets or all(score.name != ACCURACY for score in records.scores):
        return []
    accuracies = {label: records.values(label, f"test_{ACCURACY}") for label in records.done}
    means = {label: float(values.mean()) for label, values in accuracies.items() if len(values)}
    for more in others:
        means |= more
    return majority_class(means, records.targets["test"])


def training_function(records: Records) -> list[str]:
    """Report what cannot be checked about a training function, and whether its trials differ at all."""
    name = records.settings.get("training_function")
    if name is None:
        return []
    found = [
        f"sklgap cannot check that the trials are paired. All trainings of a trial have the same random_state, and "
        f"{name} must draw the initial weights and the order of the samples from it alone. Intervals cover what {name} "
        "draws from random_state, and not what is the same in every trial.",
        "sklgap cannot check either that the validation samples are not among the training samples, and that nothing "
        "was chosen by test samples.",
    ]
    n_valid = records.settings["n_valid"]
    if n_valid is None:
        found.append(
            f"{name} does not return which validation samples are predicted correctly. If it returned 'correct', "
            "intervals would cover new samples too."
        )
    else:
        found.append(
            f"'correct' must describe the same samples in the same order in every trial; sklgap checks only their "
            f"number, {n_valid:,}."
        )
    different = [_different_trials(records, label) for label in records.done if len(records.values(label, "trial")) > 1]
    if different and max(different) == 1:
        found.append(
            f"All trials of a batch size gave exactly the same score. {name} seems not to use random_state, so that "
            "nothing is known about other seeds."
        )
    return found


def _different_trials(records: Records, label: str) -> int:
    """Return how many trials of a label differ in the score, or in the samples that are predicted correctly."""
    name = f"valid_{records.scores[0].name}"
    found = set()
    for trial in records.values(label, "trial").astype(int):
        samples = records.samples_of(label, trial, name)
        value = records.by_trial(label, name)[trial]
        found.add(str(value) if samples is None else samples.values.tobytes())
    return len(found)


def unseen_failures(n_trials: int) -> list[str]:
    """Report which rate of failures remains possible after this many trials without a failure."""
    if not n_trials:
        return []
    rate = unseen_failure_rate(n_trials)
    return [
        f"A batch size that fails for up to {100 * rate:.0f} % of all seeds has a chance of "
        f"{100 * (1 - CONFIDENCE):.0f} % or more to show no failure in {count(n_trials, 'trial')}."
    ]


def resolution(n_valid: int, score: Score) -> list[str]:
    """Report the smallest margin that the validation samples can show, if they are too few for the default margin."""
    if not score.is_fraction or n_valid >= needed_rows(DEFAULT_MARGIN):
        return []
    return [
        f"{n_valid:,} validation samples can show that a batch size is safe for a margin of at least "
        f"{round_up(smallest_margin(n_valid)):g} ({LEAST_ROWS_OF_A_MARGIN} samples). The default margin of "
        f"{DEFAULT_MARGIN:g} needs a hold-out of {needed_rows(DEFAULT_MARGIN):,} samples."
    ]
