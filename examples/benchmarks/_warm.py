"""Imported once by the server of processes: what the first fit of a process loads is there in all of them."""

import torch
from sklearn.datasets import load_digits

from sklgap import SAM, LBGapClassifier

torch.set_num_threads(1)
X, y = load_digits(return_X_y=True)
LBGapClassifier(module__width=8, max_epochs=1, tol=None, random_state=0, remedies=[SAM()]).fit(X, y).predict_proba(X)
