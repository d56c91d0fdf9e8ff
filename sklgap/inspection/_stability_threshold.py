r"""The largest eigenvalue at which an optimiser is stable (Cohen et al. 2021, 2022).

On a quadratic loss with Hessian H, one update is a linear map. Momentum, weight decay and learning rates are those of
the optimiser now. For an adaptive optimiser, the diagonal preconditioner P is frozen. As H grows, the map becomes
unstable when it gets the eigenvalue -1. Then the weights jump from side to side and do not come nearer. For an
eigenvalue -1, that is :math:`x \to -x`, the update of coordinate i reads

.. math:: (H x)_i = q_i x_i, \qquad q_i = \frac{\kappa}{\eta_i} P_i \left(1 - \frac{\eta_i w_i}{2}\right) - u_i

with the learning rate :math:`\eta`, decoupled weight decay w (AdamW), L2 weight decay u (a part of the gradient), and

* :math:`\kappa = (2 + 2 \mu) / (1 - d)` for heavy-ball momentum :math:`\mu` with dampening d,
* :math:`\kappa = (2 + 2 \mu) / (1 + 2 \mu)` for Nesterov's,
* :math:`\kappa = (2 + 2 \beta_1) / (1 - \beta_1)` for a mean of gradients, as Adam has it.

In directions of positive curvature, all these optimisers are stable where the largest eigenvalue of :math:`Q^{-1/2} H
Q^{-1/2}` is below 1. To see this, take the equation of another eigenvalue z on the unit circle and multiply it by
:math:`\bar x`. Its imaginary part has the same sign in all coordinates. So the map leaves the unit circle at -1 (or,
where the curvature is 0, at 1). This also holds if the rates, momenta and decays of groups differ.

That is the condition that Q - H is positive definite, so it needs all :math:`q_i > H_{ii}`. An adaptive optimiser with
L2 weight decay can have :math:`q_i \le 0`, where P is small beside u. Then coordinate i is unstable wherever
:math:`H_{ii} \ge 0`, also if the loss does not depend on it: the decay alone makes it jump over zero. An input that is
always zero gives such coordinates. Their only gradient is u x, so P is about :math:`u |x|`, and :math:`q_i > 0` means
:math:`|x| > \eta / \kappa`. This is a property of P at one update. The jump makes the gradient and so P larger. There
is no threshold for H at such an update, because :math:`Q^{-1/2}` does not exist.

Q is reported as a threshold times a preconditioner. The threshold is that of the group with the largest learning rate.
It is the line that the papers draw, which is 2 / lr for plain SGD.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sklgap._checks import check_module, shown
from sklgap.inspection._krylov import NotFinite
from sklgap.objective._parameters import trainable_parameters

WAY_OUT = "pass threshold=None to measure the eigenvalues of the Hessian alone, or pass a number as the threshold"


class NotStarted(ValueError):
    """An adaptive optimiser has made no update yet, so it has no preconditioner."""


class NotStable(ValueError):
    """Weight decay alone, without the loss, makes the optimiser unstable."""


class NotStableNow(NotStable):
    """The same, with the preconditioner of the last update. That of another update may be stable."""


class TooFewParameters(ValueError):
    """Fewer parameters are trained than a measurement needs."""


@dataclass(frozen=True)
class StabilityThreshold:
    """The largest eigenvalue at which an optimiser is stable, and the matrix to which it belongs.

    Attributes
    ----------
    value : float
        The threshold. Infinite if the learning rate is 0.
    formula : str
        The formula of the threshold, such as ``"(2 + 2 beta) / lr"``.
    numbers : dict of str to float
        The numbers in the formula, by name.
    preconditioner : Tensor of shape (n_params,) or None
        The diagonal of P, in the order of the trained ``module.named_parameters()``. The threshold then applies to the
        largest eigenvalue of :math:`P^{-1/2} H P^{-1/2}`. None means that it applies to the largest eigenvalue of the
        Hessian H.
    """

    value: float
    formula: str
    numbers: dict[str, float]
    preconditioner: Tensor | None = field(repr=False)

    @property
    def learning_rate(self) -> float:
        """The largest learning rate of the optimiser."""
        return self.numbers["lr"]

    def __str__(self) -> str:
        what = "the Hessian" if self.preconditioner is None else "the preconditioned Hessian"
        numbers = ", ".join(f"{name} {number:g}" for name, number in self.numbers.items())
        return f"stable while the largest eigenvalue of {what} is below {self.value:.4g} = {self.formula}, {numbers}"


class _Rule(NamedTuple):
    """The rule of one group: kappa, its formula, and a function that gives P of a parameter (None if P is 1).

    The function returns None for a parameter that has had no gradient yet.
    """

    kappa: float
    formula: str
    preconditioner: Callable[[Tensor], Tensor | None] | None = None

    def of(self, p: Tensor) -> Tensor | None:
        """Return P of a parameter on the CPU, in float64."""
        return torch.ones(p.shape, dtype=torch.float64) if self.preconditioner is None else self.preconditioner(p)


def stability_threshold(optimizer: torch.optim.Optimizer, module: nn.Module) -> StabilityThreshold:
    r"""Return the largest eigenvalue at which an optimiser is stable with its current learning rates and state.

    Plain SGD with the learning rate lr is stable on a quadratic while the largest eigenvalue of the Hessian is below 2
    / lr. With momentum beta the threshold is (2 + 2 beta) / lr, and with Nesterov momentum (2 + 2 beta) / (lr (1 + 2
    beta)). For Adam it is (2 + 2 beta1) / ((1 - beta1) lr), and it applies to the Hessian preconditioned by

    .. math:: P = (1 - \beta_1^t) \left(\sqrt{v / (1 - \beta_2^t)} + \epsilon\right)

    Parameters
    ----------
    optimizer : torch.optim.SGD, Adam, AdamW, RMSprop or Adagrad
        The optimiser, which is only read. Its groups may have different learning rates, momenta and weight decays.
    module : nn.Module
        The module that the optimiser trains. Parameters that it does not train count as fixed.

    Returns
    -------
    StabilityThreshold
        The threshold, its formula and the preconditioner.

    Raises
    ------
    ValueError
        If the threshold of the optimiser is not known; if the optimiser maximises, or also trains parameters outside
        the module; if it is adaptive and has made no update yet, or its state is not finite; or if weight decay alone
        makes it unstable, see the notes.

    See Also
    --------
    hessian_eigenvalues : Takes the preconditioner.
    sklgap.stability_trajectory : Eigenvalues and thresholds along training, for small and large batches.

    Notes
    -----
    Weight decay that is a part of the gradient (SGD, Adam) adds its value to the Hessian, so it lowers the threshold of
    SGD by that value. The decoupled weight decay of AdamW changes the threshold to (2 + 2 beta1) (1 - lr w / 2) / ((1 -
    beta1) lr). If groups differ, the threshold is that of the group with the largest learning rate. The preconditioner
    then holds the thresholds of the others relative to it, such as 10 for a group with a tenth of the learning rate.

    Weight decay alone can make an optimiser unstable, and then there is no threshold for the Hessian. For SGD and AdamW
    the decay is then too large for the learning rate. Adam with ``weight_decay``, RMSprop and Adagrad can also be
    unstable for some updates in the coordinates in which P is small beside the decay. A weight of an input that is
    always zero can be such a coordinate, because its only gradient is that of the decay.

    P is that of the last update. The threshold is derived for a quadratic loss and a constant P. The derivation stands
    at the top of the source file.

    References
    ----------
    Cohen et al., Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability, ICLR 2021,
    arXiv:2103.00065. Cohen et al., Adaptive Gradient Methods at the Edge of Stability, arXiv:2207.14484.

    Examples
    --------
    >>> import torch
    >>> from sklgap.inspection import stability_threshold
    >>> net = torch.nn.Linear(3, 1)
    >>> print(stability_threshold(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), net))
    stable while the largest eigenvalue of the Hessian is below 38 = (2 + 2 beta) / lr, lr 0.1, beta 0.9
    """
    check_module(module)
    check_optimizer(optimizer)
    rule_of = _RULES.get(type(optimizer))
    if rule_of is None:
        known = ", ".join(kind.__name__ for kind in _RULES)
        raise ValueError(
            f"optimizer must be one of {known}, whose threshold is known; got {type(optimizer).__name__}; {WAY_OUT}."
        )
    params = trainable_parameters(module)
    groups = _groups_of(optimizer, params, module)
    rules = [rule_of(group, optimizer.state) for group in optimizer.param_groups]
    largest = _largest(optimizer)
    rule, group = rules[largest], optimizer.param_groups[largest]
    formula, numbers = _formula(rule, group), _numbers(group)
    if not params:
        raise TooFewParameters("module must have at least one parameter with requires_grad=True; it has 0.")
    if not numbers["lr"]:
        return StabilityThreshold(math.inf, formula, numbers, None)
    q = torch.cat(
        [_q(name, p, groups.get(id(p)), optimizer.param_groups, rules).reshape(-1) for name, p in params.items()]
    )
    if not bool(torch.isfinite(q).any()):
        raise TooFewParameters("optimizer must train at least one parameter of module; it does not train any of them.")
    if bool((q == q[0]).all()):
        return StabilityThreshold(float(q[0]), formula, numbers, None)
    value = _line(rule, group)
    if rule.preconditioner is None:
        value -= _coupled(group)
    return StabilityThreshold(value, formula, numbers, q / value)


def formula_of(optimizer: torch.optim.Optimizer) -> tuple[str, dict[str, float]]:
    """Return the formula of the threshold of a known optimiser and its numbers, which need no preconditioner."""
    group = optimizer.param_groups[_largest(optimizer)]
    return _formula(_RULES[type(optimizer)](group, optimizer.state), group), _numbers(group)


def _largest(optimizer: torch.optim.Optimizer) -> int:
    """Return the number of the group with the largest learning rate."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return max(range(len(rates)), key=rates.__getitem__)


def check_optimizer(optimizer: Any) -> None:
    """Raise a TypeError unless it is a torch optimiser."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch optimizer; got {shown(optimizer)}.")


def _q(name: str, p: Tensor, n: int | None, groups: Sequence[Mapping[str, Any]], rules: Sequence[_Rule]) -> Tensor:
    """Return Q of a parameter in group n, which is infinite if nothing moves the parameter."""
    own = None if n is None else rules[n].of(p)
    if n is None or own is None or not float(groups[n]["lr"]):
        return torch.full(p.shape, math.inf, dtype=torch.float64)
    if not bool(torch.isfinite(own).all()):
        raise NotFinite(f"optimizer must have a finite state for a threshold, but that of {name!r} is not finite.")
    if not bool((own > 0).all()):
        raise NotFinite(f"optimizer must have a preconditioner above 0, but that of {name!r} has zeros; raise eps.")
    line = _line(rules[n], groups[n])
    q = line * own - _coupled(groups[n])
    unstable = int((q <= 0).sum())
    if unstable and (rules[n].preconditioner is None or line <= 0):
        raise NotStable(
            f"optimizer must be stable without the loss, but its weight decay of {name!r} is too large for its "
            "learning rate; lower weight_decay or lr."
        )
    if unstable:
        raise NotStableNow(
            f"optimizer must be stable without the loss, but its weight decay alone makes {unstable:,} of the "
            f"{q.numel():,} numbers in {name!r} unstable, because their preconditioner is small after this update; "
            f"try again after a later update, use decoupled weight decay such as that of AdamW, or {WAY_OUT}."
        )
    return q


def _line(rule: _Rule, group: Mapping[str, Any]) -> float:
    """Return the threshold of a group without L2 weight decay."""
    rate = float(group["lr"])
    return rule.kappa / rate * (1 - rate * _decoupled(group) / 2)


def _groups_of(optimizer: torch.optim.Optimizer, params: Mapping[str, Tensor], module: nn.Module) -> dict[int, int]:
    """Return the group number of each parameter by its id; raise a ValueError for parameters outside the module."""
    if any(p.is_complex() for p in params.values()):
        raise ValueError(f"module must have real parameters for a threshold; it has complex ones; {WAY_OUT}.")
    inside = {id(p) for p in module.parameters()}
    found = {}
    for n, group in enumerate(optimizer.param_groups):
        if group.get("maximize"):
            raise ValueError(f"optimizer must minimise; got maximize=True; {WAY_OUT}.")
        for p in group["params"]:
            if id(p) not in inside:
                raise ValueError(f"optimizer must train only parameters of module; it also trains others; {WAY_OUT}.")
            found[id(p)] = n
    return found


def _decoupled(group: Mapping[str, Any]) -> float:
    return float(group["weight_decay"]) if group.get("decoupled_weight_decay") else 0.0


def _coupled(group: Mapping[str, Any]) -> float:
    return 0.0 if group.get("decoupled_weight_decay") else float(group.get("weight_decay", 0.0))


def _formula(rule: _Rule, group: Mapping[str, Any]) -> str:
    if _decoupled(group):
        return f"{rule.formula} (1 - lr w / 2)"
    return f"{rule.formula} - w" if _coupled(group) and rule.preconditioner is None else rule.formula


def _numbers(group: Mapping[str, Any]) -> dict[str, float]:
    """Return the learning rate of a group, and the other numbers in its formula."""
    names = {"momentum": "beta", "dampening": "dampening", "weight_decay": "w"}
    found = {shown: float(group[name]) for name, shown in names.items() if group.get(name)}
    beta1 = {"beta1": float(group["betas"][0])} if "betas" in group else {}
    return {"lr": float(group["lr"]), **beta1, **found}


def _momentum(group: Mapping[str, Any]) -> tuple[float, str]:
    """Return kappa and the formula of heavy-ball or Nesterov momentum."""
    beta, dampening = float(group["momentum"]), float(group.get("dampening", 0.0))
    if not beta:
        return 2.0, "2 / lr"
    if not 0 < beta < 1:
        raise ValueError(f"optimizer must have a momentum in [0, 1) for a threshold; got {beta:g}; {WAY_OUT}.")
    if group.get("nesterov"):
        return (2 + 2 * beta) / (1 + 2 * beta), "(2 + 2 beta) / (lr (1 + 2 beta))"
    if not dampening:
        return 2 + 2 * beta, "(2 + 2 beta) / lr"
    if not 0 < dampening < 1:
        raise ValueError(f"optimizer must have a dampening in [0, 1) for a threshold; got {dampening:g}; {WAY_OUT}.")
    return (2 + 2 * beta) / (1 - dampening), "(2 + 2 beta) / (lr (1 - dampening))"


def _sgd(group: Mapping[str, Any], state: Mapping[Any, Any]) -> _Rule:
    return _Rule(*_momentum(group))


def _adam(group: Mapping[str, Any], state: Mapping[Any, Any]) -> _Rule:
    beta1, beta2 = (float(beta) for beta in group["betas"])
    squares = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"

    def preconditioner(p: Tensor) -> Tensor | None:
        own = _state(state, p)
        if own is None:
            return None
        t = float(own["step"])
        v = own[squares].cpu().double() / (1 - beta2**t)
        return (1 - beta1**t) * (v.sqrt() + float(group["eps"]))

    return _Rule((2 + 2 * beta1) / (1 - beta1), "(2 + 2 beta1) / ((1 - beta1) lr)", preconditioner)


def _rmsprop(group: Mapping[str, Any], state: Mapping[Any, Any]) -> _Rule:
    def preconditioner(p: Tensor) -> Tensor | None:
        own = _state(state, p)
        if own is None:
            return None
        v = own["square_avg"].cpu().double()
        if group["centered"]:
            v = (v - own["grad_avg"].cpu().double() ** 2).clamp(min=0)
        return v.sqrt() + float(group["eps"])

    return _Rule(*_momentum(group), preconditioner)


def _adagrad(group: Mapping[str, Any], state: Mapping[Any, Any]) -> _Rule:
    def preconditioner(p: Tensor) -> Tensor | None:
        own = _state(state, p)
        if own is None:
            return None
        slower = 1 + (float(own["step"]) - 1) * float(group["lr_decay"])
        return slower * (own["sum"].cpu().double().sqrt() + float(group["eps"]))

    return _Rule(2.0, "2 / lr", preconditioner)


def _state(state: Mapping[Any, Any], p: Tensor) -> Any:
    """Return the state of a parameter; None if it has had no gradient yet. Raise an error if no parameter has."""
    own = state.get(p)
    if own and float(own["step"]) > 0:
        return own
    if not any(other and float(other["step"]) > 0 for other in state.values()):
        raise NotStarted(
            "optimizer must have made an update, because an adaptive optimiser has no preconditioner before its first "
            "step."
        )
    return None


_RULES: dict[type, Callable[[Mapping[str, Any], Mapping[Any, Any]], _Rule]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
}
