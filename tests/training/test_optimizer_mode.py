"""Schedule-free optimisers: updates at one set of weights, everything else at the average."""

import pickle
from types import SimpleNamespace

import pytest
import torch
from skorch.callbacks import Callback, Checkpoint
from skorch.dataset import ValidSplit
from torch import nn

from sklgap import TrainingRecorder, WeightAveraging
from sklgap.inspection import recorded
from sklgap.remedies import SAM
from sklgap.training._optimizer_mode import evaluating, has_modes, updating
from tests.ids import plain
from tests.tiny import Mlp, blobs, interrupting_at, same_weights, small, weights

X, Y = blobs()


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free SGD, after the paper: y = (1 - beta) z + beta x, x the average of z."""

    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta, "train_mode": False, "k": 0})

    def _move(self, weight, training):
        for group in self.param_groups:
            if group["train_mode"] != training:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.data.lerp_(self.state[p]["z"], weight(group["beta"]))
                group["train_mode"] = training

    def train(self):
        self._move(lambda beta: 1 - beta, True)

    def eval(self):
        self._move(lambda beta: 1 - 1 / beta, False)

    def step(self, closure=None):
        if not all(group["train_mode"] for group in self.param_groups):
            raise RuntimeError("not in train mode")
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            group["k"] += 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                state, beta = self.state[p], group["beta"]
                z = state.setdefault("z", p.detach().clone())
                average = p.data.lerp(z, 1 - 1 / beta)
                z.sub_(p.grad, alpha=group["lr"])
                average.lerp_(z, 1 / group["k"])
                p.data.copy_(average.lerp(z, 1 - beta))
        return loss


def averages(n_epochs, batch_size=60):
    """Train by a plain loop over the whole data; return the averaged weights."""
    torch.manual_seed(0)
    module = Mlp()
    optimizer = ScheduleFree(module.parameters())
    rows, target = torch.from_numpy(X), torch.from_numpy(Y)
    optimizer.train()
    for _ in range(n_epochs):

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(rows), target)
            loss.backward()
            return loss

        optimizer.step(closure)
    optimizer.eval()
    return module.state_dict()


def schedule_free(**params):
    torch.manual_seed(0)
    defaults = {"net": Mlp(), "optimizer": ScheduleFree, "lr": 0.1, "batch_size": -1, "max_epochs": 4}
    return small(**{**defaults, **params})


def test_the_fit_ends_with_the_average():
    model = schedule_free().fit(X, Y)
    for name, value in averages(4).items():
        torch.testing.assert_close(weights(model)[name], value, rtol=1e-5, atol=1e-6)


class Modes(Callback):
    """Notes in which mode the optimiser is, wherever weights may be read or saved."""

    def __init__(self):
        self.seen = set()

    def note(self, net):
        self.seen.add(any(group["train_mode"] for group in net.optimizer_.param_groups))

    def on_epoch_begin(self, net, **kwargs):
        self.note(net)

    def on_batch_end(self, net, training=False, **kwargs):
        if not training:
            self.note(net)

    def on_epoch_end(self, net, **kwargs):
        self.note(net)

    def on_train_end(self, net, **kwargs):
        self.note(net)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"train_split": ValidSplit(4)},
        {"remedies": (SAM(),), "batch_size": 20},
        {"iterator_train__shuffle": True, "batch_size": 20},
        {"proximal_lambda": 0.1},
    ],
    ids=plain,
)
def test_evaluated_in_evaluation_mode_only(params):
    model = schedule_free(callbacks=[("modes", Modes())], **params).fit(X, Y)
    assert dict(model.net_.callbacks_)["modes"].seen == {False}


def test_validation_is_that_of_the_average():
    split = ValidSplit(((range(40), range(40, 60)),))
    model = schedule_free(train_split=split, net=Mlp).fit(X, Y)
    assert model.history_[-1, "valid_acc"] == pytest.approx(model.score(X[40:], Y[40:]))


def test_checkpoints_and_averages_are_of_the_average(tmp_path):
    callbacks = [Checkpoint(dirname=str(tmp_path), monitor=None), ("mean", WeightAveraging(start=4))]
    model = schedule_free(callbacks=callbacks).fit(X, Y)
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    for name, value in averages(4).items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(weights(model)[name], value, rtol=1e-5, atol=1e-6)


def test_measured_between_updates_at_the_average_without_disturbing_the_training():
    recorder = TrainingRecorder({"train": (X, Y)}, at_updates=[2, 4], every=None)
    model = schedule_free(callbacks=[("recorder", recorder)], batch_size=20).fit(X, Y)
    assert same_weights(model, schedule_free(batch_size=20).fit(X, Y))
    whole = schedule_free(callbacks=[("recorder", recorder)]).fit(X, Y)  # an epoch is an update
    ends = [schedule_free(max_epochs=n, callbacks=[("recorder", TrainingRecorder({"train": (X, Y)}))]) for n in (2, 4)]
    ends = [recorded(model.fit(X, Y))["train_loss"][-1] for model in ends]
    assert recorded(whole)["train_loss"] == pytest.approx(ends, rel=1e-5)


def test_a_warm_start_and_a_pickle_go_on():
    model = schedule_free(max_epochs=2, warm_start=True).fit(X, Y)
    again = pickle.loads(pickle.dumps(model)).fit(X, Y)
    for name, value in averages(4).items():
        torch.testing.assert_close(weights(again)[name], value, rtol=1e-5, atol=1e-6)


def test_ctrl_c_leaves_the_average():
    model = schedule_free(net=interrupting_at(7), batch_size=20)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert not any(group["train_mode"] for group in model.net_.optimizer_.param_groups)


def test_other_optimisers_have_no_modes():
    optimizer = torch.optim.SGD(Mlp().parameters(), lr=0.1)
    assert not has_modes(optimizer)
    net = SimpleNamespace(optimizer_=optimizer, module_=Mlp())
    with updating(net), evaluating(net):
        assert not hasattr(net, "updating_")
