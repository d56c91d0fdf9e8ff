r"""The diagonal and the trace of the Fisher matrix of a model's own distribution over classes, from random vectors.

.. math:: F = \frac{1}{n} \sum_{i=1}^n E_{y \sim p(\cdot | x_i)} \nabla \log p(y | x_i) \, \nabla \log p(y | x_i)^T
    = \frac{1}{n} \sum_{i=1}^n J_i^T (\mathrm{diag}(p_i) - p_i p_i^T) J_i

Here :math:`p_i` are the probabilities of the classes, and :math:`J_i` is the Jacobian of the logits. This is the true
Fisher matrix, with labels from the model. The empirical Fisher matrix has the labels of the data. It differs where the
model is wrong, and it vanishes with the gradients where the model fits the data exactly (Kunstner et al., 2019).

With random signs s, the vectors :math:`v = \sqrt p \, s - p \, (\sqrt p \cdot s)` have mean zero and the covariance
:math:`\mathrm{diag}(p) - p p^T`. Let G be the gradient of :math:`\frac{1}{n} \sum_i v_i \cdot z_i`, where z are the
logits. Then :math:`n \, E \, G G^T = F` exactly, even if batch norm makes samples depend on each other. One draw costs
one gradient and needs no gradients of single samples. Labels drawn from the model would also work. But if a model is
sure of its classes, drawn labels almost never differ from its own, so most draws would measure nothing.
"""

from typing import Any

import torch
from torch import Tensor

from sklgap.inspection._normalized_logits import is_cross_entropy
from sklgap.objective import Objective
from sklgap.objective._row_loss import RowLoss


def squared_gradients(objective: Objective, n_draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the diagonal of F, of shape (n_params,), and estimates of its trace, of shape (n_draws,), in float64.

    Raises
    ------
    ValueError
        If the criterion is not the cross entropy, or if samples have unequal weights.
    """
    check_likelihood(objective)
    wide = torch.float32 if objective.device.type == "mps" else torch.float64  # Apple's devices lack float64
    diagonal = torch.zeros_like(objective.theta0, dtype=wide)
    traces = []
    with objective.using_loss(RowLoss(_RandomOutputs(generator))):
        for _ in range(n_draws):
            squares = objective.gradient()[1].to(wide).square() * objective.n_samples
            if not bool(torch.isfinite(squares).all()):
                raise ValueError("The gradient must be finite at the measured point; it is not.")
            diagonal += squares / n_draws
            traces.append(squares.sum())
    return diagonal, torch.stack(traces).cpu()


def check_likelihood(objective: Objective) -> None:
    """Raise a ValueError unless the loss is the negative log-likelihood of classes and samples have equal weights."""
    if not is_cross_entropy(objective):
        raise ValueError(
            "The criterion must be torch.nn.CrossEntropyLoss for a Fisher matrix, because it needs the probabilities "
            "of classes."
        )
    if objective.data.weighted or objective.loss.counts is not None:
        raise ValueError(
            "Samples must have equal weights for a Fisher matrix; got sample_weight, class weights or ignored "
            "targets. Measure the pair (module, torch.nn.CrossEntropyLoss()) on samples with a target."
        )


class _RandomOutputs:
    """The mean inner product of logits with random vectors of the covariance ``diag(p) - p p^T``."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, y_pred: Any, y: Tensor) -> Tensor:
        if not isinstance(y_pred, Tensor) or y_pred.ndim != 2:
            got = tuple(y_pred.shape) if isinstance(y_pred, Tensor) else type(y_pred).__name__
            raise ValueError(
                f"module must return logits of shape (n_samples, n_classes) for a Fisher matrix; got {got}."
            )
        logits = y_pred.float() if y_pred.device.type == "mps" else y_pred.double()
        p = logits.detach().softmax(dim=1)
        root = p.sqrt()
        signs = (torch.randint(0, 2, p.shape, generator=self.generator) * 2 - 1).to(p)
        vectors = root * signs - p * (root * signs).sum(dim=1, keepdim=True)
        return (vectors * logits).sum() / len(logits)
