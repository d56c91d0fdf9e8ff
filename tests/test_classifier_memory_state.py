"""A killed fit whose parts have a state of their own ends where an undisturbed one does, or starts anew and says so."""

import collections
import os
import random
import types
import warnings

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from skorch.callbacks import Callback
from torch import nn
from torch.utils.data import Dataset, RandomSampler

from sklgap import LBGapClassifier, Remedy
from sklgap.memory import Memory
from sklgap.training import _checkpoint
from tests.test_classifier_memory import EPOCHS, Kill, Killed, assert_same, kill_after, seen
from tests.tiny import Mlp, blobs, same_weights, small

X, Y = blobs()


class Everything(Callback):
    """Notes all kinds of plain values, under names with and without underscore, and trains by them."""

    def __init__(self, start=0):
        self.start = start

    def initialize(self):
        self.count, self.seen, self.pairs_ = self.start, [], ()
        self.best, self.where = float("inf"), None
        self.table = collections.OrderedDict(a=1)
        self.by_size = collections.defaultdict(list)
        self.last = collections.deque(maxlen=3)
        self.array, self.tensor = np.zeros(3, "f4"), torch.zeros(2)
        self.same = self.tensor
        self.rng, self.numpy = random.Random(0), np.random.default_rng(0)
        self.old, self.torch = np.random.RandomState(0), torch.Generator().manual_seed(0)
        self.names = {"a"}
        return self

    def on_epoch_end(self, net, **kwargs):
        loss = net.history[-1, "train_loss"]
        self.count += 1
        self.seen.append(loss)
        self.pairs_ = (*self.pairs_, (self.count, np.float32(loss)))
        self.best, self.where = min(self.best, loss), np.int64(self.count)
        self.table[f"epoch {self.count}"] = loss
        self.table.move_to_end("a")
        self.by_size[self.count % 2].append(loss)
        self.last.append(complex(loss, 1))
        self.array = self.array + np.float32(loss)
        self.tensor += loss
        self.names.add(f"epoch {self.count}")
        self.shape, self.kind = torch.Size([self.count]), torch.float64
        net.noted = [self.count]
        draws = self.rng.random() + self.numpy.random() + self.old.random_sample()
        draws += torch.rand((), generator=self.torch).item()
        for group in net.optimizer_.param_groups:
            group["lr"] = 1e-2 * draws / (self.count + self.same[0].item() + len(self.names))


class Attributes(nn.Module):
    """Counts in a plain attribute, assigns a buffer anew, draws from a generator and through a hook."""

    def __init__(self, hooked=True):
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 3), 0
        self.register_buffer("mean", torch.zeros(3))
        self.rng = np.random.RandomState(1)
        steps = 0

        def hook(module, args, output):
            nonlocal steps
            steps += module.training
            return output * (1 + 0.001 * steps)

        if hooked:
            self.layer.register_forward_hook(hook)

    def forward(self, x):
        out = self.layer(x)
        if self.training:
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * out.detach().mean(0)
            self.past = (self.calls, [float(self.rng.rand())])
            out = out * (1 + 0.1 * self.past[1][0])
        return out - self.mean.to(out) + 0.01 * self.calls


class GrowingLoss(nn.CrossEntropyLoss):
    def __init__(self):
        super().__init__()
        self.times = 0
        self.register_buffer("scale", torch.ones(()))

    def forward(self, y_pred, y):
        self.times += 1
        self.scale *= 0.99
        return super().forward(y_pred, y) * self.scale / self.times**0.01


class Jitter:
    def __init__(self, kind="RandomState"):
        self.kind = kind
        self.random = np.random.RandomState(0) if kind == "RandomState" else torch.Generator().manual_seed(0)

    def __call__(self, batch):
        noise = (
            torch.from_numpy(self.random.randn(*batch.shape))
            if self.kind == "RandomState"
            else torch.randn(batch.shape, generator=self.random)
        )
        return batch + 0.1 * noise.to(batch)


class Cooling(Remedy):
    """Against the rule a remedy with a state."""

    def __init__(self, scale=0.1):
        self.scale = scale

    def transform_batch(self, batch, rng):
        self.times_ = getattr(self, "times_", 0) + 1
        return batch._replace(X=batch.X * (1 + self.scale / self.times_))


class Drawing:
    """An init that draws from a state of its own."""

    def __init__(self, shared=None):
        self.random = np.random.RandomState(5)

    def __call__(self, module):
        for p in module.parameters():
            with torch.no_grad():
                p.copy_(torch.from_numpy(self.random.normal(0, 0.3, tuple(p.shape))))


class Momentum(torch.optim.SGD):
    """An optimiser with an attribute of its own."""

    def step(self, closure=None):
        self.times = getattr(self, "times", 0) + 1
        for group in self.param_groups:
            group["lr"] = 0.05 / self.times
        return super().step(closure)


class Ordered(RandomSampler):
    """A sampler of the user's with a state."""

    def __init__(self):
        super().__init__(range(60))
        self.epochs = 0

    def __iter__(self):
        self.epochs += 1
        return iter(np.random.RandomState(self.epochs).permutation(60).tolist())


def following(scale):
    return lambda step: scale / (1 + step)


class UsersScheduler(Callback):
    def __init__(self, scale=1.0):
        self.scale = scale

    def on_train_begin(self, net, **kwargs):
        self.scheduler_ = torch.optim.lr_scheduler.LambdaLR(net.optimizer_, following(self.scale))
        self.net_, self.weights_ = net, list(net.module_.parameters())

    def on_epoch_end(self, net, **kwargs):
        self.scheduler_.step()
        with torch.no_grad():
            self.weights_[0].mul_(0.99)


RESUMED = {
    "callback": lambda: {"callbacks": [("all", Everything())]},
    "module": lambda: {"net": Attributes},
    "module that is an instance": lambda: {"net": seeded(lambda: Attributes(hooked=False))},
    "criterion": lambda: {"criterion": GrowingLoss},
    "augmentation of NumPy": lambda: {"augmentation": Jitter()},
    "augmentation of torch": lambda: {"augmentation": Jitter("torch")},
    "remedy": lambda: {"remedies": [("cooling", Cooling())]},
    "init": lambda: {"init": Drawing()},
    "optimiser": lambda: {"optimizer": Momentum},
    "generator of the iterator": lambda: {
        "iterator_train__shuffle": True,
        "iterator_train__generator": torch.Generator().manual_seed(2),
    },
    "sampler": lambda: {"iterator_train__sampler": Ordered()},
    "dropout and all": lambda: {
        "net": Attributes,
        "criterion": GrowingLoss,
        "augmentation": Jitter(),
        "callbacks": [("all", Everything())],
        "remedies": [("cooling", Cooling())],
    },
}


def seeded(make):
    torch.manual_seed(0)
    return make()


class CountingClass(Mlp):
    calls = 0

    def forward(self, x):
        type(self).calls += self.training
        return super().forward(x) * (1 + 0.01 * type(self).calls)


COUNT = {"n": 0}


def counting(batch):
    COUNT["n"] += 1
    return batch * (1 + 0.01 * COUNT["n"])


def with_closure():
    count = 0

    def augment(batch):
        nonlocal count
        count += 1
        return batch * (1 + 0.01 * count)

    return augment


def drawing(batch):
    return batch + 0.1 * torch.from_numpy(np.random.standard_normal(batch.shape)).to(batch)  # noqa: NPY002


class Making(Callback):
    """Comes to hold what only a pickle could bring back."""

    def on_epoch_end(self, net, **kwargs):
        self.thing = types.SimpleNamespace(loss=net.history[-1, "train_loss"])


class Aliasing(Callback):
    def on_epoch_end(self, net, **kwargs):
        self.weight = net.module_.layers[0].weight.detach()


class Hooking(Callback):
    def on_epoch_end(self, net, **kwargs):
        net.module_.register_forward_hook(lambda module, args, output: output * 1.01)


class UsersData(Dataset):
    def __init__(self, X, y, length=None):
        self.X, self.y, self.rng = X, y, np.random.RandomState(0)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i] + np.float32(0.1 * self.rng.randn()), self.y[i]


ANEW = {
    "a class that counts": (lambda: {"net": CountingClass}, "it changes its parameters"),
    "a global that counts": (lambda: {"augmentation": counting}, "it changes its parameters"),
    "a closure that counts": (lambda: {"augmentation": with_closure()}, "it changes its parameters"),
    "global random numbers": (lambda: {"augmentation": drawing}, "it draws from global random numbers"),
    "an object made on the way": (
        lambda: {"callbacks": [("making", Making())]},
        "the callback 'making'.thing is a SimpleNamespace that the training has made",
    ),
    "another view of weights": (lambda: {"callbacks": [("aliasing", Aliasing())]}, "share memory"),
    "hooks": (lambda: {"callbacks": [("hooking", Hooking())]}, "the hooks of module have changed"),
}


@pytest.fixture(autouse=True)
def _every_epoch_is_saved(monkeypatch):
    monkeypatch.setattr(_checkpoint, "SHARE", 1e9)
    kill_after()


def estimator(memory=None, **parameters):
    parameters = {"net": Mlp, "batch_size": 12, "lr": 0.01, **parameters}
    parameters["callbacks"] = [*parameters.get("callbacks", ()), ("kill", Kill())]
    return LBGapClassifier(tol=None, random_state=0, max_epochs=EPOCHS, device="cpu", memory=memory, **parameters)


def noted(model):
    """What callbacks, module, criterion, remedies, optimiser and net have noted, as text."""
    net = model.net_
    parts = [*(callback for _, callback in net.callbacks_), net.module_, net.criterion_, *net.remedies, net.optimizer_]
    return [
        {
            name: text(held)
            for name, held in vars(part).items()
            if not name.endswith(("time_", "net_", "_hooks", "sizes_"))
        }
        for part in (*parts, types.SimpleNamespace(noted=getattr(net, "noted", None)))
    ]


def text(value):
    if isinstance(value, np.random.RandomState):
        return text(value.get_state())
    if isinstance(value, np.random.Generator):
        return text(value.bit_generator.state)
    if isinstance(value, random.Random):
        return text(value.getstate())
    if isinstance(value, torch.Generator):
        return text(value.get_state().sum())
    if isinstance(value, dict):
        return type(value).__name__, [(text(key), text(held)) for key, held in value.items()]
    if isinstance(value, list | tuple | collections.deque):
        return type(value).__name__, [text(held) for held in value]
    if isinstance(value, set):
        return sorted(value)
    return type(value).__name__, repr(value) if " at 0x" not in repr(value) else ""


@pytest.mark.parametrize("case", RESUMED)
def test_a_killed_fit_with_a_state_of_its_own(case, tmp_path):
    expected = estimator(**RESUMED[case]()).fit(X, Y)
    n_batches = sum(expected.history_[:, "train_batch_count"])
    kill_after(n_batches // 3, n_batches // 3)
    for _ in range(2):
        with pytest.raises(Killed):
            estimator(tmp_path, **RESUMED[case]()).fit(X, Y)
    kill_after()
    model = estimator(tmp_path, **RESUMED[case]()).fit(X, Y)
    assert 0 < seen() < n_batches  # it did go on
    assert_same(model, expected)
    assert noted(model) == noted(expected)
    kill_after(1)  # the finished fit is loaded
    loaded = estimator(tmp_path, **RESUMED[case]()).fit(X, Y)
    assert_same(loaded, expected)
    assert noted(loaded) == noted(expected)


def test_a_finished_fit_with_an_object_made_as_it_began(tmp_path):
    """It is not saved as finished; what was saved at the last epoch goes on to the end."""
    parameters = {"callbacks": [("steps", UsersScheduler())]}
    expected = estimator(**parameters).fit(X, Y)
    kill_after(15)
    with pytest.raises(Killed):
        estimator(tmp_path, **parameters).fit(X, Y)
    for n_batches in (20 - 10, 0):  # batches from the last saved epoch to the end
        kill_after(n_batches + 1)
        with pytest.warns(UserWarning, match="this finished fit is not saved, because optimizer.step is a function"):
            model = estimator(tmp_path, **parameters).fit(X, Y)
        assert_same(model, expected)
        assert noted(model) == noted(expected)


@pytest.mark.parametrize("case", ANEW)
def test_a_fit_that_cannot_be_saved_starts_anew_and_says_so(case, tmp_path, monkeypatch):
    make, reason = ANEW[case]

    def begin():
        monkeypatch.setattr(CountingClass, "calls", 0)
        monkeypatch.setitem(COUNT, "n", 0)
        np.random.seed(0)  # noqa: NPY002

    begin()
    expected = estimator(**make()).fit(X, Y)
    begin()
    kill_after(15)
    with (
        pytest.warns(UserWarning, match="cannot continue after an interruption, because") as told,
        pytest.raises(Killed),
    ):
        estimator(tmp_path, **make()).fit(X, Y)
    assert [str(w.message) for w in told if reason in str(w.message)]
    for _ in range(2):
        begin()
        kill_after()
        with (
            pytest.warns(UserWarning, match="this fit cannot continue"),
            pytest.warns(match="this finished fit is not saved"),
        ):
            model = estimator(tmp_path, **make()).fit(X, Y)
        assert_same(model, expected)
    assert not list(tmp_path.glob("*.*"))


def test_data_of_the_users_own_start_anew(tmp_path):
    expected = estimator(dataset=UsersData).fit(X, Y)
    kill_after(15)
    with pytest.warns(UserWarning, match="interruption, because dataset is the user's own"), pytest.raises(Killed):
        estimator(tmp_path, dataset=UsersData).fit(X, Y)
    kill_after()
    with pytest.warns(UserWarning, match="interruption, because dataset is the user's own"):
        assert_same(estimator(tmp_path, dataset=UsersData).fit(X, Y), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(estimator(tmp_path, dataset=UsersData).fit(X, Y), expected)


def test_threads_that_train_side_by_side(tmp_path):
    jobs = [delayed(estimator(tmp_path, lr=lr).fit)(X, Y) for lr in (0.01, 0.02, 0.03)]
    models = Parallel(2, backend="threading")(jobs)
    assert len(list(tmp_path.glob("*.fit"))) == 3
    for lr, model in zip((0.01, 0.02, 0.03), models, strict=True):
        assert_same(estimator(lr=lr).fit(X, Y), model)


def test_a_bar_changes_no_result(tmp_path):
    first = estimator(tmp_path).fit(X, Y)
    kill_after(1)
    assert_same(estimator(tmp_path, verbose=1).fit(X, Y), first)


def test_the_users_own_objects_are_not_changed(tmp_path):
    init, generator = Drawing(), torch.Generator().manual_seed(2)
    parameters = {"init": init, "iterator_train__generator": generator, "iterator_train__shuffle": True}
    first = estimator(tmp_path, **parameters).fit(X, Y)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(2).get_state())
    assert init.random.rand() == np.random.RandomState(5).rand()
    init.random.seed(5)
    kill_after(1)
    assert_same(estimator(tmp_path, **parameters).fit(X, Y), first)


class Interrupt(Callback):
    """Ends the first fit in its third epoch, as Ctrl-C does."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3 and os.environ.get("SKLGAP_TEST_INTERRUPTS"):
            raise KeyboardInterrupt


@pytest.mark.parametrize("forged", ["text", "shape"])
def test_a_forged_state_that_breaks_the_first_step_is_refused(forged, tmp_path, monkeypatch):
    monkeypatch.setattr(_checkpoint, "SHARE", 1e9)  # save after every epoch
    X, y = blobs()

    def model(memory=None):
        return small(max_epochs=5, memory=memory, callbacks=[("interrupt", Interrupt())])

    expected = model().fit(X, y)
    monkeypatch.setenv("SKLGAP_TEST_INTERRUPTS", "1")
    with pytest.raises(KeyboardInterrupt):
        model(tmp_path).fit(X, y)
    monkeypatch.delenv("SKLGAP_TEST_INTERRUPTS")
    (path,) = tmp_path.glob("*.part")
    folder = Memory(tmp_path)
    entry = folder.read(path.stem, "part")
    nodes = [node for node in entry["state"]["nodes"] if isinstance(node, dict)]
    if forged == "text":
        (betas,) = [node for node in nodes if list(node.get("items", ())) == [0.9, 0.999]]
        betas["items"] = type(betas["items"])(["0.9", 0.999])
    else:
        # What the training has made stands at no place of a net that begins: gradients, and moments of the optimiser.
        made = [node for node in nodes if torch.is_tensor(node.get("data")) and node["at"] is None]
        moments = [node for node in made if node["data"].ndim == 2]
        assert moments
        for node in moments:
            node["data"] = node["data"][:2]
    folder.write(path.stem, "part", entry)
    with pytest.warns(UserWarning, match="memory: .*the work is done again"):
        again = model(tmp_path).fit(X, y)
    assert same_weights(again, expected)
    assert not list(tmp_path.glob("*.part"))
