"""The loop over jobs, and the signals that end it."""

import os
import pickle
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import joblib
import pytest

from sklgap.experiments import _run
from sklgap.experiments._run import interruptible, run

BOTH = [signal.SIGINT, signal.SIGTERM]


@interruptible
def experiment(*phases, between=None):
    """Return what `run` found of each phase."""
    found = []
    for jobs in phases:
        found.append(run(jobs, verbose=0))
        if between is not None:
            between()
    return found


def value(x):
    return partial(int, x)


def interrupting(number=signal.SIGINT):
    signal.raise_signal(number)
    pytest.fail("the signal was not heard")


def swallowing():
    """A job that is interrupted, and returns what it has."""
    try:
        interrupting()
    except KeyboardInterrupt:
        return "half"


def not_reached():
    pytest.fail("a job was begun after the interruption")


@pytest.fixture(autouse=True)
def _the_usual_handlers():
    before = {number: signal.getsignal(number) for number in BOTH}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    after = [signal.getsignal(number) for number in BOTH]
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == [signal.default_int_handler, signal.SIG_DFL]


# -- without a signal --------------------------------------------------------------------------------------------------


def test_results_in_order():
    assert run([value(i) for i in (3, 1, 2)], verbose=0) == ([3, 1, 2], False)
    assert run([], verbose=0) == ([], False)
    assert experiment([value(1)], [value(2), value(3)]) == [([1], False), ([2, 3], False)]


def test_the_bar_counts_and_describes(capsys):
    run([value(7), value(8)], unit="fish", describe=lambda result: f"found {result}")
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "fish" in shown
    assert "found 8" in shown
    run([value(7)], verbose=0, describe=str)
    assert capsys.readouterr() == ("", "")


def test_an_error_of_a_job_is_raised():
    with pytest.raises(ZeroDivisionError):
        experiment([value(1), partial(divmod, 1, 0), not_reached])


# -- a signal in a loop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_ends_the_loop(number):
    jobs = [value(1), value(2), partial(interrupting, number), not_reached]
    assert experiment(jobs, [not_reached]) == [([1, 2], True), ([], True)]


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_from_outside_in_the_middle_of_a_job(number):
    timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
    timer.start()
    started = time.monotonic()
    assert experiment([value(1), partial(time.sleep, 30)]) == [([1], True)]
    timer.join()
    assert time.monotonic() - started < 20


def test_a_job_that_raises_it_itself():
    def job():
        raise KeyboardInterrupt

    assert run([value(1), job, not_reached], verbose=0) == ([1], True)
    assert experiment([value(1), job, not_reached], [not_reached]) == [([1], True), ([], True)]


def test_half_a_result_is_no_result():
    """A job whose interruption somebody caught, such as a callback, may return what it has until then."""
    assert experiment([value(1), swallowing, not_reached]) == [([1], True)]


def test_two_signals_at_once_are_one_press(monkeypatch):
    def job():
        try:
            interrupting()
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)  # as a terminal and a batch system send it both
            return "half"

    assert experiment([value(1), job]) == [([1], True)]


def test_a_second_signal_interrupts_again(monkeypatch):
    monkeypatch.setattr(_run, "_SAME_PRESS", 0.0)
    heard = []

    def job():
        for _ in range(2):
            try:
                interrupting()
            except KeyboardInterrupt:
                heard.append("one")
        interrupting()

    assert experiment([value(1), job, not_reached]) == [([1], True)]
    assert heard == ["one", "one"]


def test_without_an_experiment_around_it():
    assert run([value(1), interrupting, not_reached], verbose=0) == ([1], True)
    assert run([value(2)], verbose=0) == ([2], False)  # the next loop has nothing to do with it


# -- a signal elsewhere ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_between_two_phases_loses_nothing(number):
    found = experiment([value(1)], [not_reached], between=partial(signal.raise_signal, number))
    assert found == [([1], False), ([], True)]


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_before_the_first_loop_is_an_interrupt(number):
    @interruptible
    def slow_to_begin():
        interrupting(number)

    with pytest.raises(KeyboardInterrupt):
        slow_to_begin()


def test_what_is_done_with_results_is_not_interrupted():
    @interruptible
    def two_phases():
        first = run([value(1)], verbose=0)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        return [*first.results, "written"]

    assert two_phases() == [1, "written"]


def test_handlers_are_given_back_after_an_error():
    with pytest.raises(ZeroDivisionError):
        experiment([partial(divmod, 1, 0)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_handlers_of_the_user_are_left_alone():
    heard = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        assert experiment([value(1), partial(signal.raise_signal, signal.SIGTERM), value(2)])[0].results == [1, None, 2]
        assert heard == [signal.SIGTERM]
        assert experiment([value(1), interrupting]) == [([1], True)]
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_other_threads_have_no_signals():
    found = []
    thread = threading.Thread(target=lambda: found.append(experiment([value(1), partial(signal.getsignal, 2)])))
    thread.start()
    thread.join()
    assert found == [[([1, signal.default_int_handler], False)]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_of_the_process_dies_of_its_signal():
    def job():
        child = os.fork()
        if not child:
            try:
                time.sleep(30)
            finally:
                os._exit(0)  # never back into the tests
        time.sleep(0.05)
        os.kill(child, signal.SIGTERM)
        return os.WTERMSIG(os.waitpid(child, 0)[1])

    assert experiment([job]) == [([signal.SIGTERM], False)]


# -- experiments in experiments ----------------------------------------------------------------------------------------


def test_an_experiment_as_a_job_of_another():
    inner = partial(experiment, [value(1), interrupting, not_reached])
    assert experiment([value(0), inner, not_reached], [not_reached]) == [([0], True), ([], True)]


def test_an_experiment_between_the_phases_of_another():
    found = []

    def inner():
        found.append(experiment([value(1), interrupting, not_reached]))

    outer = experiment([value(0)], [not_reached], between=inner)
    assert found[0] == [([1], True)]
    assert outer == [([0], False), ([], True)]


def test_a_signal_after_an_experiment_that_was_a_job():
    def job():
        inner = experiment([value(1)])
        interrupting()
        return inner

    assert experiment([value(0), job, not_reached]) == [([0], True)]


# -- processes ---------------------------------------------------------------------------------------------------------


def broken():
    raise BrokenProcessPool


def test_workers_that_a_signal_ended_before_it_came_here():
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))

    def job():
        timer.start()
        broken()

    assert experiment([value(1), job]) == [([1], True)]
    timer.join()


def test_workers_that_died_of_something_else(monkeypatch):
    monkeypatch.setattr(_run, "_LATE_SIGNAL", 0.01)
    with pytest.raises(BrokenProcessPool):
        experiment([value(1), broken])


def wait_and_return(seconds, result):
    time.sleep(seconds)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("number", BOTH)
def test_two_processes_are_not_waited_for(number):
    """Short jobs and long ones: what is short has finished, however joblib hands them out."""
    timer, seen = threading.Timer(0.5, os.kill, (os.getpid(), number)), []

    def describe(result):
        seen.append(result)
        if len(seen) == 6:
            timer.start()
        return ""

    @interruptible
    def in_processes():
        jobs = [*(partial(wait_and_return, 0, i) for i in range(6)), *[partial(wait_and_return, 300, 9)] * 2]
        return run(jobs, n_jobs=2, verbose=0, describe=describe)

    started = time.monotonic()
    results, interrupted = in_processes()
    timer.join()
    assert (sorted(results), interrupted) == ([0, 1, 2, 3, 4, 5], True)
    assert time.monotonic() - started < 200


@pytest.mark.parametrize("hold", [threading.Lock, threading.Event, lambda: (value(i) for i in range(3))])
def test_jobs_that_other_processes_cannot_get_are_refused(hold):
    with pytest.raises(ValueError, match=r"^n_jobs must be None or 1, because an object cannot be copied .*threading"):
        run([partial(str, hold()), partial(str, 1)], n_jobs=2, verbose=0)


@pytest.mark.parametrize("n_jobs", [None, 1])
def test_jobs_of_one_process_need_no_copy(n_jobs):
    assert len(run([partial(str, threading.Lock())], n_jobs=n_jobs, verbose=0).results) == 1


def _unpicklable():
    raise pickle.PicklingError("of the user")


def test_an_error_of_the_users_own_pickling_is_raised_as_it_is():
    with pytest.raises(pickle.PicklingError, match=r"^of the user"):
        run([_unpicklable], verbose=0)


def test_a_backend_without_results_one_by_one_is_refused():
    with (
        joblib.parallel_config("multiprocessing"),
        pytest.raises(ValueError, match=r"^joblib\.parallel_config must name a backend .* 'threading'; joblib says"),
    ):
        run([value(1)], n_jobs=2, verbose=0)
    with joblib.parallel_config("threading"):
        assert run([value(1)], n_jobs=2, verbose=0).results == [1]
