"""The net that trains, through the estimator: updates, regimes, learning rates, stopping, train split."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import LRScheduler
from skorch.dataset import Dataset, ValidSplit

from sklgap.regimes import GrowingBatch, SwitchBatch
from tests.tiny import Mlp, blobs, same_weights, small

X, Y = blobs()

# A gradient summed in float32 in another order, carried through a few updates.
FLOAT32 = 1e-5


# -- updates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "batch_size", "updates"),
    [(60, 10, 6), (60, 8, 8), (57, 8, 7), (58, 8, 8), (60, 59, 1), (60, 53, 1), (60, 52, 2), (60, -1, 1), (60, 0.5, 2)],
)
def test_updates_per_epoch(n, batch_size, updates):
    """A partial batch is kept; a single last row (57 = 7 * 8 + 1), or fewer than 8 (60 - 53), join the batch before."""
    model = small(batch_size=batch_size, max_epochs=3).fit(X[:n], Y[:n])
    assert model.n_updates_ == 3 * updates
    assert model.history_[:, "n_updates"] == [updates, 2 * updates, 3 * updates]
    assert model.history_[:, "train_batch_count"] == [updates] * 3


@pytest.mark.parametrize(
    ("regime", "sizes", "updates"),
    [
        (SwitchBatch(switch_epoch=1, first=8, then=30), [8, 30, 30, 30], [8, 2, 2, 2]),
        (SwitchBatch(switch_epoch=0, first=8, then=30), [30] * 4, [2] * 4),
        (SwitchBatch(switch_epoch=9, first=None, then=1.0), [8] * 4, [8] * 4),
        (GrowingBatch(initial=10, factor=2, every=1, largest=30), [10, 20, 30, 30], [6, 3, 2, 2]),
    ],
    ids=str,
)
def test_regimes_that_vary(regime, sizes, updates):
    model = small(batch_regime=regime, max_epochs=4).fit(X, Y)
    assert model.history_[:, "batch_size"] == sizes
    assert model.history_[:, "train_batch_count"] == updates
    assert model.history_[:, "n_updates"] == np.cumsum(updates).tolist()
    assert model.n_updates_ == sum(updates)


@pytest.mark.parametrize(("steps", "proximal_lambda"), [(1, 0.1), (3, 0.1), (3, 0.0)])
def test_proximal_steps_are_updates(steps, proximal_lambda):
    model = small(proximal_lambda=proximal_lambda, proximal_steps=steps, batch_size=30).fit(X, Y)
    assert model.n_updates_ == 2 * 2 * steps


def test_proximal_with_one_step_is_plain_training():
    assert same_weights(small(proximal_lambda=0.5, proximal_steps=1).fit(X, Y), small().fit(X, Y))


@pytest.mark.parametrize("batch_size", [8, 25, 30, 45, -1])
@pytest.mark.parametrize("steps", [1, 3])
def test_regime_adaptation_makes_the_updates_of_the_base(batch_size, steps):
    """Exactly max_epochs x updates per epoch at the base batch size (60 rows: 8 batches of 8), last epoch cut short."""
    remedy = {} if steps == 1 else {"proximal_lambda": 0.0, "proximal_steps": steps}
    model = small(batch_size=batch_size, regime_adaptation=True, max_epochs=3, **remedy).fit(X, Y)
    assert model.n_updates_ == 3 * 8 * steps
    per_epoch = {8: 8, 25: 3, 30: 2, 45: 2, -1: 1}[batch_size]
    assert model.n_iter_ == 24 // per_epoch


def test_regime_adaptation_cuts_the_last_epoch():
    model = small(batch_size=25, regime_adaptation=True, max_epochs=1).fit(X, Y)
    assert model.history_[:, "n_updates"] == [3, 6, 8]
    model = small(batch_size=25, regime_adaptation=True, max_epochs=2, base_batch_size=10).fit(X, Y)
    assert model.n_updates_ == 12


def test_regime_adaptation_with_a_regime_that_varies():
    regime = SwitchBatch(switch_epoch=1, first=8, then=30)
    model = small(batch_regime=regime, regime_adaptation=True, max_epochs=2).fit(X, Y)
    assert model.n_updates_ == 16
    assert model.n_iter_ == 1 + 4


def test_regime_adaptation_counts_training_rows_only():
    """Of 60 rows 48 are trained on: SB is 8 of them, 6 batches."""
    model = small(batch_size=24, regime_adaptation=True, max_epochs=3, train_split=ValidSplit(5)).fit(X, Y)
    assert model.n_updates_ == 3 * 6


def test_regime_adaptation_warns_when_the_budget_ends_it():
    with pytest.warns(ConvergenceWarning, match="max_epochs=2"):
        small(batch_size=30, regime_adaptation=True, tol=1e-4).fit(X, Y)


def test_regime_adaptation_counts_patience_in_updates():
    """A net that cannot learn (learning rate 1e-30) stops after the updates that 2 epochs at the base have."""
    model = small(net=Mlp, optimizer=torch.optim.SGD, batch_size=30, regime_adaptation=True, max_epochs=50)
    model.set_params(lr=1e-30, tol=1e-4, n_iter_no_change=2).fit(X, Y)
    assert model.n_updates_ == 2 + 2 * 8  # the first epoch sets the best loss
    assert model.converged_


# -- learning rate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "factor"), [(None, 1), ("sqrt", 2), ("linear", 4)])
def test_lr_scaling(rule, factor):
    model = small(batch_size=32, lr_scaling=rule, optimizer=torch.optim.SGD).fit(X, Y)  # the base is 8
    assert model.history_[:, "lr"] == pytest.approx([0.01 * factor] * 2)


def test_lr_scaling_is_training_at_that_rate():
    scaled = small(batch_size=32, lr_scaling="linear", base_batch_size=16, optimizer=torch.optim.SGD).fit(X, Y)
    assert same_weights(scaled, small(batch_size=32, lr=0.02, optimizer=torch.optim.SGD).fit(X, Y))


def test_lr_scaling_follows_the_regime():
    regime = SwitchBatch(switch_epoch=2, first=8, then=32)
    model = small(batch_regime=regime, lr_scaling="sqrt", max_epochs=4).fit(X, Y)
    assert model.history_[:, "lr"] == pytest.approx([0.01, 0.01, 0.02, 0.02])


@pytest.mark.parametrize(
    ("policy", "shape"),
    [
        ({"policy": "StepLR", "step_size": 1, "gamma": 0.5}, [1, 0.5, 0.25, 0.125]),
        ({"policy": "LambdaLR", "lr_lambda": lambda epoch: 1 / (1 + epoch)}, [1, 1 / 2, 1 / 3, 1 / 4]),
    ],
    ids=["StepLR", "LambdaLR"],
)
def test_lr_scaling_beside_a_scheduler(policy, shape):
    """The factor of the batch size multiplies what the schedule says, whichever way the schedule computes it."""
    model = small(callbacks=[LRScheduler(**policy)], batch_size=32, lr_scaling="linear", max_epochs=4).fit(X, Y)
    assert model.history_[:, "lr"] == pytest.approx([0.04 * s for s in shape])
    regime = SwitchBatch(switch_epoch=2, first=8, then=32)
    model = small(callbacks=[LRScheduler(**policy)], batch_regime=regime, lr_scaling="linear", max_epochs=4).fit(X, Y)
    assert model.history_[:, "lr"] == pytest.approx([0.01 * s * f for s, f in zip(shape, [1, 1, 4, 4], strict=True)])


def test_nested_lr_of_the_optimizer():
    assert small(optimizer__lr=0.25).fit(X, Y).history_[:, "lr"] == [0.25, 0.25]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.LBFGS])
def test_any_optimizer(optimizer):
    model = small(optimizer=optimizer, lr=0.05, max_epochs=10, batch_size=-1, net=Mlp).fit(X, Y)
    assert model.history_[-1, "train_loss"] < model.history_[0, "train_loss"]
    assert model.n_updates_ == 10


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_all_epochs_silently_without_tol():
    assert small(lr=1e-30, max_epochs=15, n_iter_no_change=1).fit(X, Y).n_iter_ == 15


def test_max_epochs_reached_warns():
    with pytest.warns(ConvergenceWarning, match="still falling after max_epochs=3") as caught:
        model = small(tol=1e-4, max_epochs=3).fit(X, Y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert not model.converged_


def test_stops_when_the_loss_ceases_to_improve():
    model = small(net=Mlp, optimizer=torch.optim.SGD, lr=1e-30, tol=1e-4, n_iter_no_change=3, max_epochs=50).fit(X, Y)
    assert model.n_iter_ == 4
    assert model.converged_


def test_stopping_exactly_at_the_last_epoch_does_not_warn():
    model = small(net=Mlp, optimizer=torch.optim.SGD, lr=1e-30, tol=1e-4, n_iter_no_change=3, max_epochs=4).fit(X, Y)
    assert model.n_iter_ == 4
    assert model.converged_


@pytest.mark.parametrize("tol", [None, 1e-4])
def test_target_loss(tol):
    losses = small(max_epochs=20).fit(X, Y).history_[:, "train_loss"]
    target = losses[4]
    model = small(max_epochs=20, target_loss=target, tol=tol).fit(X, Y)
    first = next(i for i, loss in enumerate(losses) if loss <= target)
    assert model.n_iter_ == first + 1
    assert model.train_loss_ <= target
    assert model.converged_


def test_train_loss_is_without_the_penalty():
    """With a frozen-in penalty the recorded loss of the first epoch's first batch is that of plain training."""
    plain = small(batch_size=-1, max_epochs=1).fit(X, Y)
    assert small(batch_size=-1, max_epochs=1, proximal_lambda=1e6).fit(X, Y).train_loss_ == plain.train_loss_


# -- train split -------------------------------------------------------------------------------------------------------


def test_train_split():
    split = ValidSplit(5)
    model = small(train_split=split, max_epochs=3).fit(X, Y)
    assert model.train_split is split
    for row in model.history_:
        assert {"valid_loss", "valid_acc", "train_loss"} <= row.keys()
        assert row["n_updates"] == 6 * (1 + model.history_.index(row))  # 48 rows in batches of 8
        assert np.isfinite(row["valid_loss"])
        assert 0 <= row["valid_acc"] <= 1


def test_valid_loss_is_the_mean_over_the_rows_held_out():
    model = small(net=Mlp, train_split=ValidSplit(5), max_epochs=1).fit(X, Y)
    train, valid = ValidSplit(5)(Dataset(X, Y), Y)
    assert len(train) == 48
    proba = model.predict_proba(X[valid.indices])
    loss = -np.log(proba[np.arange(12), Y[valid.indices]]).mean()
    assert model.history_[-1, "valid_loss"] == pytest.approx(loss, rel=FLOAT32)
    assert model.history_[-1, "valid_acc"] == (proba.argmax(axis=1) == Y[valid.indices]).mean()


def test_rows_held_out_do_not_train():
    _, valid = ValidSplit(5)(Dataset(X, Y), Y)
    changed = X.copy()
    changed[valid.indices] = 100.0
    params = {"train_split": ValidSplit(5), "recompute_batch_norm": False}
    assert same_weights(small(**params).fit(X, Y), small(**params).fit(changed, Y))


def test_rows_held_out_do_not_enter_the_batch_norm_statistics():
    """Population statistics "of the training data": rows held out are not trained on."""
    _, valid = ValidSplit(5)(Dataset(X, Y), Y)
    changed = X.copy()
    changed[valid.indices] = 100.0
    assert same_weights(small(train_split=ValidSplit(5)).fit(X, Y), small(train_split=ValidSplit(5)).fit(changed, Y))
