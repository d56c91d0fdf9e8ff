"""What an objective takes, and what it refuses."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sklgap import sharpness
from sklgap.objective import Objective
from tests.cases import N_ROWS, PLAIN, PROBLEMS, images, seeded_module, vectors


def test_arrays_lists_and_tensors_are_the_same_data():
    module, criterion, X, y = PROBLEMS["tanh"]()
    values = [
        Objective(module, criterion, data).value()
        for data in ((X, y), (X.numpy(), y.numpy()), (X.tolist(), y.tolist()), (X, y.to(torch.uint8)))
    ]
    assert len(set(values)) == 1


def test_dtype_of_the_data_follows_the_module():
    module, criterion, X, y = PROBLEMS["conv"]()
    single = Objective(module.float(), criterion, (X, y))
    assert single.dtype == torch.float32
    assert single.value() == pytest.approx(Objective(module.double(), criterion, (X, y)).value(), rel=1e-5)


def _make(module=None, criterion=None, X=None, y=None, **kwargs):
    default_X, default_y = vectors()
    module = seeded_module(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))) if module is None else module
    data = (default_X if X is None else X, default_y if y is None else y)
    return Objective(module, nn.CrossEntropyLoss() if criterion is None else criterion, data, **kwargs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_norm": "none"}, "batch_norm must be one of 'batch', 'population', 'running'; got 'none'"),
        ({"chunk_size": 0}, "chunk_size must be an integer of at least 1; got 0"),
        ({"chunk_size": 2.0}, r"chunk_size must be an integer of at least 1; got 2\.0"),
        ({"chunk_size": True}, "chunk_size must be an integer of at least 1; got True"),
        ({"dtype": torch.float16}, r"dtype must be torch\.float32 or torch\.float64; got torch\.float16"),
        (
            {"module": nn.Linear(4, 3).half()},
            r"module must have parameters in torch\.float32 or torch\.float64; got torch\.float16; pass dtype=",
        ),
        (
            {"module": nn.Linear(4, 3).requires_grad_(False)},
            "module must have at least one parameter with requires_grad=True",
        ),
        ({"module": nn.ReLU()}, "module must have at least one parameter with requires_grad=True; it has 0"),
        ({"y": torch.zeros(3)}, "X and y must have the same number of samples; got 23 and 3"),
        ({"X": torch.zeros(0, 4), "y": torch.zeros(0)}, "X must have at least one sample; got 0 samples"),
        (
            {"chunk_size": 1},
            "batch_norm='batch' needs at least two samples in every chunk; got 23 samples in 23 chunks",
        ),
        ({"chunk_size": 1, "batch_norm": "population"}, "batch_norm='population' needs at least two samples in every"),
        (
            {"criterion": nn.CrossEntropyLoss(reduction="sum")},
            "criterion must have reduction='mean'; got reduction='su",
        ),
        (
            {"criterion": nn.CrossEntropyLoss(reduction="none")},
            "criterion must have reduction='mean'; got reduction='n",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        _make(**arguments)


@pytest.mark.parametrize("method", ["value", "evaluate", "gradient"])
def test_a_criterion_that_is_no_mean(method):
    def rows(y_pred, y):
        return nn.functional.cross_entropy(y_pred, y, reduction="none")

    with pytest.raises(ValueError, match="criterion must return the mean loss as a scalar; got shape"):
        _make(criterion=rows)
    with pytest.raises(ValueError, match="criterion must return the mean loss as a scalar; got shape"):
        getattr(_make(criterion=rows, check=False), method)()


def test_bad_theta():
    objective = _make()
    for call in (objective.value, objective.gradient, objective.hvp):
        with pytest.raises(ValueError, match=rf"theta must have shape \({objective.n_params},\); got \(2,\)"):
            call(torch.zeros(2))


def test_running_statistics_allow_chunks_of_one_row():
    assert _make(chunk_size=1, batch_norm="running").value() == pytest.approx(
        _make(batch_norm="running").value(), rel=1e-12
    )


def test_four_dimensional_data():
    X, y = images()
    assert _make(module=PLAIN["conv"]()[0], X=X, y=y, chunk_size=4).n_samples == N_ROWS


def test_weights_beside_a_loss_of_which_only_the_mean_is_known():
    def mean(y_pred, y):
        return nn.functional.cross_entropy(y_pred, y)

    with pytest.raises(TypeError, match="Sample weights need a criterion that is a torch loss module"):
        _make(criterion=mean, sample_weight=torch.ones(23))


@pytest.mark.parametrize("criterion", [len, abs, math.floor])
def test_a_function_in_c_that_is_no_criterion(criterion):
    with pytest.raises(ValueError, match=r"^module and criterion must accept the data, .*argument"):
        Objective(nn.Linear(3, 2), criterion, (torch.zeros(8, 3), torch.arange(8) % 2))


X_LABELS = torch.arange(8) % 3


def test_inference_mode_is_refused():
    net, X, y = nn.Linear(4, 3), torch.randn(8, 4), torch.arange(8) % 3
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"^torch\.inference_mode must be off"):
        Objective(net, nn.CrossEntropyLoss(), (X, y))


@pytest.mark.parametrize(
    "use",
    [
        Objective.gradient,
        Objective.hessian_operator,
        lambda objective: objective.batch_gradient([0, 1]),
        lambda objective: objective.row_gradient_norms([0, 1]),
    ],
)
def test_an_objective_made_outside_of_inference_mode_gives_values_but_no_gradients_inside(use):
    objective = Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (torch.randn(8, 4), torch.arange(8) % 3))
    expected = objective.value()
    with torch.inference_mode():
        assert objective.value() == expected
        with pytest.raises(RuntimeError, match=r"^torch\.inference_mode must be off"):
            use(objective)


@pytest.mark.parametrize(
    "use",
    [
        lambda objective, product: Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (torch.zeros(8, 4), X_LABELS)),
        lambda objective, product: objective.value(),
        lambda objective, product: objective.gradient(),
        lambda objective, product: objective.hessian_operator(),
        lambda objective, product: objective.row_gradient_norms([0, 1]),
        lambda objective, product: objective.batch_gradient([0, 1]),
        lambda objective, product: objective.evaluate_samples(),
        lambda objective, product: product(objective.theta0),
        lambda objective, product: sharpness(objective),
    ],
)
def test_autocast_is_refused(use):
    """It saves weights in lower precision, and would use these at all other points: every rise would be 0."""
    torch.manual_seed(0)
    objective = Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (torch.randn(8, 4), X_LABELS))
    product = objective.hessian_operator()
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(RuntimeError, match=r"^torch\.autocast must be off where a net is trained or measured"),
    ):
        use(objective, product)


class Rounding(nn.Module):
    """A net whose forward pass computes in lower precision, always or in training mode only."""

    def __init__(self, how, always=True):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)
        self.how, self.always = how, always

    def forward(self, X):
        lower = self.always or self.training
        if self.how == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lower):
                return self.last(self.first(X).relu()).float()
        if self.how == "copy" and lower:
            hidden = torch.empty(len(X), 8, dtype=torch.half).copy_(self.first(X).relu())
            return self.last(hidden.to(X.dtype))
        if self.how == "sum" and lower:
            return self.last(self.first(X)[:, None].sum(1, dtype=torch.bfloat16).relu().to(X.dtype))
        if self.how == "weights" and lower:
            return self.last(nn.functional.linear(X.half(), self.first.weight.half()).to(X.dtype))
        hidden = self.first(X).relu()
        return self.last(hidden.bfloat16().to(X.dtype) if lower else hidden)


@pytest.mark.parametrize("how", ["autocast", "weights", "hidden", "copy", "sum"])
@pytest.mark.parametrize("of_batches", [False, True])
def test_a_module_that_rounds_in_evaluation_mode_is_refused(how, of_batches):
    """The step of Metric 2.1 at 1e-3 is smaller than the distance of two numbers in bfloat16."""
    torch.manual_seed(0)
    X, y = torch.randn(8, 4), X_LABELS
    criterion = (lambda module, batch: nn.functional.cross_entropy(module(batch[0]), batch[1])) if of_batches else None
    data = DataLoader(TensorDataset(X, y), 8) if of_batches else (X, y)
    with pytest.raises(ValueError, match=r"^module must compute in the precision of its parameters .* to torch\..*16"):
        Objective(Rounding(how), criterion or nn.CrossEntropyLoss(), data)
    net = Rounding(how, always=False)
    plain = nn.Sequential(net.first, nn.ReLU(), net.last)
    found, expected = (Objective(m, criterion or nn.CrossEntropyLoss(), data).value() for m in (net, plain))
    assert found == expected


class Branching(nn.Linear):
    def forward(self, X):
        hidden = super().forward(X)
        return torch.cond(hidden.sum() > 0, lambda t: 2 * t, lambda t: 3 * t, (hidden,))


@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_operators_with_branches():
    torch.manual_seed(0)
    net, X = Branching(4, 3), torch.randn(8, 4)
    expected = nn.functional.cross_entropy(net(X), X_LABELS).item()
    assert Objective(net, nn.CrossEntropyLoss(), (X, X_LABELS)).value() == pytest.approx(expected, rel=1e-6)


def test_data_in_half_precision_are_no_rounding():
    torch.manual_seed(0)
    net, X = nn.Linear(4, 3), torch.randn(8, 4).half()
    expected = Objective(net, nn.CrossEntropyLoss(), (X.float(), X_LABELS)).value()
    assert Objective(net, nn.CrossEntropyLoss(), (X, X_LABELS)).value() == expected
    loss = Objective(
        net,
        lambda module, batch: nn.functional.cross_entropy(module(batch[0][:, :4].float()), batch[1]),
        DataLoader(TensorDataset(X, X_LABELS), 8),
    )
    assert loss.value() == pytest.approx(expected, rel=1e-6)  # a loss in single precision


@pytest.mark.parametrize("as_batches", [False, True])
def test_tensors_made_in_inference_mode_are_the_same_data(as_batches):
    torch.manual_seed(0)
    net, X, y = nn.Linear(4, 3), torch.randn(8, 4), torch.arange(8) % 3
    with torch.inference_mode():
        own = X.clone(), y.clone()
    expected, found = (
        Objective(net, nn.CrossEntropyLoss(), DataLoader(TensorDataset(*data), 4) if as_batches else data).gradient()
        for data in ((X, y), own)
    )
    assert all(part.is_inference() for part in own)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
