"""Training does not notice what `TrainingRecorder` measures."""

from functools import cache

import numpy as np
import pytest
import torch
from skorch.dataset import ValidSplit

from sklgap import SwitchBatch
from sklgap.inspection import recorded
from tests.cases import no_global_random_numbers
from tests.tiny import TinyC1, same_weights, small
from tests.training.recordings import IMAGE_LABELS, IMAGES, LABELS, X, Y, recording


def disturb(net):
    """Do all that a measurement should not do."""
    net.module_.train()
    torch.rand(7)
    with torch.no_grad():
        for parameter in net.module_.parameters():
            parameter.zero_()
    for buffer in net.module_.buffers():
        buffer.zero_()
    net.predict_proba(np.zeros((2, *net.encoding_.net_shape), dtype=np.float32))
    net.module_(torch.zeros(2, *net.encoding_.net_shape)).sum().backward()
    return 1.0


def _noise(batch):
    return batch + 0.1 * torch.rand_like(batch)  # from torch's global generator


FITS = {
    "plain": lambda **kwargs: small(**kwargs).fit(X, Y),
    "labels": lambda **kwargs: small(**kwargs).fit(X, LABELS),
    "switch": lambda **kwargs: small(batch_regime=SwitchBatch(1, 8, 30), **kwargs).fit(X, Y),
    "ghost batch norm": lambda **kwargs: small(ghost_batch_size=4, **kwargs).fit(X, Y),
    "micro-batches": lambda **kwargs: small(micro_batch_size=5, **kwargs).fit(X, Y),
    "proximal": lambda **kwargs: small(proximal_lambda=1e-3, **kwargs).fit(X, Y),
    "dropout and flat images": lambda **kwargs: small(net=TinyC1, input_shape=(1, 8, 8), **kwargs).fit(
        IMAGES.reshape(40, -1), IMAGE_LABELS
    ),
    "augmentation": lambda **kwargs: small(net=TinyC1, augmentation=_noise, **kwargs).fit(IMAGES, IMAGE_LABELS),
    "train split": lambda **kwargs: small(train_split=ValidSplit(3), **kwargs).fit(X, Y),
    "skorch's data path": lambda **kwargs: small(iterator_train__shuffle=True, **kwargs).fit(X, Y),
    "momentum, lr scaling": lambda **kwargs: small(
        optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr_scaling="sqrt", batch_size=16, **kwargs
    ).fit(X, Y),
    "regime adaptation": lambda **kwargs: small(regime_adaptation=True, batch_size=30, **kwargs).fit(X, Y),
    "early stopping": lambda **kwargs: small(max_epochs=9, target_loss=0.8, **kwargs).fit(X, Y),
}
WHEN = [{"at_updates": "log"}, {"every": 2}, {"every": None, "at_updates": [0, 3, 7]}]


def _rows(history):
    return [{key: value for key, value in row.items() if key != "dur"} for row in history]


@cache
def unwatched(fit):
    return FITS[fit]()


# Every way of training at one time of measuring, and two of them at all times.
CASES = [(fit, WHEN[i % 3]) for i, fit in enumerate(FITS)]
CASES += [(fit, when) for fit in ("plain", "early stopping") for when in WHEN if (fit, when) not in CASES]


@pytest.mark.parametrize(("fit", "when"), CASES, ids=str)
def test_training_is_bit_for_bit_the_same(fit, when):
    plain = unwatched(fit)
    rows = X if plain.n_features_in_ == 4 else IMAGES.reshape(40, -1) if "flat" in fit else IMAGES
    labels = IMAGE_LABELS if plain.n_features_in_ != 4 else LABELS if fit == "labels" else Y
    with no_global_random_numbers():
        measured = FITS[fit](callbacks=recording({"train": (rows, labels)}, {"disturbance": disturb}, **when))
    assert len(recorded(measured)["disturbance"]) >= 1
    assert same_weights(plain, measured)
    assert _rows(plain.history_) == _rows(measured.history_)
    assert plain.n_updates_ == measured.n_updates_
    first, second = (model.net_.optimizer_.state_dict()["state"] for model in (plain, measured))
    assert first.keys() == second.keys()
    for number, state in first.items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(second[number][name])), name
    for p, q in zip(plain.module_.parameters(), measured.module_.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_measurements_that_draw_are_repeatable_and_leave_the_global_generator_alone():
    with no_global_random_numbers():
        first, again = (small(callbacks=recording(None, {"draw": lambda net: torch.rand(())})).fit(X, Y) for _ in "12")
    draws = recorded(first)["draw"]
    np.testing.assert_array_equal(draws, recorded(again)["draw"])
    assert len(set(draws)) == 2
    other = small(callbacks=recording(None, {"draw": lambda net: torch.rand(())}, random_state=1)).fit(X, Y)
    assert set(draws).isdisjoint(recorded(other)["draw"])
