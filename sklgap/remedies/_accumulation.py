"""The gradient of a batch, computed from parts of the batch."""

import torch
from torch import Tensor

from sklgap._typing import Aux, Batch, Buffers, GradFn, Params
from sklgap.regimes import split_rows


def accumulate(grad_fn: GradFn, max_rows: int) -> GradFn:
    """Return ``grad_fn`` evaluated in parts of a batch, weighted by the weights of their samples.

    Class weights, ignored classes and sample weights make the mean loss a ratio of sums; see ``RowLoss``.

    Parameters
    ----------
    grad_fn : callable
        Function (params, buffers, batch) -> (gradients, Aux).
    max_rows : int
        Largest number of samples of a part.

    Returns
    -------
    callable
        Function (params, buffers, batch) -> (gradients, Aux). For a batch of at most ``max_rows`` samples it calls
        ``grad_fn`` once.
    """

    def accumulated(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
        n_rows = len(batch.X)
        if n_rows <= max_rows:
            return grad_fn(params, buffers, batch)
        total: Params = {}
        auxs: list[Aux] = []
        whole: float | Tensor = 0.0
        for part in split_rows(n_rows, max_rows):
            gradients, aux = grad_fn(params, buffers, batch.rows(part))
            mass = aux.mass
            for name, gradient in gradients.items():
                scaled = gradient * mass
                total[name] = scaled if name not in total else total[name].add_(scaled)
            whole = whole + mass
            auxs.append(aux)
            buffers = aux.buffers
        share = 1 / _not_zero(whole)
        return {name: gradient.mul_(share) for name, gradient in total.items()}, Aux(
            torch.stack([aux.loss * aux.mass for aux in auxs]).sum() * share,
            torch.cat([aux.y_pred for aux in auxs]),
            buffers,
            None if auxs[0].weights is None else torch.cat([w for aux in auxs if (w := aux.weights) is not None]),
        )

    return accumulated


def _not_zero(mass: float | Tensor) -> float | Tensor:
    """Return the mass, or a tiny number if no sample counts, so that the gradient is zero and not NaN."""
    return mass.clamp_min(torch.finfo(mass.dtype).tiny) if isinstance(mass, Tensor) else mass
