"""The figure of an audit's history holds the data that it was given, and nothing else changes."""

import io
import math
from types import SimpleNamespace

import matplotlib
import matplotlib.container
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from vaereg import plots
from vaereg.metrics import Audit, AuditHook, MIEstimate, TermAudit
from vaereg.plots import audits

VERDICTS = ("refuted", "dependent", "independent", "cannot tell")


def entry(verdict, *, name="leak", displayed=0.02, mean=0.12, interval=(0.1, 0.15), **more):
    power, std = more.pop("power", None), more.pop("std", 0.01)
    unit, resolution = more.pop("unit", "nats"), more.pop("resolution", 0.05)
    read = MIEstimate(mean, std, (mean,), 0.0, power=power, interval=interval, unit=unit)
    return TermAudit(name, "z", "y", "MINE", displayed, read, verdict, resolution, **more)


def record(*entries):
    return Audit({e.name: e for e in entries}, 0.05, 500)


def one_of_each():
    return [
        (5, record(entry("dependent", displayed=0.3, mean=0.32, interval=(0.3, 0.35)))),
        (10, record(entry("refuted"))),
        (15, record(entry("cannot tell", mean=0.04, interval=(0.01, 0.08), power=0.2))),
        (20, record(entry("cannot tell", mean=0.03, interval=(0.0, 0.07), power=math.inf))),
        (25, record(entry("independent", mean=0.01, interval=(-0.01, 0.02), power=0.05))),
    ]


def pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file)) / 255.0


def legend(figure):
    (found,) = figure.legends
    return {h.get_label(): h for h in found.legend_handles if h is not None}


def displayed(axes):
    (line,) = [line for line in axes.lines if line.get_marker() == "."]
    return line


def points(axes):
    """The lines of markers, one for each verdict that occurs."""
    shapes = [marker for marker, _, _ in audits._MARKS.values()]
    return [line for line in axes.lines if line.get_marker() in shapes]


def error_bars(axes):
    """The segments (n, 2, 2) of each container of error bars."""
    found = [c for c in axes.containers if isinstance(c, matplotlib.container.ErrorbarContainer)]
    return [np.array(bars.get_segments()) for _, _, (bars,) in found]


def pale_bars(axes):
    """The vertical bars up to a finite power, as (x, low, high)."""
    alpha = audits._MISSED["alpha"]
    segments = [c.get_segments() for c in axes.collections if c.get_alpha() == alpha]
    return [(float(s[0, 0]), float(s[0, 1]), float(s[1, 1])) for (s,) in segments]


def arrows(axes):
    return [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]


# ---- what is drawn


def test_each_displayed_value_is_drawn_and_what_is_not_finite_leaves_a_gap():
    values = [0.3, math.nan, math.inf, 0.1]
    history = [
        (e, record(entry("refuted", displayed=v)))
        for e, v in zip((2, 4, 6, 8), values, strict=True)
    ]
    (axes,) = plots.audit_history(history).axes
    np.testing.assert_array_equal(displayed(axes).get_xdata(), [2, 4, 6, 8])
    np.testing.assert_array_equal(displayed(axes).get_ydata(), [0.3, math.nan, math.nan, 0.1])
    assert np.isfinite(axes.get_ylim()).all()


def test_each_reading_is_drawn_with_its_interval_in_the_mark_of_its_verdict():
    figure = plots.audit_history(one_of_each())
    (axes,) = figure.axes
    expected = {
        "refuted": [(10, 0.12, 0.1, 0.15)],
        "dependent": [(5, 0.32, 0.3, 0.35)],
        "independent": [(25, 0.01, -0.01, 0.02)],
        "cannot tell": [(15, 0.04, 0.01, 0.08), (20, 0.03, 0.0, 0.07)],
    }
    handles = legend(figure)
    for verdict, line, bars in zip(VERDICTS, points(axes), error_bars(axes), strict=True):
        x, mean, low, high = np.array(expected[verdict]).T
        np.testing.assert_allclose(line.get_xdata(), x)
        np.testing.assert_allclose(line.get_ydata(), mean)
        np.testing.assert_allclose(bars[:, :, 0], np.stack([x, x], 1))
        np.testing.assert_allclose(bars[:, :, 1], np.stack([low, high], 1))
        handle = handles[f"fresh critics: {verdict}"]
        for look in ("marker", "color", "markerfacecolor", "markeredgecolor", "markersize"):
            assert getattr(handle, f"get_{look}")() == getattr(line, f"get_{look}")()


def test_verdicts_differ_in_shape_and_colour_and_only_doubt_is_hollow():
    (axes,) = plots.audit_history(one_of_each()).axes
    lines = dict(zip(VERDICTS, points(axes), strict=True))
    assert len({line.get_marker() for line in lines.values()}) == 4
    assert len({line.get_color() for line in lines.values()}) == 4
    background = to_hex(axes.get_facecolor())
    for verdict, line in lines.items():
        hollow = to_hex(line.get_markerfacecolor()) == background
        assert hollow == (verdict == "cannot tell")
        edge = background if not hollow else to_hex(line.get_color())
        assert to_hex(line.get_markeredgecolor()) == edge
    sizes = {verdict: line.get_markersize() for verdict, line in lines.items()}
    assert sizes.pop("refuted") > 1.4 * max(sizes.values())


def test_a_mark_for_every_verdict_of_an_audit():
    from vaereg.metrics._audits import verdict

    low, high = (MIEstimate(0, 0, (), 0, interval=ends) for ends in ((0.0, 0.01), (0.1, 0.2)))
    seen = MIEstimate(0, 0, (), 0, interval=(0.0, 0.01), planted=((0.05, 0.05, 0.03, 0.07),))
    given = {verdict(d, e, 0.05) for d, e in ((0, low), (0, high), (1, high), (0, seen))}
    assert given == set(audits._MARKS) == set(VERDICTS)


def test_a_doubt_reaches_up_to_the_power():
    figure = plots.audit_history(one_of_each())
    (axes,) = figure.axes
    assert pale_bars(axes) == [(15.0, 0.04, 0.2)]
    (arrow,) = arrows(axes)
    assert arrow.xyann == (20.0, 0.03) and arrow.xy == (20.0, 1.0)
    assert arrow.xycoords == ("data", "axes fraction")  # to the top, wherever that is
    assert axes.get_ylim()[1] > 0.2
    pixels(figure)  # the arrow is laid only when it is drawn
    tip = arrow.arrow_patch.get_window_extent().y1
    assert tip == pytest.approx(axes.get_window_extent().y1, abs=1.0)


def test_a_power_that_was_not_measured_bounds_nothing():
    figure = plots.audit_history([(1, record(entry("cannot tell", power=None)))])
    assert len(arrows(figure.axes[0])) == 1 and not pale_bars(figure.axes[0])
    assert "may have been missed" in legend(figure)


def test_a_power_below_the_reading_adds_nothing_to_its_interval():
    figure = plots.audit_history([(1, record(entry("cannot tell", power=0.1)))])
    assert not arrows(figure.axes[0]) and not pale_bars(figure.axes[0])
    assert "may have been missed" not in legend(figure)


@pytest.mark.parametrize("verdict", ["refuted", "dependent", "independent"])
def test_other_verdicts_have_missed_nothing(verdict):
    figure = plots.audit_history([(1, record(entry(verdict, power=math.inf)))])
    assert not arrows(figure.axes[0]) and not pale_bars(figure.axes[0])
    assert list(legend(figure)) == ["displayed", f"fresh critics: {verdict}", "resolution"]


def test_the_legend_holds_all_that_occurs_in_a_fixed_order():
    assert list(legend(plots.audit_history(one_of_each()))) == [
        "displayed",
        *(f"fresh critics: {verdict}" for verdict in VERDICTS),
        "may have been missed",
        "resolution",
    ]


def test_without_an_interval_the_bar_is_one_standard_deviation():
    (axes,) = plots.audit_history([(3, record(entry("refuted", interval=None, std=0.03)))]).axes
    ((bar,),) = error_bars(axes)
    np.testing.assert_allclose(bar, [[3, 0.09], [3, 0.15]])


def test_an_interval_that_does_not_hold_its_mean_keeps_its_ends():
    (axes,) = plots.audit_history([(3, record(entry("refuted", interval=(0.13, 0.2))))]).axes
    ((bar,),) = error_bars(axes)
    np.testing.assert_allclose(bar[:, 1], [0.13, 0.2])
    assert points(axes)[0].get_ydata() == [0.12]


def test_resolution_and_zero_are_in_sight():
    low = entry("independent", displayed=0.001, mean=0.001, interval=(0.0005, 0.0015))
    other = entry("independent", mean=0.001, interval=(0.0, 0.002), resolution=0.02)
    (axes,) = plots.audit_history([(1, record(low)), (2, record(other))]).axes
    levels = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert levels == [0.02, 0.05]
    bottom, top = axes.get_ylim()
    assert bottom < 0.0 and top > 0.05


def test_the_line_stands_where_the_verdict_read_it():
    read = record(entry("dependent", displayed=0.02, scale=4.0))
    (axes,) = plots.audit_history([(1, read)]).axes
    np.testing.assert_allclose(np.asarray(displayed(axes).get_ydata(), float), [0.08])
    assert axes.get_title() == "leak (z; y), displayed times 4"


# ---- panels


@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [
        (1, None, (1, 1)), (2, None, (1, 2)), (3, None, (1, 3)), (4, None, (2, 2)),
        (5, None, (2, 3)), (8, None, (3, 3)), (3, 1, (3, 1)), (3, 2, (2, 2)), (2, 5, (1, 2)),
    ],
)  # fmt: skip
def test_a_panel_for_each_term(count, columns, shape):
    names = [f"term {i}" for i in range(count)]
    found = record(*(entry("refuted", name=name) for name in names))
    figure = plots.audit_history([(5, found), (10, found)], columns=columns)
    assert [axes.get_title() for axes in figure.axes] == [f"{name} (z; y)" for name in names]
    places = [axes.get_subplotspec() for axes in figure.axes]
    assert {p.get_gridspec().get_geometry() for p in places if p} == {shape}
    assert [p.num1 for p in places if p] == list(range(count))
    for i, axes in enumerate(figure.axes):
        assert axes.get_xlabel() == ("epoch" if i // shape[1] == shape[0] - 1 else "")
        assert axes.get_ylabel() == ("" if i % shape[1] else "mutual information\n[nats]")
        shown = any(tick.label1.get_visible() for tick in axes.xaxis.get_major_ticks())
        assert shown == (i + shape[1] >= count)


@pytest.mark.parametrize(("count", "columns"), [(1, None), (3, None), (5, None), (3, 1)])
def test_no_text_is_cut_off_or_covered(count, columns):
    terms = [f"term {i}" for i in range(count)]
    history = [
        (epoch, record(*(TermAudit(**{**vars(e), "name": name}) for name in terms)))
        for epoch, found in one_of_each()
        for e in found.terms.values()
    ]
    figure = plots.audit_history(history, columns=columns, title="a run")
    pixels(figure)  # text has an extent only once it was drawn
    texts = [*figure.texts, *figure.legends[0].get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_a_term_is_drawn_where_it_was_audited():
    early, late = entry("refuted", name="early"), entry("dependent", name="late")
    history = [(30, record(late)), (20, record(early, late)), (10, record(early))]
    first, second = plots.audit_history(history).axes
    assert first.get_title().startswith("late") and second.get_title().startswith("early")
    np.testing.assert_array_equal(displayed(first).get_xdata(), [20, 30])
    np.testing.assert_array_equal(displayed(second).get_xdata(), [10, 20])
    assert first.get_xlim() == second.get_xlim()


def test_names_and_whole_epochs():
    read = record(entry("refuted"))
    figure = plots.audit_history([(5, read)], x="step", quantity="leak", title="a run")
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "leak\n[nats]")
    assert [text.get_text() for text in figure.texts] == ["a run"]
    assert 5 in axes.get_xticks() and all(float(x).is_integer() for x in axes.get_xticks())
    (axes,) = plots.audit_history([(0.25, read), (0.75, read)]).axes
    assert not all(float(x).is_integer() for x in axes.get_xticks())


def test_many_audits_get_smaller_marks():
    read = record(entry("refuted"))
    few, many = (plots.audit_history([(e, read) for e in range(n)]) for n in (20, 40))
    sizes = [points(figure.axes[0])[0].get_markersize() for figure in (few, many)]
    assert sizes == [10.0, 5.0]


# ---- what is taken


def test_a_hook_its_history_and_its_restored_history_look_alike():
    hook = AuditHook({})
    hook.history = one_of_each()
    restored = AuditHook({})
    restored.load_state_dict(hook.state_dict())
    first = pixels(plots.audit_history(hook))
    for other in (hook.history, restored, tuple(hook.history), [list(p) for p in hook.history]):
        np.testing.assert_array_equal(pixels(plots.audit_history(other)), first)


def test_any_object_with_these_attributes_will_do():
    read = SimpleNamespace(mean=0.12, std=0.01, interval=None, power=None)
    term = SimpleNamespace(
        name="leak", a="z", b="y", displayed=0.02, estimate=read, verdict="refuted",
        resolution=0.05,
    )  # fmt: skip
    history = [(1, SimpleNamespace(terms={"leak": term}))]
    (axes,) = plots.audit_history(history).axes
    assert axes.get_title() == "leak (z; y)" and points(axes)[0].get_ydata() == [0.12]


@pytest.mark.parametrize(
    ("history", "options", "error", "message"),
    [
        ([], {}, ValueError, "at least one audit of a term in history, got none"),
        ([(1, record())], {}, ValueError, "in history, got 1 without terms"),
        (record(), {}, TypeError, r"history to be an AuditHook or .* pairs, got Audit"),
        ([record()], {}, TypeError, r"history\[0\] to be a pair \(epoch, Audit\), got Audit"),
        ([(1, 2, 3)], {}, TypeError, r"history\[0\] to be a pair .* got tuple"),
        ([(1, {"terms": {}})], {}, TypeError, r"history\[0\]\[1\] to be an Audit, got dict"),
        ([(math.nan, record())], {}, ValueError, r"history\[0\]\[0\] to be finite, got nan"),
        ([(1, record(entry("refuted")))], {"columns": 0}, ValueError, "columns >= 1, got 0"),
        ([(1, record(entry("perhaps")))], {}, ValueError, "one of .*refuted.*, got 'perhaps'"),
        ([(7, record(entry("refuted", unit="bits")))], {}, ValueError,
         "the audit of 'leak' at 7 in nats, got bits"),
        ([(7, record(entry("refuted", mean=math.nan)))], {}, ValueError,
         r"a finite reading in the audit of 'leak' at 7, got nan \[0.1, 0.15\]"),
        ([(7, record(entry("refuted", interval=(0.0, math.inf))))], {}, ValueError,
         r"finite reading .* got 0.12 \[0.0, inf\]"),
    ],
)  # fmt: skip
def test_errors(history, options, error, message):
    with pytest.raises(error, match=message) as raised:
        plots.audit_history(history, **options)
    assert str(raised.value).startswith("audit_history: ")


# ---- the outside world


def test_no_global_state_is_touched():
    import matplotlib.pyplot as pyplot

    settings, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
    open_figures, state = pyplot.get_fignums(), np.random.get_state()[1].copy()
    history = one_of_each()
    before = [(epoch, found.to_dict()) for epoch, found in history]
    assert pixels(plots.audit_history(history, title="t")).std() > 0
    assert dict(matplotlib.rcParams) == settings
    assert matplotlib.get_backend() == backend
    assert pyplot.get_fignums() == open_figures
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert [(epoch, found.to_dict()) for epoch, found in history] == before


def test_a_dark_style_of_the_user_is_followed():
    import matplotlib.style

    with matplotlib.style.context("dark_background"):
        figure = plots.audit_history(one_of_each())
        (axes,) = figure.axes
        assert pixels(figure)[0, 0, :3].tolist() == [0.0, 0.0, 0.0]
        assert to_rgb(displayed(axes).get_color()) == (1.0, 1.0, 1.0)
        assert to_rgb(points(axes)[-1].get_markerfacecolor()) == (0.0, 0.0, 0.0)
