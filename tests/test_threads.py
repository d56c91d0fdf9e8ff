"""The number of threads of a block: for the calling thread alone, and put back whatever happens."""

import threading

import pytest
import torch

from sklgap import _threads
from sklgap._threads import usable_threads, using_threads


@pytest.fixture(autouse=True)
def torch_has_three():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def in_another_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("n_threads", [1, 2, 3, 5])
def test_a_block(n_threads):
    with using_threads(n_threads):
        assert torch.get_num_threads() == n_threads
    assert torch.get_num_threads() == 3


def test_a_block_that_asks_for_none():
    with using_threads():
        assert torch.get_num_threads() == 3
    with using_threads(2), using_threads():
        assert torch.get_num_threads() == 2


def test_blocks_within_blocks():
    with using_threads(1):
        with using_threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_put_back_after_an_error(error):
    with pytest.raises(error), using_threads(1):
        raise error
    assert torch.get_num_threads() == 3
    assert in_another_thread(torch.get_num_threads) == 3


def test_put_back_where_ctrl_c_comes_while_it_is_set(monkeypatch):
    set_num_threads = torch.set_num_threads

    def interrupted(n_threads):
        set_num_threads(n_threads)
        if n_threads == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "set_num_threads", interrupted)
    with pytest.raises(KeyboardInterrupt), using_threads(2):
        pass
    assert torch.get_num_threads() == 3
    assert in_another_thread(torch.get_num_threads) == 3


def test_a_thread_that_starts_meanwhile_has_torchs_setting():
    with using_threads(1):
        assert in_another_thread(torch.get_num_threads) == 3
        assert torch.get_num_threads() == 1
    assert in_another_thread(torch.get_num_threads) == 3


def test_a_thread_that_computes_keeps_its_own():
    ready, go_on, seen = threading.Event(), threading.Event(), []

    def compute():
        torch.set_num_threads(2)
        ready.set()
        go_on.wait()
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=compute)
    thread.start()
    ready.wait()
    with using_threads(1):
        go_on.set()
        thread.join()
    assert seen == [2]


def test_what_the_user_sets_meanwhile_stays():
    with using_threads(1):
        in_another_thread(lambda: torch.set_num_threads(4))
    assert torch.get_num_threads() == 3  # each thread has its own
    assert in_another_thread(torch.get_num_threads) == 4


def test_blocks_of_several_threads_at_once():
    together, wrong = threading.Barrier(4), []

    def block(n_threads):
        before = torch.get_num_threads()
        for _ in range(20):
            together.wait()
            with using_threads(n_threads):
                wrong.extend([torch.get_num_threads()] if torch.get_num_threads() != n_threads else [])
            wrong.extend([before] if torch.get_num_threads() != before or before != 3 else [])

    threads = [threading.Thread(target=block, args=(n,)) for n in (1, 2, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert in_another_thread(torch.get_num_threads) == 3


def test_usable_threads(monkeypatch):
    assert [usable_threads(n) for n in (None, 1, 2)] == [3, 1, 2]
    monkeypatch.setattr(_threads, "_PROCESS", -1)  # as if another process had imported the package
    assert [usable_threads(n) for n in (None, 1, 2)] == [1, 1, 1]
    with using_threads(2):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
