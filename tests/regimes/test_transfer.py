import math
import re

import pytest
import torch

from sklgap.regimes import transfer_hyperparameters

ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}


@pytest.mark.parametrize(("batch", "new"), [(64, 256), (256, 64), (100, 100)])
def test_rules_of_sgd(batch, new):
    transfer = transfer_hyperparameters({"lr": 0.1, "momentum": 0.9}, "SGD", batch, new)
    k = new / batch
    assert transfer["linear"].values == {"lr": pytest.approx(0.1 * k), "momentum": 0.9, "weight_decay": 0.0}
    assert transfer["sqrt"].values["lr"] == pytest.approx(0.1 * math.sqrt(k))
    assert [rule.name for rule in transfer if rule.values is None] == ["sde", "half_life", "averaging_time"]


@pytest.mark.parametrize("k", [4, 0.25, 1])
def test_the_sde_rule_of_adam(k):
    values = transfer_hyperparameters(ADAM, "Adam", 64, int(64 * k))["sde"].values
    assert values["lr"] == pytest.approx(1e-3 * math.sqrt(k))
    assert values["betas"] == pytest.approx((1 - 0.1 * k, 1 - 0.001 * k))
    assert values["eps"] == pytest.approx(1e-8 / math.sqrt(k))
    assert values["weight_decay"] == 0


@pytest.mark.parametrize("rule", ["sqrt", "sde", "half_life", "averaging_time"])
def test_there_and_back_is_where_it_was(rule):
    start = {**ADAM, "weight_decay": 0.1}
    there = transfer_hyperparameters(start, "AdamW", 64, 256)[rule].values
    back = transfer_hyperparameters(there, "AdamW", 256, 64)[rule].values
    for name in start:
        assert back[name] == pytest.approx(start[name])


def test_the_half_life_in_samples_is_constant():
    for new in (1, 64, 4096):
        beta = transfer_hyperparameters(ADAM, torch.optim.Adam, 512, new)["half_life"].values["betas"][1]
        assert new * math.log(0.5) / math.log(beta) == pytest.approx(512 * math.log(0.5) / math.log(0.999))


def test_the_averaging_time_is_constant():
    transfer = transfer_hyperparameters({"lr": 1e-3, "weight_decay": 0.1}, "AdamW", 100, 400, n_samples=10_000)
    assert transfer.averaging_time == pytest.approx(100 / (1e-3 * 0.1 * 10_000))
    new = transfer["averaging_time"].values
    again = transfer_hyperparameters(new, "AdamW", 400, 400, n_samples=10_000)
    assert again.averaging_time == pytest.approx(transfer.averaging_time)
    assert "100 epochs" in str(transfer["averaging_time"])
    assert "weight_decay 0.2" in str(transfer["averaging_time"])  # beside lr x sqrt(k)
    in_samples = transfer_hyperparameters({"lr": 1e-3, "weight_decay": 0.1}, "AdamW", 100, 400)
    assert in_samples.averaging_time == pytest.approx(1e6)


@pytest.mark.parametrize(
    ("given", "optimizer", "rule", "reason"),
    [
        ({"lr": 0.1}, "Adam", "linear", "derived for SGD"),
        ({"lr": 0.1}, "SGD", "sde", "derived for Adam"),
        ({"lr": 0.1, "betas": (0.9, 0.99)}, "Adam", "sde", "beta1 would be -2.2, which is below 0.* ends at 10 times"),
        ({"lr": 0.1, "betas": (0.99, 0.9)}, "AdamW", "sde", "beta2 would be -2.2"),
        ({"lr": 0.1, "weight_decay": 0.1}, "Adam", "averaging_time", "decoupled"),
        ({"lr": 0.1, "weight_decay": 0}, "AdamW", "averaging_time", "weight_decay is 0"),
        ({"lr": 0.5, "weight_decay": 0.1}, "AdamW", "averaging_time", "lr x weight_decay would be 1.6"),
        ({"lr": 0.5}, "SGD", "half_life", "no beta2"),
    ],
)
def test_a_rule_that_does_not_apply_says_why(given, optimizer, rule, reason):
    found = transfer_hyperparameters(given, optimizer, 8, 256)[rule]
    assert found.values is None
    assert re.search(reason, found.reason)
    assert str(found) == f"{rule}: does not apply, because {found.reason}"


def test_beta_may_be_just_zero():
    assert transfer_hyperparameters(ADAM, "Adam", 10, 100)["sde"].values["betas"] == pytest.approx((0.0, 0.99))
    assert min(transfer_hyperparameters(ADAM, "Adam", 10, 100)["sde"].values["betas"]) == 0


def test_the_values_are_what_torch_takes():
    weight = torch.nn.Parameter(torch.ones(2))
    for name in ("SGD", "Adam", "AdamW"):
        for rule in transfer_hyperparameters({"lr": 1e-3}, name, 64, 512):
            if rule.values is not None:
                getattr(torch.optim, name)([weight], **rule.values)


def test_it_prints_a_line_a_rule_with_its_source():
    text = str(transfer_hyperparameters(ADAM, "Adam", 64, 256))
    assert text.splitlines()[0] == "Adam, batch size 64 -> 256"
    assert len(text.splitlines()) == 6
    assert "arXiv:2205.10287" in text
    with pytest.raises(KeyError, match="no_rule"):
        transfer_hyperparameters(ADAM, "Adam", 64, 256)["no_rule"]


@pytest.mark.parametrize(
    ("given", "optimizer", "sentence"),
    [
        ({}, "Adam", "^hyperparameters must be a dict with 'lr'"),
        ({"lr": 0}, "Adam", r"^hyperparameters\['lr'\] must be a number above 0"),
        ({"lr": 1, "betas": (0.9, 1.0)}, "Adam", r"^hyperparameters\['betas'\] must be two numbers"),
        ({"lr": 1, "eps": -1}, "Adam", r"^hyperparameters\['eps'\]"),
        ({"lr": 1, "weight_decay": -1}, "AdamW", r"^hyperparameters\['weight_decay'\]"),
        ({"lr": 1, "momentum": 1}, "SGD", r"^hyperparameters\['momentum'\]"),
        ({"lr": 1, "betas": (0.9, 0.9)}, "SGD", "^hyperparameters must be those of SGD .* got 'betas'"),
        ({"lr": 1}, "LBFGS", "^optimizer must be 'SGD', 'Adam' or 'AdamW'"),
        ({"lr": 1}, None, "^optimizer must be"),
    ],
)
def test_refusals(given, optimizer, sentence):
    with pytest.raises(ValueError, match=sentence):
        transfer_hyperparameters(given, optimizer, 8, 16)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match=r"^n_samples must be at least both batch sizes; got 10"):
        transfer_hyperparameters(ADAM, "Adam", 8, 16, n_samples=10)
    with pytest.raises(ValueError, match=r"^new_batch_size must be"):
        transfer_hyperparameters(ADAM, "Adam", 8, 0)
    with pytest.raises(ValueError, match=r"^batch_size must be"):
        transfer_hyperparameters(ADAM, "Adam", 1.5, 8)
