"""Data that are loaded: the same numbers as the same data as arrays, or refused in one sentence."""

import itertools
import random
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import sparse
from skorch.dataset import Dataset as SkorchDataset
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from sklgap import LBGapClassifier
from sklgap.inspection import (
    adaptive_sharpness,
    average_sharpness,
    ball_sharpness,
    gradient_noise_scale,
    gradient_standard_error,
    hessian_eigenvalues,
    hessian_spectral_density,
    hessian_trace,
    loss_along_arc,
    loss_along_line,
    loss_on_plane,
    m_sharpness,
    ritz_values,
    sharpness,
)
from sklgap.objective import Objective, check_objective
from tests.cases import DOUBLE, POLICIES, no_global_random_numbers, seeded_module, vectors
from tests.references import flat, hessian_product, loss_of_flat
from tests.references import gradient as gradient_of

CE = nn.CrossEntropyLoss()
N = 23
X, Y = vectors(N)


def tanh_net():
    return seeded_module(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))


def norm_net():
    return seeded_module(lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)))


class Rows(Dataset):
    """Single samples, as users write them."""

    def __init__(self, X=X, y=Y, note=lambda: None):
        self.X, self.y, self.note = X, y, note

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        self.note()
        return self.X[i], int(self.y[i]) if self.y.ndim == 1 and not self.y.is_floating_point() else self.y[i]


class Numpy(Rows):
    def __getitem__(self, i):
        return self.X[i].numpy(), self.y[i].numpy()


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(list(zip(X, Y.tolist(), strict=True)))


class Batches(Dataset):
    """Whole batches, for ``batch_size=None``."""

    parts = (slice(0, 10), slice(10, 16), slice(16, 23))

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[self.parts[i]], Y[self.parts[i]]


def last_two_first(samples):
    """A collate function that changes the batch."""
    inputs, targets = zip(*samples, strict=True)
    return torch.stack(inputs).flip(1), torch.tensor(targets)


SOURCES = {
    "dataset": lambda: Rows(),
    "tensors": lambda: TensorDataset(X, Y),
    "numpy": lambda: Numpy(),
    "skorch": lambda: SkorchDataset(X.numpy(), Y.numpy()),
    "concatenation": lambda: ConcatDataset([Rows(X[:9], Y[:9]), Rows(X[9:], Y[9:])]),
    "subset": lambda: Subset(Rows(torch.cat([X[:5], X]), torch.cat([Y[:5], Y])), range(5, 28)),
    "loader": lambda: DataLoader(Rows(), batch_size=6),
    "loader of tensors": lambda: DataLoader(TensorDataset(X, Y), batch_size=6),
    "loader, whole": lambda: DataLoader(Rows(), batch_size=N),
    "loader, reversed": lambda: DataLoader(Rows(), sampler=range(N - 1, -1, -1), batch_size=4),
    "loader, batches": lambda: DataLoader(Rows(), batch_sampler=[[3, 1], list(range(4, 23)), [0, 2]]),
    "loader, batch sampler": lambda: DataLoader(Rows(), batch_sampler=BatchSampler(SequentialSampler(X), 7, False)),
    "loader, no batches": lambda: DataLoader(Batches(), batch_size=None),
    "loader, iterable": lambda: DataLoader(Streamed(), batch_size=9),
    "loader, workers": lambda: DataLoader(Rows(), batch_size=8, num_workers=2),
    "loader, shuffled": lambda: DataLoader(Rows(), batch_size=8, shuffle=True),
    "loader, shuffled tensors": lambda: DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True),
    "loader, random": lambda: DataLoader(Rows(), batch_size=8, sampler=RandomSampler(X)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_numbers_as_arrays(source):
    reference = Objective(tanh_net(), CE, (X, Y))
    theta = reference.theta0 + 0.3
    with no_global_random_numbers():
        state = random.getstate()
        f = Objective(tanh_net(), CE, SOURCES[source](), chunk_size=7)
        assert f.n_samples == N
        for _ in range(2):
            torch.testing.assert_close(f.gradient(theta), reference.gradient(theta), **DOUBLE)
        assert f.evaluate(theta) == pytest.approx(reference.evaluate(theta), rel=1e-12)
        torch.testing.assert_close(f.hvp(theta), reference.hvp(theta), **DOUBLE)
        assert random.getstate() == state


FIXED = [name for name in SOURCES if "shuffled" not in name and "random" not in name]


# Processes that load batches take a second to start: with one policy.
CASES = [(s, policy) for s in FIXED for policy in POLICIES if s != "loader, workers" or policy == "batch"]


@pytest.mark.parametrize(("source", "policy"), CASES)
def test_batches_are_chunks_for_batch_norm(source, policy):
    f = Objective(norm_net(), CE, SOURCES[source](), chunk_size=7, batch_norm=policy)
    order = np.concatenate([np.where((row == X).all(1))[0] for batch in f.data for row in batch.X])
    bounds = np.cumsum([0, *f.data.sizes])
    parts = [torch.from_numpy(order[a:b]) for a, b in itertools.pairwise(bounds)]
    module = norm_net()
    if policy == "batch":
        expected = sum(len(part) / N * CE(norm_net().train()(X[part]), Y[part]).item() for part in parts)
    elif policy == "population":
        expected = Objective(module, CE, (X, Y), batch_norm="batch").value()
    else:
        expected = CE(module.eval()(X), Y).item()
    assert f.value() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_dataset_is_cut_as_arrays_are(policy):
    f, g, h = (
        Objective(norm_net(), CE, data, chunk_size=7, batch_norm=policy)
        for data in (Rows(), (X, Y), TensorDataset(X, Y))
    )
    assert f.value() == g.value() == h.value()
    torch.testing.assert_close(f.batch_gradient([3, 11, 20]), g.batch_gradient([3, 11, 20]), **DOUBLE)
    torch.testing.assert_close(h.batch_gradient([3, 11, 20]), g.batch_gradient([3, 11, 20]), **DOUBLE)


# -- loaders that choose -----------------------------------------------------------------------------------------------


CHOICES = {
    "sampler": lambda data: DataLoader(data, sampler=[20, 3, 3, 11, 8, 21], batch_size=4),
    "last dropped": lambda data: DataLoader(data, batch_size=6, drop_last=True),
    "batches": lambda data: DataLoader(data, batch_sampler=[[20, 3, 3], [11, 8, 21]]),
}


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("choice", CHOICES)
def test_loaders_that_take_some_of_the_samples(choice, tensors):
    loader = CHOICES[choice](TensorDataset(X, Y) if tensors else Rows())
    chosen = [i for part in loader.batch_sampler for i in part]
    f, g = Objective(tanh_net(), CE, loader), Objective(tanh_net(), CE, (X[chosen], Y[chosen]))
    assert f.n_samples == len(chosen)
    torch.testing.assert_close(f.gradient(), g.gradient(), **DOUBLE)
    rows = [0, 4, 5]  # of what the loader yields
    torch.testing.assert_close(f.batch_gradient(rows), g.batch_gradient(rows), **DOUBLE)
    with pytest.raises(ValueError, match=f"rows must be a sequence of integers from 0 to {len(chosen) - 1}"):
        f.batch_gradient([len(chosen)])
    noise = [
        gradient_noise_scale(o, random_state=0, method="batches", batch_size=2, n_batches=10).noise_scale
        for o in (f, g)
    ]
    assert noise[0] == pytest.approx(noise[1], rel=1e-9)


def test_collate_functions_are_used():
    for loader in (
        DataLoader(Rows(), batch_size=6, collate_fn=last_two_first),
        DataLoader(TensorDataset(X, Y), batch_size=6, collate_fn=last_two_first),
        DataLoader(Batches(), batch_size=None, collate_fn=lambda batch: (batch[0].flip(1), batch[1])),
        DataLoader(Streamed(), batch_size=5, collate_fn=last_two_first),
    ):
        f = Objective(tanh_net(), CE, loader)
        assert f.value() == pytest.approx(CE(tanh_net()(X.flip(1)), Y).item(), rel=1e-12)


class Flips(DataLoader):
    """A loader with a loop of its own, which changes the batches."""

    def __iter__(self):
        for inputs, target in super().__iter__():
            yield inputs.flip(1), target


def test_a_loader_with_a_loop_of_its_own():
    expected = CE(tanh_net()(X.flip(1)), Y).item()
    for dataset in (Rows(), TensorDataset(X, Y)):
        assert Objective(tanh_net(), CE, Flips(dataset, batch_size=6)).value() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="data must be the same in every pass"):
        Objective(tanh_net(), CE, Flips(Rows(), batch_size=6, shuffle=True))


def test_generators_of_a_loader_are_left_as_they_were():
    for make in (
        lambda g: DataLoader(Rows(), batch_size=8, shuffle=True, generator=g),
        lambda g: DataLoader(TensorDataset(X, Y), batch_size=8, sampler=SubsetRandomSampler(range(20), g)),
        lambda g: DataLoader(Rows(), batch_sampler=BatchSampler(RandomSampler(X, generator=g), 5, False)),
    ):
        generator = torch.Generator().manual_seed(3)
        state = generator.get_state()
        Objective(tanh_net(), CE, make(generator)).gradient()
        assert torch.equal(generator.get_state(), state)


SHUFFLED = {
    "shuffle": lambda data: DataLoader(data, batch_size=8, shuffle=True),
    "sampler": lambda data: DataLoader(data, batch_size=8, sampler=RandomSampler(data)),
    "subset": lambda data: DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(range(23))),
    "batches": lambda data: DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 6, False)),
}


@pytest.mark.parametrize("data", [Rows, lambda: TensorDataset(X, Y)])
@pytest.mark.parametrize("policy", ["batch", "population"])
@pytest.mark.parametrize("how", SHUFFLED)
def test_shuffling_is_refused_where_batch_statistics_depend_on_it(how, policy, data):
    with pytest.raises(ValueError, match="this DataLoader shuffles; use shuffle=False, or pass its dataset"):
        Objective(norm_net(), CE, SHUFFLED[how](data()), batch_norm=policy)
    f = Objective(norm_net(), CE, SHUFFLED[how](data()), batch_norm="running")
    assert f.value() == pytest.approx(CE(norm_net().eval()(X), Y).item(), rel=1e-12)


OTHERS = {
    "drop_last": lambda data: DataLoader(data, batch_size=8, shuffle=True, drop_last=True),
    "weighted": lambda data: DataLoader(data, batch_size=8, sampler=WeightedRandomSampler(torch.ones(23), 23)),
    "with replacement": lambda data: DataLoader(data, sampler=RandomSampler(data, replacement=True), batch_size=5),
    "without batches": lambda data: DataLoader(
        Batches(), sampler=RandomSampler(range(3), replacement=True), batch_size=None
    ),
    "once": lambda data: DataLoader(data, batch_sampler=iter([[0, 1], [2, 3]])),
}


@pytest.mark.parametrize("data", [Rows, lambda: TensorDataset(X, Y)])
@pytest.mark.parametrize("how", OTHERS)
def test_other_samples_in_every_pass_are_refused(how, data):
    with pytest.raises(ValueError, match="data must be the same samples in every pass"):
        Objective(tanh_net(), CE, OTHERS[how](data()))


class Once(IterableDataset):
    """A generator that is used up after one pass."""

    def __init__(self):
        self.rows = zip(X, Y.tolist(), strict=True)

    def __iter__(self):
        return self.rows


class Reshuffled(IterableDataset):
    def __iter__(self):
        return iter([(X[i], int(Y[i])) for i in torch.randperm(N).tolist()])


@pytest.mark.parametrize("dataset", [Once, Reshuffled])
def test_streams_that_differ_in_every_pass_are_refused(dataset):
    with pytest.raises(ValueError, match="data must be the same in every pass"):
        Objective(tanh_net(), CE, DataLoader(dataset(), batch_size=6))


class Augmented(Rows):
    def __init__(self, how):
        super().__init__()
        self.how, self.numbers = how, np.random.default_rng(0)

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        draw = {
            "torch": lambda: float(torch.rand(())),
            "numpy": np.random.rand,
            "python": random.random,
            "own": self.numbers.random,
            "fresh": lambda: np.random.default_rng().random(),
        }[self.how.removeprefix("seldom ")]()
        if self.how.startswith("seldom"):
            return (x.flip(0) if draw < 0.1 else x), y
        return x * draw, y


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: DataLoader(data, batch_size=4)])
@pytest.mark.parametrize(
    "how",
    ["torch", "numpy", "python", "own", "fresh", "seldom torch", "seldom numpy", "seldom python"],
)
def test_random_augmentation_is_refused(how, wrap):
    with no_global_random_numbers(), pytest.raises(ValueError, match="Remove random augmentation and shuffling from"):
        Objective(tanh_net(), CE, wrap(Augmented(how)))


class DrawsInVain(Rows):
    def __getitem__(self, i):
        torch.rand(2), np.random.rand(), random.random()  # noqa: NPY002
        return super().__getitem__(i)


def test_random_numbers_without_effect():
    with no_global_random_numbers():
        f = Objective(tanh_net(), CE, DrawsInVain(), chunk_size=7)
        assert f.value() == pytest.approx(Objective(tanh_net(), CE, (X, Y)).value(), rel=1e-12)


class NoLength(Dataset):
    def __getitem__(self, i):
        return X[i], int(Y[i])


BAD = {
    "empty": (lambda: TensorDataset(X[:0], Y[:0]), ValueError, "at least one sample; the Dataset is empty"),
    "empty loader": (lambda: DataLoader(Rows(), batch_sampler=[]), ValueError, "the DataLoader is empty"),
    "nothing streamed": (lambda: DataLoader(Streamed(), batch_size=50, drop_last=True), ValueError, "loader is empty"),
    "iterable": (Streamed, TypeError, "a Dataset with a length and an index, or a DataLoader over such a Dataset"),
    "no length": (NoLength, TypeError, "a Dataset with a length and an index, or a DataLoader over such a Dataset"),
    "list": (lambda: [(X, Y)] * 3, TypeError, "data must be a pair .X, y., a Dataset or a DataLoader; got list"),
    "three parts": (lambda: TensorDataset(X, Y, Y), TypeError, "got 3 parts. For any other batch, pass a function"),
    "a dict of other names": (
        lambda: Subset([{"image": x, "label": 0} for x in X], range(5)),
        TypeError,
        r"got a dict with \['image', 'label'\]. .* its first argument must be named module or model",
    ),
    "no target": (lambda: TensorDataset(X), TypeError, "got 1 parts"),
    "only a tensor": (lambda: Subset(X, range(5)), TypeError, "got a Tensor"),
    "two targets": (
        lambda: Subset([(x, (1, 2.0)) for x in X], range(5)),
        TypeError,
        "The target of a batch must be a single tensor",
    ),
    "single samples": (lambda: DataLoader(Rows(), batch_size=None), ValueError, "one target for each sample"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_data(case):
    make, error, words = BAD[case]
    with pytest.raises(error, match=words):
        Objective(tanh_net(), CE, make())


def test_one_sample():
    for data in (Rows(X[:1], Y[:1]), DataLoader(Rows(X[:1], Y[:1])), TensorDataset(X[:1], Y[:1])):
        assert Objective(tanh_net(), CE, data).value() == pytest.approx(CE(tanh_net()(X[:1]), Y[:1]).item())
        with pytest.raises(ValueError, match="needs at least two samples in every chunk; got 1 samples in 1 chunks"):
            Objective(norm_net(), CE, data)


# -- forms of a batch --------------------------------------------------------------------------------------------------


class Words(nn.Module):
    """Takes a dict of padded words, and returns an object with logits."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask):
        hidden = torch.tanh(self.table(input_ids)) * attention_mask[..., None]
        return {"loss": None, "logits": self.out(hidden.sum(1) / attention_mask.sum(1, keepdim=True))}


def sentences():
    rng = np.random.default_rng(0)
    return [
        {"input_ids": rng.integers(1, 9, size=rng.integers(1, 6)).tolist(), "labels": int(rng.integers(3))}
        for _ in range(N)
    ]


def pad(samples, to=None):
    longest = max(len(s["input_ids"]) for s in samples) if to is None else to
    ids = torch.tensor([s["input_ids"] + [0] * (longest - len(s["input_ids"])) for s in samples])
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).double(),
        "labels": torch.tensor([s["labels"] for s in samples]),
    }


def test_dicts_that_are_padded_batch_by_batch():
    rows = sentences()
    whole = pad(rows)
    y = whole.pop("labels")
    module = seeded_module(Words)
    reference = Objective(module, CE, (whole, y))
    f = Objective(module, CE, DataLoader(rows, batch_size=5, collate_fn=pad))
    torch.testing.assert_close(f.gradient(), reference.gradient(), **DOUBLE)
    torch.testing.assert_close(f.hvp(f.theta0), reference.hvp(f.theta0), **DOUBLE)
    assert f.evaluate() == pytest.approx(reference.evaluate(), rel=1e-12)
    torch.testing.assert_close(f.batch_gradient([4, 9]), reference.batch_gradient([4, 9]), **DOUBLE)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, left, right):
        return self.a(left) * self.b(right).sin()


def test_tuples_for_several_inputs():
    class Pairs(Rows):
        def __getitem__(self, i):
            return (X[i], X[i, :2]), int(Y[i])

    module = seeded_module(Pair)
    f, g = Objective(module, CE, Pairs(), chunk_size=7), Objective(module, CE, ((X, X[:, :2]), Y), chunk_size=7)
    torch.testing.assert_close(f.gradient(), g.gradient(), **DOUBLE)


TARGETS = {
    "column": (nn.MSELoss(), torch.linspace(-1, 1, N, dtype=torch.float64)[:, None], nn.Linear(4, 1)),
    "flat": (
        nn.MSELoss(),
        torch.linspace(-1, 1, N, dtype=torch.float64),
        nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)),
    ),
    "probabilities": (CE, torch.softmax(X[:, :3], 1), nn.Linear(4, 3)),
    "pixels": (
        nn.CrossEntropyLoss(ignore_index=2, weight=torch.tensor([1.0, 5.0, 1.0]).double()),
        torch.arange(N * 4).view(N, 2, 2) % 3,
        nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2))),
    ),
    "ignored": (nn.CrossEntropyLoss(), torch.where(torch.arange(N) % 4 == 0, -100, Y), nn.Linear(4, 3)),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_targets(kind):
    criterion, y, build = TARGETS[kind]
    module = build.double()
    expected = criterion(module(X), y).item()
    for data in (Rows(X, y), DataLoader(Rows(X, y), batch_size=5), TensorDataset(X, y), (X, y)):
        f = Objective(module, criterion, data, chunk_size=4)
        assert f.value() == pytest.approx(expected, rel=1e-10)
        f.hvp(f.theta0)


def test_a_column_beside_flat_outputs_is_refused():
    y = torch.linspace(-1, 1, N, dtype=torch.float64)[:, None]
    module = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)).double()
    for criterion in (nn.MSELoss(), nn.L1Loss(), F.mse_loss, F.huber_loss, nn.BCEWithLogitsLoss()):
        with pytest.raises(ValueError, match=r"outputs must have the shape of y|must be the same as input size"):
            Objective(module, criterion, Rows(X, y))


# -- loss(module, batch) -----------------------------------------------------------------------------------------------


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, ids):
        return self.out(torch.tanh(self.table(ids)))


def tags(samples, to=None):
    batch = pad(samples, to)
    batch["labels"] = torch.where(batch["input_ids"] > 0, batch["input_ids"] % 3, -100)
    return batch


def token_loss(module, batch):
    counted = int((batch["labels"] != -100).sum())
    logits = module(batch["input_ids"])
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()), counted


def test_a_mean_over_tokens():
    module, rows = seeded_module(Tagger), sentences()
    whole = tags(rows)
    expected = token_loss(module, whole)[0]
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(expected, list(module.parameters()))])
    for data in (DataLoader(rows, batch_size=4, collate_fn=tags), DataLoader(rows, batch_size=N, collate_fn=tags)):
        f = Objective(module, token_loss, data)
        value, found = f.gradient()
        assert value == pytest.approx(expected.item(), rel=1e-12)
        torch.testing.assert_close(found, gradient, **DOUBLE)
        g = Objective(module, token_loss, DataLoader(rows, N, collate_fn=tags))
        torch.testing.assert_close(f.hvp(f.theta0), g.hvp(f.theta0), **DOUBLE)
    f = Objective(module, token_loss, DataLoader(rows, batch_size=4, collate_fn=tags))
    halves = [f.batch_gradient(list(part))[1] * len(part) for part in (range(0, 11), range(11, 23))]
    torch.testing.assert_close(sum(halves) / N, gradient, **DOUBLE)


def sample_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def test_a_mean_over_samples_counts_unequal_batches_by_their_size():
    expected = CE(tanh_net()(X), Y).item()
    for data in (Rows(), DataLoader(Rows(), batch_size=9), DataLoader(Streamed(), batch_size=9), TensorDataset(X, Y)):
        f = Objective(tanh_net(), sample_loss, data, chunk_size=9)
        assert f.value() == pytest.approx(expected, rel=1e-12)
        assert f.n_samples == N


Named = namedtuple("Named", ["inputs", "target"])


@dataclass
class Graph:
    inputs: torch.Tensor
    target: torch.Tensor


def collated(kind):
    def collate(samples):
        inputs, target = torch.stack([s[0] for s in samples]), torch.tensor([s[1] for s in samples])
        if kind == "time first":
            return {"inputs": inputs.T, "target": target}
        if kind == "constants":
            return {"inputs": inputs, "target": target, "classes": torch.arange(3)}
        return Named(inputs, target) if kind == "named" else Graph(inputs, target)

    return collate


def any_loss(module, batch):
    batch = Named(**batch) if isinstance(batch, dict) and len(batch) == 2 else batch
    batch = Named(batch["inputs"], batch["target"]) if isinstance(batch, dict) else batch
    inputs = batch.inputs if batch.inputs.shape[1:] == (4,) else batch.inputs.T
    return F.cross_entropy(module(inputs), batch.target)


@pytest.mark.parametrize("kind", ["named", "object", "constants", "time first"])
def test_batches_of_any_form(kind):
    expected = Objective(tanh_net(), CE, (X, Y))
    f = Objective(tanh_net(), any_loss, DataLoader(Rows(), batch_size=9, collate_fn=collated(kind)))
    torch.testing.assert_close(f.gradient(), expected.gradient(), **DOUBLE)
    torch.testing.assert_close(f.batch_gradient([1, 2, 5]), expected.batch_gradient([1, 2, 5]), **DOUBLE)


def test_batches_that_do_not_show_their_size_need_weights():
    def weighted(module, batch):
        return any_loss(module, batch), len(batch["target"])

    loader = DataLoader(Streamed(), batch_size=9, collate_fn=collated("time first"))
    with pytest.raises(ValueError, match=r"must return a pair \(mean loss, weight of the batch\)"):
        Objective(tanh_net(), any_loss, loader)
    assert Objective(tanh_net(), weighted, loader).value() == pytest.approx(CE(tanh_net()(X), Y).item(), rel=1e-12)


def test_losses_of_whole_batches_that_return_something_else():
    for returned in (1.0, None, torch.ones(9)):
        with pytest.raises((TypeError, ValueError), match="must return the mean loss"):
            Objective(tanh_net(), lambda module, batch, r=returned: r, DataLoader(Rows(), batch_size=9))
    with pytest.raises(TypeError, match="a Dataset or a DataLoader if the loss is a function loss"):
        Objective(tanh_net(), sample_loss, (X, Y))


# -- memory ------------------------------------------------------------------------------------------------------------


def test_one_chunk_is_in_memory():
    alive, most = [0], [0]

    class Counted:
        """One large sample."""

        def __del__(self):
            alive[0] -= 1

        def __init__(self):
            alive[0] += 1
            most[0] = max(most[0], alive[0])

    class Large(Dataset):
        def __len__(self):
            return 400

        def __getitem__(self, i):
            return torch.full((4,), i / 400, dtype=torch.float64), torch.full((2, 2), i % 3), Counted()

    def collate(samples):
        batch = torch.stack([s[0] for s in samples]), torch.stack([s[1] for s in samples])
        batch[0].held = [s[2] for s in samples]
        batch[1].held = batch[0].held
        return batch

    module = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2))).double()
    f = Objective(module, CE, DataLoader(Large(), batch_size=10, collate_fn=collate))
    f.gradient()
    f.hvp(f.theta0)
    f.value()
    assert most[0] <= 40  # the first batch, which modules are tried on, one that is evaluated and one that is loaded


# -- every measurement -------------------------------------------------------------------------------------------------

LINE = (0.0, 0.5, 1.0)


def other_net():
    return seeded_module(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), seed=1)


def moments(density):
    return [(density.weights * density.nodes**power).sum() for power in (1, 2, 3)]


MEASUREMENTS = {
    "sharpness": lambda d, **k: sharpness((tanh_net(), CE), *d, random_state=0, **k).value,
    "adaptive": lambda d, **k: adaptive_sharpness((tanh_net(), CE), *d, random_state=0, **k).value,
    "average": lambda d, **k: average_sharpness((tanh_net(), CE), *d, n_pairs=3, random_state=0, **k).value,
    "ball": lambda d, **k: ball_sharpness((tanh_net(), CE), *d, random_state=0, **k).value,
    "m": lambda d, **k: m_sharpness((tanh_net(), CE), *d, m=5, random_state=0, **k).value,
    "eigenvalues": lambda d, **k: hessian_eigenvalues((tanh_net(), CE), *d, k=2, random_state=0, **k).eigenvalues,
    "trace": lambda d, **k: hessian_trace((tanh_net(), CE), *d, random_state=0, **k).value,
    "density": lambda d, **k: moments(
        hessian_spectral_density((tanh_net(), CE), *d, n_vectors=2, n_steps=12, random_state=0, **k)
    ),
    "ritz": lambda d, **k: ritz_values((tanh_net(), CE), *d, random_state=0, **k).values,
    "line": lambda d, **k: loss_along_line(
        (tanh_net(), CE), (other_net(), CE), *d, alphas=LINE, random_state=0, **k
    ).loss,
    "arc": lambda d, **k: loss_along_arc(
        (tanh_net(), CE), (other_net(), CE), *d, alphas=LINE, random_state=0, **k
    ).loss,
    "plane": lambda d, **k: loss_on_plane(
        (tanh_net(), CE), *d, alphas=LINE, betas=LINE, random_state=0, **k
    ).loss,
    "noise": lambda d, **k: gradient_noise_scale((tanh_net(), CE), *d, random_state=0, **k).noise_scale,
    "noise by batches": lambda d, **k: gradient_noise_scale(
        (tanh_net(), CE), *d, random_state=0, method="batches", batch_size=4, n_batches=20, **k
    ).noise_scale,
    "error": lambda d, **k: gradient_standard_error(
        (tanh_net(), CE), *d, batch_sizes=[4, 8], n_batches=20, random_state=0, **k
    ).measured,
}  # fmt: skip


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_every_measurement_takes_them(measurement):
    measure = MEASUREMENTS[measurement]
    expected = measure((X, Y))
    for data in (Rows(), TensorDataset(X, Y), DataLoader(Rows(), batch_size=9), DataLoader(TensorDataset(X, Y), 9)):
        np.testing.assert_allclose(measure((data,)), expected, rtol=1e-6, atol=1e-12)
    some = measure((X, Y), max_samples=11)
    for data in (Rows(), TensorDataset(X, Y)):
        np.testing.assert_allclose(measure((data,), max_samples=11), some, rtol=1e-6, atol=1e-12)
    with pytest.raises(ValueError, match="max_samples must be None for a DataLoader"):
        measure((DataLoader(Rows(), batch_size=9),), max_samples=11)


@pytest.mark.parametrize("measurement", [name for name in MEASUREMENTS if name not in ("line", "arc")])
def test_every_measurement_of_some_parameters(measurement, monkeypatch):
    """The others are constants: the numbers are those of a module whose other parameters are frozen."""
    measure = MEASUREMENTS[measurement]
    found = [measure(data, parameters="2.*") for data in ((X, Y), (DataLoader(Rows(), batch_size=9),))]
    frozen = tanh_net()
    frozen[0].requires_grad_(False)
    monkeypatch.setitem(globals(), "tanh_net", lambda: frozen)
    for one in found:
        np.testing.assert_allclose(one, measure((X, Y)), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("pattern", "frozen"), [("2.*", [0]), (["0.weight"], [2]), (["*.bias", "2.weight"], [])])
def test_numbers_of_some_parameters_are_those_of_autograd(pattern, frozen):
    module = tanh_net()
    f = Objective(module, CE, DataLoader(Rows(), batch_size=9), parameters=pattern)
    named = dict(module.named_parameters())
    if pattern == "2.*":
        for name in ("0.weight", "0.bias"):
            named[name].requires_grad_(False)
    elif pattern == ["0.weight"]:
        for name in ("0.bias", "2.weight", "2.bias"):
            named[name].requires_grad_(False)
    else:
        named["0.weight"].requires_grad_(False)
    reference = loss_of_flat(module, CE, X, Y)
    theta = flat(module)
    assert f.n_params == len(theta)
    torch.testing.assert_close(f.gradient(theta + 0.1)[1], gradient_of(reference, theta + 0.1), **DOUBLE)
    torch.testing.assert_close(f.hvp(theta, theta + 0.1), hessian_product(reference, theta + 0.1, theta), **DOUBLE)


# -- estimators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["a", "b", "c"], [10, 20, 30], [2.0, 3.0, 5.0]])
def test_a_classifier_takes_a_dataset_of_its_labels(labels):
    names = [labels[i] for i in Y.tolist()]
    numbers = X.numpy().astype("float32")
    model = LBGapClassifier(tanh_net().float(), max_epochs=2, tol=None, random_state=0).fit(numbers, np.array(names))
    rows = [(x, name) for x, name in zip(numbers, names, strict=True)]
    for data in (Subset(rows, range(N)), DataLoader(rows, batch_size=9)):
        found, expected = check_objective(model, data), check_objective(model, numbers, np.array(names))
        assert found.evaluate() == pytest.approx(expected.evaluate(), rel=1e-6)
        assert sharpness(model, data, random_state=0).value == pytest.approx(
            sharpness(model, numbers, np.array(names), random_state=0).value, rel=1e-3
        )


def test_sparse_rows():
    dense = torch.where(X > 0.3, X, 0.0)
    for matrix in (sparse.csr_matrix(dense.numpy()), sparse.csr_array(dense.numpy()), sparse.coo_array(dense.numpy())):
        for policy in POLICIES:
            f = Objective(norm_net(), CE, (matrix, Y), batch_norm=policy, chunk_size=7)
            g = Objective(norm_net(), CE, (dense, Y), batch_norm=policy, chunk_size=7)
            torch.testing.assert_close(f.gradient(), g.gradient(), **DOUBLE)
            torch.testing.assert_close(f.batch_gradient([3, 9]), g.batch_gradient([3, 9]), **DOUBLE)
            torch.testing.assert_close(f.hvp(f.theta0), g.hvp(g.theta0), **DOUBLE)


@pytest.mark.parametrize("kind", ["dict", "pair"])
def test_a_sum_over_the_batch_is_refused(kind):
    X, y = torch.randn(40, 4), torch.arange(40) % 3
    module = nn.Linear(4, 3)

    def loss(module, batch):
        inputs, target = (batch["x"], batch["y"]) if kind == "dict" else batch
        return nn.functional.cross_entropy(module(inputs), target, reduction="sum")

    samples = [{"x": a, "y": b} if kind == "dict" else (a, b) for a, b in zip(X, y, strict=True)]
    with pytest.raises(ValueError, match="must return the mean loss of the batch, but it returns a sum"):
        Objective(module, loss, DataLoader(samples, batch_size=16))


# -- a mean over something else than samples ---------------------------------------------------------------------------


def token_losses(module, batch):
    """Return the loss of each token, and which tokens count."""
    losses = nn.functional.cross_entropy(module(batch["x"]).flatten(0, 1), batch["y"].flatten(), reduction="none")
    return losses, batch["mask"].flatten()


def token_mean(module, batch):
    losses, counts = token_losses(module, batch)
    return (losses * counts).sum() / counts.sum()


def weighted_token_mean(module, batch):
    losses, counts = token_losses(module, batch)
    return (losses * counts).sum() / counts.sum(), counts.sum()


def mean_of_sentence_means(module, batch):
    losses, counts = (t.view(batch["y"].shape) for t in token_losses(module, batch))
    return ((losses * counts).sum(1) / counts.sum(1)).mean()


def masked_sentences(n=30, longest=6):
    rng = torch.Generator().manual_seed(0)
    lengths = torch.arange(n) * longest // n + 1  # sorted: parts of a batch have other shares of tokens
    samples = [
        {
            "x": torch.randn(longest, 4, generator=rng, dtype=torch.float64),
            "y": torch.randint(3, (longest,), generator=rng),
            "mask": (torch.arange(longest) < length).double(),
        }
        for length in lengths
    ]
    return Subset(samples, range(n))  # a Dataset


def batches_of(samples, form):
    return samples if form == "dataset" else DataLoader(samples, batch_size=10)


@pytest.mark.parametrize("form", ["dataset", "loader"])
def test_a_mean_over_tokens_needs_its_weight(form):
    samples, module = masked_sentences(), seeded_module(lambda: nn.Linear(4, 3))
    chunks = {"chunk_size": 10} if form == "dataset" else {}
    with pytest.raises(
        ValueError, match=r"must return the mean over the samples .* \(mean over tokens, number of tokens\)"
    ):
        Objective(module, token_mean, batches_of(samples, form), **chunks)
    f = Objective(module, weighted_token_mean, batches_of(samples, form), **chunks)
    exact = Objective(module, token_mean, samples)  # one chunk has nothing to weigh
    torch.testing.assert_close(f.gradient(), exact.gradient(), rtol=1e-5, atol=1e-7)
    # A mean over sentences is a mean over samples.
    g = Objective(module, mean_of_sentence_means, batches_of(samples, form), **chunks)
    whole = Objective(module, mean_of_sentence_means, samples)
    torch.testing.assert_close(g.gradient(), whole.gradient(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_mean_over_tokens_needs_its_weight_beside_batch_norm(policy):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

        def forward(self, X):
            return self.norm(self.layer(X).transpose(1, 2)).transpose(1, 2)

    loader, module = DataLoader(masked_sentences(), batch_size=10), seeded_module(Normed)
    with pytest.raises(ValueError, match=r"must return the mean over the samples"):
        Objective(module, token_mean, loader, batch_norm=policy)
    for loss in (weighted_token_mean, mean_of_sentence_means):
        assert Objective(module, loss, loader, batch_norm=policy).value() > 0


def test_a_loss_of_the_batch_as_a_whole_needs_its_weight():
    X = torch.randn(24, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    module = seeded_module(lambda: nn.Linear(4, 2))

    def spread(module, batch):  # between the samples of a batch, as in contrastive losses
        return -module(batch[0]).var(dim=0).sum() + 10

    def weighted(module, batch):
        return spread(module, batch), len(batch[0])

    loader = DataLoader(TensorDataset(X), batch_size=8)
    with pytest.raises(ValueError, match="must return the mean over the samples of the batch"):
        Objective(module, spread, loader)
    f = Objective(module, weighted, loader)
    means = [spread(module, (part,)) for part in X.split(8)]
    assert f.value() == pytest.approx(float(torch.stack(means).detach().double().mean()), rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_the_root_of_a_mean_square_is_refused_however_alike_two_parts_are(seed):
    """For one way to divide the samples into two parts, the root was taken for a mean with every sixth seed."""
    torch.manual_seed(seed)
    X, Y = torch.randn(60, 8).double(), torch.randn(60, 4).double()
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)).double()

    def root(outputs, targets):
        return F.mse_loss(outputs, targets).sqrt()

    with pytest.raises(ValueError, match="criterion must be a mean over samples"):
        Objective(net, root, (X, Y), chunk_size=7)
    with pytest.raises(ValueError, match="must return the mean over the samples of the batch"):
        Objective(
            net, lambda module, batch: root(module(batch[0]), batch[1]), DataLoader(TensorDataset(X, Y), batch_size=30)
        )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dropout", [True, False])
def test_a_loss_that_uses_the_net_from_outside_is_named(training, dropout):
    net = nn.Sequential(nn.Linear(4, 6), *([nn.Dropout()] if dropout else []), nn.Linear(6, 3)).train(training)
    loader = DataLoader(TensorDataset(torch.randn(20, 4), torch.arange(20) % 3), batch_size=5)
    refused = "must use its argument module, .* replace the name of the net"
    with pytest.raises(ValueError, match=refused):
        Objective(net, lambda module, batch: F.cross_entropy(net(batch[0]), batch[1]), loader)
    Objective(net, lambda module, batch: F.cross_entropy(module(batch[0]), batch[1]), loader)


def test_a_loss_may_use_another_net_beside_its_argument():
    net, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    loader = DataLoader(TensorDataset(torch.randn(20, 4)), batch_size=5)
    f = Objective(net, lambda module, batch: (module(batch[0]) - teacher(batch[0])).square().mean(), loader)
    assert f.gradient()[1].any()
