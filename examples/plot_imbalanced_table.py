"""
The largest safe batch for an imbalanced table
==============================================

One row in eleven is of the class that matters. Which batch size is safe, and which score can tell?

A table as tables are: numbers, words, and gaps in both; 9 % of the rows are positive. Always saying "no" is right in
91 % of them, and no model here is more accurate: by accuracy every batch size looks safe. Average precision is a
score of how well the positive rows are ranked before the others: 9 % by guessing, 100 % at best. It sees what a large
batch loses.

From the frame to the decision it takes fifteen lines: a pipeline that fills the gaps, scales the numbers and spells out
the words; a curve over batch sizes; the largest size that is shown to lose less of a score than a margin.

The table is made here. ``--quick`` takes fewer trials and two batch sizes.
"""

# %%
# The table: deliveries, some of which are late. No delivery is more likely late than not, as it is with rare events: to
# say "late" of any of them lowers the accuracy.
import argparse

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklgap import LBGapClassifier, batch_size_curve, largest_safe_batch_size

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="fewer trials and batch sizes")
parser.add_argument("--trials", type=int, help="trainings of each batch size (default: 5; 3 with --quick)")
parser.add_argument(
    "--margin", type=float, default=0.02, help="the loss of average precision that is acceptable (default: 0.02)"
)
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()
trials = arguments.trials or (3 if arguments.quick else 5)
batch_sizes = [64, 1024] if arguments.quick else [64, 256, 1024]

rng, n = np.random.default_rng(0), 10_000
frame = pd.DataFrame(
    {
        "hour": rng.uniform(6, 22, n),
        "kilometres": rng.lognormal(3, 0.7, n),
        "wind": rng.gamma(2, 5, n),
        "parcels": rng.poisson(8, n).astype(float),
        "weather": rng.choice(["clear", "rain", "snow"], n, p=[0.7, 0.22, 0.08]),
        "district": rng.choice(["centre", "north", "south", "harbour", "hills"], n),
    }
)
weather = frame["weather"].map({"clear": 0.0, "rain": 1.0, "snow": 2.2})
rush = np.exp(-((frame["hour"] - 17) ** 2) / 4) * frame["district"].eq("centre")
uphill = frame["district"].eq("hills") * (frame["wind"] > 12)
logit = -4.8 + weather + 3.5 * rush + 2.5 * uphill + 0.03 * frame["kilometres"] + 0.08 * frame["parcels"]
y = (rng.random(n) < np.minimum(1 / (1 + np.exp(-logit)), 0.33)).astype(int)  # 1: late
frame = frame.mask(rng.random(frame.shape) < 0.05)  # gaps
print(frame.head(3).to_string(float_format="%.1f"), f"\n\n{100 * y.mean():.1f} % of {n:,} deliveries are late\n")

# %%
# From the frame to the decision.
words = make_pipeline(
    SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
)
values = make_pipeline(SimpleImputer(), StandardScaler())
columns = make_column_transformer(
    (words, make_column_selector(dtype_include=object)), (values, make_column_selector(dtype_include=float))
)
model = make_pipeline(columns, LBGapClassifier(module__width=32, module__n_layers=2, lr=0.002, max_epochs=8, tol=None))
X, X_test, y, y_test = train_test_split(frame, y, test_size=2500, stratify=y, random_state=0)
curve = batch_size_curve(
    model, X, y, X_test, y_test, batch_sizes=batch_sizes, n_trials=trials, validation_fraction=0.25, epsilon=[],
    scoring={"accuracy": "accuracy", "ap": "average_precision"}, random_state=0, verbose=0,
)  # fmt: skip
safe = largest_safe_batch_size(curve, scoring="ap", margin=arguments.margin)
print(safe, "\n")

# %%
# The same question without ``scoring`` is one of accuracy, with its default margin of half a point. The note about the
# largest class says what the answer is worth: where no model is more accurate than a constant, any size looks safe.
by_accuracy = largest_safe_batch_size(curve)
print(curve, "\n")
print(by_accuracy, "\n")

# %%
# What each size loses of the two scores: of accuracy nothing that can be seen, whatever happens to the ranking.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, score in zip(axes, ("accuracy", "ap"), strict=True):
    values = np.array([curve.values(size, f"test_{score}") for size in batch_sizes])
    ax.plot(batch_sizes, values, "o", color="C0", alpha=0.4)
    ax.plot(batch_sizes, values.mean(axis=1), color="C0")
    ax.set(xscale="log", xlabel="batch size", ylabel=f"test {score}")
    ax.set_xticks(batch_sizes, [f"{size:,}" for size in batch_sizes])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
axes[0].axhline(1 - y_test.mean(), color="0.4", linestyle="--", label='always "in time"')
axes[1].axhline(y_test.mean(), color="0.4", linestyle="--", label="guessing")
axes[1].axvline(int(safe), color="tab:green", alpha=0.5, label="safe by average precision")
for ax in axes:
    ax.legend(frameon=False, fontsize="small")
if arguments.output:
    figure.savefig(arguments.output, dpi=150)
plt.show()
