"""Warm-up and milestones through the estimator: the rate of every single update."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, LRScheduler

from sklgap.regimes import GrowingBatch, SwitchBatch, transfer_hyperparameters
from tests.tiny import blobs, same_weights, small

X, Y = blobs()  # 60 rows; the base is 8 of them, in 8 batches
LR = 0.01


class Rates(Callback):
    """Notes the rate of every update, as the optimiser uses it."""

    def __init__(self):
        self.rates = []

    def on_grad_computed(self, net, **kwargs):
        self.rates.append(net.optimizer_.param_groups[0]["lr"])


def rates(model):
    """The rates of the updates, in units of ``lr``."""
    recorder = next(callback for _, callback in model.net_.callbacks_ if isinstance(callback, Rates))
    return np.array(recorder.rates) / LR


def fitted(**params):
    return small(**{"callbacks": [Rates()], "lr": LR, **params}).fit(X, Y)


# -- warm-up -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "factor"), [("linear", 4), ("sqrt", 2)])
def test_warm_up_rises_update_by_update(rule, factor):
    """20 rows are 4 times the base of 5; 3 updates an epoch, 6 in the warm-up of 2 epochs."""
    params = {"batch_size": 20, "base_batch_size": 5, "lr_scaling": rule, "max_epochs": 4}
    model = fitted(**params, lr_warmup_epochs=2)
    line = [1 + (factor - 1) * i / 6 for i in range(6)]
    assert rates(model) == pytest.approx([*line, *[factor] * 6])
    assert model.history_[:, "lr"] == pytest.approx([LR * r for r in (line[2], line[5], factor, factor)])
    assert not same_weights(model, fitted(**params))


def test_warm_up_over_parts_of_an_epoch():
    model = fitted(batch_size=20, base_batch_size=5, lr_scaling="linear", lr_warmup_epochs=0.5)
    assert rates(model) == pytest.approx([1, 1 + 3 * 2 / 3, 4, 4, 4, 4])


def test_warm_up_is_training_with_these_rates():
    scaled = fitted(batch_size=20, base_batch_size=5, lr_scaling="linear", lr_warmup_epochs=2, max_epochs=4)
    schedule = LRScheduler("LambdaLR", lr_lambda=lambda i: 1 + 3 * i / 6 if i < 6 else 4, step_every="batch")
    other = small(batch_size=20, callbacks=[schedule], lr=LR, max_epochs=4).fit(X, Y)
    # The same rates but for the last digit.
    assert scaled.history_[:, "train_loss"] == pytest.approx(other.history_[:, "train_loss"], rel=1e-5)


def test_off_by_default_and_neutral_where_nothing_is_scaled():
    params = {"batch_size": 20, "lr_scaling": "linear"}
    assert same_weights(fitted(**params, lr_warmup_epochs=0, lr_decay=0.5), fitted(**params))
    model = fitted(lr_scaling="linear", lr_warmup_epochs=5)  # the base batch: its factor is 1
    assert same_weights(model, fitted())
    assert set(rates(model)) == {1}


def test_warm_up_of_a_regime_that_varies():
    """Each epoch goes towards its own scaled rate."""
    regime = SwitchBatch(switch_epoch=1, first=20, then=30)
    model = fitted(batch_regime=regime, base_batch_size=10, lr_scaling="linear", lr_warmup_epochs=3, max_epochs=4)
    expected = [1 + t / 3 for t in (0, 1 / 3, 2 / 3)]  # towards 2
    expected += [1 + 2 * t / 3 for t in (1, 1.5, 2, 2.5)]  # towards 3
    assert rates(model) == pytest.approx([*expected, 3, 3])
    growing = GrowingBatch(10, every=1, largest=40)
    model = fitted(batch_regime=growing, base_batch_size=10, lr_scaling="sqrt", lr_warmup_epochs=1.5, max_epochs=3)
    assert rates(model)[-4:] == pytest.approx([1 + (2**0.5 - 1) * (1 + 1 / 3) / 1.5, 2**0.5, 2, 2])


# -- milestones --------------------------------------------------------------------------------------------------------


def test_milestones_in_epochs():
    model = fitted(batch_size=20, lr_milestones=(1, 2.5), lr_decay=0.5, max_epochs=4)
    # 7.5 updates make 2.5 epochs.
    assert rates(model).tolist() == [1] * 3 + [0.5] * 5 + [0.25] * 4
    assert model.history_[:, "lr"] == [LR, LR / 2, LR / 4, LR / 4]


def test_milestones_are_the_scheduler_of_torch():
    schedule = LRScheduler("MultiStepLR", milestones=[2], gamma=0.1)
    other = small(callbacks=[schedule], max_epochs=4).fit(X, Y)
    assert same_weights(small(lr_milestones=[2], max_epochs=4).fit(X, Y), other)


@pytest.mark.parametrize("batch_size", [8, 30, 45, -1])
def test_milestones_with_regime_adaptation_are_counted_in_updates(batch_size):
    """Whatever the batch: 8 updates make an epoch of the base batch (Hoffer et al.)."""
    model = fitted(batch_size=batch_size, lr_milestones=(1, 2.5), lr_decay=0.5, max_epochs=4, regime_adaptation=True)
    assert rates(model).tolist() == [1] * 8 + [0.5] * 12 + [0.25] * 12


def test_warm_up_with_regime_adaptation_is_counted_in_updates():
    params = {"batch_size": 30, "lr_scaling": "sqrt", "base_batch_size": 10, "max_epochs": 3}
    model = fitted(**params, lr_warmup_epochs=2, regime_adaptation=True)
    assert rates(model) == pytest.approx([*(1 + (3**0.5 - 1) * i / 12 for i in range(12)), *[3**0.5] * 6])


def test_several_optimiser_steps_per_batch_have_one_rate():
    model = fitted(batch_size=20, lr_milestones=(1,), lr_decay=0.5, proximal_lambda=0.0, proximal_steps=2)
    assert rates(model).tolist() == [1] * 6 + [0.5] * 6
    params = {"proximal_lambda": 0.0, "proximal_steps": 2, "max_epochs": 2, "regime_adaptation": True}
    model = fitted(batch_size=30, lr_milestones=(1,), lr_decay=0.5, **params)
    assert rates(model).tolist() == [1] * 16 + [0.5] * 16


def test_beside_a_scheduler_all_factors_multiply():
    model = fitted(
        callbacks=[Rates(), LRScheduler("StepLR", step_size=1, gamma=0.5)],
        **{"batch_size": 20, "base_batch_size": 5, "lr_scaling": "linear", "lr_warmup_epochs": 1},
        **{"lr_milestones": (2,), "max_epochs": 3},
    )
    assert rates(model) == pytest.approx([1, 2, 3, 2, 2, 2, 0.1, 0.1, 0.1])


def test_with_the_users_own_loader():
    params = {"batch_size": 20, "base_batch_size": 5, "lr_scaling": "linear", "lr_warmup_epochs": 1}
    model = fitted(**params, lr_milestones=(1.5,), iterator_train__shuffle=True)
    assert rates(model) == pytest.approx([1, 2, 3, 4, 4, 0.4])


# -- an estimator like any other ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_resumed_training_is_the_uninterrupted_one(adapted, stored):
    params = {"batch_size": 30, "lr_scaling": "linear", "lr_warmup_epochs": 3, "lr_milestones": (2.5, 4)}
    params |= {"regime_adaptation": adapted, "recompute_batch_norm": False}
    whole = fitted(**params, max_epochs=5)
    model = fitted(**params, max_epochs=2, warm_start=True)
    if stored:
        model = pickle.loads(pickle.dumps(model))
    model.set_params(max_epochs=3).fit(X, Y)
    assert same_weights(model, whole)
    assert model.history_[:, "lr"] == whole.history_[:, "lr"]
    assert rates(model).tolist() == rates(whole).tolist()


def test_a_warm_start_takes_a_changed_schedule():
    model = fitted(batch_size=20, warm_start=True)
    model.set_params(lr_milestones=(3,), lr_decay=0.5).fit(X, Y)
    assert rates(model).tolist() == [1] * 9 + [0.5] * 3


def test_any_optimizer():
    model = fitted(optimizer=torch.optim.LBFGS, batch_size=-1, lr_milestones=(1,), max_epochs=2)
    assert set(rates(model)) == {1, 0.1}


def test_clone_and_grid_search():
    grid = {"lr_warmup_epochs": [0, 1], "lr_milestones": [(), (1,)], "lr_decay": [0.5]}
    search = GridSearchCV(small(lr_scaling="sqrt", batch_size=20), grid, cv=2, error_score="raise").fit(X, Y)
    assert len(search.cv_results_["params"]) == 4
    assert clone(search.best_estimator_).lr_milestones == search.best_params_["lr_milestones"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr_warmup_epochs": -1}, "lr_warmup_epochs must be a number of at least 0; got -1"),
        ({"lr_warmup_epochs": 5}, "lr_warmup_epochs must be 0 with lr_scaling=None"),
        ({"lr_milestones": (3, 2)}, "lr_milestones must be increasing numbers of epochs above 0"),
        ({"lr_decay": 2}, r"lr_decay must be a number in \(0, 1\]; got 2"),
    ],
)
def test_bad_parameters_are_found_by_fit(params, message):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(X, Y)


# -- the square root scaling rule of Adam ------------------------------------------------------------------------------

SDE = {"batch_size": 20, "base_batch_size": 5, "lr_scaling": "sde", "max_epochs": 3}


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_sde_is_training_with_the_moments_of_the_larger_batch(optimizer):
    """Malladi et al. (2022): lr sqrt(k), 1 - k (1 - beta), eps / sqrt(k), here with k = 4."""
    given = {"optimizer": optimizer, "lr": 0.01, "optimizer__betas": (0.9, 0.99), "optimizer__eps": 1e-3}
    scaled = small(**SDE, **given).fit(X, Y)
    by_hand = {**given, "lr": 0.02, "optimizer__betas": (1 - 4 * (1 - 0.9), 1 - 4 * (1 - 0.99)), "optimizer__eps": 5e-4}
    plain = small(batch_size=20, max_epochs=3, **by_hand).fit(X, Y)
    assert same_weights(scaled, plain)
    assert scaled.history_[:, "lr"] == pytest.approx([0.02] * 3)


def test_sde_agrees_with_what_transfer_hyperparameters_says():
    given = {"lr": 0.004, "betas": (0.8, 0.97), "eps": 1e-4}
    rule = transfer_hyperparameters(given, "Adam", 5, 20)["sde"].values
    scaled = small(**SDE, lr=0.004, optimizer__betas=(0.8, 0.97), optimizer__eps=1e-4).fit(X, Y)
    nested = {f"optimizer__{name}": rule[name] for name in ("betas", "eps")}
    assert same_weights(scaled, small(batch_size=20, max_epochs=3, lr=rule["lr"], **nested).fit(X, Y))


def test_sde_leaves_the_groups_of_the_optimizer_as_they_are():
    groups = [("*.bias", {"betas": (0.85, 0.95)})]
    model = small(**SDE, optimizer__param_groups=groups).fit(X, Y)
    assert {group["betas"] for group in model.net_.optimizer_.param_groups} == {(0.85, 0.95), (0.9, 0.999)}
    assert {group["eps"] for group in model.net_.optimizer_.param_groups} == {1e-8}


def test_sde_at_the_base_batch_size_is_plain_training():
    base = {"batch_size": 10, "base_batch_size": 10, "max_epochs": 2}
    assert same_weights(small(lr_scaling="sde", **base).fit(X, Y), small(**base).fit(X, Y))


def test_sde_up_to_where_beta_is_zero():
    model = small(**{**SDE, "batch_size": 10, "base_batch_size": 1, "max_epochs": 1}).fit(X, Y)  # 1 - 10 (1 - 0.9) = 0
    assert np.isfinite(model.train_loss_)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"batch_size": 11, "base_batch_size": 1}, "batch_size must be at most 10 with lr_scaling='sde'.*beta1=0.9"),
        ({"optimizer__betas": (0.99, 0.6)}, "batch_size must be at most 12.*beta2=0.6"),
        ({"optimizer": torch.optim.SGD}, "optimizer must be Adam or AdamW with lr_scaling='sde'; got SGD"),
        ({"optimizer": torch.optim.NAdam}, "got NAdam"),
        ({"batch_size": None, "batch_regime": SwitchBatch(switch_epoch=1, first=5, then=20)}, "must be constant"),
    ],
)
def test_sde_is_refused_where_it_does_not_hold(params, sentence):
    with pytest.raises(ValueError, match=sentence):
        small(**{**SDE, **params}).fit(X, Y)
