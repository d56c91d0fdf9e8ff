import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sklgap.monitor import BatchSizeMonitor
from sklgap.monitor._backward import seen


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(6, 3, sparse=True), nn.Linear(3, 1)

    def forward(self, X):
        return self.last(self.words(X).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, X):
        return self.layer(self.layer(X).tanh())


def hooked():
    net = nn.Linear(4, 1)
    net.weight.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))
    return net


CASES = {
    "sparse": (Embedded, lambda: torch.tensor([[1, 2], [1, 3]])),
    "tied": (Tied, lambda: torch.randn(3, 4)),
    "hook of the user": (hooked, lambda: 5 + torch.randn(3, 4)),
    "complex": (lambda: nn.Linear(4, 1, dtype=torch.complex64), lambda: torch.randn(3, 4, dtype=torch.complex64)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("forward", ["inside", "before"])
def test_it_sees_what_is_added_and_changes_nothing(name, forward):
    torch.manual_seed(0)
    net, X = CASES[name][0](), CASES[name][1]()
    params = list(net.parameters())
    for p in params:
        p.grad = None
    net(X).abs().sum().backward()
    expected = [p.grad.to_dense().clone() for p in params]
    found = {}
    before = [p.grad.to_dense().clone() for p in params]
    if forward == "before":
        loss = net(X).abs().sum()
    with seen(params, lambda i, g: found.setdefault(i, g.to_dense().clone())) as positions:
        if forward == "inside":
            loss = net(X).abs().sum()
        loss.backward()
    assert set(positions) == set(range(len(params)))
    assert all(torch.equal(found[i], gradient) for i, gradient in enumerate(expected))
    assert all(torch.equal(p.grad.to_dense(), 2 * b) for p, b in zip(params, before, strict=True))
    net(X).abs().sum().backward()
    assert len(found) == len(params)  # it looks no longer


def test_nothing_is_seen_after_an_error_or_where_it_is_not_active():
    net, found = nn.Linear(2, 1), []
    with pytest.raises(RuntimeError, match="wrong"), seen(list(net.parameters()), lambda i, g: found.append(i)):
        raise RuntimeError("wrong")
    net(torch.ones(2, 2)).sum().backward()
    with seen(list(net.parameters()), lambda i, g: found.append(i), active=False):
        net(torch.ones(2, 2)).sum().backward()
    assert found == []


def two_passes(net, X):
    net(X).sum().backward()
    net(X).sum().backward()


def nested(net, X):
    hidden = checkpoint(net.layer, X, use_reentrant=True)
    checkpoint(net.layer, hidden, use_reentrant=True).sum().backward()


@pytest.mark.parametrize("go_backward", [two_passes, nested])
def test_a_gradient_in_pieces_is_refused(go_backward):
    net, X = Tied(), torch.randn(3, 4, requires_grad=True)
    monitor = BatchSizeMonitor(net)
    with pytest.raises(ValueError, match=r"^A parameter must get its gradient in one piece"), monitor.accumulate(3):
        go_backward(net, X)


def test_checkpointing_without_nested_passes_is_measured():
    torch.manual_seed(0)
    net, X = Tied(), torch.randn(2, 3, 4)
    states = []
    for call in (net.layer, lambda X: checkpoint(net.layer, X, use_reentrant=False)):
        monitor = BatchSizeMonitor(net)
        net.zero_grad()
        for part in X:
            with monitor.accumulate(3):
                call(call(part)).sum().backward()
        monitor.step()
        states.append(monitor.state()["trace"])
    assert states[0] == states[1] > 0


def test_a_backward_outside_is_not_taken_for_a_gradient_of_nothing():
    net = nn.Linear(2, 1)
    monitor = BatchSizeMonitor(net)
    with monitor.accumulate(2):
        net(torch.ones(2, 2)).sum().backward()
    with pytest.raises(ValueError, match=r"^There is no gradient yet; call backward"), monitor.accumulate(2):
        net(torch.ones(2, 2)).sum()
