import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklgap.inspection import LossCurve, loss_along_arc, loss_along_line, loss_on_plane
from sklgap.objective import Objective, random_subspace
from tests.cases import DOUBLE, POLICIES, PROBLEMS, no_global_random_numbers, seeded_module, vectors
from tests.landscapes import landscape, separable_convex, vector
from tests.tiny import blobs, small

# Weights in float32 are cast exactly; logits in float32 and in float64 differ by this.
SINGLE_LOGITS = 1e-5
PATHS = {"line": loss_along_line, "arc": loss_along_arc}
both_paths = pytest.mark.parametrize("path", PATHS)


@pytest.fixture(scope="module")
def models():
    X, y = blobs(60)
    sb, lb = (small(batch_regime=size).fit(X, y) for size in (10, 60))
    return sb, lb, X, y


def _linear(seed):
    return seeded_module(lambda: nn.Linear(4, 3), seed)


@both_paths
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_are_the_models(models, path, dtype):
    sb, lb, X, y = models
    curve = PATHS[path](sb, lb, X, y, alphas=[0, 1], dtype=dtype)
    for i, model in enumerate((sb, lb)):
        evaluation = _objective(model, X, y, dtype=dtype).evaluate()
        assert (curve.loss[i], curve.accuracy[i]) == (evaluation.loss, evaluation.accuracy)
    assert curve.loss[0] != curve.loss[1]
    assert (curve.batch_norm, curve.n_samples, curve.path) == ("batch", 60, path)


@both_paths
def test_the_ends_are_exact_where_the_path_would_round(path):
    # cos(pi / 2) is 6e-17 in floating point, of a start of 1.
    (start, criterion, X, y), (end, *_) = (landscape(torch.sum, [theta]) for theta in (1.0, 0.0))
    assert PATHS[path]((start, criterion), (end, criterion), X, y, alphas=[0, 1]).loss.tolist() == [1, 0]


def test_one_row_under_running_statistics(models):
    sb, lb, X, y = models
    curve = loss_along_line(sb, lb, X[:1], y[:1], alphas=[1], batch_norm="running")
    assert curve.n_samples == 1


def _objective(model, X, y, **kwargs):
    return Objective(model.module_, nn.CrossEntropyLoss(), (X, torch.from_numpy(y)), **kwargs)


def test_under_running_statistics_the_start_scores_as_scikit_learn_says(models):
    sb, lb, X, y = models
    curve = loss_along_line(sb, lb, X, y, alphas=[0], batch_norm="running")
    assert curve.accuracy[0] == sb.score(X, y)
    assert curve.loss[0] == pytest.approx(log_loss(y, sb.predict_proba(X)), rel=SINGLE_LOGITS)


@both_paths
@pytest.mark.parametrize("policy", POLICIES)
def test_batch_norm_policies_and_chunks(models, path, policy):
    sb, lb, X, y = models
    options = {"batch_norm": policy, "chunk_size": 25, "dtype": torch.float64}
    curve = PATHS[path](sb, lb, X, y, alphas=[0.3, 1], **options)
    objective, end = (_objective(model, X, y, **options) for model in (sb, lb))
    share = (0.7, 0.3) if path == "line" else (np.cos(0.15 * np.pi), np.sin(0.15 * np.pi))
    # The buffers are those of the start.
    for i, theta in enumerate((share[0] * objective.theta0 + share[1] * end.theta0, end.theta0)):
        expected = objective.evaluate(theta)
        assert curve.loss[i] == pytest.approx(expected.loss, rel=1e-12)
        assert (curve.accuracy[i], curve.batch_norm) == (expected.accuracy, policy)


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


def test_a_quadratic_along_both_paths():
    (module, criterion, X, y), _, _ = separable_convex()
    start, end = vector(6, 10, -2, 2), vector(6, 11, -2, 2)
    f = module.function
    problems = [(landscape(f, theta)[0], criterion) for theta in (start, end)]
    alphas = np.linspace(-1, 2, 13)
    line, arc = (along(*problems, X, y, alphas=alphas) for along in PATHS.values())
    expected = [f(a * end + (1 - a) * start).item() for a in alphas]
    np.testing.assert_allclose(line.loss, expected, **DOUBLE)
    expected = [f(np.sin(a * np.pi / 2) * end + np.cos(a * np.pi / 2) * start).item() for a in alphas]
    np.testing.assert_allclose(arc.loss, expected, **DOUBLE)


def test_the_arc_stays_on_the_sphere_where_the_line_leaves_it():
    # Orthogonal solutions of norm 1, and f the squared norm.
    start, end = random_subspace(torch.zeros(6, dtype=torch.float64), 2, "orthonormal", 0).basis
    f = [(landscape(lambda theta: theta @ theta, theta)[0], lambda y_pred, y: y_pred.mean()) for theta in (start, end)]
    X = y = torch.zeros(3, 1)
    np.testing.assert_allclose(loss_along_arc(*f, X, y).loss, 1, rtol=1e-6)  # torch draws in float32
    assert loss_along_line(*f, X, y, alphas=[0.5]).loss[0] == pytest.approx(0.5, rel=1e-6)


@both_paths
def test_the_default_points_are_the_papers(path):
    start, end, (X, y) = _linear(0), _linear(1), vectors()
    curve = PATHS[path]((start, nn.CrossEntropyLoss()), (end, nn.CrossEntropyLoss()), X, y)
    np.testing.assert_allclose(curve.alphas, np.linspace(-1, 2, 25))
    assert curve.loss.shape == curve.accuracy.shape == (25,)


@both_paths
def test_two_objectives(path):
    criterion, (X, y) = nn.CrossEntropyLoss(), vectors()
    start, end = (Objective(_linear(seed), criterion, (X, y)) for seed in (0, 1))
    expected = PATHS[path]((_linear(0), criterion), (_linear(1), criterion), X, y)
    curve = PATHS[path](start, end)
    np.testing.assert_array_equal(curve.loss, expected.loss)
    np.testing.assert_array_equal(curve.accuracy, expected.accuracy)


def test_swapping_the_ends_mirrors_the_curve(models):
    sb, lb, X, y = models
    alphas = np.linspace(-1, 2, 7)
    curve = loss_along_line(sb, lb, X, y, alphas=alphas, dtype=torch.float64)
    mirrored = loss_along_line(lb, sb, X, y, alphas=1 - alphas, dtype=torch.float64)
    np.testing.assert_allclose(mirrored.loss, curve.loss, rtol=1e-9)
    # On the arc alpha -> 1 - alpha exchanges sine and cosine.
    curve = loss_along_arc(sb, lb, X, y, alphas=alphas, dtype=torch.float64)
    mirrored = loss_along_arc(lb, sb, X, y, alphas=1 - alphas, dtype=torch.float64)
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


@both_paths
def test_rows_are_drawn_by_random_state(models, path):
    sb, lb, X, y = models
    with no_global_random_numbers():
        first, again, other = (
            PATHS[path](sb, lb, X, y, alphas=[0.5], max_samples=20, random_state=seed) for seed in (0, 0, 1)
        )
    assert first.n_samples == 20
    assert first.loss[0] == again.loss[0] != other.loss[0]


@both_paths
def test_the_models_are_left_as_they_were(models, path):
    sb, lb, X, y = models
    before = [{k: v.clone() for k, v in model.module_.state_dict().items()} for model in (sb, lb)]
    PATHS[path](sb, lb, X, y, alphas=[-1, 0.5, 2], batch_norm="population")
    for model, state in zip((sb, lb), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.module_.state_dict().items())
        assert all(p.grad is None or not p.grad.isnan().any() for p in model.module_.parameters())


def test_losses_that_are_not_finite_are_kept_with_a_warning():
    start, end, (X, y) = _linear(0).float(), _linear(1).float(), vectors()
    criterion = nn.CrossEntropyLoss()
    with pytest.warns(RuntimeWarning, match=r"not finite at 1 of 3 points: alpha = 3e\+38\.$") as caught:
        curve = loss_along_line((start, criterion), (end, criterion), 1000 * X.float(), y, alphas=[0, 3e38, 1])
    assert np.isfinite(curve.loss).tolist() == np.isfinite(curve.accuracy).tolist() == [True, False, True]
    assert caught[0].filename == __file__


def _only_finite_near(theta):
    # 0 at the start and 1 at the end; infinite beyond either.
    return torch.where((theta[0] < 0) | (theta[0] > 1), torch.inf, theta[0])


def test_a_long_list_of_infinities_is_cut_short():
    (one, criterion, X, y), (other, *_) = (landscape(_only_finite_near, [end, 0.0]) for end in (0.0, 1.0))
    with pytest.warns(RuntimeWarning) as caught:
        curve = loss_along_line((one, criterion), (other, criterion), X, y)
    (message,) = [str(warning.message) for warning in caught]
    assert message == ("The loss is not finite at 16 of 25 points: alpha = -1, -0.875, -0.75, -0.625, -0.5, ...")
    np.testing.assert_array_equal(curve.loss[8:17], curve.alphas[8:17])
    assert (curve.loss[:8] == np.inf).all()


@both_paths
@pytest.mark.parametrize("broken", [0, 1])
def test_a_model_whose_loss_is_not_finite(path, broken):
    modules, (X, y) = [_linear(0), _linear(1)], vectors()
    with torch.no_grad():
        modules[broken].bias[0] = torch.nan
    pairs = [(module, nn.CrossEntropyLoss()) for module in modules]
    with pytest.raises(ValueError, match=f"^The loss must be finite at the models; it is nan at alpha = {broken}.$"):
        PATHS[path](*pairs, X, y)


@pytest.mark.parametrize("verbose", [0, 1])
def test_progress(verbose, capsys):
    start, end, (X, y) = _linear(0), _linear(1), vectors()
    loss_along_arc((start, nn.CrossEntropyLoss()), (end, nn.CrossEntropyLoss()), X, y, verbose=verbose)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("25/25" in err) == bool(verbose)


def test_the_record_in_words():
    curve = LossCurve(np.array([0.0, 1.0]), np.array([0.5, 0.25]), np.array([1.0, 0.5]), "batch", 1234, "arc")
    assert str(curve) == (
        "loss from 0.25 to 0.5 at 2 points of the arc, alpha from 0 to 1 (1,234 samples, batch norm: batch)"
    )
    assert "array" not in repr(curve)


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


def test_an_objective_in_a_subspace():
    problem = PROBLEMS["tanh"]()
    full = Objective(*problem[:2], problem[2:])
    restricted = full.restrict(random_subspace(full.theta0, 2))
    for ends in ((restricted, full), (full, restricted)):
        with pytest.raises(TypeError, match="start and end must be in the full space; got an Objective restricted"):
            loss_along_arc(*ends)


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


def _frozen(*seeds, frozen="0", of=(0, 1)):
    """Return two nets of two layers, of which those in ``of`` have a frozen layer, with the seeds of both."""
    nets = [
        seeded_module(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), seed).double()
        for seed in seeds
    ]
    for i in of:
        nets[i].get_submodule(frozen).requires_grad_(False)
    return nets


@both_paths
@pytest.mark.parametrize("as_objectives", [False, True])
def test_solutions_with_different_frozen_layers_are_refused(path, as_objectives):
    X, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    given = [(net, nn.CrossEntropyLoss()) for net in _frozen(0, 1)]
    if as_objectives:
        given, data = [Objective(*pair, (X, y)) for pair in given], ()
    else:
        data = X, y
    with pytest.raises(
        ValueError, match=r"^start and end must have the same frozen parameters and .* '0\.weight' differs"
    ):
        PATHS[path](*given, *data)


@both_paths
def test_solutions_with_the_same_frozen_layer(path):
    X, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    start, end = _frozen(0, 1)
    end[0].load_state_dict(start[0].state_dict())
    curve = PATHS[path]((start, nn.CrossEntropyLoss()), (end, nn.CrossEntropyLoss()), X, y, alphas=[0, 1])
    expected = [nn.functional.cross_entropy(net(X), y).item() for net in (start, end)]
    np.testing.assert_allclose(curve.loss, expected, rtol=1e-12)


@both_paths
def test_a_layer_that_is_frozen_in_one_solution_only_is_named(path):
    X, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    given = [(net, nn.CrossEntropyLoss()) for net in _frozen(0, 1, of=(1,))]
    with pytest.raises(ValueError, match="one has 0 frozen parameters and buffers, and the other 2"):
        PATHS[path](*given, X, y)


class Projected(nn.Module):
    """A net behind a fixed random projection, which is a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("projection", torch.randn(4, 5))
        self.layer = nn.Linear(5, 3)

    def forward(self, X):
        return self.layer(X @ self.projection)


@both_paths
def test_solutions_with_different_buffers_are_refused(path):
    X, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    nets = [seeded_module(Projected, seed).double() for seed in (0, 1)]
    given = [(net, nn.CrossEntropyLoss()) for net in nets]
    with pytest.raises(ValueError, match="'projection' differs"):
        PATHS[path](*given, X, y)
    nets[1].projection = nets[0].projection
    curve = PATHS[path](*given, X, y, alphas=[0, 1])
    expected = [nn.functional.cross_entropy(net(X), y).item() for net in nets]
    np.testing.assert_allclose(curve.loss, expected, rtol=1e-12)


def test_a_plane_through_solutions_with_different_frozen_layers_is_refused():
    X, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    one, other = ((net, nn.CrossEntropyLoss()) for net in _frozen(0, 1))
    with pytest.raises(ValueError, match=r"^estimator and towards must have the same frozen parameters and buffers"):
        loss_on_plane(one, X, y, towards=(other,))


def test_chosen_parameters_vary_alone():
    X, y = torch.randn(20, 4, dtype=torch.float64), torch.arange(20) % 3
    start, end = _frozen(0, 1, of=())
    given = [(net, nn.CrossEntropyLoss()) for net in (start, end)]
    curve = loss_along_line(*given, X, y, alphas=[1], parameters="2.*")
    expected = nn.functional.cross_entropy(nn.Sequential(start[0], start[1], end[2])(X), y).item()
    np.testing.assert_allclose(curve.loss, [expected], rtol=1e-12)
