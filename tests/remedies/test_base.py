import torch
from sklearn.base import clone

from sklgap._typing import Aux, Batch
from sklgap.remedies import Remedy, compose


class Scaled(Remedy):
    """Multiply the loss, then the gradient, and write down who was called when."""

    def __init__(self, loss_factor=1.0, grad_factor=1.0):
        self.loss_factor = loss_factor
        self.grad_factor = grad_factor

    def begin_batch(self, params, rng):
        return {"start": params["w"].detach().clone()}

    def transform_loss(self, loss_fn, state):
        def scaled(params, buffers, batch):
            loss, aux = loss_fn(params, buffers, batch)
            return self.loss_factor * loss + (params["w"] * state["start"]).sum(), aux

        return scaled

    def transform_grad(self, grad_fn, state):
        def scaled(params, buffers, batch):
            gradients, aux = grad_fn(params, buffers, batch)
            return {name: self.grad_factor * g + state["start"] for name, g in gradients.items()}, aux

        return scaled


def _loss_fn(params, buffers, batch):
    loss = (params["w"] * batch.X).sum()
    return loss, Aux(loss.detach(), batch.X, buffers)


def _start():
    return {"w": torch.tensor([2.0, 3.0], requires_grad=True)}, Batch(torch.tensor([5.0, 7.0]), torch.zeros(2))


def test_every_hook_is_the_identity_by_default():
    remedy, batch, rng = Remedy(), _start()[1], torch.Generator()
    state = rng.get_state()
    assert remedy.inner_steps == 1
    assert remedy.check() is None
    assert remedy.transform_batch(batch, rng) is batch
    assert remedy.begin_batch({}, torch.Generator()) is None
    assert remedy.transform_loss(_loss_fn, None) is _loss_fn
    assert remedy.transform_grad(_loss_fn, None) is _loss_fn
    assert torch.equal(rng.get_state(), state)


def test_compose_without_remedies_is_the_gradient():
    params, batch = _start()
    gradients, aux = compose(_loss_fn, (), params)(params, {}, batch)
    assert gradients["w"].tolist() == [5, 7]
    assert aux.loss == 2 * 5 + 3 * 7


def test_compose_goes_in_order_the_last_is_the_outermost():
    params, batch = _start()
    first, second = Scaled(10.0, 0.5), Scaled(100.0, 4.0)
    gradients, aux = compose(_loss_fn, (first, second), params)(params, {}, batch)
    start = torch.tensor([2.0, 3.0])
    of_the_loss = 100 * (10 * batch.X + start) + start
    assert torch.equal(gradients["w"], 4 * (0.5 * of_the_loss + start) + start)
    assert aux.loss == 2 * 5 + 3 * 7


def test_the_state_is_that_of_the_start_of_the_batch():
    params, batch = _start()
    grad_fn = compose(_loss_fn, (Scaled(),), params)
    with torch.no_grad():
        params["w"].add_(100)
    assert grad_fn(params, {}, batch)[0]["w"].tolist() == [5 + 2 + 2, 7 + 3 + 3]


def test_clone_and_set_params():
    remedy = clone(Scaled(2.0)).set_params(grad_factor=3.0)
    assert remedy.get_params() == {"loss_factor": 2.0, "grad_factor": 3.0}
