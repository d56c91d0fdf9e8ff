"""Where an error comes from."""

import pytest

from sklgap._tracebacks import innermost, raised_by_code


def caught(function):
    with pytest.raises(Exception) as info:
        function()
    return info.value


def raising():
    raise KeyboardInterrupt


def again():
    try:
        len(1)
    except TypeError as error:
        raise ValueError from error


@pytest.mark.parametrize(("function", "code"), [(lambda: len(1), False), (lambda: 1 / 0, False), (again, True)])
def test_a_raise_is_told_from_what_a_function_in_c_raises(function, code):
    assert raised_by_code(caught(function)) is code


def test_the_innermost_frame_is_the_one_that_raised():
    with pytest.raises(KeyboardInterrupt) as info:
        raising()
    assert innermost(info.value).tb_frame.f_code is raising.__code__
    assert raised_by_code(info.value)
    assert innermost(ValueError()) is None
    assert not raised_by_code(ValueError())
