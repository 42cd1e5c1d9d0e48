"""Figures hold the data that they were given, and nothing else changes."""

import builtins
import importlib
import io
import itertools
import math
import subprocess
import sys

import matplotlib
import matplotlib.container
import numpy as np
import pytest
import torch
from PIL import Image

from vaereg import plots
from vaereg.metrics import MIEstimate

ESTIMATE = MIEstimate(0.5, 0.1, (0.4, 0.6), 0.0, unit="bits")
TABLE = {
    "r-CVAE": {"I(c;y)": (0.895, 0.014), "I(z;y)": (0.245, 0.005)},
    "CSVAE": {"I(c;y)": (0.909, 0.012), "I(z;y)": [0.210, 0.012]},
    "MMVAE": {"I(c;y)": torch.tensor([0.908, 0.016]), "I(z;y)": (0.175, 0.017)},
}


def pixels(figure):
    """The figure as it would be saved, (H, W, 4) in [0, 1]."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file)) / 255.0


def texts(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def error_bars(axes):
    """The (x, mean, low, high) columns of each container of error bars."""
    found = []
    for container in axes.containers:
        if isinstance(container, matplotlib.container.ErrorbarContainer):
            line, _, (bars,) = container
            segments = np.array(bars.get_segments())  # (n, 2, 2)
            means = segments[:, :, 1].mean(1) if line is None else line.get_ydata()
            found.append((segments[:, 0, 0], means, segments[:, 0, 1], segments[:, 1, 1]))
    return found


def every_figure():
    codes = np.random.default_rng(0).normal(size=(20, 2))
    y = np.arange(20) % 2
    yield plots.attribute_grid(np.zeros((2, 2, 4, 4, 3)), rows="ab", columns="cd", title="t")
    yield plots.code_scatter(codes, y, priors={0: (0.0, 1.0)}, title="t")
    yield plots.code_scatter(codes[:, 0], y, priors={0: (0.0, 1.0)}, title="t")
    yield plots.mi_trend({"a": [1.0, 2.0]}, measured={"a": {2: ESTIMATE}}, ceilings={"H": 1.0})
    yield plots.mi_bars(TABLE, ceilings={"H(y)": 1.0}, title="t")
    yield plots.mi_sweep({"a": {0.0: ESTIMATE, 1.0: (0.2, 0.1)}}, ceilings={"H(y)": 1.0})


# ---- the outside world


def test_no_global_state_is_touched():
    import matplotlib.pyplot as pyplot

    settings, backend, open_figures = (
        dict(matplotlib.rcParams),
        matplotlib.get_backend(),
        (pyplot.get_fignums()),
    )
    state = np.random.get_state()[1].copy()
    for figure in every_figure():
        assert pixels(figure).std() > 0
    assert dict(matplotlib.rcParams) == settings
    assert matplotlib.get_backend() == backend
    assert pyplot.get_fignums() == open_figures
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_neither_pyplot_nor_a_package_import_is_needed():
    code = (
        "import sys, vaereg\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from vaereg import plots\n"
        "plots.mi_bars({'m': {'q': (0.1, 0.0)}})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "vaereg.plots")
    with pytest.raises(ImportError, match=r'pip install "vaereg\[plots\]"'):
        importlib.import_module("vaereg.plots")
    # monkeypatch puts the module back; its package's attribute was never replaced.


def test_a_dark_style_of_the_user_is_followed():
    import matplotlib.style

    with matplotlib.style.context("dark_background"):
        for figure in every_figure():
            assert figure.get_facecolor()[:3] == (0.0, 0.0, 0.0)
            assert pixels(figure)[0, 0, :3].tolist() == [0.0, 0.0, 0.0]


# ---- attribute_grid


@pytest.mark.parametrize("dpi", [100.0, 200.0])
@pytest.mark.parametrize("scale", [None, 1, 3])
def test_grid_draws_each_pixel_of_each_image(dpi, scale):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2, 3, 7, 5, 3), dtype=np.uint8)
    with matplotlib.rc_context({"figure.dpi": dpi}):
        figure = plots.attribute_grid(
            images, rows=[-0.5, 1], columns=["left", "middle", "right"], row_name="$c_2$",
            column_name="$c_1$", title="a title that is wider than all images together",
            scale=scale,
        )  # fmt: skip
    (axes,) = figure.axes
    (image,) = axes.get_images()
    mosaic = np.asarray(image.get_array())
    gap_y, gap_x = mosaic.shape[0] - 2 * 7, (mosaic.shape[1] - 3 * 5) // 2
    assert gap_y == gap_x > 0
    box = axes.get_window_extent()
    drawn = pixels(figure)
    times = round(box.width) // mosaic.shape[1]
    assert scale in (None, times)
    bottom, left = drawn.shape[0] - round(box.y0), round(box.x0)
    top = bottom - round(box.height)
    assert abs(box.x0 - left) < 1e-6 and abs(box.y1 - (drawn.shape[0] - top)) < 1e-6
    for i in range(2):
        for j in range(3):
            y, x = top + i * (7 + gap_y) * times, left + j * (5 + gap_x) * times
            shown = drawn[y : y + 7 * times, x : x + 5 * times, :3]
            expected = images[i, j].repeat(times, 0).repeat(times, 1) / 255.0
            np.testing.assert_allclose(shown, expected, atol=1.01 / 255)


def test_grid_labels_stand_at_their_images_and_inside_of_the_figure():
    figure = plots.attribute_grid(
        torch.zeros(5, 5, 3, 8, 8),
        rows=[-0.5, 0.5, 1.5, 2.5, 3.5],
        columns=torch.tensor([-0.5, 0.5, 1.5, 2.5, 3.5]),
        row_name="$c_2$",
        column_name="$c_1$",
        title="two\nlines",
    )
    (axes,) = figure.axes
    numbers = ["-0.5", "0.5", "1.5", "2.5", "3.5"]
    assert [t.get_text() for t in axes.get_xticklabels()] == numbers
    assert [t.get_text() for t in axes.get_yticklabels()] == numbers
    assert sorted(t.get_text() for t in figure.texts) == ["$c_1$", "$c_2$", "two\nlines"]
    step = np.diff(axes.get_xticks())
    assert np.allclose(step, step[0]) and step[0] > 8 and axes.get_xticks()[0] == 3.5
    pixels(figure)  # text has an extent only once it was drawn
    for text in [*figure.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
    boxes = [t.get_window_extent() for t in [*figure.texts, *axes.get_xticklabels()]]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(b) for b in boxes[:i])


def test_grid_turns_column_labels_that_are_wider_than_an_image():
    wide = plots.attribute_grid(np.zeros((1, 2, 8, 8)), columns=["no glasses at all", "b"])
    narrow = plots.attribute_grid(np.zeros((1, 2, 8, 8)), columns=["a", "b"])
    assert {t.get_rotation() for t in wide.axes[0].get_xticklabels()} == {90.0}
    assert {t.get_rotation() for t in narrow.axes[0].get_xticklabels()} == {0.0}


def test_grid_reads_all_layouts_alike():
    colour = np.random.default_rng(0).random((2, 2, 6, 4, 3))
    grey = colour[..., 0]

    def mosaic(images):
        return np.asarray(plots.attribute_grid(images).axes[0].get_images()[0].get_array())

    np.testing.assert_allclose(mosaic(np.moveaxis(colour, -1, 2)), mosaic(colour))
    np.testing.assert_allclose(mosaic(grey[..., None]), mosaic(grey))
    np.testing.assert_allclose(mosaic(grey[:, :, None]), mosaic(grey))
    np.testing.assert_allclose(mosaic(np.stack([grey] * 3, -1)), mosaic(grey))
    low = torch.tensor(colour, dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_allclose(mosaic(low), mosaic(colour), atol=0.01)
    np.testing.assert_allclose(mosaic(colour * 4 - 2), mosaic(np.clip(colour * 4 - 2, 0, 1)))
    clear = mosaic(colour)[..., 3]
    assert clear.sum() == 2 * 2 * 6 * 4 and set(np.unique(clear)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((4, 4, 3)), {}, r"expected images of shape .* got \(4, 4, 3\)"),
        (np.zeros((2, 2, 4, 4, 4)), {}, r"got \(2, 2, 4, 4, 4\)"),
        (np.zeros((0, 2, 4, 4)), {}, r"got \(0, 2, 4, 4\)"),
        (np.full((1, 1, 2, 2), np.nan), {}, "finite values in images, got .* in 4 of 4"),
        (np.zeros((2, 3, 4, 4)), {"rows": "abc"}, "expected 2 labels in rows, got 3"),
        (np.zeros((2, 3, 4, 4)), {"columns": "ab"}, "expected 3 labels in columns, got 2"),
        (np.zeros((2, 3, 4, 4)), {"scale": 0}, "expected scale >= 1, got 0"),
    ],
)
def test_grid_errors(images, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        plots.attribute_grid(images, **options)
    assert str(raised.value).startswith("attribute_grid: ")


# ---- code_scatter


def test_scatter_holds_each_code_once_in_the_colour_of_its_class():
    generator = np.random.default_rng(0)
    codes, y = generator.normal(size=(60, 2)), generator.integers(-1, 3, 60)
    figure = plots.code_scatter(torch.tensor(codes), torch.tensor(y), names=["a", "b", "c"])
    (axes,) = figure.axes
    (points,) = axes.collections
    offsets = np.asarray(points.get_offsets())
    order = [int(np.flatnonzero((codes == row).all(1))[0]) for row in offsets]
    assert sorted(order) == list(range(60))
    shown = {
        k: {tuple(c[:3]) for c in points.get_facecolor()[y[order] == k]} for k in range(-1, 3)
    }
    assert all(len(colours) == 1 for colours in shown.values())
    assert len(set().union(*shown.values())) == 4
    assert texts(figure) == ["a", "b", "c", "no label"]
    for k, handle in zip((0, 1, 2, -1), axes.get_legend().get_lines(), strict=True):
        assert {matplotlib.colors.to_rgb(handle.get_color())} == shown[k]


def test_scatter_mixes_classes_that_come_sorted():
    y = np.repeat([0, 1], 500)
    figure = plots.code_scatter(np.stack([y, y], 1).astype(float), y)
    first = np.asarray(figure.axes[0].collections[0].get_offsets())[:500, 0]
    assert 0.4 < first.mean() < 0.6


def test_a_class_keeps_its_colour_when_others_are_absent():
    def colours(y):
        points = plots.code_scatter(np.zeros((2, 2)), y).axes[0].collections[0]
        return {tuple(c[:3]) for c in points.get_facecolor()}

    assert colours([2, 2]) < colours([0, 2])


@pytest.mark.parametrize("std", [0.5, [0.5], np.array([0.5, 0.5])])
def test_prior_ellipses_lie_at_two_standard_deviations(std):
    figure = plots.code_scatter(
        np.zeros((2, 2)), np.array([0, 1]), priors={0: (0.0, [1.0, 3.0]), 1: ([3.0, 4.0], std)}
    )
    found = {(e.center, e.width, e.height) for e in figure.axes[0].patches}
    assert found == {((0.0, 0.0), 4.0, 12.0), ((3.0, 4.0), 2.0, 2.0)}
    assert texts(figure) == ["0", "1", "prior, 2 std"]
    low, high = figure.axes[0].get_ylim()
    assert low < -6.0 and high > 6.0  # the whole ellipse is in view


def test_one_dimensional_codes_become_densities():
    generator = np.random.default_rng(0)
    codes, y = generator.normal(size=400), np.arange(400) % 2 == 1
    figure = plots.code_scatter(codes[:, None], y, priors={1: (0.5, 2.0)})
    (axes,) = figure.axes
    assert len(axes.patches) == 2 and not axes.collections
    for k, patch in enumerate(axes.patches):
        x, height = patch.get_xy().T
        edges, heights = np.unique(x), height[1 : 2 * len(np.unique(x)) - 1 : 2]
        expected, _ = np.histogram(codes[y == k], edges, density=True)
        np.testing.assert_allclose(heights, expected)
    (line,) = axes.lines
    x, density = line.get_data()
    expected = torch.distributions.Normal(0.5, 2.0).log_prob(torch.tensor(x)).exp()
    np.testing.assert_allclose(density, expected)
    assert texts(figure) == ["0", "1", "prior"]


def test_many_classes_have_a_colour_each():
    y = np.arange(23)
    points = plots.code_scatter(np.zeros((23, 2)), y).axes[0].collections[0]
    assert len({tuple(c) for c in points.get_facecolor()}) == 23


@pytest.mark.parametrize(
    ("c", "y", "options", "error", "message"),
    [
        (np.zeros((4, 5)), [0] * 4, {}, ValueError, r"got 5; select two columns, e.g. c\[:, \[0"),
        (np.zeros((4, 2, 2)), [0] * 4, {}, ValueError, r"expected c of .* got \(4, 2, 2\)"),
        (np.zeros((0, 2)), [], {}, ValueError, r"expected c of .* got \(0, 2\)"),
        (np.zeros((4, 2)), [0] * 3, {}, ValueError, r"expected y of shape \(4,\), got \(3,\)"),
        (np.zeros((4, 2)), np.eye(4), {}, TypeError, r"class labels, got float64 .*argmax"),
        (np.zeros((4, 2)), [0, 1, -2, 0], {}, ValueError, "expected y >= -1, got -2"),
        (np.full((4, 2), np.inf), [0] * 4, {}, ValueError, "finite values in c, got .* in 8 of 8"),
        (np.zeros((4, 2)), [3] * 4, {"names": "ab"}, ValueError, "classes 0 to 3, got 2 names"),
        (np.zeros((4, 2)), [0] * 4, {"priors": [(0, 1)]}, TypeError, "mapping .* got list"),
        (np.zeros((4, 2)), [0] * 4, {"priors": {-1: (0, 1)}}, ValueError, ">= 0, got -1"),
        (np.zeros((4, 2)), [0] * 4, {"priors": {0: (0,)}}, ValueError, r"\[0\] .* 1 entries"),
        (np.zeros((4, 2)), [0] * 4, {"priors": {0: (0, 0)}}, ValueError, r"std .*\[0\] > 0, got"),
        (np.zeros((4, 2)), [0] * 4, {"priors": {0: ([0] * 3, 1)}}, ValueError,
         r"mean of priors\[0\] .* \(2,\), got \(3,\)"),
    ],
)  # fmt: skip
def test_scatter_errors(c, y, options, error, message):
    with pytest.raises(error, match=message) as raised:
        plots.code_scatter(c, np.array(y, dtype=None if len(y) else int), **options)
    assert str(raised.value).startswith("code_scatter: ")


# ---- mi_trend


def test_trend_draws_each_curve_and_each_measured_point():
    history = {"I(c;y)": [0.1, math.nan, 0.8], "I(z;y)": torch.tensor([0.5, 0.25, 0.125])}
    figure = plots.mi_trend(
        history,
        measured={"I(z;y)": {3: (0.2, 0.05), 1: ESTIMATE}},
        ceilings={"H(y)": 1.0},
        title="a run",
    )
    (axes,) = figure.axes
    for line, values in zip(axes.lines, history.values(), strict=False):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), np.asarray(values))
    ((x, means, low, high),) = error_bars(axes)
    np.testing.assert_allclose(x, [1, 3])
    np.testing.assert_allclose(means, [0.5, 0.2])
    np.testing.assert_allclose(low, [0.4, 0.15])
    np.testing.assert_allclose(high, [0.6, 0.25])
    assert axes.containers[0][0].get_color() == axes.lines[1].get_color()
    ceiling = [line for line in axes.lines if list(line.get_ydata()) == [1.0, 1.0]]
    assert len(ceiling) == 1 and [t.get_text() for t in axes.texts] == ["H(y)"]
    assert texts(figure) == ["I(c;y)", "I(z;y)", "measured,\nmean ± std"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "mutual information [bits]")
    assert axes.get_title() == "a run"


def test_trend_takes_positions_from_the_history():
    figure = plots.mi_trend({"step": [10, 20, 40], "kl": [3.0, 2.0, 1.0]}, x="step", unit="nats")
    (axes,) = figure.axes
    (line,) = axes.lines
    assert list(line.get_xdata()) == [10, 20, 40] and texts(figure) == ["kl"]
    assert axes.get_xlabel() == "step" and "[nats]" in axes.get_ylabel()


def test_a_trend_of_one_epoch_can_be_seen():
    figure = plots.mi_trend({"a": [0.5]})
    assert figure.axes[0].lines[0].get_marker() == "."


@pytest.mark.parametrize(
    ("history", "options", "message"),
    [
        ({}, {}, "expected at least one named quantity in history, got none"),
        ({"epoch": [1, 2]}, {}, "at least one named quantity"),
        ({"a": []}, {}, r"expected history\['a'\] to be a sequence of numbers, got shape \(0,\)"),
        ({"epoch": [1, 2], "a": [1.0]}, {}, r"history\['a'\] of 2 values .* got 1"),
        ({"a": [1.0]}, {"ceilings": {"H": math.nan}}, r"ceilings\['H'\] to be finite, got nan"),
        ({"a": [1.0]}, {"measured": {"a": {}}}, r"measured\['a'\] to be a mapping .* got {}"),
        ({"a": [1.0]}, {"measured": {"a": {"one": (1, 0)}}}, "numbers as keys .* got 'one'"),
        (
            {"a": [1.0]},
            {"measured": {"a": {1: (1, -1)}}},
            r"measured\['a'\]\[1\] .* \(1.0, -1.0\)",
        ),
        (
            {"a": [1.0]},
            {"measured": {"a": {1: (1, 2, 3)}}},
            r"to be \(mean, std\), got shape \(3,",
        ),
        ({"a": [1.0]}, {"measured": {"a": {1: ESTIMATE}}, "unit": "nats"}, "in nats, got bits"),
    ],
)
def test_trend_errors(history, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        plots.mi_trend(history, **options)
    assert str(raised.value).startswith("mi_trend: ")


# ---- mi_bars


def test_bars_stand_for_the_table():
    figure = plots.mi_bars(TABLE, ceilings={"H(y)": 1.0}, title="comparison")
    (axes,) = figure.axes
    bars = [c for c in axes.containers if isinstance(c, matplotlib.container.BarContainer)]
    assert [bar.get_label() for bar in bars] == list(TABLE) == texts(figure)
    spans = []
    for group, values in zip(bars, TABLE.values(), strict=True):
        expected = np.array([np.asarray(v) for v in values.values()])
        np.testing.assert_allclose([b.get_height() for b in group], expected[:, 0])
        ((_, _, (lines,)),) = [group.errorbar]
        segments = np.array(lines.get_segments())
        np.testing.assert_allclose(segments[:, 0, 1], expected[:, 0] - expected[:, 1])
        np.testing.assert_allclose(segments[:, 1, 1], expected[:, 0] + expected[:, 1])
        spans += [(b.get_x(), b.get_x() + b.get_width()) for b in group]
    spans.sort()
    assert all(left[1] < right[0] for left, right in itertools.pairwise(spans))
    assert [t.get_text() for t in axes.get_xticklabels()] == ["I(c;y)", "I(z;y)"]
    printed = {t.get_text() for t in axes.texts}
    assert printed == {"0.895", "0.245", "0.909", "0.210", "0.908", "0.175", "H(y)"}


def test_a_quantity_that_a_model_lacks_leaves_a_gap():
    figure = plots.mi_bars({"a": {"p": (1, 0), "q": (2, 0)}, "b": {"q": ESTIMATE}})
    assert [b.get_height() for b in figure.axes[0].patches] == [1, 2, 0.5]
    assert figure.axes[0].patches[2].get_x() > 0.9  # in the group of q
    empty = plots.mi_bars({"a": {}, "b": {"q": (1, 0)}})
    assert texts(empty) == ["a", "b"]


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({}, ValueError, "expected a table .* got no value"),
        ({"a": {}}, ValueError, "got no value"),
        ({"a": {"q": 0.5}}, TypeError, r"table\['a'\]\['q'\] to be \(mean, std\) .* got float"),
        ({"a": {"q": (math.nan, 0)}}, ValueError, r"table\['a'\]\['q'\] .* got \(nan, 0.0\)"),
    ],
)
def test_bars_errors(table, error, message):
    with pytest.raises(error, match=message) as raised:
        plots.mi_bars(table)
    assert str(raised.value).startswith("mi_bars: ")


# ---- mi_sweep


@pytest.mark.parametrize("spacing", ["linear", "log", "even"])
def test_sweep_draws_each_quantity_by_increasing_weight(spacing):
    results = {
        "I(z;y)": {10.0: (0.1, 0.01), 1.0: (0.2, 0.02), 0.1: (0.3, 0.03)},
        "I(z;c)": {"1": ESTIMATE, "0.1": (0.6, 0.05)},  # keys as in a JSON file
    }
    figure = plots.mi_sweep(results, weight="$\\beta$", spacing=spacing)
    (axes,) = figure.axes
    (x, means, low, high), (x_second, means_second, *_) = error_bars(axes)
    even = spacing == "even"
    np.testing.assert_allclose(x, [0, 1, 2] if even else [0.1, 1.0, 10.0])
    np.testing.assert_allclose(x_second, [0, 1] if even else [0.1, 1.0])
    np.testing.assert_allclose(means, [0.3, 0.2, 0.1])
    np.testing.assert_allclose(means_second, [0.6, 0.5])
    np.testing.assert_allclose(high - low, [0.06, 0.04, 0.02])
    assert texts(figure) == list(results) and axes.get_xlabel() == "$\\beta$"
    assert axes.get_xscale() == ("log" if spacing == "log" else "linear")
    assert axes.get_ylim()[0] == 0.0
    if even:
        assert [t.get_text() for t in axes.get_xticklabels()] == ["0.1", "1", "10"]


def test_sweep_keeps_estimates_below_zero_in_view():
    figure = plots.mi_sweep({"a": {0: (-0.01, 0.02), 1: (0.3, 0.02)}})
    assert figure.axes[0].get_ylim()[0] < -0.03


@pytest.mark.parametrize(
    ("results", "options", "message"),
    [
        ({}, {}, "expected results .* got none"),
        ({"a": {0: (1, 0)}}, {"spacing": "log"}, "positive weights .* got 0; spacing 'even'"),
        ({"a": {0: (1, 0)}}, {"spacing": "cubic"}, "linear, log or even, got 'cubic'"),
        ({"a": {"x": (1, 0)}}, {}, r"numbers as keys of results\['a'\], got 'x'"),
        ({"a": {1: ESTIMATE}}, {"unit": "nats"}, r"results\['a'\]\[1\] in nats, got bits"),
    ],
)
def test_sweep_errors(results, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        plots.mi_sweep(results, **options)
    assert str(raised.value).startswith("mi_sweep: ")
