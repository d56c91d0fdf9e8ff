"""
The largest safe batch for an imbalanced table
==============================================

One delivery in eleven is late. Which batch size is safe, and which score can see what a
large batch loses?

The table is as tables are: numbers, words, and gaps in both. Nine percent of its rows
are positive. A model that always says "no" is right in 91 % of them, and no model here
is more accurate, so every batch size looks safe by accuracy. Average precision scores
how well a model ranks the positive rows before the others: guessing gives 9 %, and the
best value is 100 %. This score sees what a large batch loses.

The way from the table to the decision takes fifteen lines: a pipeline that fills the
gaps, scales the numbers and encodes the words; a curve over batch sizes; and the
largest batch size that is shown to lose less of a score than a margin.

The example makes its table. The page runs it with ``--quick``, which takes fewer trials
and two batch sizes.
"""

# %%
# The table: deliveries, some of which are late. No delivery is more likely late than in
# time, as with rare events. To call any of them late lowers the accuracy.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklgap import LBGapClassifier, batch_size_curve, largest_safe_batch_size

n_trials, batch_sizes, margin = 3, [64, 1024], 0.02

# sphinx_gallery_start_ignore
from _options import options, save

arguments = options(
    __doc__,
    trials={"type": int, "help": "trainings of each batch size (5; 3 with --quick)"},
    margin={
        "type": float,
        "default": 0.02,
        "help": "the loss of average precision that is acceptable (0.02)",
    },
)
if not arguments.quick:
    n_trials, batch_sizes = 5, [64, 256, 1024]
n_trials, margin = arguments.trials or n_trials, arguments.margin
# sphinx_gallery_end_ignore

rng, n = np.random.default_rng(0), 10_000
X = pd.DataFrame(
    {
        "hour": rng.uniform(6, 22, n),
        "kilometres": rng.lognormal(3, 0.7, n),
        "wind": rng.gamma(2, 5, n),
        "parcels": rng.poisson(8, n).astype(float),
        "weather": rng.choice(["clear", "rain", "snow"], n, p=[0.7, 0.22, 0.08]),
        "district": rng.choice(["centre", "north", "south", "harbour", "hills"], n),
    }
)
weather = X["weather"].map({"clear": 0.0, "rain": 1.0, "snow": 2.2})
rush = np.exp(-((X["hour"] - 17) ** 2) / 4) * X["district"].eq("centre")
uphill = X["district"].eq("hills") * (X["wind"] > 12)
logit = -4.8 + weather + 3.5 * rush + 2.5 * uphill
logit = logit + 0.03 * X["kilometres"] + 0.08 * X["parcels"]
y = (rng.random(n) < np.minimum(1 / (1 + np.exp(-logit)), 0.33)).astype(int)  # 1: late
X = X.mask(rng.random(X.shape) < 0.05)  # gaps
print(X.head(3).to_string(float_format="%.1f"))
print(f"\n{100 * y.mean():.1f} % of {n:,} deliveries are late")

# %%
# From the table to the decision.
words = make_pipeline(
    SimpleImputer(strategy="most_frequent"),
    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
)
numbers = make_pipeline(SimpleImputer(), StandardScaler())
columns = make_column_transformer(
    (words, make_column_selector(dtype_include=object)),
    (numbers, make_column_selector(dtype_include=float)),
)
net = LBGapClassifier(
    module__width=32, module__n_layers=2, lr=0.002, max_epochs=8, tol=None
)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=2500, stratify=y, random_state=0
)
curve = batch_size_curve(
    make_pipeline(columns, net),
    X_train,
    y_train,
    X_test,
    y_test,
    batch_sizes=batch_sizes,
    n_trials=n_trials,
    validation_fraction=0.25,
    epsilon=[],
    scoring={"accuracy": "accuracy", "ap": "average_precision"},
    random_state=0,
    verbose=0,
)
safe = largest_safe_batch_size(curve, scoring="ap", margin=margin)
print(safe, "\n")

# %%
# Without ``scoring`` the same question is about accuracy, with its default margin of
# half a point. The note about the largest class says what that answer is worth: where
# no model is more accurate than a constant, any batch size looks safe.
by_accuracy = largest_safe_batch_size(curve)
print(curve, "\n")
print(by_accuracy, "\n")
scores = {
    score: np.array([curve.values(size, f"test_{score}") for size in batch_sizes])
    for score in ("accuracy", "ap")
}
share, safe_size = float(y_test.mean()), int(safe)

# %%
# Every trial, and the means. Accuracy loses nothing that can be seen, whatever happens
# to the ranking.
figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
names = {"accuracy": "test accuracy (%)", "ap": "test average precision (%)"}
for ax, (score, values) in zip(axes, scores.items(), strict=True):
    colour = "#2e7d32" if score == "accuracy" else "#222222"
    ax.plot(batch_sizes, 100 * values, "o", color=colour, alpha=0.4)
    ax.plot(
        batch_sizes, 100 * values.mean(axis=1), color=colour, label="mean of trials"
    )
    ax.set(xscale="log", xlabel="batch size (samples)", ylabel=names[score])
    ax.set_xticks(batch_sizes, [f"{size:,}" for size in batch_sizes])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
in_time = 100 * (1 - share)
axes[0].axhline(in_time, color="0.5", linestyle="--", label='always "in time"')
axes[1].axhline(100 * share, color="0.5", linestyle="--", label="guessing")
axes[1].axvline(safe_size, color="0.5", linewidth=6, alpha=0.25, label="shown safe")
for ax in axes:
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)}
    ax.legend(**place, ncols=3, frameon=False, fontsize="small")
figure.suptitle("A dense net on an imbalanced table")
# sphinx_gallery_start_ignore
record = {"scores": scores, "batch_sizes": batch_sizes, "curve": None}
save(figure, arguments, curve, share=share, safe_size=safe_size, **record)
# sphinx_gallery_end_ignore
plt.show()
