"""
The Hessian spectra of a small-batch and a large-batch solution
===============================================================

Is the large-batch solution the one with the larger curvatures?

Keskar et al. (2017) describe sharp minima by many large eigenvalues of the Hessian. Drawn is the density of all its
eigenvalues, as Ghorbani et al. (2019) estimate it, at the SB and the LB solution of F1 on MNIST, in log scale, with the
ten largest eigenvalues marked. Printed beside them: the training loss, the trace, and the Ritz values in a random
subspace.

Read the losses first: the curvature of the cross-entropy falls with the loss itself. On MNIST the LB solution has
fitted its training data much more closely (7e-5 against 3e-3), and its largest eigenvalue is the smaller one, 0.09
against 0.49, though it has more of middling size and the larger trace. Its Metric 2.1, the rise of the loss within a
box, is 490 % against 8 %: how much the loss bends at a point, and how far it rises around it, are different
questions.

``--quick`` does it with the digits that ship with scikit-learn, in seconds: not the paper's setting.
"""

# %%
# The data, and the epochs of each regime.
import argparse
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from sklgap import LBGapClassifier, check_objective, sharpness
from sklgap.datasets import fetch_mnist
from sklgap.inspection import SpectrumDisplay, hessian_trace, ritz_values

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="digits, not the paper's setting")
parser.add_argument("--samples", type=int, default=2000, help="rows to measure on (default: 2,000)")
parser.add_argument("--cache", type=Path, help="file of your own that keeps the trained models between runs")
parser.add_argument("--output", help="file to save the figure to")
arguments = parser.parse_args()

if arguments.quick:
    X, y = load_digits(return_X_y=True)
    X = X / 16
    epochs, setting = {"SB": 15, "LB": 60}, {"module__width": 64}
else:
    X, y = fetch_mnist(return_X_y=True, flat=True)
    epochs, setting = {"SB": 25, "LB": 60}, {}

# %%
# Both regimes start from the same weights.
models = joblib.load(arguments.cache) if arguments.cache and arguments.cache.exists() else {}
for name, n_epochs in epochs.items():
    if name not in models:
        model = LBGapClassifier(
            "F1", batch_regime=name, max_epochs=n_epochs, tol=None, random_state=0, verbose=1, **setting
        )
        models[name] = model.fit(X, y)
if arguments.cache:
    joblib.dump(models, arguments.cache)
objectives = {
    name: check_objective(models[name], X, y, max_samples=arguments.samples, random_state=0) for name in epochs
}

# %%
# Two start vectors are enough: in so many dimensions the bulk looks the same from each.
display = SpectrumDisplay.from_estimators(objectives, k=10, n_vectors=2, n_steps=80, random_state=0, verbose=1)
for name, objective in objectives.items():
    print(f"\n{name}: {sharpness(objective, random_state=0)}")
    print(f"    {display.eigenvalues[name]}")
    print(f"    {hessian_trace(objective, random_state=0)}")
    ritz = ritz_values(objective, subspace_dim=20, random_state=0).values
    print(f"    Ritz values in 20 random dimensions: {ritz.min():.2g} to {ritz.max():.2g}")
    display.lines_[name].set_label(f"{name} (training loss {objective.value():.1e})")
display.ax_.legend(frameon=False)
display.ax_.set_title("F1 on digits" if arguments.quick else f"F1 on MNIST, {objective.n_samples:,} rows")
if arguments.quick:
    display.figure_.supxlabel("scikit-learn's digits, 64 units a layer: not the paper's setting", fontsize="x-small")
if arguments.output:
    display.figure_.savefig(arguments.output, dpi=150)
plt.show()
