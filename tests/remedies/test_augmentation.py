import math
import warnings

import numpy as np
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


STILL = {"flip": False, "degrees": 0, "translate": 0}
CROP_FLIP = {"degrees": 0, "translate": 0, "crop_padding": 2}
SETTINGS = {
    "paper": {},
    "crop and flip": CROP_FLIP,
    "cutout": {**STILL, "cutout": 3},
    "all": {"crop_padding": 2, "cutout": 3},
}


def test_zero_settings_are_the_identity():
    X = _images()
    batch, rng = Batch(X, torch.arange(len(X))), torch.Generator()
    state = rng.get_state()
    assert Augmentation(**STILL, crop_padding=0, cutout=0).transform_batch(batch, rng) is batch
    assert torch.equal(rng.get_state(), state)


@pytest.mark.parametrize("settings", [{}, {"flip": False}, {"degrees": 0, "translate": 0}], ids=str)
def test_neither_crop_nor_cutout_changes_nothing_else(settings):
    X = _images()
    assert torch.equal(
        _apply(Augmentation(**settings, crop_padding=0, cutout=0), X), _apply(Augmentation(**settings), X)
    )
    # What is drawn for a cutout is drawn last.
    cut = _apply(Augmentation(**settings, cutout=2), X)
    assert torch.equal(torch.where(cut == 0, 0, _apply(Augmentation(**settings), X)), cut)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 5, 7), (3, 28, 28)])
def test_flip_only_mirrors(shape, dtype):
    X = _images(60, shape, dtype)
    out = _apply(Augmentation(degrees=0, translate=0), X)
    mirrored = 0
    for image, moved in zip(X, out, strict=True):
        flipped = torch.equal(moved, image.flip(-1))
        assert flipped or torch.equal(moved, image)
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


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_random_numbers_come_from_rng_alone(settings):
    X, remedy = _images(), Augmentation(**settings)
    with no_global_random_numbers():
        assert torch.equal(_apply(remedy, X, 1), _apply(remedy, X, 1))
    assert not torch.equal(_apply(remedy, X, 1), _apply(remedy, X, 2))
    rng = torch.Generator().manual_seed(1)
    first, second = (remedy.transform_batch(Batch(X, X), rng).X for _ in range(2))
    assert torch.equal(first, _apply(remedy, X, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_data_are_not_changed(settings):
    X = _images()
    before = X.clone()
    assert not torch.equal(_apply(Augmentation(**settings), X), before)
    assert torch.equal(X, before)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_rows_of_another_shape(settings):
    X = _images(shape=(2, 5, 7))
    images = _apply(Augmentation(**settings), X)
    for other in (X.flatten(1), X.flatten(2), X[:, None]):
        out = _apply(Augmentation(**settings, image_shape=(2, 5, 7)), other)
        assert torch.equal(out, images.view(other.shape))


def test_rows_that_are_not_images():
    with pytest.raises(
        ValueError, match=r"Augmentation needs a batch of shape \(n, channels, height, width\), or image"
    ):
        _apply(Augmentation(), torch.zeros(4, 9))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_gpu_draws_the_same(settings):
    X = _images()
    torch.testing.assert_close(_apply(Augmentation(**settings), X.cuda()).cpu(), _apply(Augmentation(**settings), X))


def test_defaults_are_the_papers():
    paper = {"flip": True, "degrees": 10, "translate": 0.2, "crop_padding": 0, "cutout": 0, "image_shape": None}
    assert clone(Augmentation()).get_params() == paper


# -- crop and cutout -------------------------------------------------------------------------------------------------


def _cropped(image, padding, top, left, mirror):
    """The recipe in NumPy, for one image."""
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    window = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
    return window[:, :, ::-1] if mirror else window


def _cut(image, side, row, column):
    out = image.copy()
    top, left = row - side // 2, column - side // 2
    out[:, max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = 0
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 6, 5), (2, 4, 9)])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("padding", "side"), [(0, 3), (1, 0), (2, 1), (3, 2)])
def test_a_loop_over_images(shape, dtype, flip, padding, side):
    X = _images(30, shape, dtype)
    remedy = Augmentation(flip=flip, degrees=0, translate=0, crop_padding=padding, cutout=side)
    rng = torch.Generator().manual_seed(0)
    mirror = flip & (torch.rand(4, 30, generator=rng)[3] < 0.5)
    shift = torch.randint(2 * padding + 1, (2, 30), generator=rng) if padding or flip else torch.zeros(2, 30).int()
    rows, columns = (torch.randint(pixels, (30,), generator=rng) for pixels in shape[1:])
    expected = [
        _cut(_cropped(X[i].numpy(), padding, *shift[:, i], mirror[i]), side, int(rows[i]), int(columns[i]))
        for i in range(30)
    ]
    np.testing.assert_array_equal(_apply(remedy, X).numpy(), expected)


def _frequencies_are_even(values, n_values):
    """Counts of each value lie within five standard deviations of the binomial distribution."""
    n, p = len(values), 1 / n_values
    counts = np.bincount(values, minlength=n_values)
    assert len(counts) == n_values
    assert (abs(counts - n * p) <= 5 * math.sqrt(n * p * (1 - p))).all()


def test_every_window_is_as_likely():
    # Pixels with values of their own: one window alone explains an image.
    X = torch.arange(1.0, 41.0).view(1, 2, 4, 5).repeat(2000, 1, 1, 1)
    image = X[0].numpy()
    windows = [(top, left, mirror) for top in range(7) for left in range(7) for mirror in (0, 1)]
    known = {_cropped(image, 3, *window).tobytes(): window for window in windows}
    assert len(known) == len(windows)
    out = _apply(Augmentation(degrees=0, translate=0, crop_padding=3), X).numpy()
    drawn = np.array([known[changed.tobytes()] for changed in out])
    for values, n_values in zip(drawn.T, (7, 7, 2), strict=True):
        _frequencies_are_even(values, n_values)
    # Drawn one without regard to the others: five standard errors of a correlation of zero.
    correlation = np.corrcoef(drawn.T) - np.eye(3)
    assert abs(correlation).max() < 5 / math.sqrt(2000)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_every_pixel_is_as_likely_a_centre(side):
    image = np.ones((2, 5, 7), dtype=np.float32)
    known = {_cut(image, side, row, column).tobytes(): (row, column) for row in range(5) for column in range(7)}
    assert len(known) == 35
    out = _apply(Augmentation(**STILL, cutout=side), torch.ones(2000, 2, 5, 7)).numpy()
    drawn = np.array([known[changed.tobytes()] for changed in out])
    for values, n_values in zip(drawn.T, (5, 7), strict=True):
        _frequencies_are_even(values, n_values)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 5 / math.sqrt(2000)


def test_crop_and_cutout_come_after_the_rotation():
    X = _images()
    moved = _apply(Augmentation(), X)
    both = _apply(Augmentation(crop_padding=2), X)
    for before, after in zip(moved.numpy(), both.numpy(), strict=True):  # the flip is not made twice
        windows = [_cropped(before, 2, top, left, False) for top in range(5) for left in range(5)]
        assert any(np.array_equal(window, after) for window in windows)


@pytest.mark.parametrize(("name", "largest"), [("degrees", 180), ("translate", 1)])
@pytest.mark.parametrize("value", [-0.1, 181, float("nan"), "10", None])
def test_bad_sizes(name, largest, value):
    with pytest.raises(ValueError, match=rf"{name} must be a number in \[0, {largest}\]; got "):
        Augmentation(**{name: value}).check()


@pytest.mark.parametrize("name", ["crop_padding", "cutout"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "4", None])
def test_bad_pixels(name, value):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 0; got "):
        Augmentation(**{name: value}).check()


@pytest.mark.parametrize("flip", [0.5, 1, "yes", None])
def test_bad_flip(flip):
    with pytest.raises(ValueError, match="flip must be True or False; got "):
        Augmentation(flip=flip).check()


# -- the parameter ``augmentation`` --------------------------------------------------------------------------------


def _shape(*shape):
    return lambda: shape


def _no_shape():
    raise ValueError("no shape")


def test_none_and_remedies():
    assert check_augmentation(None, _no_shape, (48,)) is None
    proximal, own = Proximal(), Augmentation(degrees=3)
    assert check_augmentation(proximal, _no_shape, (3, 4, 4)) is proximal
    assert check_augmentation(own, _shape(3, 4, 4), (3, 4, 4)) is own


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("paper", {}),
        ("crop-flip", {"degrees": 0, "translate": 0, "crop_padding": 4}),
        ("crop-flip-cutout", {"degrees": 0, "translate": 0, "crop_padding": 4, "cutout": 16}),
    ],
)
def test_recipes(name, settings):
    recipe = check_augmentation(name, _shape(3, 32, 32), (3, 32, 32))
    assert recipe.get_params() == Augmentation(**settings).get_params()


def test_only_what_moves_images_asks_for_their_shape():
    for augmentation in ("paper", "crop-flip", Augmentation(flip=False)):
        with pytest.raises(ValueError, match="no shape"):
            check_augmentation(augmentation, _no_shape, (48,))


def test_what_would_leave_nothing_of_an_image():
    for shape in ((3, 4, 9), (3, 9, 4)):
        for settings in ({"crop_padding": 3}, {"cutout": 3}):
            check_augmentation(Augmentation(**settings), _shape(*shape), shape)
        with pytest.raises(ValueError, match="crop_padding must be less than the smaller side of the images, 4; got 4"):
            check_augmentation("crop-flip", _shape(*shape), shape)
        with pytest.raises(ValueError, match="cutout must be less than the smaller side of the images, 4; got 16"):
            check_augmentation(Augmentation(cutout=16), _shape(*shape), shape)
    with pytest.raises(ValueError, match="cutout must be an integer"):
        check_augmentation(Augmentation(cutout="16"), _shape(*shape), shape)


@pytest.mark.parametrize("row_shape", [(48,), (4, 12), (4, 4, 3)])
def test_rows_of_another_shape_get_it_and_the_users_object_is_left(row_shape):
    own = Augmentation(degrees=3)
    filled = check_augmentation(own, _shape(3, 4, 4), row_shape)
    assert filled.get_params() == {**own.get_params(), "image_shape": (3, 4, 4)}
    assert own.image_shape is None


class HalfTurn(Augmentation):
    """A user's own kind of augmentation."""


def test_a_subclass_keeps_its_class():
    assert type(check_augmentation(HalfTurn(), _shape(3, 4, 4), (48,))) is HalfTurn


def test_one_channel_warns_about_flips():
    with pytest.warns(UserWarning, match="augmentation mirrors images of one channel"):
        check_augmentation("paper", _shape(1, 4, 4), (16,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_augmentation(Augmentation(flip=False), _shape(1, 4, 4), (16,))
        check_augmentation("paper", _shape(3, 4, 4), (48,))


def test_a_callable_on_the_batch():
    X = _images()
    remedy = check_augmentation(torch.neg, _no_shape, (2, 5, 7))
    assert torch.equal(_apply(remedy, X), -X)


@pytest.mark.parametrize(("function", "got"), [(lambda X: X[1:], r"\(39, 2, 5, 7\)"), (lambda X: None, "NoneType")])
def test_a_callable_that_returns_no_batch(function, got):
    with pytest.raises(ValueError, match=f"augmentation must return a tensor of 40 samples, as many as .* got {got}"):
        _apply(check_augmentation(function, _no_shape, (2, 5, 7)), _images())


@pytest.mark.parametrize("augmentation", ["flip", 3, Augmentation, nn.Identity])
def test_anything_else(augmentation):
    allowed = "None, 'paper', 'crop-flip', 'crop-flip-cutout', a callable or a Remedy"
    with pytest.raises(ValueError, match=f"augmentation must be {allowed}; got "):
        check_augmentation(augmentation, _no_shape, (2, 5, 7))
