import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from sklgap.inspection import LossSurface, LossSurfaceDisplay, loss_on_plane
from tests.tiny import blobs, small

ALPHAS = np.linspace(-1, 1, 41)
BETAS = np.linspace(-0.5, 1.5, 31)


@pytest.fixture(autouse=True)
def _without_a_screen():
    plt = pytest.importorskip("matplotlib.pyplot")
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    plt.close("all")  # what other tests have left open
    before = plt.get_fignums()
    yield
    plt.close("all")
    plt.switch_backend(backend)
    assert plt.get_fignums() == before


def _bowl(a, b):
    return 1 + a**2 + 0.5 * b**2


def _surface(loss=_bowl, alphas=ALPHAS, betas=BETAS, directions=("filter", "filter"), **kwargs):
    values = loss(*np.meshgrid(alphas, betas, indexing="ij")) if callable(loss) else loss
    options = {
        "accuracy": 1 / (1 + values),
        "batch_norm": "population",
        "n_samples": 7,
        "positions": np.array([[0, 0], [1, 0], [0, 1]])[: 1 + directions.count("towards")],
        "norms": (1.0, 2.0),
        "cosine": 0.0,
        **kwargs,
    }
    return LossSurface(alphas, betas, values, directions=directions, **options)


def _line_vertices(contours):
    """(level, alpha, beta) of every vertex of every line."""
    return [
        (level, *vertex)
        for level, path in zip(contours.levels, contours.get_paths(), strict=True)
        for vertex in path.vertices
    ]


def _draw(display):
    """Render, so that what only the renderer finds is found."""
    display.figure_.set_layout_engine("none")
    display.figure_.canvas.draw()


# -- contours ---------------------------------------------------------------------------------------------------------


def test_contours_are_where_the_values_are():
    display = LossSurfaceDisplay(_surface()).plot()
    vertices = _line_vertices(display.artist_)
    assert len(vertices) > 100
    for level, alpha, beta in vertices:
        # Linear interpolation between points 0.05 and 0.067 apart, of second derivatives 2 and 1: at most 1e-3.
        assert _bowl(alpha, beta) == pytest.approx(level, abs=2e-3)
    _draw(display)


def test_accuracy_in_percent():
    display = LossSurfaceDisplay(_surface()).plot(quantity="accuracy")
    vertices = _line_vertices(display.artist_)
    assert len(vertices) > 100
    for level, alpha, beta in vertices:
        assert 100 / (1 + _bowl(alpha, beta)) == pytest.approx(level, abs=0.1)
    assert display.ax_.get_title() == "accuracy (%) (batch norm: population)"


def test_a_grid_that_is_not_in_order():
    rng = np.random.default_rng(0)
    shuffled = _surface(alphas=rng.permutation(ALPHAS), betas=rng.permutation(BETAS))
    one, other = (LossSurfaceDisplay(surface).plot() for surface in (_surface(), shuffled))
    assert _line_vertices(one.artist_) == _line_vertices(other.artist_)


def test_levels_within_the_range_and_labelled():
    display = LossSurfaceDisplay(_surface()).plot()
    levels = display.artist_.levels
    assert 5 <= len(levels) <= 12
    assert levels.min() >= 1
    assert levels.max() <= _bowl(-1, 1.5)
    np.testing.assert_allclose(np.diff(levels), levels[1] - levels[0])
    labels = {text.get_text() for text in display.ax_.texts}
    assert len(labels & {f"{level:g}" for level in levels}) > 3


@pytest.mark.parametrize(
    ("lowest", "highest", "levels"),
    [
        (0.004, 0.9, [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]),
        (0.9e-5, 9, [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1, 3]),
        (0.9e-8, 9, [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1]),
    ],
)
def test_levels_of_a_loss_that_spans_decades(lowest, highest, levels):
    slope = np.log(highest / lowest) / 2
    display = LossSurfaceDisplay(_surface(lambda a, b: lowest * np.exp(slope * (a + 1)) + 0 * b)).plot()
    np.testing.assert_allclose(display.artist_.levels, levels, rtol=1e-12)
    assert display.artist_.norm(lowest) == 0
    assert display.artist_.norm((lowest * highest) ** 0.5) == pytest.approx(0.5)
    # Accuracies stay evenly spaced.
    steps = np.diff(LossSurfaceDisplay(display.surface).plot(quantity="accuracy").artist_.levels)
    np.testing.assert_allclose(steps, steps[0])


def test_a_loss_of_zero_has_even_levels():
    levels = LossSurfaceDisplay(_surface(lambda a, b: (a + 1) ** 2 + 0 * b)).plot().artist_.levels
    np.testing.assert_allclose(levels, np.arange(len(levels)) * levels[1])


def test_the_models_are_marked_and_the_axes_named():
    display = LossSurfaceDisplay(_surface(directions=("towards", "towards")), names=("SB", "LB", "SB")).plot()
    ax = display.ax_
    assert [(line.get_xdata().item(), line.get_ydata().item()) for line in ax.lines] == [(0, 0), (1, 0), (0, 1)]
    marks = [text for text in ax.texts if text.get_text() in ("SB", "LB")]
    assert [(text.get_text(), tuple(text.xy)) for text in marks] == [("SB", (0, 0)), ("LB", (1, 0)), ("SB", (0, 1))]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("alpha (towards LB)", "beta (towards SB)")
    assert ax.get_title() == "mean loss (batch norm: population)"
    assert display.figure_ is ax.figure


@pytest.mark.parametrize(
    ("directions", "labels"),
    [
        (("filter", "filter"), ("alpha (random, filter-normalised)", "beta (random, filter-normalised)")),
        (("towards", "gaussian"), ("alpha (towards second)", "beta (random)")),
    ],
)
def test_names_of_the_directions(directions, labels):
    ax = LossSurfaceDisplay(_surface(directions=directions)).plot().ax_
    assert (ax.get_xlabel(), ax.get_ylabel()) == labels
    assert len(ax.lines) == 1 + directions.count("towards")


@pytest.mark.parametrize("kind", ["contour", "surface"])
def test_losses_that_are_not_finite_are_blank(kind):
    loss = _bowl(*np.meshgrid(ALPHAS, BETAS, indexing="ij"))
    loss[:5] = np.inf
    loss[20, 3] = np.nan
    display = LossSurfaceDisplay(_surface(loss)).plot(kind=kind)
    _draw(display)
    if kind == "contour":
        vertices = np.array(_line_vertices(display.artist_))
        assert vertices[:, 1].min() > ALPHAS[5] - 1e-9
        assert np.isfinite(vertices).all()


@pytest.mark.parametrize("kind", ["contour", "surface"])
def test_values_that_are_all_equal(kind):
    display = LossSurfaceDisplay(_surface(accuracy=np.ones((41, 31)))).plot(kind=kind, quantity="accuracy")
    assert display.ax_.get_title() == "accuracy (%) (batch norm: population), 100 everywhere"
    _draw(display)


def test_keywords_of_contour():
    ax = Figure().subplots()
    display = LossSurfaceDisplay(_surface()).plot(ax, levels=[1.5, 2], colors="black", linewidths=3)
    assert display.ax_ is ax
    assert display.artist_.levels.tolist() == [1.5, 2]
    assert {tuple(colour) for colour in display.artist_.get_edgecolor().tolist()} == {(0, 0, 0, 1)}
    assert set(display.artist_.get_linewidths()) == {3}


# -- in three dimensions ----------------------------------------------------------------------------------------------


def _drawn_in_3d(monkeypatch, surface, quantity="loss", **kwargs):
    """Return the display, and what it handed to matplotlib."""
    ax = Figure().add_subplot(projection="3d")
    seen = {}
    plot_surface = ax.plot_surface

    def spy(a, b, values, **options):
        seen.update(options, alphas=a, betas=b, values=values)
        return plot_surface(a, b, values, **options)

    monkeypatch.setattr(ax, "plot_surface", spy)
    return LossSurfaceDisplay(surface).plot(ax, kind="surface", quantity=quantity, **kwargs), seen


@pytest.mark.parametrize(("quantity", "scale"), [("loss", 1), ("accuracy", 100)])
def test_heights_are_the_values(monkeypatch, quantity, scale):
    surface = _surface(directions=("towards", "towards"))
    display, seen = _drawn_in_3d(monkeypatch, surface, quantity)
    expected = scale * getattr(surface, quantity)
    np.testing.assert_array_equal(seen["values"], expected)
    np.testing.assert_array_equal(seen["alphas"], np.tile(ALPHAS[:, None], (1, 31)))
    np.testing.assert_array_equal(seen["betas"], np.tile(BETAS, (41, 1)))
    assert (seen["rcount"], seen["ccount"]) == (41, 31)
    # Of the models only those that are on the grid have a height: beta = 0 and 1 are not among these betas.
    assert 0.0 not in BETAS
    assert not display.ax_.lines


def test_the_models_stand_at_their_heights(monkeypatch):
    betas = np.arange(-5, 16) / 10
    surface = _surface(betas=betas, directions=("towards", "towards"))
    display, _ = _drawn_in_3d(monkeypatch, surface, linewidth=0.5)
    points = [np.ravel(line.get_data_3d()).tolist() for line in display.ax_.lines]
    assert points == [[0, 0, 1], [1, 0, 2], [0, 1, 1.5]]
    texts = [text.get_text().strip() for text in display.ax_.texts]
    assert texts == ["model", "second", "third"]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("alpha (towards second)", "beta (towards third)")
    _draw(display)


def test_a_loss_that_spans_decades_has_logarithmic_heights(monkeypatch):
    surface = _surface(lambda a, b: 10.0 ** (2 * a) + 0 * b)
    display, seen = _drawn_in_3d(monkeypatch, surface)
    np.testing.assert_allclose(seen["values"], 2 * seen["alphas"], atol=1e-12)
    ticks = display.ax_.get_zticks()
    assert len(ticks) <= 7
    np.testing.assert_allclose([float(t.get_text()) for t in display.ax_.get_zticklabels()], 10**ticks)
    _draw(display)


def test_keywords_of_plot_surface(monkeypatch):
    _, seen = _drawn_in_3d(monkeypatch, _surface(), cmap="magma", rcount=5)
    assert (seen["cmap"], seen["rcount"]) == ("magma", 5)


def test_flat_axes_for_a_surface():
    with pytest.raises(ValueError, match="ax must have projection='3d' for kind='surface'; got flat axes"):
        LossSurfaceDisplay(_surface()).plot(Figure().subplots(), kind="surface")


# -- manners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["contour", "surface"])
def test_one_figure_and_none_for_axes_given(kind):
    import matplotlib.pyplot as plt

    before = len(plt.get_fignums())
    LossSurfaceDisplay(_surface())
    ax = Figure().add_subplot(projection="3d" if kind == "surface" else None)
    assert LossSurfaceDisplay(_surface()).plot(ax, kind=kind).ax_ is ax
    assert len(plt.get_fignums()) == before
    display = LossSurfaceDisplay(_surface()).plot(kind=kind)
    assert len(plt.get_fignums()) == before + 1
    assert hasattr(display.ax_, "plot_surface") == (kind == "surface")


def test_from_estimator_has_the_functions_numbers():
    X, y = blobs(60)
    sb, lb = (small(batch_regime=size).fit(X, y) for size in (10, 60))
    options = {"alphas": [-0.5, 0, 1], "betas": [0, 0.5], "batch_norm": "running", "random_state": 0}
    ax = Figure().subplots()
    display = LossSurfaceDisplay.from_estimator(
        sb, X, y, towards=(lb,), names=("SB", "LB"), quantity="accuracy", ax=ax, **options
    )
    expected = loss_on_plane(sb, X, y, towards=(lb,), **options)
    np.testing.assert_array_equal(display.surface.loss, expected.loss)
    np.testing.assert_array_equal(display.surface.accuracy, expected.accuracy)
    assert display.ax_ is ax
    assert ax.get_title().startswith("accuracy (%) (batch norm: running)")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("alpha (towards LB)", "beta (random, filter-normalised)")


@pytest.mark.parametrize(("name", "value"), [("kind", "wireframe"), ("quantity", "error")])
def test_bad_choices(name, value):
    with pytest.raises(ValueError, match=f"{name} must be one of '.*', '.*'; got {value!r}"):
        LossSurfaceDisplay(_surface()).plot(**{name: value})
    # Before anything is computed.
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        LossSurfaceDisplay.from_estimator(None, **{name: value})


def test_too_few_names():
    with pytest.raises(ValueError, match="names must name the 3 models"):
        LossSurfaceDisplay(_surface(directions=("towards", "towards")), names=("a", "b")).plot()


def test_too_few_points():
    with pytest.raises(ValueError, match="surface must have at least 2 x 2 points to be drawn; got 1 x 31"):
        LossSurfaceDisplay(_surface(alphas=np.zeros(1))).plot()


def test_nothing_to_draw():
    surface = _surface(accuracy=np.full((41, 31), np.nan))  # not a classification
    with pytest.raises(ValueError, match=r"^quantity='accuracy' must have a finite value on the plane; all are NaN"):
        LossSurfaceDisplay(surface).plot(quantity="accuracy")
