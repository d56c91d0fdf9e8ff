import pytest
import torch
from sklearn.base import clone

from sklgap._typing import Aux, Batch
from sklgap.objective._autodiff import value_and_grad
from sklgap.remedies import Proximal, Remedy
from tests.cases import DOUBLE
from tests.tiny import Mlp, blobs, small


def _loss_fn(params, buffers, batch):
    loss = (params["a"].square() * batch.X).sum() + params["b"]
    return loss, Aux(loss.detach(), batch.X, buffers)


def _params():
    return {
        "a": torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True),
        "b": torch.tensor(3.0, dtype=torch.float64, requires_grad=True),
    }


BATCH = Batch(torch.tensor([5.0, 7.0], dtype=torch.float64), torch.zeros(2))


def test_penalty_and_gradient_in_closed_form():
    remedy, params = Proximal(0.5), _params()
    anchor = remedy.begin_batch(params, torch.Generator())
    loss_fn = remedy.transform_loss(_loss_fn, anchor)
    moved = {name: (p + 2).detach().requires_grad_() for name, p in params.items()}
    loss, aux = loss_fn(moved, {}, BATCH)
    clean = 5 * 9 + 7 * 0 + 5
    assert aux.loss == clean
    assert loss == clean + 0.5 / 2 * (4 + 4 + 4)
    gradients, _ = value_and_grad(loss_fn)(moved, {}, BATCH)
    torch.testing.assert_close(gradients["a"].tolist(), [2 * 5 * 3.0 + 0.5 * 2, 0.5 * 2], **DOUBLE)
    torch.testing.assert_close(gradients["b"].item(), 1 + 0.5 * 2, **DOUBLE)


def test_at_the_anchor_the_penalty_vanishes():
    remedy, params = Proximal(100.0), _params()
    loss_fn = remedy.transform_loss(_loss_fn, remedy.begin_batch(params, torch.Generator()))
    gradients, _ = value_and_grad(loss_fn)(params, {}, BATCH)
    expected, _ = value_and_grad(_loss_fn)(params, {}, BATCH)
    assert {n: g.tolist() for n, g in gradients.items()} == {n: g.tolist() for n, g in expected.items()}


def test_the_anchor_does_not_follow_the_weights():
    params = _params()
    anchor = Proximal().begin_batch(params, torch.Generator())
    with torch.no_grad():
        params["a"].add_(1)
    assert anchor["a"].tolist() == [1, -2]
    assert not anchor["a"].requires_grad


@pytest.mark.parametrize("remedy", [Proximal(0.0), Proximal(0), Proximal(0.0, inner_steps=1)])
def test_without_a_penalty_the_loss_function_is_the_same_object(remedy):
    assert remedy.transform_loss(_loss_fn, remedy.begin_batch(_params(), torch.Generator())) is _loss_fn


class ThreeSteps(Remedy):
    """Uses each batch three times and changes nothing."""

    inner_steps = 3


def test_one_inner_step_pulls_beside_a_remedy_with_more():
    """The batch is used three times then: from the second time on the penalty counts."""

    def distance(proximal_lambda):
        remedies = [Proximal(proximal_lambda, inner_steps=1), ThreeSteps()]
        model = small(net=Mlp, optimizer=torch.optim.SGD, lr=0.005, remedies=remedies).fit(*blobs())
        assert model.n_updates_ == 3 * 8 * 2
        return model.history_[-1, "weight_distance"]

    # Each step undoes half (0.005 * 100) of what the batch had moved: 1 + 1/2 + 1/4 instead of 3 steps.
    assert distance(100.0) < 0.8 * distance(0.0)


def test_defaults_are_the_papers():
    assert Proximal().get_params() == {"proximal_lambda": 1e-3, "inner_steps": 3}
    assert clone(Proximal(0.1)).set_params(inner_steps=5).get_params() == {"proximal_lambda": 0.1, "inner_steps": 5}
    Proximal().check()
    Proximal(0, 1).check()


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), "1", None, True])
def test_bad_lambda(value):
    with pytest.raises(ValueError, match="proximal_lambda must be None or a number of at least 0; got "):
        Proximal(value).check()


@pytest.mark.parametrize("steps", [0, -1, 1.5, "3", None, True])
def test_bad_steps(steps):
    with pytest.raises(ValueError, match="proximal_steps must be an integer of at least 1; got "):
        Proximal(0.1, steps).check()
