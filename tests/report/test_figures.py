import io
import logging

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.image import imread

from prune_nas.errors import UsageError
from prune_nas.report.figures import KINDS, draw, make, style
from prune_nas.report.figures.accuracy import accuracy, front, side_by_side
from prune_nas.report.figures.gamma import gamma
from prune_nas.report.figures.study import origins, study
from prune_nas.report.figures.widths import widths
from prune_nas.report.run_data import RunData
from prune_nas.report.tables import results

BUDGET = "macs=0.2"


@pytest.fixture(scope="module")
def run(run_path):
    return RunData(run_path)


@pytest.fixture
def shape(run):
    return run.widths[run.widths["budget"] == BUDGET].reset_index(drop=True)


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def overlaps(texts, figure):
    """Pairs of visible texts whose boxes meet."""
    figure.canvas.draw()
    boxes = [(text, text.get_window_extent()) for text in texts if text.get_visible() and text.get_text()]
    return [(a.get_text(), b.get_text()) for i, (a, x) in enumerate(boxes) for b, y in boxes[:i] if x.overlaps(y)]


def test_all_kinds_become_files_of_a_real_size(run, tmp_path):
    paths = draw(run, None, out=tmp_path / "figures")
    stems = ["accuracy", "widths-1", "widths-2", "gamma", "study-1", "study-2"]
    assert [path.name for path in paths] == [f"{stem}.{form}" for stem in stems for form in ("svg", "png")]
    for path in paths[1::2]:
        image = imread(path)
        assert min(image.shape[:2]) > 400
        assert image.std() > 0.01


def test_one_kind_and_one_format(run, tmp_path):
    assert draw(run, ["gamma"], ("svg",), out=tmp_path) == [tmp_path / "gamma.svg"]
    assert b"<svg" in (tmp_path / "gamma.svg").read_bytes()


def test_the_same_run_draws_the_same_bytes(run):
    (one,), (two,) = make(run, ["accuracy"])[0], make(run, ["accuracy"])[0]
    assert style.render(one.figure, "svg") == style.render(two.figure, "svg")


def test_unknown_names_are_refused(run, tmp_path):
    with pytest.raises(UsageError, match="did you mean gamma"):
        draw(run, ["gama"], out=tmp_path)
    with pytest.raises(UsageError, match="figure format 'gif'"):
        draw(run, ["gamma"], ("gif",), out=tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("accuracy", "finals.csv"), ("widths", "widths.csv"), ("gamma", "scores.safetensors"), ("study", "trials.csv")],
)
def test_a_kind_without_its_file_is_left_out_with_a_note(tmp_path, write_fake_run, caplog, kind, name):
    path = write_fake_run(tmp_path / "run")
    (path / name).unlink()
    with caplog.at_level(logging.WARNING):
        assert draw(RunData(path), [kind], ("svg",), out=tmp_path) == []
    assert kind not in {drawing.name.partition("-")[0] for drawing in make(RunData(path))[0]}
    assert f"no figure of {kind}: the run has no {name}" in caplog.text


def test_a_run_without_its_space_still_draws_what_it_can(tmp_path, write_fake_run):
    path = write_fake_run(tmp_path / "run")
    (path / "space.json").unlink()
    drawings, notes = make(RunData(path))
    assert [drawing.name for drawing in drawings] == ["accuracy", "widths-1", "widths-2", "study-1", "study-2"]
    assert len(notes) == 1


def test_every_drawing_has_words_for_those_who_cannot_see_it(run):
    drawings, notes = make(run)
    assert notes == []
    assert all(len(drawing.alt) > 40 for drawing in drawings)
    assert {drawing.name.partition("-")[0] for drawing in drawings} == set(KINDS) - {"kernels", "methods"}


def test_widths_has_a_bar_an_arm_and_slot(shape):
    top, bottom = widths(shape, BUDGET, ["32x32", "16x16", "8x8", "4x4", "2x2"]).axes
    assert len(top.patches) == 13 * 4  # base, pruned, guided, found
    heights = [patch.get_height() for patch in top.patches[:13]]
    assert heights == shape["base"].tolist()
    assert len(top.collections) == 1  # the marks of uniform
    ratios = bottom.lines[0].get_ydata()
    assert ratios == pytest.approx((shape["pruned"] / shape["ceiling"]).tolist())
    assert [text.get_text() for text in top.texts] == ["32x32", "16x16", "8x8", "4x4", "2x2"]


def test_widths_draws_only_the_arms_that_there_are(shape):
    figure = widths(shape[["slot", "stage", "depth", "ceiling", "base", "pruned"]], BUDGET)
    assert len(figure.axes[0].patches) == 13 * 2
    assert labels(figure) == ["base", "pruned"]


@pytest.mark.parametrize("slots", [1, 13, 53, 240])
def test_no_slot_labels_overlap(slots):
    stages = np.arange(slots) * 5 // slots
    frame = pd.DataFrame(
        {"slot": [f"layer{s}.{i}.conv1" for i, s in enumerate(stages)], "stage": stages, "ceiling": 64, "pruned": 32}
    )
    with style.styled():
        figure = widths(frame, BUDGET, [f"{224 >> s}x{224 >> s}" for s in range(5)])
    top, bottom = figure.axes
    assert overlaps(bottom.get_xticklabels(), figure) == []
    assert overlaps(top.texts, figure) == []


def test_accuracy_has_a_point_an_arm_and_schedule(run):
    frame = results(run.finals)
    figure = accuracy(frame)
    for axes in figure.axes:
        assert sum(isinstance(item, ErrorbarContainer) for item in axes.containers) == 20  # all rows but the base
        base = next(line for line in axes.lines if line.get_linestyle() == "--" or line.is_dashed())
        assert base.get_ydata()[0] == pytest.approx(82.0)
    assert "n = 3" in figure.get_supxlabel()
    assert {"found", "random (best)", "scratch-b", "macs=0.2"} <= set(labels(figure))


def test_accuracy_shows_one_standard_deviation(run):
    axes = accuracy(results(run.finals)).axes[0]
    bar = axes.containers[0].lines[2][0].get_segments()[0]
    assert bar[:, 1].tolist() == pytest.approx([78.5, 79.5])


def test_accuracy_does_without_a_base_and_without_spread(run):
    rows = [row for row in run.finals if row.arm == "found" and row.seed == 11]
    figure = accuracy(results(rows))
    assert not any(text.startswith("base") for text in labels(figure))
    assert "n = 1" in figure.get_supxlabel()


def test_the_front_is_chosen_by_validation_accuracy():
    frame = pd.DataFrame(
        {"macs": [10, 20, 30, 20], "val_accuracy": [0.5, 0.7, 0.6, 0.6], "test_accuracy": [0, 0, 1, 1]}
    )
    assert front(frame, "macs") == [0, 1]


def test_arms_of_one_cost_stand_apart_and_others_stay():
    places = side_by_side([100, 100, 100, 150], [70, 70, 80, 70], [72, 72, 82, 72])
    assert places[0] == pytest.approx(100)
    assert abs(places[1] - 100) > 1
    assert places[2:] == pytest.approx([100, 150])


def test_a_crowd_of_marks_stays_near_its_cost():
    costs = [100.0] * 9 + [1000.0]
    places = side_by_side(costs, [70] * 10, [72] * 10)
    axis = np.log(10) * 1.36
    assert np.abs(np.log(places) - np.log(costs)).max() <= 0.04 * axis + 1e-9
    assert len(set(places)) > 3


def test_gamma_counts_every_channel_and_draws_each_cut(run):
    stages = {slot.name: slot.stage for slot in run.space.slots}
    first, second = ({"conv1_1": (20, a), "conv1_2": (10, b)} for a, b in ((0.1, 0.2), (0.05, 0.07)))
    figure = gamma(run.scores, stages, {"macs=0.2": first, "params=0.1": second})
    assert len(figure.axes) == 5
    counts = [sum(patch.get_height() for patch in axes.patches) for axes in figure.axes]
    assert counts == [64, 128, 384, 768, 768]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == pytest.approx([0.15, 0.06])  # medians over slots
    assert figure.axes[0].get_title() == "stage 0: 64 channels, 30 or 30 kept"
    assert list(figure.axes[1].lines) == []


def test_gamma_of_dead_channels_without_a_cut():
    figure = gamma({"a": np.zeros(8)}, {"a": 0}, {})
    assert figure.axes[0].get_title() == "stage 0: 8 channels"


def test_study_shows_values_origins_and_the_use_of_the_budget(run, shape):
    trials = [trial for trial in run.trials if trial.budget == BUDGET]
    seeds = origins(trials, shape)
    assert seeds == {0: "pruned", 1: "guided", 2: "uniform", 3: "taper"}
    figure = study(trials, seeds, {"macs": {t.number: 0.5 for t in trials}}, BUDGET)
    values, fill = figure.axes
    shown = sum(len(points.get_offsets()) for points in values.collections)
    assert shown == len(trials) == 12  # one of them as a cross: it failed
    assert values.lines[0].get_ydata().max() == pytest.approx(100 * max(t.value for t in trials if t.value))
    assert fill.patches[0].get_height() == pytest.approx(0.5)
    assert "seeded: guided" in labels(figure)


def test_study_without_limits_has_one_panel(run):
    assert len(study(run.trials[:1], {}, {}, BUDGET).axes) == 1


def test_study_of_failures_alone(run):
    failed = [trial for trial in run.trials if trial.value is None][:1]
    figure = study(failed, {}, {}, BUDGET)
    assert labels(figure) == ["not finished"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_clipped(run, kind):
    for drawing in make(run, [kind])[0]:
        figure = drawing.figure
        style.render(figure, "png")
        page = figure.bbox
        for text in [figure._suptitle, *figure.legends, *(t for a in figure.axes for t in (a.title, a.xaxis.label))]:
            box = text.get_window_extent()
            assert box.width == 0 or (box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1)


@pytest.mark.parametrize("width", [3.0, 5.3, 8.0])
def test_a_note_is_no_wider_than_its_figure(width):
    figure = style.figure(width, 2.0)
    figure.subplots()
    style.note(figure, "kept of the weights at each place of 3x3 kernels, %; below each map the stage's mean")
    with style.styled():
        figure.draw_without_rendering()
        (box,) = (text.get_window_extent() for text in figure.texts)
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_pdf(run):
    (drawing,) = make(run, ["accuracy"])[0]
    assert io.BytesIO(style.render(drawing.figure, "pdf")).read(4) == b"%PDF"


def test_a_dollar_in_a_name_is_no_formula(shape):
    with style.styled():
        figure = widths(shape.assign(slot=["$\\frac{$" + slot for slot in shape["slot"]]), "macs=$1")
    assert style.render(figure, "svg")


def test_a_space_is_drawn_with_a_box_a_layer_and_joined_ones_in_colour():
    from prune_nas.nets.tracing import trace
    from prune_nas.report.figures.space import space as draw_space

    space = trace("mobilenetv2").space
    with style.styled():
        (axes,) = draw_space(space).axes
    producers = [layer.name for layer in space.layers if layer.kind in ("conv", "linear")]
    owner = {name: slot.name for slot in space.slots for name in slot.layers}
    heights = [bar.get_y() * 1.12 for container in axes.containers for bar in container]
    assert heights == pytest.approx([space.base[owner[name]] if name in owner else 10 for name in producers])
    assert len(axes.lines) == sum(len(slot.layers) > 1 for slot in space.slots) == 5
