"""The single training step that every path runs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sklgap._typing import Aux, Batch, Buffers, GradFn, LossFn, Params
from sklgap.objective._autodiff import value_and_grad
from sklgap.remedies import Remedy, compose
from sklgap.training._batches import split_rows


class TrainStep:
    """Compose loss, remedies and optimiser into one update on one batch.

    Parameters
    ----------
    loss_fn : callable
        (params, buffers, batch) -> (loss, Aux), from ``make_loss_fn`` with ``own_params=params``.
    params : dict of tensors
        The trained parameters themselves; the optimiser must hold the same tensors.
    buffers : dict of tensors
        The module's buffers; they are those of the unmoved weights after the step, whatever the remedies evaluate.
    optimizer : torch.optim.Optimizer
        Any of torch's, also those that call their closure several times.
    remedies : sequence of Remedy
        Applied in order; see `sklgap.remedies.compose`.
    rng : torch.Generator, optional
        On the CPU; remedies draw from it.
    micro_batch_size : int, optional
        Largest number of rows evaluated at once. The gradient function that remedies transform is that of the whole
        batch, exactly so without batch norm (which sees micro-batches) and class weights.
    on_grad : callable, optional
        Called with the batch whenever ``.grad`` of the parameters has been filled, before the optimiser uses it.

    Notes
    -----
    With no remedy this is the plain torch training step, bit for bit.
    """

    def __init__(
        self,
        loss_fn: LossFn,
        params: Params,
        buffers: Buffers,
        optimizer: torch.optim.Optimizer,
        remedies: Sequence[Remedy] = (),
        *,
        rng: torch.Generator | None = None,
        micro_batch_size: int | None = None,
        on_grad: Callable[[Batch], None] | None = None,
    ) -> None:
        self.loss_fn = loss_fn
        self.params = params
        self.buffers = buffers
        self.optimizer = optimizer
        self.remedies = tuple(remedies)
        self.rng = rng or torch.Generator()
        self.micro_batch_size = micro_batch_size
        self.on_grad = on_grad
        self.inner_steps = max((remedy.inner_steps for remedy in self.remedies), default=1)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Update the parameters on one batch.

        Returns
        -------
        dict
            ``loss``, the clean loss before the update as a 0-d tensor, and ``y_pred``, the outputs of the whole batch:
            skorch's contract for a training step.
        """
        for remedy in self.remedies:
            batch = remedy.transform_batch(batch, self.rng)
        grad_fn = compose(self.loss_fn, self.remedies, self.params, self._differentiate)
        first: list[Aux] = []

        def closure() -> Tensor:
            gradients, aux = grad_fn(self.params, self.buffers, batch)
            first.append(aux)
            for name, parameter in self.params.items():
                parameter.grad = gradients.get(name)
            self._keep_buffers(aux.buffers)
            if self.on_grad is not None:
                self.on_grad(batch)
            return aux.loss

        for _ in range(self.inner_steps):
            self.optimizer.step(closure)  # type: ignore[arg-type] # torch's stub asks for a float; 0-d tensors sync less
            del first[1:]
        return {"loss": first[0].loss, "y_pred": first[0].y_pred}

    def _differentiate(self, loss_fn: LossFn) -> GradFn:
        grad_fn = value_and_grad(loss_fn)
        return grad_fn if self.micro_batch_size is None else accumulate(grad_fn, self.micro_batch_size)

    def _keep_buffers(self, buffers: Buffers) -> None:
        if buffers is not self.buffers:
            for name, buffer in self.buffers.items():
                buffer.copy_(buffers[name])


def accumulate(grad_fn: GradFn, micro_batch_size: int) -> GradFn:
    """Return ``grad_fn`` evaluated in parts of at most ``micro_batch_size`` rows, weighted by their shares."""

    def accumulated(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
        n_rows = len(batch.X)
        if n_rows <= micro_batch_size:
            return grad_fn(params, buffers, batch)
        total: Params = {}
        losses, outputs = [], []
        for part in split_rows(n_rows, micro_batch_size):
            weight = None if batch.weight is None else batch.weight[part]
            gradients, aux = grad_fn(params, buffers, Batch(batch.X[part], batch.y[part], weight))
            share = (part.stop - part.start) / n_rows
            for name, gradient in gradients.items():
                total[name] = gradient * share if name not in total else total[name].add_(gradient, alpha=share)
            losses.append(aux.loss * share)
            outputs.append(aux.y_pred)
            buffers = aux.buffers
        return total, Aux(torch.stack(losses).sum(), torch.cat(outputs), buffers)

    return accumulated
