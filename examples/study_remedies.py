"""
What wins the accuracy of small batches back?
=============================================

F1 on 10,000 images of MNIST, small batches of 64 (SB) against large ones of 1,000 (LB), with and without every remedy
of Keskar et al. (2017), Hoffer et al. (2017) and after: test accuracy, regime gap over paired trials, sharpness, cost.

A remedy that evaluates more gradients may win by those alone. The controls spend the same number of gradients
without the remedy: ``2x`` trains twice as many epochs (beside adversarial training, stability training and SAM),
``proximal 0`` uses each batch three times without the penalty, ``longer`` makes as many updates as SB.

It takes some two hours on two cores, and goes on from the last finished fit when it is started again with
the same ``--memory``. ``--quick`` does it with the digits that ship with scikit-learn: not a setting of the papers.
"""

# %%
# The data, and the sizes of the experiment.
import argparse

import numpy as np
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklgap import (
    SAM,
    Adversarial,
    Augmentation,
    EntropySGD,
    LBGapClassifier,
    SampleNoise,
    Stability,
    SwitchBatch,
    WeightAveraging,
    compare_regimes,
)
from sklgap.datasets import fetch_mnist

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not a setting of the papers")
parser.add_argument("--trials", type=int, default=5)
parser.add_argument("--jobs", type=int, default=1)
parser.add_argument("--memory", help="folder that keeps finished fits")
parser.add_argument("--output", help="file to write the result to, as JSON")
arguments = parser.parse_args()

if arguments.quick:
    digits, labels = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(digits / 16, labels, test_size=0.3, random_state=0)
    small, large, epochs = 32, 250, {"SB": 2, "LB": 4}
    estimator = LBGapClassifier("F1", input_shape=(1, 8, 8), module__width=32, tol=None)
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    rows = np.random.RandomState(0).permutation(len(X))[:10_000]
    X, y = X[rows], y[rows]
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True, flat=True)
    small, large, epochs = 64, 1000, {"SB": 12, "LB": 30}
    estimator = LBGapClassifier("F1", tol=None)


# %%
# The remedies, each at the setting of its paper where that has one. Digits are neither flipped nor moved by more
# than a tenth of the side.
def with_remedies(size: int, n_epochs: int) -> dict[str, dict]:
    """Return the parameters of the plain regime and of each remedy in it, by name."""
    plain = {"batch_size": size, "max_epochs": n_epochs}
    return {
        "": plain,
        "augmentation": {**plain, "augmentation": Augmentation(flip=False, degrees=10, translate=0.1)},
        "proximal": {**plain, "proximal_lambda": 1e-3},
        "proximal 0": {**plain, "proximal_lambda": 0.0},
        "adversarial": {**plain, "remedies": [Adversarial(epsilon=0.1)]},
        "stability": {**plain, "remedies": [Stability()]},
        "SAM": {**plain, "remedies": [SAM(rho=0.05)]},
        "Entropy-SGD": {**plain, "remedies": [EntropySGD(n_steps=5)]},
        "SWA": {**plain, "callbacks": [("average", WeightAveraging())]},
        "2x": {**plain, "max_epochs": 2 * n_epochs},
    }


large_only = {
    "ghost": {"ghost_batch_size": small},
    "sqrt lr": {"lr_scaling": "sqrt", "base_batch_size": small},
    "linear lr": {"lr_scaling": "linear", "base_batch_size": small, "lr_warmup_epochs": 3},
    "noise": {"remedies": [SampleNoise(base_batch_size=small)]},
    "warm start": {"batch_size": None, "batch_regime": SwitchBatch(2, first=small, then=large)},
    "longer": {"regime_adaptation": True, "base_batch_size": small, "max_epochs": epochs["SB"]},
    "longer, ghost, sqrt lr": {
        "regime_adaptation": True,
        "base_batch_size": small,
        "max_epochs": epochs["SB"],
        "ghost_batch_size": small,
        "lr_scaling": "sqrt",
    },
}
regimes = {
    **{f"SB {name}".strip(): setting for name, setting in with_remedies(small, epochs["SB"]).items()},
    **{f"LB {name}".strip(): setting for name, setting in with_remedies(large, epochs["LB"]).items()},
    **{f"LB {name}": {"batch_size": large, "max_epochs": epochs["LB"], **s} for name, s in large_only.items()},
}

# %%
# Trial i starts all of them from the same weights.
comparison = compare_regimes(
    estimator,
    X,
    y,
    X_test,
    y_test,
    regimes=regimes,
    reference="SB",
    n_trials=arguments.trials,
    epsilon=[1e-3],
    max_samples=2000,
    random_state=0,
    n_jobs=arguments.jobs,
    memory=arguments.memory,
)
if arguments.output:
    comparison.to_json(arguments.output)


# %%
# Two questions, each by paired differences over the trials. What does the remedy give to its own regime? And what is
# left of the gap between the regimes when both have it (Keskar et al., Table 6)? Intervals are 95 %, by Student's t;
# they cover the seeds, not the draw of the test set.
def interval(differences: np.ndarray) -> str:
    """Mean and 95 % interval of paired differences in accuracy, in points."""
    differences = 100 * differences[~np.isnan(differences)]
    if len(differences) < 2:
        return f"{differences.mean():+.2f}"
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    mean = differences.mean()
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def row(label: str) -> str:
    """One line of the table."""
    regime, _, remedy = label.partition(" ")
    accuracy, plain = (comparison.by_trial(name, "test_accuracy") for name in (label, regime))
    columns = [
        f"{100 * np.nanmean(accuracy):.2f}",
        interval(accuracy - plain) if remedy else "",
        f"{np.nanmean(comparison.by_trial(label, 'train_loss')):.1e}",
        f"{np.nanmean(comparison.by_trial(label, 'sharpness_0.001')):.3g}",
        f"{np.nanmean(comparison.by_trial(label, 'weight_distance')):.1f}",
        f"{np.nanmean(comparison.by_trial(label, 'n_updates')):,.0f}",
        f"{np.nanmean(comparison.by_trial(label, 'fit_seconds') / comparison.by_trial(regime, 'fit_seconds')):.1f}",
    ]
    return f"| {label} | " + " | ".join(columns) + " |"


print("| | test accuracy | change by the remedy | train loss | sharpness 1e-3 | distance | updates | time / plain |")
print("|---|---|---|---|---|---|---|---|")
for label in comparison.labels:
    print(row(label))

print("\n| both regimes with | regime gap, SB - LB, points |\n|---|---|")
for remedy in with_remedies(small, 1):
    small_one, large_one = (
        comparison.by_trial(f"{regime} {remedy}".strip(), "test_accuracy") for regime in ("SB", "LB")
    )
    print(f"| {remedy or 'nothing'} | {interval(small_one - large_one)} |")
for remedy in large_only:
    gap = comparison.by_trial("SB", "test_accuracy") - comparison.by_trial(f"LB {remedy}", "test_accuracy")
    print(f"| LB alone with {remedy} | {interval(gap)} |")
