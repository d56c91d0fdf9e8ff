import numpy as np
import pytest

from sklgap.regimes import LRSchedule, check_lr_schedule, lr_factor


def test_neutral_is_the_factor_of_the_batch_size_bit_for_bit():
    for rule in (None, "sqrt", "linear"):
        for size in (1, 7, 256, 6000):
            for epochs_done in (0, 0.3, 50):
                assert LRSchedule(rule).factor(epochs_done, size, 256) == lr_factor(rule, size, 256)
    assert not LRSchedule("linear").follows_progress


def test_warm_up_is_a_straight_line_from_one_to_the_factor():
    """Goyal et al.: k = 8192 / 256 = 32, over 5 epochs."""
    schedule = LRSchedule("linear", warmup_epochs=5.0)
    assert schedule.follows_progress
    factors = [schedule.factor(t, 8192, 256) for t in (0, 1, 2.5, 4, 5, 5.1, 90)]
    assert factors == pytest.approx([1, 1 + 31 / 5, 1 + 31 / 2, 1 + 31 * 4 / 5, 32, 32, 32], rel=1e-15)
    assert factors[0] == 1
    assert factors[-3:] == [32, 32, 32]


def test_warm_up_to_a_smaller_rate():
    assert LRSchedule("sqrt", 2.0).factor(1, 64, 256) == 0.75


def test_milestones():
    schedule = LRSchedule(milestones=(30.0, 60.0, 80.0), decay=0.1)
    assert schedule.follows_progress
    factors = [schedule.factor(t, 10, 10) for t in (0, 29.999, 30, 59, 60, 79, 80, 1000)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-12)


def test_warm_up_and_milestones_multiply():
    schedule = LRSchedule("linear", 4.0, (1.0, 3.0), 0.5)
    assert [schedule.factor(t, 30, 10) for t in (0, 1, 2, 3, 4)] == [1, 0.75, 1, 0.625, 0.75]


@pytest.mark.parametrize("milestones", [(1, 2.5), [1, 2.5], np.array([1, 2.5]), range(1, 3), ()])
def test_check(milestones):
    schedule = check_lr_schedule("sqrt", np.int64(5), milestones, 0.25)
    assert schedule == LRSchedule("sqrt", 5.0, tuple(map(float, milestones)), 0.25)
    assert check_lr_schedule(None, 0, milestones, 1).warmup_epochs == 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (("cubic", 0, (), 0.1), "lr_scaling must be None, 'sqrt', 'linear' or 'sde'; got 'cubic'"),
        (("sqrt", -1, (), 0.1), "lr_warmup_epochs must be a number of at least 0; got -1"),
        (("sqrt", None, (), 0.1), "lr_warmup_epochs must be a number of at least 0; got None"),
        (("sqrt", float("inf"), (), 0.1), "lr_warmup_epochs must be a number of at least 0; got inf"),
        ((None, 5, (), 0.1), "lr_warmup_epochs must be 0 with lr_scaling=None, because .*; got 5"),
        ((None, 0, 30, 0.1), "lr_milestones must be increasing numbers of epochs above 0; got 30"),
        ((None, 0, "30", 0.1), "lr_milestones must be increasing numbers of epochs above 0; got '30'"),
        ((None, 0, None, 0.1), "lr_milestones must be increasing numbers of epochs above 0; got None"),
        ((None, 0, (30, 20), 0.1), r"lr_milestones must be increasing numbers of epochs above 0; got \(30, 20\)"),
        ((None, 0, (30, 30), 0.1), "lr_milestones must be increasing"),
        ((None, 0, (0, 30), 0.1), "lr_milestones must be increasing"),
        ((None, 0, (True, 30), 0.1), "lr_milestones must be increasing"),
        ((None, 0, ("a", 30), 0.1), "lr_milestones must be increasing"),
        ((None, 0, (), 0), r"lr_decay must be a number in \(0, 1\]; got 0"),
        ((None, 0, (), 1.5), r"lr_decay must be a number in \(0, 1\]; got 1\.5"),
        ((None, 0, (), "0.1"), r"lr_decay must be a number in \(0, 1\]; got '0\.1'"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        check_lr_schedule(*parameters)
