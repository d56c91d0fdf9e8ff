"""The exponential average of the weights, against torch's own."""

import pytest
import torch
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sklgap.training import ExponentialAveraging
from tests.tiny import Mlp, blobs, small

X, Y = blobs()


class Reference(Callback):
    """Feeds torch's average after every k-th update."""

    def __init__(self, decay, every):
        self.decay = decay
        self.every = every
        self.calls = 0

    def on_batch_end(self, net, training=False, **kwargs):
        if not training:
            return
        if not self.calls:
            self.model_ = AveragedModel(net.module_, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
        self.calls += 1
        if self.calls % self.every == 0:
            self.model_.update_parameters(net.module_)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("params", [{}, {"net": Mlp}, {"train_split": ValidSplit(4)}])
def test_against_torch(params, decay, every):
    callbacks = [("reference", Reference(decay, every)), ("averaging", ExponentialAveraging(decay, every))]
    model = small(batch_size=10, max_epochs=3, callbacks=callbacks, **params).fit(X, Y)
    held = dict(model.net_.callbacks_)
    # float32: the two forms of the running mean round differently.
    expected = dict(held["reference"].model_.module.named_parameters())
    torch.testing.assert_close(dict(model.module_.named_parameters()), expected, rtol=1e-5, atol=1e-6)
    assert held["averaging"].n_averaged_ == held["reference"].calls // every


def test_fewer_updates_than_one_turn():
    with pytest.warns(
        UserWarning, match="ExponentialAveraging averaged nothing, because training ended after 1 epochs"
    ):
        small(max_epochs=1, batch_size=-1, callbacks=[ExponentialAveraging(0.9, every=2)]).fit(X, Y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"decay": 1}, r"decay must be a number in \[0, 1\); got 1"),
        ({"decay": -0.1}, r"decay must be a number in \[0, 1\); got -0\.1"),
        ({"decay": None}, r"decay must be a number in \[0, 1\); got None"),
        ({"every": 0}, "every must be an integer of at least 1; got 0"),
        ({"every": True}, "every must be an integer of at least 1; got True"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        small(callbacks=[ExponentialAveraging(**params)]).fit(X, Y)
