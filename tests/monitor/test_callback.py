from types import SimpleNamespace

import pytest
from torch import nn

from sklgap.monitor._callback import check_installed, monitor_of, numbers_to_log

OPTIONS = SimpleNamespace(every=1, parts=2, parameters=None, geometry="euclidean", max_overhead=0.03, window=8)


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_a_library_that_is_not_there_is_named(library):
    with pytest.raises(ImportError, match=f"^BatchSizeCallback needs {library}, .*: pip install sklgap.adapters.$"):
        check_installed(object, library)
    check_installed(nn.Module, library)


def test_nothing_is_logged_before_the_first_measurement():
    monitor = monitor_of(nn.Linear(2, 1), nn.MSELoss(), None, OPTIONS, None)
    assert numbers_to_log(None) == numbers_to_log(monitor) == {}
    X = nn.init.normal_(nn.Linear(2, 16).weight.detach().clone())
    monitor.step((X, X.sum(1, keepdim=True)))
    found = numbers_to_log(monitor)
    assert found["batch_size_monitor/batch_size"] == 16
    assert all(isinstance(value, float) for value in found.values())


def test_a_short_last_batch_is_left_out_and_a_first_one_refused():
    monitor = monitor_of(nn.Linear(2, 1), nn.MSELoss(), None, OPTIONS, None)
    X = nn.Linear(2, 16).weight.detach()
    y = X.sum(1, keepdim=True)
    with pytest.raises(ValueError, match=r"^batch must have at least 2 samples .* got 3"):
        monitor.step((X[:3], y[:3]))
    monitor.step((X, y))
    monitor.step((X[:3], y[:3]))
    assert (monitor.n_measurements, monitor.n_skipped) == (1, 1)
