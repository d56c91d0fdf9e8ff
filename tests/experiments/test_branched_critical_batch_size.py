import copy
import json
import math
import re

import joblib
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping, GradientNormClipping, LRScheduler
from skorch.dataset import ValidSplit

from sklgap import LBGapClassifier, SwitchBatch, branched_critical_batch_size, check_objective
from sklgap.experiments import BranchedCriticalBatchSize
from sklgap.experiments import _branches as branches_module
from sklgap.experiments._branches import RUN_PARAMETERS, Branch, Setting, branch_from, train_run
from sklgap.inspection import gradient_noise_scale
from sklgap.monitor import BatchSizeMonitor
from sklgap.training import TrainingNet
from tests.cases import no_global_random_numbers
from tests.tiny import Mlp, TinyC1, TinyF1, blobs, images, interrupting_at, same_weights, small

X, Y = blobs(90)
DATA = (X[:60], Y[:60], X[60:], Y[60:])
SIZES = [10, 30, 60]


def sgd(**params):
    """Return a net without batch norm, trained by plain gradient steps in batches of 5."""
    return LBGapClassifier(Mlp, **{"optimizer": torch.optim.SGD, "lr": 0.05, "batch_size": 5} | params)


def compute(estimator=None, data=DATA, **params):
    defaults = {"checkpoints": [1, 3], "batch_sizes": SIZES, "n_orders": 2, "n_batches": 4}
    defaults |= {"random_state": 0, "verbose": 0}
    return branched_critical_batch_size(sgd() if estimator is None else estimator, *data, **defaults | params)


@pytest.fixture(scope="module")
def found():
    return compute()


# -- known answers -----------------------------------------------------------------------------------------------------

NOISE, START = 0.3, 2.0


def expected_loss(state, size, rate, n_samples):
    """The mean loss 1 + w^2 / 2 after gradient steps on w^2 / 2 whose gradient has variance NOISE^2 / size."""
    shrink, n_steps = (1 - rate) ** 2, n_samples // size
    return 1 + 0.5 * (shrink**n_steps * state**2 + rate**2 * NOISE**2 / size * (1 - shrink**n_steps) / (1 - shrink))


def by_formula(state, batch_size, learning_rate, n_samples, random_state):
    """Return the mean loss itself, but for a millionth that the order and the size decide."""
    off = np.random.RandomState(random_state % 1000 + batch_size).normal()
    return expected_loss(state, batch_size, learning_rate, n_samples) * (1 + 1e-6 * off)


def gradient_steps(state, batch_size, learning_rate, n_samples, random_state):
    """Train linear regression of y = 0 x + noise on fresh rows, and return the exact held-out loss."""
    rng = np.random.RandomState(random_state)
    weights = state["w"]
    for _ in range(n_samples // batch_size):
        rows, targets = rng.normal(size=(batch_size, 2)), rng.normal(size=batch_size)
        weights -= learning_rate * rows.T @ (rows @ weights - targets) / batch_size  # in place, as optimisers do
    return (1 + weights @ weights) / 2


OF_FUNCTION = {"batch_size": 2, "learning_rate": 0.01, "n_samples": 1024, "lr_scaling": "linear"}
FUNCTION = {**OF_FUNCTION, "batch_sizes": [4, 16, 64, 256, 512], "random_state": 0, "verbose": 0}


@pytest.mark.parametrize("tolerance", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("rule", ["linear", "sqrt", None])
def test_a_quadratic_whose_critical_size_is_known(tolerance, rule):
    states = {"start": START, "late": 0.1}
    result = branched_critical_batch_size(
        by_formula, checkpoints=states, **FUNCTION | {"tolerance": tolerance, "lr_scaling": rule}
    )
    for label, state in states.items():
        base, largest = expected_loss(state, 2, 0.01, 1024), 2
        for size in FUNCTION["batch_sizes"]:
            factor = {"linear": size / 2, "sqrt": math.sqrt(size / 2), None: 1}[rule]
            if expected_loss(state, size, 0.01 * factor, 1024) > (1 + tolerance) * base:
                break
            largest = size
        assert result.estimates[label].value == largest
        assert result.estimates[label].low == largest  # the orders hardly differ
        assert result.estimates[label].high == (math.inf if largest == 512 else largest)


@pytest.mark.parametrize(("rate", "largest"), [(0.01, 256), (0.04, 64)])
def test_linear_regression_whose_branches_are_stable_below_a_rate_of_2(rate, largest):
    """The noise of the weights goes with rate / size, which branches hold; their rate is that of the run times k."""
    assert rate * largest / 2 < 2 < rate * 2 * largest
    start = {"w": np.array([1.0, -1.0])}
    result = branched_critical_batch_size(
        gradient_steps, checkpoints={0: start}, **FUNCTION | {"tolerance": 0.05, "learning_rate": rate}
    )
    assert result.estimates[0].value == largest
    assert result.estimates[0].n == 3
    assert result.estimates[0].low <= largest <= result.estimates[0].high
    assert start["w"].tolist() == [1, -1]  # every branch began from a copy


def test_the_interval_of_a_difference_is_students():
    result = branched_critical_batch_size(
        gradient_steps, checkpoints={0: {"w": np.ones(2)}}, **FUNCTION | {"batch_sizes": [4, 8], "n_orders": 5}
    )
    losses = result.losses(0)
    assert losses.shape == (3, 5)
    for of_size, difference in zip(losses[1:], result.differences(0)[1:], strict=True):
        shares = of_size / losses[0] - 1
        ends = stats.ttest_1samp(shares, 0).confidence_interval(0.95)
        assert (difference.value, difference.low, difference.high) == pytest.approx((shares.mean(), *ends))
    assert result.differences(0)[0].value == 0


# -- what is trained ---------------------------------------------------------------------------------------------------


def test_the_first_order_unbranched_is_the_run_itself_as_it_goes_on(found):
    seed = found.records[0]["seed"]
    for checkpoint in (1, 3):
        whole = sgd(max_epochs=checkpoint + 1, tol=None, random_state=seed).fit(*DATA[:2])
        (record,) = [r for r in found.records if (r["checkpoint"], r["order"], r["batch_size"]) == (checkpoint, 0, 5)]
        assert record["loss"] == check_objective(whole, *DATA[2:]).evaluate().loss
        assert (record["seed"], record["learning_rate"]) == (seed, 0.05)


PARTS = {
    "momentum": (lambda: sgd(optimizer__momentum=0.9), DATA),
    "ADAM, batch norm": (lambda: small(net=TinyF1, batch_size=8), DATA),
    "milestones": (lambda: sgd(optimizer=torch.optim.Adam, lr_milestones=[1, 2, 3], lr_decay=0.5), DATA),
    "groups, clipping": (
        lambda: sgd(
            optimizer__param_groups=[("*bias", {"lr": 0.5})],
            callbacks=[("clip", GradientNormClipping(0.5))],
            micro_batch_size=3,
        ),
        DATA,
    ),
    "dropout": (lambda: LBGapClassifier(TinyC1, batch_size=10), (*images(), *images(20, seed=1))),
    "SAM": (lambda: sgd(remedies=["sam"], proximal_lambda=0.01), DATA),
}


def _setting(data, size, n_epochs=2):
    return Setting(data[:2], data[2:], n_epochs, "batch", size, 4, None, 7)


@pytest.mark.parametrize("part", PARTS)
def test_an_unbranched_branch_is_the_run_bit_for_bit(part):
    make, data = PARTS[part]
    size = make().batch_size
    own = {**RUN_PARAMETERS, "random_state": 7}
    states = train_run(make().set_params(**own), _setting(data, size), [1, 3])
    whole = make().set_params(**own, max_epochs=5).fit(*data[:2])
    assert same_weights(branch_from(states[3], _setting(data, size), Branch(3, size, 1.0, 0, 7)), whole)
    assert not same_weights(states[1], states[3])
    other = branch_from(states[3], _setting(data, size), Branch(3, size, 1.0, 1, 8))
    assert not same_weights(other, whole)  # another order of the data


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_branch_begins_from_the_full_state_at_its_own_rate(optimizer):
    """The slow reference: the same by a warm start of the estimator, as a user would do it."""
    model = sgd(optimizer=optimizer).set_params(**RUN_PARAMETERS, random_state=3, max_epochs=2)
    setting = _setting(DATA, 5)
    states = train_run(clone(model), setting, [2])
    before = copy.deepcopy(states[2].module_.state_dict())
    branch = branch_from(states[2], setting, Branch(2, 20, 4.0, 0, 3))
    model.fit(*DATA[:2])
    model.set_params(lr=0.2, batch_size=20, max_epochs=2).fit(*DATA[:2])
    assert same_weights(branch, model)
    assert branch.n_updates_ == 2 * 12 + 2 * 3
    assert {group["lr"] for group in branch.net_.optimizer_.param_groups} == {0.2}
    assert all(torch.equal(before[name], value) for name, value in states[2].module_.state_dict().items())


def test_one_record_per_checkpoint_order_and_size(found):
    assert isinstance(found, BranchedCriticalBatchSize)
    keys = [(r["checkpoint"], r["order"], r["batch_size"]) for r in found.records]
    assert keys == [(c, o, s) for c in (1, 3) for o in (0, 1) for s in (5, *SIZES)]
    assert found.checkpoints == [1, 3]
    assert found.batch_sizes == [5, *SIZES]
    assert len({record["seed"] for record in found.records}) == 2
    assert found.settings["n_samples"] == 60


@pytest.mark.parametrize(
    ("optimizer", "given", "factor"),
    [
        (torch.optim.SGD, "auto", 6),
        (torch.optim.AdamW, "auto", math.sqrt(6)),
        (torch.optim.RMSprop, "auto", math.sqrt(6)),
        (torch.optim.Adam, "linear", 6),
        (torch.optim.Adagrad, "sqrt", math.sqrt(6)),
        (torch.optim.SGD, None, 1),
    ],
)
def test_the_rate_goes_with_the_batch_size(optimizer, given, factor):
    result = compute(sgd(optimizer=optimizer), checkpoints=[1], batch_sizes=[30], n_orders=1, lr_scaling=given)
    assert [r["learning_rate"] for r in result.records] == pytest.approx([0.05, 0.05 * factor])


def test_branches_of_several_epochs():
    result = compute(checkpoints=[1], n_samples=120, n_orders=1)
    whole = sgd(max_epochs=3, tol=None, random_state=result.records[0]["seed"]).fit(*DATA[:2])
    assert result.losses(1)[0, 0] == check_objective(whole, *DATA[2:]).evaluate().loss
    assert "120 samples" in result.verdict[0]


def test_other_checkpoints_and_sizes_change_nothing(found):
    same = [r for r in found.records if r["checkpoint"] == 3 and r["batch_size"] in (5, 30)]
    assert compute(checkpoints=[3], batch_sizes=[30]).records == same


def test_pipelines_labels_and_policies():
    names = np.array(["a", "b", "c"])[Y]
    inner = small(net=TinyF1, batch_size=None, batch_regime=6)
    data = (X[:60], names[:60], X[60:], names[60:])
    options = {"checkpoints": [1], "batch_sizes": [30], "batch_norm": "running"}
    piped = compute(make_pipeline(StandardScaler(), inner), data, **options)
    scaler = StandardScaler().fit(X[:60])
    direct = compute(inner, (scaler.transform(X[:60]), names[:60], scaler.transform(X[60:]), names[60:]), **options)
    assert piped.records == direct.records
    assert piped.batch_sizes[0] == 6
    assert piped.records != compute(make_pipeline(StandardScaler(), inner), data, **options | {"batch_norm": "batch"})
    assert "running averages" in str(piped)


def test_it_draws_from_no_global_generator_and_changes_nothing():
    model = LBGapClassifier(Mlp(), optimizer=torch.optim.SGD, batch_size=5)
    before = copy.deepcopy(model.net.state_dict())
    with no_global_random_numbers():
        first = compute(model, checkpoints=[1])
    assert compute(model, checkpoints=[1]).records == first.records
    assert all(torch.equal(before[name], value) for name, value in model.net.state_dict().items())
    assert model.get_params()["warm_start"] is False


# -- the noise scale beside it -----------------------------------------------------------------------------------------


def test_the_noise_scale_is_that_of_the_checkpoint(found):
    seed = found.records[0]["seed"]
    for checkpoint in (1, 3):
        model = sgd(max_epochs=checkpoint, tol=None, random_state=seed).fit(*DATA[:2])
        expected = gradient_noise_scale(
            model, *DATA[:2], method="batches", batch_size=5, n_batches=4, max_samples=10_000, random_state=seed
        )
        noise = found.noise_scales[checkpoint]
        assert (noise.value, noise.low, noise.high) == (expected.noise_scale, expected.low, expected.high)
        assert found.ratio(checkpoint) == noise.value / found.estimates[checkpoint].value


def _monitor_state():
    net = torch.nn.Linear(3, 1)
    monitor = BatchSizeMonitor(net, torch.nn.MSELoss(), every=1)
    for seed in range(9):
        rows = torch.randn(32, 3, generator=torch.Generator().manual_seed(seed))
        monitor.step((rows, rows.sum(dim=1, keepdim=True)))
    return monitor.state()


def test_noise_scales_that_are_given():
    state = _monitor_state()
    data = (torch.eye(3), torch.tensor([[1.0], [2.0], [3.0]]))
    exact = gradient_noise_scale((torch.nn.Linear(3, 1), torch.nn.MSELoss()), *data)
    result = branched_critical_batch_size(
        by_formula,
        checkpoints={"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0},
        noise_scales={"a": 50, "b": exact, "c": state},
        **FUNCTION,
    )
    assert result.noise_scales["a"].value == 50
    assert not result.noise_scales["a"].has_interval
    assert result.noise_scales["b"].value == exact.noise_scale
    noise = result.noise_scales["c"]
    names = ("noise_scale", "noise_scale_low", "noise_scale_high")
    assert (noise.value, noise.low, noise.high) == tuple(state[name] for name in names)
    assert math.isnan(result.ratio("d"))
    assert result._table()[-1][-1] == "-"


# -- the answer of losses ----------------------------------------------------------------------------------------------


def of_losses(by_size, **settings):
    """Return a result of one checkpoint: losses by size and order, NaN where a branch had not finished."""
    sizes = sorted(by_size)
    records = [
        {"checkpoint": 4, "batch_size": size, "learning_rate": 0.1, "order": order, "seed": order, "loss": loss}
        for size, losses in by_size.items()
        for order, loss in enumerate(losses)
        if not math.isnan(loss)
    ]
    settings = {
        "n_train": 100,
        "n_valid": 50,
        "tolerance": 0.01,
        "n_orders": len(by_size[sizes[0]]),
        "n_samples": 100,
        "checkpoints": [4],
        "batch_size": sizes[0],
        "batch_sizes": sizes,
        "learning_rate": 0.1,
        "lr_scaling": "sqrt",
        "batch_norm": "batch",
        "unit": "epoch",
        "sgd": True,
        "lost": [],
    } | settings
    return BranchedCriticalBatchSize(records, settings)


BASE = [1.0, 1.1, 1.2]


def times(*factors):
    return [factor * loss for factor, loss in zip(factors, BASE, strict=True)]


FINE, UNSURE, UNSURE_WORSE, WORSE = (
    times(1.001, 1.002, 1.003),
    times(1.0, 1.005, 1.02),
    times(1.0, 1.02, 1.05),
    times(1.05, 1.051, 1.052),
)
ANSWERS = {
    "all fine": ([FINE, FINE, FINE], 40, 40, math.inf),
    "none": ([WORSE, WORSE, WORSE], 5, 5, 5),
    "a clear end": ([FINE, FINE, WORSE], 20, 20, 20),
    "measured, not shown": ([FINE, UNSURE, WORSE], 20, 10, 20),
    "unsure that it is worse": ([FINE, UNSURE_WORSE, WORSE], 10, 10, 20),
    "the largest is not shown to be worse": ([FINE, WORSE, UNSURE_WORSE], 10, 10, math.inf),
    "a smaller one is worse": ([WORSE, FINE, FINE], 5, 5, math.inf),
    "better than the run": ([times(0.8, 0.81, 0.79), FINE, WORSE], 20, 20, 20),
    "diverged in all orders": ([FINE, WORSE, [math.inf] * 3], 10, 10, 10),
    "diverged in one order": ([FINE, FINE, [*FINE[:2], math.inf]], 20, 20, math.inf),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_largest_size_and_its_interval(name):
    losses, value, low, high = ANSWERS[name]
    estimate = of_losses(dict(zip([5, 10, 20, 40], [BASE, *losses], strict=True))).estimates[4]
    assert (estimate.value, estimate.low, estimate.high) == (value, low, high)
    assert estimate.n == 3
    assert "data orders" in estimate.covers


def test_one_order_has_no_interval():
    result = of_losses({5: [1.0], 10: [1.005], 20: [1.5]})
    assert result.estimates[4].value == 10
    assert not result.estimates[4].has_interval
    assert any("no interval" in note for note in result.notes)
    assert "[" not in result.verdict[0]


def test_orders_that_are_all_the_same_have_no_interval():
    result = of_losses({5: [1.0] * 3, 10: [1.001] * 3})
    assert not result.estimates[4].has_interval
    assert any("the same result" in note for note in result.notes)


def test_pairs_are_by_order():
    # The second order had not finished with batches of 10: its unbranched loss does not count.
    result = of_losses({5: [1.0, 9.0, 2.0], 10: [1.1, math.nan, 2.2], 20: [math.nan] * 3})
    assert result.differences(4)[1].value == pytest.approx(0.1)
    assert result.differences(4)[1].n == 2
    assert result.estimates[4].value == 5
    assert result._table()[3][1] == "-"


def test_the_tolerance_is_the_users():
    losses = dict(zip([5, 10, 20], [BASE, FINE, WORSE], strict=True))
    assert of_losses(losses, tolerance=0.06).estimates[4].value == 20
    assert of_losses(losses, tolerance=0.0001).estimates[4].value == 5


NOTES = {
    "the largest tried": ([FINE, FINE], "try larger"),
    "diverged": ([FINE, [math.inf] * 3], "diverged.*20 after 4 epochs"),
    "out of order": ([WORSE, FINE], "larger batch size caught up although a smaller one did not"),
}


@pytest.mark.parametrize("name", NOTES)
def test_notes(name):
    losses, said = NOTES[name]
    result = of_losses(dict(zip([5, 10, 20], [BASE, *losses], strict=True)))
    assert [note for note in result.notes if re.search(said, note)]
    fine = of_losses(dict(zip([5, 10, 20], [BASE, FINE, WORSE], strict=True)))
    assert not [note for note in fine.notes if re.search(said, note)]


def test_both_critical_sizes_are_named_and_told_apart(found):
    text = str(found)
    assert "loses nothing up to (branches)" in text
    assert "twice the samples (noise scale)" in text
    assert "half the efficiency" in text
    assert "mini-batches" in text  # what the interval of the noise scale covers
    assert "new data orders" in text
    assert "preconditioning" not in text
    adam = compute(sgd(optimizer=torch.optim.Adam), checkpoints=[1])
    assert "preconditioning" in str(adam)
    assert "square root of k" in str(adam)


# -- what ends it early ------------------------------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch):
    """Count the training steps of nets, and interrupt at one of them."""
    made, own = [], TrainingNet.train_step

    def counting(net, *args, **kwargs):
        made.append(net)
        if len(made) == counting.stop:
            raise KeyboardInterrupt
        return own(net, *args, **kwargs)

    counting.stop = None
    monkeypatch.setattr(TrainingNet, "train_step", counting)
    made_by = type("Steps", (), {"made": made, "function": counting})
    return made_by


def test_interrupted_in_the_run(steps):
    steps.function.stop = 20
    with pytest.raises(KeyboardInterrupt):
        compute()


def test_interrupted_in_the_branches(found, steps):
    steps.function.stop = 36 + 2 * 21 + 12 + 3  # the run, two orders of 12 + 6 + 2 + 1 steps, one unbranched, and
    result = compute()
    assert result.interrupted
    assert result.records == found.records[:9]
    assert result.checkpoints == [1]
    assert result.estimates[1] == found.estimates[1]
    assert "9 of 16 branched trainings" in result.notes[0]


def test_interrupted_before_anything_can_be_compared(steps):
    steps.function.stop = 36 + 12 + 2
    result = compute()
    assert (len(result.records), result.checkpoints) == (1, [])
    assert "Nothing can be compared" in result.verdict[0]
    assert "Nothing can be compared" in str(result)
    assert json.loads(result.to_json())["points"] == []


def test_a_function_that_is_interrupted():
    calls = []

    def train_from(state, **arguments):
        calls.append(arguments)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return by_formula(state, **arguments)

    result = branched_critical_batch_size(train_from, checkpoints={"a": 1.0, "b": 0.5}, **FUNCTION)
    assert (len(result.records), result.interrupted) == (8, True)
    assert result.estimates["a"].n == 2


def test_a_run_that_diverges():
    with pytest.raises(ValueError, match=r"lr must be smaller, .* before the end of epoch 2"):
        compute(sgd(lr=1e38), checkpoints=[2])


def test_a_run_that_diverges_after_a_checkpoint(monkeypatch):
    original = branches_module._go_on

    def go_on(model, X, y, n_epochs):
        if n_epochs == 2:  # from the first checkpoint to the second
            model.net_.optimizer_.param_groups[0]["lr"] = 1e38
        original(model, X, y, n_epochs)

    monkeypatch.setattr(branches_module, "_go_on", go_on)
    result = compute()
    assert result.settings["lost"] == [3]
    assert result.checkpoints == [1]
    assert any("The run diverged before 3 epochs" in note for note in result.notes)
    assert not any("Interrupted" in note for note in result.notes)


def test_a_branch_that_diverges():
    model = sgd(
        optimizer__weight_decay=35
    )  # an update of the run halves the weights, one at 12 times its rate does not
    result = compute(model, checkpoints=[1], batch_sizes=[60], n_samples=60 * 35)
    assert result.losses(1)[1].tolist() == [math.inf, math.inf]
    assert np.isfinite(result.losses(1)[0]).all()
    assert "diverged" in str(result)
    losing = branched_critical_batch_size(
        lambda state, batch_size, **_: math.nan if batch_size > 4 else 1.0, checkpoints={"a": None}, **FUNCTION
    )
    assert losing.estimates["a"].value == 4
    assert losing.losses("a")[2:].tolist() == [[math.inf] * 3] * 4


# -- saved work --------------------------------------------------------------------------------------------------------


def test_with_memory_finished_branches_are_loaded(tmp_path, steps):
    expected = compute()
    steps.made.clear()
    steps.function.stop = 36 + 2 * 21 + 12 + 3
    first = compute(memory=tmp_path)
    assert first.records == expected.records[:9]
    steps.function.stop = None
    steps.made.clear()
    again = compute(memory=tmp_path)
    assert again.records == expected.records
    assert again.noise_scales == expected.noise_scales
    assert len(steps.made) == 36 + 2 * 21 - 12
    steps.made.clear()
    assert compute(memory=tmp_path).records == expected.records
    assert not steps.made
    # Another size trains the run, and its own branches alone.
    more = compute(memory=tmp_path, batch_sizes=[*SIZES, 20])
    assert len(steps.made) == 36 + 4 * 3
    assert [r for r in more.records if r["batch_size"] != 20] == expected.records


@pytest.mark.parametrize(
    "other",
    [
        {"batch_norm": "running"},
        {"n_samples": 120},
        {"random_state": 1},
        {"lr_scaling": "sqrt"},
        {"estimator": sgd(lr=0.04)},
        {"data": (DATA[0], DATA[1], DATA[2] + 1, DATA[3])},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_work_is_not_loaded(tmp_path, other):
    model = {"estimator": sgd(), "checkpoints": [1], "n_orders": 1, "batch_sizes": [30]}
    if "batch_norm" in other:
        model["estimator"] = small(net=TinyF1, batch_size=5)
    compute(**model, memory=tmp_path)
    changed = {**model, **other}
    assert compute(**changed, memory=tmp_path).records == compute(**changed).records


def test_a_file_that_holds_something_else_is_not_believed(tmp_path):
    one = {"checkpoints": [1], "n_orders": 1, "batch_sizes": [30]}
    expected = compute(**one, memory=tmp_path)
    files = sorted(tmp_path.glob("*.branch"))
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:-20])
    with pytest.warns(UserWarning, match="done again"):
        assert compute(**one, memory=tmp_path).records == expected.records


def test_several_at_once_give_the_same():
    with joblib.parallel_config(backend="threading"):
        assert compute(n_jobs=2).records == compute().records


# -- the user's function -----------------------------------------------------------------------------------------------


def test_how_a_function_is_called():
    calls = []

    def train_from(state, batch_size, learning_rate, n_samples, random_state):
        calls.append((state, batch_size, learning_rate, n_samples, random_state))
        state["w"] = None  # a copy
        return torch.tensor(1.0 + 0.001 * len(calls))

    states = {10: {"w": 1}, 20: {"w": 2}}
    result = branched_critical_batch_size(
        train_from,
        checkpoints=states,
        batch_sizes=[8, 4],
        n_orders=2,
        **OF_FUNCTION | {"lr_scaling": "sqrt"},
        random_state=3,
        verbose=0,
    )
    assert states == {10: {"w": 1}, 20: {"w": 2}}
    seeds = {call[4] for call in calls}
    assert len(seeds) == 2
    assert all(type(seed) is int for seed in seeds)
    assert [call[1:4] for call in calls[:3]] == [
        (2, 0.01, 1024),
        (4, pytest.approx(0.01 * math.sqrt(2)), 1024),
        (8, pytest.approx(0.02), 1024),
    ]
    assert len(calls) == 12
    assert "at 10" in str(result)
    assert "epoch" not in result.verdict[0]


def test_keyword_arguments_and_objects_with_a_call_are_functions():
    class Loop:
        def __call__(self, state, **arguments):
            return by_formula(state, **arguments)

    result = branched_critical_batch_size(Loop(), checkpoints={"a": 1.0}, **FUNCTION)
    expected = branched_critical_batch_size(by_formula, checkpoints={"a": 1.0}, **FUNCTION)
    assert result.records == expected.records


@pytest.mark.parametrize("loss", [None, "1.0", [1.0], (1, 2), True, np.ones(2), object()])
def test_a_function_that_returns_no_number(loss):
    with pytest.raises(TypeError, match="train_from must return the held-out loss, a number"):
        branched_critical_batch_size(lambda state, **_: loss, checkpoints={"a": 1}, **FUNCTION)


@pytest.mark.parametrize("loss", [0.0, -1.0, -math.inf])
def test_a_loss_that_is_not_above_0(loss):
    with pytest.raises(ValueError, match="held-out loss must be above 0"):
        branched_critical_batch_size(lambda state, **_: loss, checkpoints={"a": 1}, **FUNCTION)


def test_a_state_that_cannot_be_copied():
    with pytest.raises(ValueError, match="checkpoints must hold states that can be copied"):
        branched_critical_batch_size(by_formula, checkpoints={"a": (i for i in range(3))}, **FUNCTION)


# -- leaving -----------------------------------------------------------------------------------------------------------


def test_every_form_it_leaves_in(found):
    content = json.loads(found.to_json())
    assert [point["checkpoint"] for point in content["points"]] == [1, 3]
    assert content["points"][0]["branched"]["value"] == found.estimates[1].value
    assert set(content["points"][0]["differences"]) == {"10", "30", "60"}
    assert content["settings"]["lr_scaling"] == "linear"
    assert r"\toprule" in found.to_latex()
    assert r"\%" in found.to_latex()
    assert found.to_markdown().count("\n") == len(found._table())
    assert "<table>" in found._repr_html_()
    assert len(found.to_frame()) == len(found.records)
    with pytest.raises(ValueError, match="checkpoint must be one of 1 and 3; got 2"):
        found.losses(2)


def test_the_cost_comes_first(capsys):
    result = compute(checkpoints=[1, 2], batch_sizes=[30], verbose=1)
    out, err = capsys.readouterr()
    assert out.startswith("cost: 9 fits, at most 80 updates")  # 24 of the run, 4 branches of 12 and 4 of 2
    assert "10/10" in err  # two of them measure the noise
    assert result.settings["cost"]["n_fits"] == [1, 4, 4]


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD = {
    "tolerance": ({"tolerance": 0}, "tolerance must be a number above 0; got 0"),
    "no orders": ({"n_orders": 0}, "n_orders must be an integer of at least 1; got 0"),
    "part of an epoch": ({"n_samples": 90}, "n_samples must be None or a multiple of the 60 training samples; got 90"),
    "smaller batches": ({"batch_sizes": [4, 10]}, "batch_sizes must be above the batch size of the run, 5"),
    "its own alone": ({"batch_sizes": [5]}, "batch_sizes must be above the batch size of the run, 5"),
    "no sizes": ({"batch_sizes": []}, "batch_sizes must be a non-empty sequence"),
    "a fraction": ({"batch_sizes": [0.5]}, "batch_sizes must be a non-empty sequence of integers of at least 1"),
    "more than the data": ({"batch_sizes": [61]}, "batch_sizes must be at most 60"),
    "epoch 0": ({"checkpoints": [0, 1]}, "checkpoints must be a non-empty sequence of epochs"),
    "no epochs": ({"checkpoints": []}, "checkpoints must be a non-empty sequence of epochs"),
    "states": ({"checkpoints": {1: "state"}}, "checkpoints must be a non-empty sequence of epochs"),
    "rule": ({"lr_scaling": "sde"}, "lr_scaling must be 'auto', 'sqrt', 'linear' or None; got 'sde'"),
    "a batch size": ({"batch_size": 5}, "batch_size must be None for an estimator"),
    "a rate": ({"learning_rate": 0.1}, "learning_rate must be None for an estimator"),
    "noise": ({"noise_scales": {1: 3.0}}, "noise_scales must be None for an estimator"),
    "noise from too few": ({"max_samples": 5}, "max_samples must be larger than the batch size of the run, 5"),
    "batches": ({"n_batches": 3}, "n_batches must be an integer of at least 4"),
    "memory without a seed": ({"memory": "m", "random_state": None}, "random_state is None"),
    "other labels": ({"data": (*DATA[:3], Y[60:] + 1)}, "y_valid must not have labels that y does not have"),
    "other columns": ({"data": (*DATA[:2], X[60:, :2], Y[60:])}, "X_valid must have samples of the same shape"),
    "nothing held out": ({"data": DATA[:2]}, "X_valid must be an array"),
    "scaled rate": ({"estimator": sgd(lr_scaling="linear")}, "lr_scaling=None"),
    "train longer": ({"estimator": sgd(regime_adaptation=True)}, "regime_adaptation=False"),
    "several processes": ({"estimator": sgd(data_parallel=True)}, "data_parallel=False"),
    "a split": ({"estimator": sgd(train_split=ValidSplit(5))}, "train_split=None"),
    "a regime": (
        {"estimator": sgd(batch_size=None, batch_regime=SwitchBatch(switch_epoch=1, first=5, then=10))},
        "constant batch size",
    ),
    "a scheduler": ({"estimator": sgd(callbacks=[("lr", LRScheduler())])}, "no callbacks.*LRScheduler"),
    "early stopping": ({"estimator": sgd(callbacks=[EarlyStopping()])}, "no callbacks.*EarlyStopping"),
    "a loader": ({"estimator": sgd(iterator_train__shuffle=False)}, "no iterator_train__shuffle"),
    "no published rule": ({"estimator": sgd(optimizer=torch.optim.Adagrad)}, "lr_scaling must be.*Adagrad"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    params, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        compute(**params)


BAD_FUNCTION = {
    "data": ({"X": X}, "X must be None for a function"),
    "held out": ({"y_valid": Y}, "y_valid must be None for a function"),
    "memory": ({"memory": "m"}, "memory must be None for a function"),
    "epochs": ({"checkpoints": [1, 2]}, "checkpoints must be a non-empty dict"),
    "no states": ({"checkpoints": {}}, "checkpoints must be a non-empty dict"),
    "labels": ({"checkpoints": {(1, 2): 0.0}}, "checkpoints must be a non-empty dict from names or numbers"),
    "no batch size": ({"batch_size": None}, "batch_size must be an integer"),
    "no rate": ({"learning_rate": None}, "learning_rate must be a number above 0"),
    "no samples": ({"n_samples": None}, "n_samples must be an integer"),
    "uneven": ({"n_samples": 1000}, "n_samples must be a multiple of every batch size.*got 1000 and batches of 16"),
    "a rule": ({"lr_scaling": "auto"}, "lr_scaling must be 'linear'.*; got 'auto'"),
    "noise of another": (
        {"noise_scales": {"b": 1.0}},
        "noise_scales must only have checkpoints that are given; got 'b'",
    ),
    "noise, a list": ({"noise_scales": [1.0]}, "noise_scales must be None or a dict"),
    "noise, text": ({"noise_scales": {"a": "much"}}, r"noise_scales\['a'\] must be a number"),
    "noise, not measured": ({"noise_scales": {"a": {"loss": 1.0}}}, r"noise_scales\['a'\] must be a number"),
    "noise, negative": ({"noise_scales": {"a": -5.0}}, r"noise_scales\['a'\] must be a number above 0"),
    "noise, one end": ({"noise_scales": {"a": {"noise_scale": -1e-9}}}, r"noise_scales\['a'\] must be a number above"),
    "noise, NaN": ({"noise_scales": {"a": float("nan")}}, r"noise_scales\['a'\] must be a number above 0"),
    "no measurement": (
        {"noise_scales": {"a": BatchSizeMonitor(torch.nn.Linear(2, 1))}},
        "must come from a BatchSizeMonitor that has measured",
    ),
    "too large": ({"batch_sizes": [2048]}, "batch_sizes must be at most 1024"),
}


@pytest.mark.parametrize("name", BAD_FUNCTION)
def test_bad_input_of_a_function(name):
    params, message = BAD_FUNCTION[name]
    with pytest.raises((ValueError, TypeError), match=message):
        branched_critical_batch_size(by_formula, **{"checkpoints": {"a": 1.0}, **FUNCTION, **params})


@pytest.mark.parametrize(
    "function",
    [lambda state: 1.0, lambda: 1.0, lambda state, batch_size, learning_rate, n_samples: 1.0, math.exp],
)
def test_a_function_of_other_arguments(function):
    with pytest.raises(TypeError, match="train_from\\(state, batch_size, learning_rate, n_samples, random_state\\)"):
        branched_critical_batch_size(function, checkpoints={"a": 1.0}, **FUNCTION)


def test_a_net_that_cannot_be_copied():
    with pytest.raises(ValueError, match=r"can be pickled.*top level of a module"):
        compute(small(net=interrupting_at(1), batch_size=5))


@pytest.mark.parametrize("estimator", [None, "F1", LBGapClassifier, StandardScaler(), Mlp, Mlp()], ids=repr)
def test_what_cannot_be_branched(estimator):
    with pytest.raises(TypeError, match="estimator must be an LBGapClassifier"):
        branched_critical_batch_size(estimator, *DATA, checkpoints=[1], batch_sizes=[10], random_state=0)


@pytest.mark.parametrize("returned", [10**400, float("nan"), float("inf")])
def test_a_loss_beyond_all_floats_has_diverged(returned):
    found = branched_critical_batch_size(
        lambda state, batch_size, learning_rate, n_samples, random_state: returned if batch_size == 16 else 1.0,
        **{**FUNCTION, "checkpoints": {"a": 1.0}, "batch_sizes": [4, 16]},
    )
    assert found.losses("a")[-1].tolist() == [math.inf] * len(found.losses("a")[-1])


@pytest.mark.parametrize("returned", [True, np.bool_(True), np.bool_(False)])
def test_a_truth_value_is_no_loss(returned):
    with pytest.raises(TypeError, match="train_from must return the held-out loss, a number"):
        branched_critical_batch_size(
            lambda state, batch_size, learning_rate, n_samples, random_state: returned,
            **{**FUNCTION, "checkpoints": {"a": 1.0}},
        )
