import math
import warnings

import pytest
import torch
from sklearn.base import clone
from torch import nn

from sklgap._typing import Batch
from sklgap.remedies import Augmentation, Proximal, check_augmentation
from tests.cases import no_global_random_numbers

# Bilinear weights of grid positions that are rounded: one part in 1e7 (float32 grids) or 1e15.
GRID = {torch.float32: {"rtol": 0, "atol": 2e-5}, torch.float64: {"rtol": 0, "atol": 1e-5}}


def _images(n=40, shape=(2, 5, 7), dtype=torch.float64):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def _apply(remedy, X, seed=0):
    batch = Batch(X, torch.arange(len(X)))
    out = remedy.transform_batch(batch, torch.Generator().manual_seed(seed))
    assert out.y is batch.y
    assert (out.X.shape, out.X.dtype) == (X.shape, X.dtype)
    return out.X


class Fixed:
    """A generator's stead: makes ``torch.rand`` return given numbers in [0, 1)."""

    def __init__(self, monkeypatch, **rows):
        self.rows = rows
        monkeypatch.setattr("sklgap.remedies._augmentation.torch.rand", self)

    def __call__(self, n_rows, n, generator):
        out = torch.full((n_rows, n), 0.5)
        for row, value in self.rows.items():
            out[["angle", "x", "y", "mirror"].index(row)] = (value + 1) / 2
        return out


def test_zero_settings_are_the_identity():
    X = _images()
    batch, rng = Batch(X, torch.arange(len(X))), torch.Generator()
    state = rng.get_state()
    assert Augmentation(flip=False, degrees=0, translate=0).transform_batch(batch, rng) is batch
    assert torch.equal(rng.get_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 5, 7), (3, 28, 28)])
def test_flip_only_mirrors(shape, dtype):
    X = _images(60, shape, dtype)
    out = _apply(Augmentation(degrees=0, translate=0), X)
    mirrored = 0
    for image, moved in zip(X, out, strict=True):
        flipped = (moved - image.flip(-1)).abs().max() < (moved - image).abs().max()
        torch.testing.assert_close(moved, image.flip(-1) if flipped else image, **GRID[dtype])
        mirrored += flipped
    # Binomial(60, 1/2): five standard deviations are 19.4.
    assert 30 - 19 <= mirrored <= 30 + 19


@pytest.mark.parametrize(("right", "down"), [(1, 0), (-2, 0), (0, 3), (2, -1)])
def test_whole_pixels_are_moved_and_zeros_come_in(monkeypatch, right, down):
    X = _images(3, (2, 8, 10))
    # The largest shift is the whole side; content moves against the sampling grid.
    Fixed(monkeypatch, x=-right / 10, y=-down / 8)
    out = _apply(Augmentation(flip=False, degrees=0, translate=1.0), X)
    expected = torch.zeros_like(X)
    rows, columns = range(max(0, down), 8 + min(0, down)), range(max(0, right), 10 + min(0, right))
    for i in rows:
        for j in columns:
            expected[:, :, i, j] = X[:, :, i - down, j - right]
    torch.testing.assert_close(out, expected, **GRID[torch.float32])


def test_the_largest_shift_is_the_given_fraction_of_the_side():
    X = torch.zeros(400, 1, 21, 21, dtype=torch.float64)
    X[:, :, 10, 10] = 1
    out = _apply(Augmentation(flip=False, degrees=0, translate=0.2), X)
    mass = out.sum(dim=(1, 2, 3))
    torch.testing.assert_close(mass, torch.ones_like(mass), **GRID[torch.float32])
    position = torch.arange(21.0, dtype=torch.float64) - 10
    for dim in (2, 3):
        shift = (out.sum(dim=(1, 5 - dim)) * position).sum(1)
        # 400 uniform draws in [-4.2, 4.2]: both ends are reached to a tenth but for a chance of 1e-4 x 1e-4.
        assert -4.2 - 1e-4 <= shift.min() < -4.0
        assert 4.0 < shift.max() <= 4.2 + 1e-4


@pytest.mark.parametrize("size", [(9, 9), (5, 11), (11, 5)])
def test_rotation_keeps_the_centre(size):
    X = torch.randn(20, 2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = _apply(Augmentation(flip=False, degrees=180, translate=0), X)
    centre = (..., size[0] // 2, size[1] // 2)
    torch.testing.assert_close(out[centre], X[centre], **GRID[torch.float32])
    assert (out - X).abs().max() > 0.1


@pytest.mark.parametrize(("angle", "quarter_turns"), [(0.5, 1), (-0.5, -1), (1.0, 2)])
def test_quarter_turns(monkeypatch, angle, quarter_turns):
    X = _images(3, (2, 6, 6))
    Fixed(monkeypatch, angle=angle)
    out = _apply(Augmentation(flip=False, degrees=180, translate=0), X)
    turned = [torch.rot90(X, k * quarter_turns, dims=(2, 3)) for k in (1, -1)]
    best = min(turned, key=lambda candidate: (candidate - out).abs().max())
    torch.testing.assert_close(out, best, **GRID[torch.float32])


@pytest.mark.parametrize("size", [(31, 61), (61, 31), (41, 41)])
def test_rotation_is_rigid_whatever_the_aspect(monkeypatch, size):
    # A point 10 pixels right of the centre lands 10 pixels away from it, at the angle.
    X = torch.zeros(1, 1, *size, dtype=torch.float64)
    i, j = size[0] // 2, size[1] // 2
    X[..., i - 1 : i + 2, j + 9 : j + 12] = 1
    Fixed(monkeypatch, angle=1.0)
    out = _apply(Augmentation(flip=False, degrees=30, translate=0), X)[0, 0]
    mass = out.sum()
    y = (out.sum(1) * torch.arange(size[0])).sum() / mass - i
    x = (out.sum(0) * torch.arange(size[1])).sum() / mass - j
    # The centre of mass of a resampled 3 x 3 block: a few hundredths of a pixel.
    assert math.hypot(x, y) == pytest.approx(10, abs=0.05)
    assert abs(math.degrees(math.atan2(y, x))) == pytest.approx(30, abs=0.3)


def test_a_mirrored_rotation_is_the_mirror_image_of_the_rotation(monkeypatch):
    X = _images(3, (2, 6, 9))
    Fixed(monkeypatch, angle=1.0)
    rotated = _apply(Augmentation(flip=False, degrees=30, translate=0), X)
    Fixed(monkeypatch, angle=1.0, mirror=-1)
    mirrored = _apply(Augmentation(flip=True, degrees=30, translate=0), X)
    torch.testing.assert_close(mirrored, rotated.flip(-1), **GRID[torch.float32])


def test_random_numbers_come_from_rng_alone():
    X, remedy = _images(), Augmentation()
    with no_global_random_numbers():
        assert torch.equal(_apply(remedy, X, 1), _apply(remedy, X, 1))
    assert not torch.equal(_apply(remedy, X, 1), _apply(remedy, X, 2))
    rng = torch.Generator().manual_seed(1)
    first, second = (remedy.transform_batch(Batch(X, X), rng).X for _ in range(2))
    assert torch.equal(first, _apply(remedy, X, 1))
    assert not torch.equal(first, second)


def test_the_data_are_not_changed():
    X = _images()
    before = X.clone()
    _apply(Augmentation(), X)
    assert torch.equal(X, before)


def test_flat_rows():
    X = _images(shape=(2, 5, 7))
    flat = _apply(Augmentation(image_shape=(2, 5, 7)), X.flatten(1))
    assert torch.equal(flat, _apply(Augmentation(), X).flatten(1))


def test_defaults_are_the_papers():
    assert clone(Augmentation()).get_params() == {"flip": True, "degrees": 10, "translate": 0.2, "image_shape": None}


@pytest.mark.parametrize("degrees", [-1, 181, float("nan"), "10", None])
def test_bad_degrees(degrees):
    with pytest.raises(ValueError, match=r"degrees must be a number in \[0, 180\]; got "):
        Augmentation(degrees=degrees).check()


@pytest.mark.parametrize("translate", [-0.1, 1.1, float("nan"), "0.2", None])
def test_bad_translate(translate):
    with pytest.raises(ValueError, match=r"translate must be a number in \[0, 1\]; got "):
        Augmentation(translate=translate).check()


# -- the parameter ``augmentation`` --------------------------------------------------------------------------------


def _shape(*shape):
    return lambda: shape


def _no_shape():
    raise ValueError("no shape")


def test_none_and_paper_and_remedies():
    assert check_augmentation(None, _no_shape, flat=True) is None
    paper = check_augmentation("paper", _shape(3, 4, 4), flat=False)
    assert paper.get_params() == Augmentation().get_params()
    proximal, own = Proximal(), Augmentation(degrees=3)
    assert check_augmentation(proximal, _no_shape, flat=False) is proximal
    assert check_augmentation(own, _shape(3, 4, 4), flat=False) is own


def test_only_what_moves_images_asks_for_their_shape():
    for augmentation in ("paper", Augmentation(flip=False)):
        with pytest.raises(ValueError, match="no shape"):
            check_augmentation(augmentation, _no_shape, flat=True)


def test_flat_rows_get_their_shape_and_the_users_object_is_left():
    own = Augmentation(degrees=3)
    filled = check_augmentation(own, _shape(3, 4, 4), flat=True)
    assert filled.get_params() == {**own.get_params(), "image_shape": (3, 4, 4)}
    assert own.image_shape is None


class HalfTurn(Augmentation):
    """A user's own kind of augmentation."""


def test_a_subclass_keeps_its_class():
    assert type(check_augmentation(HalfTurn(), _shape(3, 4, 4), flat=True)) is HalfTurn


def test_one_channel_warns_about_flips():
    with pytest.warns(UserWarning, match="augmentation mirrors images of one channel"):
        check_augmentation("paper", _shape(1, 4, 4), flat=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_augmentation(Augmentation(flip=False), _shape(1, 4, 4), flat=True)
        check_augmentation("paper", _shape(3, 4, 4), flat=True)


def test_a_callable_on_the_batch():
    X = _images()
    remedy = check_augmentation(torch.neg, _no_shape, flat=False)
    assert torch.equal(_apply(remedy, X), -X)


@pytest.mark.parametrize(("function", "got"), [(lambda X: X[1:], r"\(39, 2, 5, 7\)"), (lambda X: None, "NoneType")])
def test_a_callable_that_returns_no_batch(function, got):
    with pytest.raises(ValueError, match=f"augmentation must return a tensor of 40 rows like .* got {got}"):
        _apply(check_augmentation(function, _no_shape, flat=False), _images())


@pytest.mark.parametrize("augmentation", ["flip", 3, Augmentation, nn.Identity])
def test_anything_else(augmentation):
    with pytest.raises(ValueError, match="augmentation must be None, 'paper', a callable or a Remedy; got "):
        check_augmentation(augmentation, _no_shape, flat=False)
