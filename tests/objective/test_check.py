from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.scoring import loss_scoring
from torch import nn

from sklgap import LBGapClassifier
from sklgap.objective import Objective, Subspace, check_objective
from tests.cases import BIT_FOR_BIT, PROBLEMS, no_global_random_numbers, vectors

# float32 nets; skorch takes the loss in float32, the objective in float64 on the same outputs.
SKORCH = 1e-5


class Probabilities(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))

    def forward(self, X):
        return self.layers(X).softmax(dim=1)


class Logits(Probabilities):
    def forward(self, X):
        return self.layers(X)


CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 5.0])
NETS = {
    "NLLLoss": lambda: _net(Probabilities),
    "CrossEntropyLoss": lambda: _net(Logits, criterion=nn.CrossEntropyLoss),
    "class weights": lambda: _net(Logits, criterion=nn.CrossEntropyLoss, criterion__weight=CLASS_WEIGHTS),
}


def _net(module, **kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NeuralNetClassifier(module, max_epochs=2, lr=0.1, train_split=None, verbose=0, **kwargs)
        return net.fit(*_data())


def _data():
    X, y = vectors(60)
    return X.float().numpy(), y.numpy()


@pytest.mark.parametrize("name", NETS)
def test_f_of_a_skorch_net_is_its_loss_scoring(name):
    net = NETS[name]()
    objective = check_objective(net, *_data(), batch_norm="running")
    assert objective.value() == pytest.approx(loss_scoring(net, *_data()), rel=SKORCH)
    assert objective.evaluate().accuracy == pytest.approx(net.score(*_data()), abs=1e-12)


def test_the_log_is_taken_once():
    # skorch takes the log of probabilities for NLLLoss; CrossEntropyLoss on the logits is the same number.
    probabilities, logits = NETS["NLLLoss"](), NETS["CrossEntropyLoss"]()
    logits.module_.load_state_dict(probabilities.module_.state_dict())
    values = [check_objective(net, *_data()).value() for net in (probabilities, logits)]
    assert values[0] == pytest.approx(values[1], rel=SKORCH)


def test_class_weights_count():
    weighted, plain = NETS["class weights"](), NETS["CrossEntropyLoss"]()
    weighted.module_.load_state_dict(plain.module_.state_dict())
    assert abs(check_objective(weighted, *_data()).value() - check_objective(plain, *_data()).value()) > 1e-2


@pytest.mark.parametrize("name", NETS)
def test_a_skorch_net_is_left_as_it_was(name):
    net = NETS[name]()
    net.module_.train()
    before = {key: t.clone() for key, t in net.module_.state_dict().items()}
    criterion, device, history = net.criterion_, net.device, list(net.history)
    with no_global_random_numbers():
        objective = check_objective(net, *_data(), dtype=torch.float64, chunk_size=25)
        objective.gradient()
        objective.hvp(torch.ones(objective.n_params))
    torch.testing.assert_close(dict(net.module_.state_dict()), before, **BIT_FOR_BIT)
    assert net.module_.training
    assert (net.criterion_ is criterion, net.device, list(net.history)) == (True, device, history)
    assert criterion.weight is None or criterion.weight.dtype == torch.float32


def test_a_pair():
    module, criterion, X, y = PROBLEMS["tanh"]()
    objective = check_objective((module, criterion), X.numpy(), y.tolist(), chunk_size=7)
    assert objective.value() == pytest.approx(criterion(module(X), y).item(), rel=1e-12)
    assert objective.chunk_size == 7


@pytest.mark.parametrize("labels", [list("abc"), np.array(list("abc")), np.array(list("abc"), dtype=object)], ids=repr)
def test_a_pair_and_labels_that_are_no_numbers(labels):
    pair, X = (nn.Linear(4, 3), nn.CrossEntropyLoss()), np.zeros((3, 4), dtype=np.float32)
    with pytest.raises(ValueError, match=r"X and y must be numbers \(labels as class numbers\)"):
        check_objective(pair, X, labels)
    with pytest.raises(ValueError, match=r"X and y must be numbers \(labels as class numbers\)"):
        Objective(*pair, (X, labels))


def test_an_objective_is_returned_as_it_is():
    module, criterion, X, y = PROBLEMS["tanh"]()
    objective = Objective(module, criterion, (X, y))
    restricted = objective.restrict(Subspace(objective.theta0, torch.ones(1, objective.n_params)))
    assert check_objective(objective) is objective
    assert check_objective(restricted) is restricted
    for extra in ({"X": X}, {"y": y}, {"max_samples": 3}):
        with pytest.raises(
            TypeError, match="X, y and max_samples must be None with an Objective, because it holds its own data"
        ):
            check_objective(objective, **extra)


@pytest.mark.parametrize("missing", ["X", "y", "both"])
def test_an_estimator_needs_data(missing):
    X, y = _data()
    with pytest.raises(TypeError, match="X and y must be given with an estimator"):
        check_objective(NETS["NLLLoss"](), None if missing != "y" else X, None if missing != "X" else y)


@pytest.mark.parametrize("name", NETS)
def test_a_pipeline_transforms_X(name):
    X, y = _data()
    pipeline = make_pipeline(StandardScaler(), NETS[name]())
    scaled = pipeline[0].fit_transform(X * 3 + 1)
    value = check_objective(pipeline, X * 3 + 1, y).value()
    assert value == check_objective(pipeline[-1], scaled, y).value()
    assert value != check_objective(pipeline[-1], X, y).value()


class Sampler:
    """Acts in fit only, as imbalanced-learn's steps do: it has no transform."""

    def fit_resample(self, X, y):
        raise AssertionError("measuring does not resample")


@pytest.mark.parametrize(
    "steps",
    [
        [Sampler()],
        [StandardScaler(), Sampler()],
        [Sampler(), StandardScaler()],
        ["passthrough", Sampler(), StandardScaler(), None],
    ],
    ids=["first", "after a step", "before a step", "among steps that do nothing"],
)
def test_a_pipeline_passes_over_steps_that_resample(steps):
    X, y = _data()
    net = NETS["CrossEntropyLoss"]()
    scalers = [step.fit(X) for step in steps if isinstance(step, StandardScaler)]
    pipeline = SimpleNamespace(steps=[(str(i), step) for i, step in enumerate([*steps, net])])
    given = scalers[0].transform(X) if scalers else X
    assert check_objective(pipeline, X, y).value() == check_objective(net, given, y).value()


def test_a_pipeline_of_imbalanced_learn():
    imblearn = pytest.importorskip("imblearn")
    samplers = pytest.importorskip("imblearn.over_sampling")
    X, y = _data()
    model = LBGapClassifier(module__width=8, max_epochs=2, tol=None, random_state=0)
    sampler = samplers.RandomOverSampler(random_state=0)
    rare = (y == 0).astype(int)
    pipeline = imblearn.pipeline.make_pipeline(StandardScaler(), sampler, model).fit(X, rare)
    assert pipeline[-1].net_.n_samples_ > len(X)
    scaled = pipeline[0].transform(X)
    assert check_objective(pipeline, X, rare).value() == check_objective(pipeline[-1], scaled, rare).value()
    assert pipeline.score(X, rare) == pipeline[-1].score(scaled, rare)


def test_a_pipeline_of_one_step():
    net = NETS["NLLLoss"]()
    assert check_objective(make_pipeline(net), *_data()).value() == check_objective(net, *_data()).value()


def test_a_fitted_search():
    X, y = _data()
    search = GridSearchCV(NETS["CrossEntropyLoss"](), {"lr": [0.01, 0.1]}, cv=2).fit(X, y)
    assert check_objective(search, X, y).value() == check_objective(search.best_estimator_, X, y).value()
    pipeline = make_pipeline(StandardScaler(), NETS["CrossEntropyLoss"]())
    search = GridSearchCV(pipeline, {"neuralnetclassifier__lr": [0.1]}, cv=2).fit(X, y)
    assert check_objective(search, X, y).value() == check_objective(search.best_estimator_, X, y).value()


def test_our_own_estimator_with_any_labels():
    X, y = _data()
    labels = np.array(["no", "perhaps", "yes"])[y]
    model = LBGapClassifier(module__width=4, max_epochs=2, tol=None, random_state=0).fit(X, labels)
    objective = check_objective(model, X, labels, batch_norm="running")
    assert objective.value() == pytest.approx(loss_scoring(model.net_, X, y), rel=SKORCH)
    assert objective.evaluate().accuracy == pytest.approx(model.score(X, labels), abs=1e-12)
    assert check_objective(model, X, labels[:, None], batch_norm="running").value() == objective.value()
    with pytest.raises(ValueError, match="y must have the labels seen in fit"):
        check_objective(model, X, np.full(len(X), "never"))


@pytest.mark.parametrize(
    "unfitted",
    [
        lambda: NeuralNetClassifier(Logits),
        lambda: LBGapClassifier(),
        lambda: make_pipeline(NeuralNetClassifier(Logits)),
        lambda: make_pipeline(StandardScaler(), NeuralNetClassifier(Logits)),
        lambda: GridSearchCV(NeuralNetClassifier(Logits), {"lr": [0.1]}),
        lambda: GridSearchCV(NETS["CrossEntropyLoss"](), {"lr": [0.1]}, cv=2, refit=False).fit(*_data()),
    ],
)
def test_unfitted(unfitted):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        check_objective(unfitted(), *_data())


@pytest.mark.parametrize("thing", [3, "net", (1, 2), nn.Linear(4, 3), LogisticRegression()])
def test_unknown_things(thing):
    with pytest.raises(TypeError, match=r"estimator must be an LBGapClassifier, a skorch net, .*; got "):
        check_objective(thing, *_data())


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss, "CrossEntropyLoss", None])
def test_a_criterion_that_is_no_function(criterion):
    with pytest.raises(TypeError, match=r"criterion must be a function of \(y_pred, y\), such as .*; got "):
        check_objective((nn.Linear(4, 3), criterion), *_data())


# -- max_samples -----------------------------------------------------------------------------------------------------


def _rows_of(max_samples, random_state=0):
    """Return the rows that are measured: row i of X is (i, i, i, i), and the outputs are its first two columns."""
    module = nn.utils.skip_init(nn.Linear, 4, 2, bias=False)
    module.weight.data = torch.eye(2, 4)
    seen = []

    def criterion(y_pred, y):
        seen.extend(y_pred[:, 0].int().tolist())
        assert y.tolist() == [row % 3 for row in seen]
        return y_pred.mean()

    X = np.repeat(np.arange(60.0)[:, None], 4, axis=1)
    objective = check_objective(
        (module, criterion), X, np.arange(60) % 3, max_samples=max_samples, random_state=random_state, check=False
    )
    objective.value()
    assert objective.n_samples == len(seen)
    return seen


@pytest.mark.parametrize(
    ("max_samples", "n"), [(None, 60), (7, 7), (60, 60), (1000, 60), (0.25, 15), (1.0, 60), (1e-9, 1), (np.int64(4), 4)]
)
def test_max_samples(max_samples, n):
    rows = _rows_of(max_samples)
    assert len(rows) == len(set(rows)) == n


def test_rows_are_drawn_by_the_random_state():
    assert _rows_of(7) == _rows_of(7) == _rows_of(7, np.random.RandomState(0))
    assert _rows_of(7) != _rows_of(7, 1)
    with no_global_random_numbers():
        _rows_of(7, None)


@pytest.mark.parametrize("max_samples", [0, -1, 0.0, 1.5, True, float("nan"), "all"])
def test_bad_max_samples(max_samples):
    with pytest.raises(ValueError, match=r"max_samples must be None, an integer of at least 1 or a float in \(0, 1\]"):
        _rows_of(max_samples)


@pytest.mark.parametrize("name", ["eps", "n_samples", "batchnorm"])
def test_arguments_that_do_not_exist(name):
    pair = (torch.nn.Linear(3, 2), torch.nn.CrossEntropyLoss())
    with pytest.raises(
        TypeError, match=f"^{name} is not an option of Objective; its options are batch_norm, chunk_size, "
    ):
        check_objective(pair, torch.zeros(8, 3), torch.arange(8) % 2, **{name: 1})


@pytest.mark.parametrize("kind", [LBGapClassifier, NeuralNetClassifier, torch.nn.Linear])
def test_a_class_is_no_estimator(kind):
    with pytest.raises(TypeError, match=f"^estimator must be a fitted object; got the class {kind.__name__}"):
        check_objective(kind, torch.zeros(8, 3), torch.arange(8) % 2)
