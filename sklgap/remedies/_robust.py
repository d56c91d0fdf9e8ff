r"""Robust training: min over weights of the max over a ball around them. Keskar et al. (2017), Section 4; SAM; ASAM.

.. math:: \min_x \max_{\|e\| \le \rho} f_B(x + e)
"""

from typing import Any

import torch
from torch.nn.utils import get_total_norm

from sklgap._checks import check_flag, check_integer, check_nonnegative
from sklgap._typing import Aux, Batch, Buffers, GradFn, Params
from sklgap.remedies._accumulation import accumulate
from sklgap.remedies._base import Remedy


class SAM(Remedy):
    r"""Step along the gradient at the worst weights nearby: sharpness-aware minimisation.

    Keskar et al. [3]_ propose to minimise the maximum of the full loss f over a ball of weights. Sharpness-aware
    minimisation [1]_ does so *for each batch*, to first order. It takes the gradient at :math:`x + \rho g / \|g\|`,
    where g is the gradient of the batch, and applies it at x. The worst weights for a batch are not those for all data.

    Parameters
    ----------
    rho : float, default=0.05
        Radius of the ball, at least 0 (0.05 in [1]_). 0 is plain training.
    adaptive : bool, default=False
        Whether to measure the ball relative to the weights (ASAM [2]_). With T = diag(abs(x) + eta) the step is
        :math:`\rho T^2 g / \|T g\|`. With eta = 0, rescaling the parameters without changing the function has no
        effect. All parameters are scaled. With this scaling, the first author of [2]_ found ``rho=2`` best on CIFAR-10
        ([4]_). [2]_ uses 0.5 and does not scale biases.
    eta : float, default=0.01
        Lets weights at zero move within the ball (0.01 in [2]_). It is used with ``adaptive`` only.
    sub_batch_size : int, default=None
        Number of samples that share a perturbation. Each part of the batch has its own worst weights, and the gradients
        are averaged ("m-sharpness" in [1]_, Section 4.1, which finds a small m better). Batch norm then uses the
        statistics of the parts. None means the whole batch.
    every : int, default=1
        Number of updates from one second gradient to the next, at least 1. The updates in between are plain. This is a
        simple form of two methods: [5]_ also use a part of the last second gradient in the updates in between, and [6]_
        choose the updates at random.

    Notes
    -----
    Loss, predictions and batch-norm statistics in the history are those of the unmoved weights. Dropout draws new masks
    for the second gradient. Cost: 1 + 1 / ``every`` gradients per batch. With ``micro_batch_size`` the perturbation
    remains that of the whole batch. Set ``sub_batch_size`` to perturb each part separately.

    References
    ----------
    .. [1] Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021, equation (2).
    .. [2] Kwon et al., ASAM, ICML 2021, Algorithm 1.
    .. [3] Keskar et al., On Large-Batch Training for Deep Learning, ICLR 2017, Section 4.
    .. [4] https://github.com/davda54/sam/issues/37
    .. [5] Liu et al., Towards Efficient and Scalable Sharpness-Aware Minimization (LookSAM), CVPR 2022.
    .. [6] Zhao et al., SS-SAM: Stochastic Scheduled Sharpness-Aware Minimization, arXiv:2203.09962.

    Examples
    --------
    >>> from sklgap import LBGapClassifier, SAM
    >>> model = LBGapClassifier(batch_regime="LB", remedies=[SAM(rho=0.1)])
    >>> model.set_params(remedies__sam__rho=0.2).get_params()["remedies__sam__rho"]
    0.2
    """

    at_most_once = True

    def __init__(
        self,
        rho: float = 0.05,
        adaptive: bool = False,
        eta: float = 0.01,
        sub_batch_size: int | None = None,
        every: int = 1,
    ) -> None:
        self.rho = rho
        self.adaptive = adaptive
        self.eta = eta
        self.sub_batch_size = sub_batch_size
        self.every = every

    def check(self) -> None:
        """Raise a ValueError if a parameter is outside its allowed values."""
        check_nonnegative("rho", self.rho)
        check_nonnegative("eta", self.eta)
        check_flag("adaptive", self.adaptive)
        check_integer("sub_batch_size", self.sub_batch_size, or_none=True)
        check_integer("every", self.every)

    def transform_grad(self, grad_fn: GradFn, state: Any) -> GradFn:
        """Return a gradient function that evaluates the gradient again at the worst weights nearby."""
        if not self.rho:
            return grad_fn

        def robust(params: Params, buffers: Buffers, batch: Batch) -> tuple[Params, Aux]:
            gradients, aux = grad_fn(params, buffers, batch)
            if self.every > 1 and batch.number % self.every:
                return gradients, aux
            worst = self._worst(params, gradients)
            return grad_fn(worst, aux.buffers, batch)[0], aux

        return robust if self.sub_batch_size is None else accumulate(robust, self.sub_batch_size)

    def _worst(self, params: Params, gradients: Params) -> Params:
        """Return the weights on the ball in the direction of the gradient."""
        with torch.no_grad():
            # For a gradient g, the steepest ascent of length rho in the norm |T^-1 e| is rho T^2 g / |T g|.
            scaled = steps = gradients
            if self.adaptive:
                scales = {name: params[name].abs() + self.eta for name in gradients}
                scaled = {name: scales[name] * g for name, g in gradients.items()}
                steps = {name: scales[name] * s for name, s in scaled.items()}
            norm = get_total_norm(scaled.values())
            # Below this floor squares underflow, and the norm is too small. The step then shrinks with the gradient.
            length = self.rho / norm.clamp_min(torch.finfo(norm.dtype).tiny ** 0.5)
            worst = {name: torch.addcmul(params[name], step, length) for name, step in steps.items()}
        return {name: worst.get(name, p.detach()).requires_grad_() for name, p in params.items()}
