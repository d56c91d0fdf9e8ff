"""The server of processes imports this module once, so that every process has what a first fit loads."""

import torch
from sklearn.datasets import load_digits

from sklgap import SAM, LBGapClassifier, compare_regimes

torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
model = LBGapClassifier(module__width=8, max_epochs=1, tol=None, random_state=0, remedies=[SAM()])
compare_regimes(model, X[:99], y[:99], X[99:], y[99:], n_trials=1, max_samples=50, random_state=0, verbose=0)
