"""A forked process cannot use the threads of its parent: a fit there computes with one."""

import typing

import torch

from sklgap import _threads
from tests.tiny import Mlp, blobs, small


class Watched(Mlp):
    """Notes how many threads torch may use in every forward pass."""

    threads: typing.ClassVar[list[int]] = []

    def forward(self, X):
        if self.training:
            Watched.threads.append(torch.get_num_threads())
        return super().forward(X)


def _fit():
    Watched.threads.clear()
    torch.set_num_threads(2)
    try:
        model = small(net=Watched, n_threads=2).fit(*blobs())
        assert torch.get_num_threads() == 2  # as it was
    finally:
        torch.set_num_threads(1)
    return model, set(Watched.threads)


def test_a_fit_in_a_forked_process_has_one_thread(monkeypatch):
    here, threads = _fit()
    assert threads == {2}
    monkeypatch.setattr(_threads, "_PROCESS", -1)  # as if another process had imported the package
    forked, threads = _fit()
    assert threads == {1}
    assert here.n_updates_ == forked.n_updates_
