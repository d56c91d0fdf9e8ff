"""Ghost batch norm in training: one ghost batch is plain batch norm; one that fits no batch is refused."""

import pytest
from skorch.dataset import ValidSplit

from sklgap.nets import GhostBatchNorm
from sklgap.regimes import BatchRegime, GrowingBatch, SwitchBatch
from sklgap.remedies import SAM
from tests.ids import plain
from tests.tiny import Mlp, TinyC1, blobs, images, same_weights, small

X, Y = blobs()


@pytest.mark.parametrize(
    "params", [{"batch_size": 20}, {"batch_size": -1}, {"batch_size": 7}, {"net": TinyC1}], ids=plain
)
def test_a_ghost_batch_as_large_as_the_batch_is_plain_batch_norm(params):
    data = images(60) if "net" in params else (X, Y)
    size = {20: 20, -1: 60, 7: 7}.get(params.get("batch_size"), 8)
    ghosts = small(**params, ghost_batch_size=size).fit(*data)
    assert any(isinstance(layer, GhostBatchNorm) for layer in ghosts.module_.modules())
    assert same_weights(ghosts, small(**params).fit(*data))


def _refused(largest, ghost, **params):
    sentence = f"at most the largest batch that batch norm sees, {largest} samples; got {ghost}."
    with pytest.raises(ValueError, match=sentence):
        small(**params, ghost_batch_size=ghost).fit(X, Y)


@pytest.mark.parametrize(
    ("largest", "params"),
    [
        (8, {}),
        (20, {"batch_size": 20}),
        (6, {"batch_regime": "LB"}),
        (60, {"batch_size": -1}),
        (10, {"batch_size": -1, "micro_batch_size": 10}),
        (9, {"batch_size": 30, "remedies": [SAM(sub_batch_size=9)]}),
        (16, {"batch_regime": GrowingBatch(8, every=1, largest=0.5), "max_epochs": 2}),
        (8, {"batch_regime": SwitchBatch(2, first=8, then=0.5), "max_epochs": 2}),
        (24, {"batch_size": -1, "train_split": ValidSplit(((range(24), range(24, 60)),))}),
    ],
    ids=plain,
)
def test_the_largest_batch_is_the_limit(largest, params):
    _refused(largest, largest + 1, **params)
    small(**params, ghost_batch_size=largest).fit(X, Y)


class Adaptive(BatchRegime):
    adaptive = True

    def batch_size(self, epoch, n_samples):
        return 8

    def next_batch_size(self, last_epoch, n_samples):
        return 16


@pytest.mark.parametrize(
    "params",
    [
        {"batch_regime": Adaptive()},
        {"batch_regime": SwitchBatch(2, first=8, then=0.5), "warm_start": True},
        {"batch_regime": SwitchBatch(2, first=8, then=0.5), "regime_adaptation": True},
        {"net": Mlp},
        {"iterator_train__batch_size": 20, "iterator_train__drop_last": True},
    ],
    ids=plain,
)
def test_larger_batches_may_come(params):
    small(**params, ghost_batch_size=16).fit(X, Y)


def test_a_warm_start_goes_on_to_larger_batches():
    regime = {"batch_regime": SwitchBatch(1, first=8, then=0.5), "max_epochs": 1}
    model = small(**regime).set_params(warm_start=True, ghost_batch_size=16)
    sizes = [model.fit(X, Y).history_[-1, "batch_size"] for _ in range(2)]
    assert sizes == [8, 30]
    _refused(8, 16, **regime)
    again = small(**{**regime, "max_epochs": 2}, ghost_batch_size=16).fit(X, Y)
    again.set_params(warm_start=True, max_epochs=1).fit(X, Y)
    assert again.history_[:, "batch_size"] == [8, 30, 30]
