"""A forked process cannot use the threads of its parent: it fits, predicts and measures with one."""

import typing

import pytest
import torch

from sklgap import _threads, sharpness
from sklgap.inspection import gradient_noise_scale, hessian_eigenvalues, hessian_trace, loss_along_line
from sklgap.objective import check_objective
from tests.tiny import Mlp, blobs, small


class Watched(Mlp):
    """Notes how many threads torch may use in every forward pass."""

    threads: typing.ClassVar[list[int]] = []
    measured = False

    def forward(self, X):
        if self.training or Watched.measured:
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


USES = {
    "predict": lambda model, X, y: model.predict(X),
    "predict_proba": lambda model, X, y: model.predict_proba(X),
    "score": lambda model, X, y: model.score(X, y),
    "loss": lambda model, X, y: check_objective(model, X, y).value(),
    "gradient": lambda model, X, y: check_objective(model, X, y).gradient(),
    "mini-batch": lambda model, X, y: check_objective(model, X, y).batch_gradient([0, 1]),
    "Hessian": lambda model, X, y: check_objective(model, X, y).hessian_operator()(torch.ones(67)),
    "sharpness": lambda model, X, y: sharpness(model, X, y, random_state=0),
    "eigenvalues": lambda model, X, y: hessian_eigenvalues(model, X, y, random_state=0),
    "trace": lambda model, X, y: hessian_trace(model, X, y, n_products=6, random_state=0),
    "noise": lambda model, X, y: gradient_noise_scale(model, X, y, random_state=0),
    "line": lambda model, X, y: loss_along_line(model, model, X, y, alphas=[0, 1]),
}


@pytest.mark.parametrize("use", USES)
def test_what_is_done_in_a_forked_process_has_one_thread(use, monkeypatch):
    X, y = blobs()
    model = small(net=Watched, n_threads=None).fit(X, y)
    monkeypatch.setattr(Watched, "measured", True)
    seen = []
    for process in (_threads._PROCESS, -1):
        monkeypatch.setattr(_threads, "_PROCESS", process)
        Watched.threads.clear()
        torch.set_num_threads(2)
        try:
            USES[use](model, X, y)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)
        seen.append(set(Watched.threads))
    assert seen == [{2}, {1}]
