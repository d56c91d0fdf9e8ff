"""The training step that every path runs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sklgap._typing import Aux, Batch, Buffers, GradFn, LossFn, Params
from sklgap.objective._autodiff import value_and_grad
from sklgap.objective._loss import ModuleLoss
from sklgap.objective._trial import check_mean_of_samples
from sklgap.remedies import Remedy, accumulate, compose
from sklgap.remedies._check import check_line_search, check_parts


class TrainStep:
    """Combine loss, remedies and optimiser into one update on one batch.

    Parameters
    ----------
    loss_fn : callable
        A ``ModuleLoss`` with ``own_params=params``.
    params : dict of tensors
        The trained parameters themselves. The optimiser must hold the same tensors.
    optimizer : torch.optim.Optimizer
        Any optimiser of torch, also one that calls its closure several times.
    remedies : sequence of Remedy
        The remedies in their order; see `sklgap.remedies.compose`.
    rng : torch.Generator, optional
        Generator on the CPU for the draws of the remedies.
    micro_batch_size : int, optional
        Largest number of samples evaluated at once. The remedies transform the gradient function of the whole batch.
        Without batch norm this is exact; batch norm uses the statistics of the micro-batches.
    spread : callable, optional
        Function that turns a gradient function into one that evaluates a batch in several processes; see ``share_out``.
    on_grad : callable, optional
        Function that is called with the batch when ``.grad`` of the parameters is filled, before the optimiser uses it.

    Notes
    -----
    Without remedies this is the plain torch training step, bit for bit.
    """

    def __init__(
        self,
        loss_fn: ModuleLoss,
        params: Params,
        optimizer: torch.optim.Optimizer,
        remedies: Sequence[Remedy] = (),
        *,
        rng: torch.Generator | None = None,
        micro_batch_size: int | None = None,
        spread: Callable[[GradFn], GradFn] | None = None,
        on_grad: Callable[[Batch], None] | None = None,
    ) -> None:
        check_parts(remedies, micro_batch_size, spread is not None)
        check_line_search(remedies, optimizer)
        self.loss_fn = loss_fn
        self.params = params
        self.optimizer = optimizer
        self.remedies = tuple(remedies)
        self.rng = rng or torch.Generator()
        self.micro_batch_size = micro_batch_size
        self.spread = spread
        self.on_grad = on_grad
        self._checked = False
        self.inner_steps = max((remedy.inner_steps for remedy in self.remedies), default=1)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Update the parameters on one batch.

        Returns
        -------
        dict
            ``loss``, the clean loss before the update as a 0-d tensor, and ``y_pred``, the outputs for the whole batch.
            This is skorch's contract for a training step. If a remedy has added samples, the outputs are those of the
            given samples, which come first. If samples have different weights, ``mass`` is the sum of the weights.
        """
        n_given = len(batch.X)
        batch, grad_fn = self._transform(batch, self.rng)
        first: list[Aux] = []

        def closure() -> Tensor:
            buffers = self.loss_fn.buffers()
            gradients, aux = grad_fn(self.params, buffers, batch)
            self._check_parts(batch, aux)
            first.append(aux)
            for name, parameter in self.params.items():
                parameter.grad = _in_order_of(parameter, gradients.get(name))
            if buffers:
                self._keep_buffers(aux.buffers)
            if self.on_grad is not None:
                self.on_grad(batch)
            return aux.loss

        for _ in range(self.inner_steps):
            self.optimizer.step(closure)  # type: ignore[arg-type] # torch's stub asks for a float; 0-d tensors sync less
            del first[1:]
        y_pred = first[0].y_pred
        result = {"loss": first[0].loss, "y_pred": y_pred if len(y_pred) <= n_given else y_pred[:n_given]}
        return result if first[0].weights is None else {**result, "mass": first[0].weights.sum()}

    def gradient(self, batch: Batch, rng: torch.Generator) -> Params:
        """Return the gradient of the first update on the batch, without changing anything.

        Parameters
        ----------
        batch : Batch
            The samples.
        rng : torch.Generator
            Generator on the CPU for the draws of the remedies.
        """
        batch, grad_fn = self._transform(batch, rng)
        # This dict is not the module's own, so batch norm does not change the module's buffers.
        return grad_fn(dict(self.params), self.loss_fn.buffers(), batch)[0]

    def _transform(self, batch: Batch, rng: torch.Generator) -> tuple[Batch, GradFn]:
        """Return the batch and its gradient function after the remedies have transformed them."""
        for remedy in self.remedies:
            batch = remedy.transform_batch(batch, rng)
        return batch, compose(self.loss_fn, self.remedies, self.params, self._differentiate, rng)

    def _differentiate(self, loss_fn: LossFn) -> GradFn:
        grad_fn = value_and_grad(loss_fn, self.loss_fn.standing)
        if self.micro_batch_size is not None:
            grad_fn = accumulate(grad_fn, self.micro_batch_size)
        return grad_fn if self.spread is None else self.spread(grad_fn)

    def _check_parts(self, batch: Batch, aux: Aux) -> None:
        """Raise a ValueError if the first batch is evaluated in parts and its loss is not the mean of theirs."""
        if self._checked:
            return
        self._checked = True
        if self.micro_batch_size is not None and len(batch.X) > self.micro_batch_size:
            check_mean_of_samples(self.loss_fn.loss, aux.y_pred, batch.y, f"micro_batch_size={self.micro_batch_size}")
        elif self.spread is not None:
            check_mean_of_samples(self.loss_fn.loss, aux.y_pred, batch.y, "data_parallel=True")

    def _keep_buffers(self, buffers: Buffers) -> None:
        """Set the buffers of the module to those of the unmoved weights, whatever the remedies evaluated later."""
        for name, buffer in self.loss_fn.buffers().items():
            if buffers[name] is not buffer:
                buffer.copy_(buffers[name])


def _in_order_of(parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """Return the gradient in the memory order of the parameter, as ``backward`` does.

    Fused optimisers read both in memory order. With different orders they would update the wrong coordinates.
    """
    if gradient is None or gradient.layout != torch.strided or gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
