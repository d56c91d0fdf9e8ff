import pytest
import torch
from torch import nn
from torch.nn import functional

from sklgap.monitor import check_accumulation


def net(*layers, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *layers, nn.Tanh(), nn.Linear(8, 5)).to(dtype)


def batch(n=24, dtype=torch.float64, ignored=0):
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(5, (n,), generator=generator)
    y[:ignored] = -100
    return torch.randn(n, 6, generator=generator, dtype=dtype), y


CRITERION = nn.CrossEntropyLoss()
EVEN, SHORT = [8, 8, 8], [10, 10, 4]


def divided(module, micro_batches):
    for X, y in micro_batches:
        (CRITERION(module(X), y) / len(micro_batches)).backward()


def not_divided(module, micro_batches):
    for X, y in micro_batches:
        CRITERION(module(X), y).backward()


def divided_twice(module, micro_batches):
    for X, y in micro_batches:
        (CRITERION(module(X), y) / len(micro_batches) / len(micro_batches)).backward()


def by_samples(module, micro_batches):
    n = sum(len(y) for _, y in micro_batches)
    for X, y in micro_batches:
        (CRITERION(module(X), y) * len(y) / n).backward()


def by_targets(module, micro_batches):
    n = sum((y != -100).sum() for _, y in micro_batches)
    for X, y in micro_batches:
        (functional.cross_entropy(module(X), y, reduction="sum") / n).backward()


def summed(module, micro_batches):
    for X, y in micro_batches:
        functional.cross_entropy(module(X), y, reduction="sum").backward()


def clipped_each(module, micro_batches):
    for X, y in micro_batches:
        (CRITERION(module(X), y) / len(micro_batches)).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 0.05)


def clipped_values_each(module, micro_batches):
    for X, y in micro_batches:
        (CRITERION(module(X), y) / len(micro_batches)).backward()
        nn.utils.clip_grad_value_(module.parameters(), 0.01)


def clipped_once(module, micro_batches):
    divided(module, micro_batches)
    nn.utils.clip_grad_norm_(module.parameters(), 0.05)


def cleared(module, micro_batches):
    for X, y in micro_batches:
        module.zero_grad()
        (CRITERION(module(X), y) / len(micro_batches)).backward()


def zeroed(module, micro_batches):
    for X, y in micro_batches:
        module.zero_grad(set_to_none=False)
        (CRITERION(module(X), y) / len(micro_batches)).backward()


def contrastive(module, micro_batches):
    for X, _ in micro_batches:
        z = functional.normalize(module(X), dim=1)
        (functional.cross_entropy(z @ z.T, torch.arange(len(X))) / len(micro_batches)).backward()


def noisy(module, micro_batches):
    for X, y in micro_batches:
        (CRITERION(module(X + torch.randn_like(X)), y) / len(micro_batches)).backward()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("loop", "sizes", "ignored"),
    [
        (divided, EVEN, 0),
        (by_samples, SHORT, 0),
        (by_samples, [1, 23], 0),
        (by_targets, SHORT, 7),
        (by_targets, EVEN, 8),  # the first micro-batch has no target at all
        (summed, SHORT, 0),
        (clipped_once, EVEN, 0),
    ],
)
def test_right_loops(loop, sizes, ignored, dtype):
    found = check_accumulation(loop, net(dtype=dtype), batch(dtype=dtype, ignored=ignored), sizes)
    assert found.same
    assert found.causes == ()
    assert found.scale == pytest.approx(1, abs=1e-3)
    assert "give the gradient of the whole batch of 24 samples" in str(found)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("loop", "sizes", "ignored", "causes"),
    [
        (not_divided, EVEN, 0, ("not_divided",)),
        (not_divided, [6] * 4, 0, ("not_divided",)),
        (divided_twice, EVEN, 0, ("divided_twice",)),
        (divided_twice, [12, 12], 0, ("divided_twice",)),
        (divided, SHORT, 0, ("short_micro_batch",)),
        (divided, [23, 1], 0, ("short_micro_batch",)),
        (not_divided, SHORT, 0, ("not_divided", "short_micro_batch")),
        (divided_twice, SHORT, 0, ("divided_twice", "short_micro_batch")),
        (divided, EVEN, 5, ("unequal_means",)),
        (by_samples, SHORT, 5, ("unequal_means",)),
        (divided, SHORT, 5, ("unequal_means",)),
        (not_divided, EVEN, 5, ("not_divided", "unequal_means")),
        (clipped_each, EVEN, 0, ("clipping",)),
        (clipped_values_each, EVEN, 0, ("clipping",)),
        (cleared, EVEN, 0, ("cleared",)),
        (zeroed, EVEN, 0, ("cleared",)),
        (contrastive, EVEN, 0, ("samples_meet",)),
        (noisy, EVEN, 0, ("random",)),
    ],
)
def test_wrong_loops(loop, sizes, ignored, causes, dtype):
    found = check_accumulation(loop, net(dtype=dtype), batch(dtype=dtype, ignored=ignored), sizes)
    assert not found.same
    assert found.causes == causes
    assert found.relative_difference > 0.01
    assert all(f"\n  {cause}: " in str(found) for cause in causes)


@pytest.mark.parametrize(
    ("layers", "causes"),
    [
        ([nn.BatchNorm1d(8)], ("batch_norm",)),
        ([nn.Dropout(0.5)], ("dropout",)),
        ([nn.Dropout(0.5), nn.BatchNorm1d(8)], ("dropout", "batch_norm")),
    ],
)
def test_layers_that_make_a_difference(layers, causes):
    module = net(*layers)
    assert check_accumulation(divided, module, batch(), EVEN).causes == causes
    assert check_accumulation(not_divided, module, batch(), EVEN).causes == (*causes, "not_divided")
    assert check_accumulation(divided, module, batch(), SHORT).causes == (*causes, "short_micro_batch")
    assert check_accumulation(divided, module.eval(), batch(), EVEN).same
    assert check_accumulation(divided, net(nn.LayerNorm(8)), batch(), EVEN).same


class Masked(nn.Module):
    """Draws a mask by a function, as attention does."""

    def forward(self, X):
        return functional.dropout(X, 0.3, self.training)


def test_dropout_by_a_function():
    assert check_accumulation(divided, net(Masked()), batch(), EVEN).causes == ("dropout",)
    assert check_accumulation(divided, net(Masked()), batch(ignored=5), EVEN).causes == ("dropout", "unequal_means")
    attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    # Rows without a batch axis are a sequence to it, whose places attend to each other.
    assert check_accumulation(divided, net(attention), batch(), EVEN).causes == ("dropout", "samples_meet")


def test_the_scale():
    assert check_accumulation(not_divided, net(), batch(), EVEN).scale == pytest.approx(3)
    assert check_accumulation(divided_twice, net(), batch(), EVEN).scale == pytest.approx(1 / 3)
    assert check_accumulation(not_divided, net(), batch(), EVEN).relative_difference == pytest.approx(2)


def by_a_fixed_number(number):
    def loop(module, micro_batches):
        for X, y in micro_batches:
            (CRITERION(module(X), y) / number).backward()

    return loop


def whole_loss(module, whole):
    return CRITERION(module(whole[0]), whole[1])


@pytest.mark.parametrize("loss", [CRITERION, whole_loss])
def test_a_fixed_divisor_is_judged_by_the_loss(loss):
    assert check_accumulation(by_a_fixed_number(3), net(), batch(), EVEN, loss=loss).same
    assert check_accumulation(by_a_fixed_number(1), net(), batch(), EVEN, loss=loss).causes == ("not_divided",)
    assert check_accumulation(by_a_fixed_number(9), net(), batch(), EVEN, loss=loss).causes == ("divided_twice",)
    assert check_accumulation(by_a_fixed_number(5), net(), batch(), EVEN, loss=loss).causes == ("scaled",)


def test_nothing_of_the_user_changes():
    module, data = net(nn.BatchNorm1d(8), nn.Dropout(0.5)), batch()
    divided(module, [data])
    values = [t.clone() for t in (*module.state_dict().values(), *(p.grad for p in module.parameters()))]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    check_accumulation(divided, module, data, EVEN)
    now = [*module.state_dict().values(), *(p.grad for p in module.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(values, now, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training


def test_batches_of_other_forms():
    X, y = batch()

    def loop(module, micro_batches):
        for part in micro_batches:
            (CRITERION(module(part["X"]), part["y"]) / len(micro_batches)).backward()

    assert check_accumulation(loop, net(), {"X": X, "y": y}, EVEN).same
    assert check_accumulation(loop, net(), {"X": X, "y": y}, SHORT).causes == ("short_micro_batch",)


def _other_module(module, micro_batches):
    divided(net(), micro_batches)


def _with_update(module, micro_batches):
    divided(module, micro_batches)
    torch.optim.SGD(module.parameters(), lr=0.1).step()


def _once(module, micro_batches):
    divided(module, micro_batches[:1])


def _infinite(module, micro_batches):
    for X, y in micro_batches:
        (CRITERION(module(X), y) * float("inf")).backward()


def _nothing(module, micro_batches):
    for X, y in micro_batches:
        (CRITERION(module(X), y) * 0).backward()


@pytest.mark.parametrize(
    ("loop", "module", "sizes", "sentence"),
    [
        (_other_module, net(), EVEN, "^train_step must call backward, and use the module"),
        (_with_update, net(), EVEN, "^train_step must end before optimizer.step"),
        (_once, net(), EVEN, "^train_step must call backward once for each of the 3 micro-batches; .* 1 times"),
        (_infinite, net(), EVEN, "^batch must have a finite gradient"),
        (_nothing, net(), EVEN, "^batch must have a gradient to compare with"),
        (len, net(), EVEN, "^train_step must run on 3 of the micro-batches, but it failed: TypeError"),
        (3, net(), EVEN, "^train_step must be a function"),
        (divided, 3, EVEN, "^module must be a torch module"),
        (divided, nn.ReLU(), EVEN, "^module must have at least one trainable parameter"),
        (divided, net(dtype=torch.bfloat16), EVEN, "^module must have parameters in float32 or float64"),
        (divided, net(), [24], "^sizes must be at least 2 integers"),
        (divided, net(), [20, 3], "^sizes must be at least 2 integers of at least 1 that add up to the 24 samples"),
        (divided, net(), 8, "^sizes must be"),
    ],
)
def test_refusals(loop, module, sizes, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        check_accumulation(loop, module, batch(), sizes)


def _add_gradient(module):
    for p in module.parameters():
        p.grad = torch.ones_like(p)


def _add_nothing(module):
    pass


def _add_some(module):
    module[0].weight.grad = torch.full_like(module[0].weight, 3.0)


@pytest.mark.parametrize("begin", [_add_gradient, _add_nothing, _add_some])
@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.Identity()])
def test_a_loop_that_uses_the_users_own_module_leaves_it_as_it_was(begin, layer):
    """Most loops in notebooks use the global model: refused, and nothing of it has changed."""
    module = net(layer)
    begin(module)
    gradients = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    same = [p.grad for p in module.parameters()]
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with pytest.raises(ValueError, match=r"^train_step must call backward, and use the module that it is given"):
        check_accumulation(lambda _, micro_batches: divided(module, micro_batches), module, batch(), EVEN)
    for p, gradient, kept in zip(module.parameters(), gradients, same, strict=True):
        assert p.grad is kept
        assert gradient is None or torch.equal(p.grad, gradient)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in module.named_buffers())


@pytest.mark.parametrize(("sizes", "ignored"), [(EVEN, 8), (EVEN, 16), ([12, 12], 12)])
def test_a_micro_batch_of_ignored_targets_alone_counts_in_the_mean_of_means(sizes, ignored):
    found = check_accumulation(divided, net(), batch(ignored=ignored), sizes)
    assert found.causes == ("unequal_means",)


@pytest.mark.parametrize(("sizes", "ignored"), [(EVEN, 8), (EVEN, 16), ([12, 12], 12)])
def test_a_micro_batch_of_ignored_targets_alone_does_not_hide_a_loss_divided_twice(sizes, ignored):
    def train_step(module, micro_batches):
        counted = [int((y >= 0).sum()) for _, y in micro_batches]
        for X, y in micro_batches:
            total = nn.functional.cross_entropy(module(X), y, reduction="sum")
            (total / sum(counted) / len(micro_batches) ** 3).backward()

    assert check_accumulation(train_step, net(), batch(ignored=ignored), sizes).causes != ("unequal_means",)


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"^torch\.inference_mode must be off"):
        check_accumulation(divided, net(), batch(), EVEN)
