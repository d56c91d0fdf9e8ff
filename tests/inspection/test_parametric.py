import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap.inspection import loss_along_line
from sklgap.objective import Objective
from tests.cases import POLICIES, PROBLEMS, no_global_random_numbers, seeded_module, vectors
from tests.tiny import blobs, small

# Weights in float32 are cast exactly; logits in float32 and in float64 differ by this.
SINGLE_LOGITS = 1e-5


@pytest.fixture(scope="module")
def models():
    X, y = blobs(60)
    sb, lb = (small(batch_regime=size).fit(X, y) for size in (10, 60))
    return sb, lb, X, y


def _linear(seed):
    return seeded_module(lambda: nn.Linear(4, 3), seed)


def test_the_ends_are_the_models(models):
    sb, lb, X, y = models
    curve = loss_along_line(sb, lb, X, y, alphas=[0, 1])
    for i, model in enumerate((sb, lb)):
        evaluation = _objective(model, X, y).evaluate()
        assert (curve.loss[i], curve.accuracy[i]) == (evaluation.loss, evaluation.accuracy)
    assert curve.loss[0] != curve.loss[1]
    assert (curve.batch_norm, curve.n_samples) == ("batch", 60)


def _objective(model, X, y, **kwargs):
    return Objective(model.module_, nn.CrossEntropyLoss(), (X, torch.from_numpy(y)), **kwargs)


def test_under_running_statistics_the_start_scores_as_scikit_learn_says(models):
    sb, lb, X, y = models
    curve = loss_along_line(sb, lb, X, y, alphas=[0], batch_norm="running")
    assert curve.accuracy[0] == sb.score(X, y)
    assert curve.loss[0] == pytest.approx(log_loss(y, sb.predict_proba(X)), rel=SINGLE_LOGITS)


@pytest.mark.parametrize("policy", POLICIES)
def test_batch_norm_policies_and_chunks(models, policy):
    sb, lb, X, y = models
    curve = loss_along_line(sb, lb, X, y, alphas=[0.3], batch_norm=policy, chunk_size=25)
    objective, end = (_objective(model, X, y, batch_norm=policy, chunk_size=25) for model in (sb, lb))
    # The buffers are those of the start.
    expected = objective.evaluate(torch.lerp(objective.theta0, end.theta0, 0.3))
    assert (curve.loss[0], curve.accuracy[0], curve.batch_norm) == (*expected, policy)


def test_a_linear_model_along_the_line_computed_directly():
    start, end, (X, y) = _linear(0), _linear(1), vectors()
    alphas = [-1.0, 0.0, 0.25, 1.0, 2.0]
    criterion = nn.CrossEntropyLoss()
    curve = loss_along_line((start, criterion), (end, criterion), X, y, alphas=alphas)
    for alpha, loss, accuracy in zip(alphas, curve.loss, curve.accuracy, strict=True):
        weight, bias = (alpha * e + (1 - alpha) * s for s, e in zip(start.parameters(), end.parameters(), strict=True))
        logits = X @ weight.T + bias
        assert loss == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-12)
        assert accuracy == (logits.argmax(1) == y).double().mean().item()


def test_squared_error_is_a_parabola():
    start, end, (X, y) = _linear(0), _linear(1), vectors()
    target = torch.nn.functional.one_hot(y, 3).double()
    curve = loss_along_line((start, nn.MSELoss()), (end, nn.MSELoss()), X, target, alphas=np.linspace(-1, 2, 7))
    parabola = np.polynomial.Polynomial.fit(curve.alphas, curve.loss, 2)
    np.testing.assert_allclose(parabola(curve.alphas), curve.loss, rtol=1e-10)
    assert np.isnan(curve.accuracy).all()  # not a classification


def test_the_default_points_are_the_papers():
    start, end, (X, y) = _linear(0), _linear(1), vectors()
    curve = loss_along_line((start, nn.CrossEntropyLoss()), (end, nn.CrossEntropyLoss()), X, y)
    np.testing.assert_allclose(curve.alphas, np.linspace(-1, 2, 25))
    assert curve.loss.shape == curve.accuracy.shape == (25,)


def test_two_objectives():
    criterion, (X, y) = nn.CrossEntropyLoss(), vectors()
    start, end = (Objective(_linear(seed), criterion, (X, y)) for seed in (0, 1))
    expected = loss_along_line((_linear(0), criterion), (_linear(1), criterion), X, y)
    curve = loss_along_line(start, end)
    np.testing.assert_array_equal(curve.loss, expected.loss)
    np.testing.assert_array_equal(curve.accuracy, expected.accuracy)


def test_swapping_the_ends_mirrors_the_curve(models):
    sb, lb, X, y = models
    alphas = np.linspace(-1, 2, 7)
    curve = loss_along_line(sb, lb, X, y, alphas=alphas, dtype=torch.float64)
    mirrored = loss_along_line(lb, sb, X, y, alphas=1 - alphas, dtype=torch.float64)
    np.testing.assert_allclose(mirrored.loss, curve.loss, rtol=1e-9)


def test_pipelines(models):
    *_, X, y = models
    pipelines = [make_pipeline(StandardScaler(), small(batch_regime=size)).fit(X, y) for size in (10, 60)]
    curve = loss_along_line(*pipelines, X, y, alphas=[0, 0.5, 1])
    scaled = pipelines[0][0].transform(X)
    expected = loss_along_line(pipelines[0][-1], pipelines[1][-1], scaled, y, alphas=[0, 0.5, 1])
    np.testing.assert_array_equal(curve.loss, expected.loss)


def test_pandas_and_lists(models):
    pd = pytest.importorskip("pandas")
    sb, lb, X, y = models
    expected = loss_along_line(sb, lb, X, y, alphas=[0.5]).loss
    frame = pd.DataFrame(X, index=np.arange(60)[::-1])
    labels = pd.Series(y, index=np.arange(60)[::-1])
    assert loss_along_line(sb, lb, X.tolist(), y.tolist(), alphas=[0.5]).loss == expected
    assert loss_along_line(sb, lb, frame, labels, alphas=[0.5]).loss == expected


def test_rows_are_drawn_by_random_state(models):
    sb, lb, X, y = models
    with no_global_random_numbers():
        first, again, other = (
            loss_along_line(sb, lb, X, y, alphas=[0.5], max_samples=20, random_state=seed) for seed in (0, 0, 1)
        )
    assert first.n_samples == 20
    assert first.loss[0] == again.loss[0] != other.loss[0]


def test_the_models_are_left_as_they_were(models):
    sb, lb, X, y = models
    before = [{k: v.clone() for k, v in model.module_.state_dict().items()} for model in (sb, lb)]
    loss_along_line(sb, lb, X, y, alphas=[-1, 0.5, 2], batch_norm="population")
    for model, state in zip((sb, lb), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.module_.state_dict().items())
        assert all(p.grad is None or not p.grad.isnan().any() for p in model.module_.parameters())


def test_losses_that_are_not_finite_are_kept():
    start, end, (X, y) = _linear(0).float(), _linear(1).float(), vectors()
    criterion = nn.CrossEntropyLoss()
    curve = loss_along_line((start, criterion), (end, criterion), 1000 * X.float(), y, alphas=[0, 3e38, 1])
    assert np.isfinite(curve.loss).tolist() == [True, False, True]


def test_other_numbers_of_parameters(models):
    sb, _, X, y = models
    other = small(module__width=5).fit(X, y)
    with pytest.raises(
        ValueError, match=r"start and end must have the same architecture; their parameters have different shapes"
    ):
        loss_along_line(sb, other, X, y)


def test_another_architecture_with_as_many_parameters():
    # The flat vectors have equal lengths, and mean different things.
    X, y = vectors()
    start = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)).double()
    end = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2, bias=False))
    assert sum(p.numel() for p in end.parameters()) == sum(p.numel() for p in start.parameters()) == 42
    criterion = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match="start and end must have the same architecture"):
        loss_along_line((start, criterion), (end.double(), criterion), X, y)


@pytest.mark.parametrize(
    "alphas", [[], None, 0.5, [0, float("nan")], [float("inf")], [[0, 1]], ["a"]], ids=["empty", *map(str, range(6))]
)
def test_bad_alphas(alphas):
    start, end, (X, y) = _linear(0), _linear(1), vectors()
    with pytest.raises(ValueError, match="alphas must be a sequence of finite numbers; got"):
        loss_along_line((start, nn.CrossEntropyLoss()), (end, nn.CrossEntropyLoss()), X, y, alphas=alphas)


def test_data_are_needed_for_estimators(models):
    sb, lb, X, y = models
    with pytest.raises(TypeError, match="X and y must be given"):
        loss_along_line(sb, lb)
    with pytest.raises(TypeError, match="X and y must be given"):
        loss_along_line(_objective(sb, X, y), lb)


def test_an_argument_that_would_have_no_effect():
    start, end = (Objective(*PROBLEMS["tanh"]()[:2], PROBLEMS["tanh"]()[2:]) for _ in range(2))
    with pytest.raises(TypeError, match="batch_norm"):
        loss_along_line(start, end, batch_norm="population")
