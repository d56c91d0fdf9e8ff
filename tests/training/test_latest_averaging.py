"""The mean of the weights after the last epochs."""

import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping

from sklgap.training import LatestAveraging
from tests.tiny import Mlp, blobs, small

X, Y = blobs()


class Epochs(Callback):
    """Saves the weights after every epoch."""

    def initialize(self):
        self.weights_ = []
        return self

    def on_epoch_end(self, net, **kwargs):
        self.weights_.append({name: p.detach().clone() for name, p in net.module_.named_parameters()})


@pytest.mark.parametrize(
    ("n_latest", "every", "epochs"),
    [
        (1, 1, [7]),
        (3, 1, [5, 6, 7]),
        (7, 1, [1, 2, 3, 4, 5, 6, 7]),
        (20, 1, [1, 2, 3, 4, 5, 6, 7]),
        (3, 2, [3, 5, 7]),
        (9, 3, [1, 4, 7]),
    ],
)
@pytest.mark.parametrize("params", [{}, {"net": Mlp}])
def test_against_the_mean_of_what_was_saved(params, n_latest, every, epochs):
    callbacks = [("epochs", Epochs()), ("averaging", LatestAveraging(n_latest, every))]
    model = small(max_epochs=7, callbacks=callbacks, **params).fit(X, Y)
    held = dict(model.net_.callbacks_)
    saved = [held["epochs"].weights_[epoch - 1] for epoch in epochs]
    # float32: the sum of at most seven weights in another order.
    for name, p in model.module_.named_parameters():
        torch.testing.assert_close(p.detach(), sum(w[name] for w in saved) / len(saved), rtol=1e-5, atol=1e-6)
    assert held["averaging"].n_averaged_ == len(epochs)


@pytest.mark.parametrize("last", [False, True])
def test_early_stopping_on_either_side_of_it(last):
    stop = EarlyStopping("train_loss", patience=2, threshold=1e9, threshold_mode="abs", sink=lambda text: None)
    averaging = LatestAveraging(2)
    model = small(max_epochs=30, callbacks=[stop, averaging] if last else [averaging, stop]).fit(X, Y)
    assert model.n_iter_ == 3
    whole = small(max_epochs=3, callbacks=[LatestAveraging(2)]).fit(X, Y)
    for ours, theirs in zip(model.module_.parameters(), whole.module_.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_latest": 0}, "n_latest must be an integer of at least 1; got 0"),
        ({"n_latest": 2.5}, r"n_latest must be an integer of at least 1; got 2\.5"),
        ({"every": 0}, "every must be an integer of at least 1; got 0"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        small(callbacks=[LatestAveraging(**params)]).fit(X, Y)
