"""Tools for your own training loop: gradient noise, edge of stability, batch-size schedules, gradient accumulation.

Four lines in a training loop measure which batch size is useful for speed:

>>> import torch
>>> from sklgap.monitor import BatchSizeMonitor
>>> net, loss = torch.nn.Linear(3, 1), torch.nn.MSELoss()
>>> optimizer = torch.optim.Adam(net.parameters())
>>> monitor = BatchSizeMonitor(net, loss)
>>> for X in torch.randn(50, 64, 3):
...     y = X.sum(dim=1, keepdim=True)
...     monitor.step((X, y))
...     optimizer.zero_grad()
...     loss(net(X), y).backward()
...     optimizer.step()
>>> text = monitor.verdict()

`StabilityMonitor` measures whether the training is at the edge of stability. `check_accumulation` checks whether
gradient accumulation gives the gradient of the whole batch.

With Lightning::

    from sklgap.monitor.lightning import BatchSizeCallback

    trainer = L.Trainer(accumulate_grad_batches=4, callbacks=[BatchSizeCallback()])

With the ``Trainer`` of Hugging Face::

    from sklgap.monitor.transformers import BatchSizeCallback

    trainer = Trainer(model, args, train_dataset=dataset)
    trainer.add_callback(BatchSizeCallback(trainer))

With skorch, and with `sklgap.LBGapClassifier`::

    from sklgap.monitor.skorch import BatchSizeCallback

    net = NeuralNetClassifier(module, callbacks=[BatchSizeCallback()])

With ``DistributedDataParallel``, pass the wrapped module to `BatchSizeMonitor`. In each process, put ``with
monitor.accumulate(n_samples):`` around ``backward``, then call ``monitor.step()``. The gradients of the processes are
the parts, so nothing is computed twice.
"""

from sklgap.monitor._accumulation import AccumulationCheck, check_accumulation
from sklgap.monitor._noise import BatchSizeMonitor
from sklgap.monitor._stability import StabilityMonitor
from sklgap.regimes import BatchSizeSampler

__all__ = ["AccumulationCheck", "BatchSizeMonitor", "BatchSizeSampler", "StabilityMonitor", "check_accumulation"]
