"""Gradients of a batch from parts of it."""

import torch

from sklgap._typing import Aux, Batch, Buffers, GradFn, Params
from sklgap.regimes import split_rows


def accumulate(grad_fn: GradFn, max_rows: int) -> GradFn:
    """Return ``grad_fn`` evaluated in parts of at most ``max_rows`` rows, weighted by their shares."""

    def accumulated(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
        n_rows = len(batch.X)
        if n_rows <= max_rows:
            return grad_fn(params, buffers, batch)
        total: Params = {}
        losses, outputs = [], []
        for part in split_rows(n_rows, max_rows):
            gradients, aux = grad_fn(params, buffers, batch.rows(part))
            share = (part.stop - part.start) / n_rows
            for name, gradient in gradients.items():
                total[name] = gradient * share if name not in total else total[name].add_(gradient, alpha=share)
            losses.append(aux.loss * share)
            outputs.append(aux.y_pred)
            buffers = aux.buffers
        return total, Aux(torch.stack(losses).sum(), torch.cat(outputs), buffers)

    return accumulated
