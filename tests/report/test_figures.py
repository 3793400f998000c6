import io
import json
import logging
from dataclasses import asdict, replace
from itertools import combinations
from xml.dom import minidom

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.image import imread

from prune_nas.design.patterns import pattern_of
from prune_nas.design.records import Expense
from prune_nas.design.rules import StageMean
from prune_nas.errors import PruneNasError, UsageError
from prune_nas.report.figures import KINDS, draw, make, style
from prune_nas.report.figures.accuracy import accuracy, front
from prune_nas.report.figures.compare import side_by_side
from prune_nas.report.figures.curves import curves, series
from prune_nas.report.figures.gamma import channels, gamma, gamma_of_slots
from prune_nas.report.figures.ledger import ledger, parts
from prune_nas.report.figures.parallel import candidates, parallel
from prune_nas.report.figures.patterns import patterns, table
from prune_nas.report.figures.rule import line, rule
from prune_nas.report.figures.study import study, trials_table
from prune_nas.report.figures.widths import widths
from prune_nas.report.run_data import RunData
from prune_nas.report.tables import ledger_table, results

BUDGET = "macs=0.2"
STEMS = ["accuracy", "widths-1", "widths-2", "gamma", "gamma-slots", "rule-1", "rule-2", "study-1", "study-2",
         "parallel-1", "parallel-2", "curves-1", "curves-2", "ledger"]  # fmt: skip


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
    assert [path.name for path in paths] == [f"{stem}.{form}" for stem in STEMS for form in ("svg", "png")]
    for path in paths:
        assert len(pd.read_csv(path.with_suffix(".csv"))) > 0
    for path in paths[1::2]:
        image = imread(path)
        assert min(image.shape[:2]) > 400
        assert image.std() > 0.01


def test_one_kind_and_one_format(run, tmp_path):
    assert draw(run, ["ledger"], ("svg",), out=tmp_path) == [tmp_path / "ledger.svg"]
    assert b"<svg" in (tmp_path / "ledger.svg").read_bytes()


def test_the_same_run_draws_the_same_bytes(run):
    (one,), (two,) = make(run, ["accuracy"])[0], make(run, ["accuracy"])[0]
    assert style.render(one.figure, "svg") == style.render(two.figure, "svg")


def test_unknown_names_are_refused(run, tmp_path):
    with pytest.raises(UsageError, match="Did you mean gamma"):
        draw(run, ["gama"], out=tmp_path)
    with pytest.raises(UsageError, match="figure format 'gif'"):
        draw(run, ["gamma"], ("gif",), out=tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("accuracy", "finals.csv"),
        ("widths", "widths.csv"),
        ("gamma", "scores.safetensors"),
        ("study", "trials.csv"),
        ("rule", "rule.json"),
        ("parallel", "trials.csv"),
        ("curves", "curves.csv"),
        ("ledger", "ledger.csv"),
    ],
)
def test_a_kind_without_its_file_is_left_out_with_a_note(tmp_path, write_fake_run, caplog, kind, name):
    path = write_fake_run(tmp_path / "run")
    (path / name).unlink()
    other = "ledger" if kind != "ledger" else "curves"
    with caplog.at_level(logging.WARNING):
        assert draw(RunData(path), [kind, other], ("svg",), out=tmp_path)
    assert f"no figure of {kind}: the run has no {name}" in caplog.text
    with pytest.raises(PruneNasError, match=f"nothing was drawn: no figure of {kind}: the run has no {name}"):
        draw(RunData(path), [kind], ("svg",), out=tmp_path)


def test_a_run_without_its_space_still_draws_what_it_can(tmp_path, write_fake_run):
    path = write_fake_run(tmp_path / "run")
    (path / "space.json").unlink()
    drawings, notes = make(RunData(path))
    without = [stem for stem in STEMS if not stem.startswith(("gamma", "parallel"))]
    assert [drawing.name for drawing in drawings] == without
    assert len(notes) == 2


def test_tables_of_another_network_are_an_error_with_its_repair(tmp_path, write_fake_run):
    path = write_fake_run(tmp_path / "run")
    space = (path / "space.json").read_text()
    (path / "space.json").write_text(space.replace("conv5_3", "<script>"))
    with pytest.raises(PruneNasError, match="name different slots"):
        make(RunData(path))


def test_every_drawing_has_words_for_those_who_cannot_see_it(run):
    drawings, notes = make(run)
    assert notes == []
    assert all(len(drawing.alt) > 40 for drawing in drawings)
    assert {drawing.name.partition("-")[0] for drawing in drawings} == set(KINDS) - {"kernels", "methods", "stability"}


def test_widths_has_a_bar_an_arm_and_slot(shape):
    top, bottom = widths(shape, BUDGET, ["32x32", "16x16", "8x8", "4x4", "2x2"]).axes
    assert len(top.patches) == 13 * 5  # base, found, pruned, guided, taper
    heights = [patch.get_height() for patch in top.patches[:13]]
    assert heights == shape["base"].tolist()
    assert len(top.collections) == 1  # the marks of uniform
    ratios = bottom.lines[0].get_ydata()
    assert ratios == pytest.approx((shape["found"] / shape["ceiling"]).tolist())
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


def test_accuracy_of_one_arm_alone(run):
    rows = [row for row in run.finals if row.arm in ("base", "found") and row.budget in ("", BUDGET)]
    rows = [row for row in rows if row.schedule == "scratch-e"]
    frame = results(rows)
    assert len(accuracy(frame).axes) == 2
    assert len(accuracy(frame.assign(latency=1.0)).axes) == 2
    assert len(accuracy(results(run.finals).assign(latency=1.0)).axes) == 3


def test_the_front_is_chosen_by_validation_accuracy():
    frame = pd.DataFrame(
        {"macs": [10, 20, 30, 20], "val_accuracy": [0.5, 0.7, 0.6, 0.6], "test_accuracy": [0, 0, 1, 1]}
    )
    assert front(frame, "macs") == [0, 1]


def test_every_mark_stands_at_its_cost_and_equal_networks_are_one_mark(run):
    rows = [replace(row, candidate="x", macs=7) if row.arm in ("found", "taper") else row for row in run.finals]
    frame = results([row for row in rows if row.schedule == "scratch-e" and row.budget in ("", BUDGET)])
    figure = accuracy(frame)
    drawn = sorted(container.lines[0].get_xdata()[0] for container in figure.axes[0].containers)
    arms = frame[(frame["arm"] != "base") & (frame["arm"] != "taper")]
    assert drawn == sorted(arms["macs"])
    assert "found = taper" in labels(figure)


def cuts(*budgets):
    rows = [(name, slot, 0, kept, score) for name, slots in budgets for slot, (kept, score) in slots.items()]
    return pd.DataFrame(rows, columns=["budget", "slot", "stage", "kept", "score"])


def test_gamma_counts_every_channel_and_draws_each_cut(run):
    first, second = ({"conv1_1": (20, a), "conv1_2": (10, b)} for a, b in ((0.1, 0.2), (0.05, 0.07)))
    frame = channels(run.scores, run.space)
    assert frame["slot"].value_counts()["conv5_3"] == 256
    figure = gamma(frame, cuts(("macs=0.2", first), ("params=0.1", second)))
    assert len(figure.axes) == 5
    assert [counted(axes) for axes in figure.axes] == [64, 128, 384, 768, 768]
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == pytest.approx([0.15, 0.06])  # medians over slots
    assert figure.axes[0].get_title() == "stage 1: 64 channels, 30 or 30 kept"
    assert list(figure.axes[1].lines) == []


def counted(axes):
    """The channels under the outline of a histogram."""
    (outline,) = axes.patches
    x, y = outline.get_xy().T
    heights = {}
    for left, right, height in zip(x, x[1:], y, strict=False):
        if right > left:
            heights[left] = max(heights.get(left, 0), height)
    return round(sum(heights.values()))


def test_gamma_of_slots_has_a_panel_a_slot_with_its_own_cut(run):
    figure = gamma_of_slots(channels(run.scores, run.space), cuts(("macs=0.2", {"conv1_2": (10, 0.2)})))
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == [slot.name for slot in run.space.slots]
    assert [counted(axes) for axes in shown] == [slot.ceiling for slot in run.space.slots]
    assert [len(axes.lines) for axes in shown] == [0, 1] + 11 * [0]


def test_gamma_of_dead_channels_without_a_cut():
    frame = pd.DataFrame({"slot": "a", "stage": 0, "channel": range(8), "score": 0.0})
    assert gamma(frame, cuts()).axes[0].get_title() == "stage 1: 8 channels"


def test_study_shows_values_origins_and_the_use_of_the_budget(run, shape):
    trials = [trial for trial in run.trials if trial.budget == BUDGET]
    frame = trials_table(trials, shape, run.space, {"macs": 2 * max(trial.macs for trial in trials)})
    assert frame["origin"].tolist()[:4] == ["pruned", "guided", "uniform", "taper"]
    assert frame["share of macs"].max() == pytest.approx(0.5)
    figure = study(frame, BUDGET)
    values, fill = figure.axes
    shown = sum(len(p.get_offsets()) for p in values.collections if p.get_label() != "what was found")
    assert shown == len(trials) == 12  # one of them as a cross: it failed
    assert values.lines[0].get_ydata().max() == pytest.approx(100 * max(t.value for t in trials if t.value))
    assert fill.patches[0].get_height() == pytest.approx(frame["share of macs"][0])
    assert "seeded: guided" in labels(figure)


def test_study_rings_what_was_found(run, shape):
    trials = [trial for trial in run.trials if trial.budget == BUDGET]
    chosen = next(trial for trial in trials if trial.value and trial.number == 1)
    here = shape.assign(found=shape["slot"].map(json.loads(chosen.widths)))
    frame = trials_table(trials, here)
    assert frame.loc[frame["found"], "number"].tolist() == [1]
    figure = study(frame, BUDGET)
    ring = next(p for p in figure.axes[0].collections if p.get_label() == "what was found")
    assert ring.get_offsets().tolist() == [pytest.approx([1, 100 * chosen.value])]


def test_study_without_an_end_rings_nothing(run, shape):
    frame = trials_table(run.trials[:1], shape.drop(columns="found"))
    assert not frame["found"].any()
    assert "what was found" not in labels(study(frame, BUDGET))


def test_study_without_limits_has_one_panel(run, shape):
    assert len(study(trials_table(run.trials[:1], shape), BUDGET).axes) == 1


def test_a_trial_that_broke_off_early_makes_no_finalists_of_the_others(run, shape):
    trials = [trial for trial in run.trials if trial.budget == BUDGET]
    broken = replace(trials[0], value=None, state="FAIL", epochs=2, number=90)
    assert "finalists, trained\nas long as the base" not in labels(
        study(trials_table([*trials, broken], shape), BUDGET)
    )


def test_finalists_that_are_trained_as_long_as_trials_are_no_trials(run, shape):
    trials = [trial for trial in run.trials if trial.budget == BUDGET]
    finalist = replace(trials[0], value=0.99, seed=500, number=90)
    figure = study(trials_table([*trials, finalist], shape), BUDGET)
    assert "finalists, trained\nas long as the base" in labels(figure)
    assert figure.axes[0].lines[0].get_ydata().max() == pytest.approx(100 * max(t.value for t in trials if t.value))


def test_study_of_failures_alone(run, shape):
    failed = [trial for trial in run.trials if trial.value is None][:1]
    assert labels(study(trials_table(failed, shape), BUDGET)) == ["not finished"]


def test_parallel_has_a_line_a_finished_candidate_at_its_stage_means(run):
    trials = [trial for trial in run.trials if trial.budget == BUDGET]
    frame = candidates([*trials, replace(trials[0], seed=500, number=77)], run.space)
    assert len(frame) == 11  # one failed, one is a finalist
    assert frame["value"].is_monotonic_increasing
    best = max((t for t in trials if t.value), key=lambda t: t.value)
    widths = json.loads(best.widths)
    assert frame["stage 1"].iloc[-1] == pytest.approx((widths["conv1_1"] + widths["conv1_2"]) / 64)
    figure = parallel(frame, BUDGET, ("a", "a", "value", "", "number"))  # whatever stages are called
    assert len([line for line in figure.axes[0].lines if len(line.get_xdata()) == 5]) == 12  # the best is drawn twice
    assert labels(figure) == [f"best in short training: trial {best.number}, {100 * best.value:.1f} %"]


def test_of_equal_candidates_the_first_is_the_best(run):
    trials = [replace(trial, value=0.5) for trial in run.trials if trial.budget == BUDGET and trial.value]
    assert candidates(trials, run.space)["number"].iloc[-1] == min(trial.number for trial in trials)


def test_parallel_names_what_was_found(run):
    trials = [trial for trial in run.trials if trial.budget == BUDGET]
    best, *others = sorted((t for t in trials if t.value), key=lambda t: -t.value)
    figure = parallel(candidates(trials, run.space, json.loads(others[0].widths)), BUDGET)
    assert labels(figure)[1:] == [f"found among the finalists: trial {others[0].number}, {100 * others[0].value:.1f} %"]
    figure = parallel(candidates(trials, run.space, json.loads(best.widths)), BUDGET)
    assert labels(figure) == [f"best and found: trial {best.number}, {100 * best.value:.1f} %"]


def curve_rows(*trials, budget=BUDGET, epochs=3):
    return [(budget, trial, e, 2.0 / e, 0.1 * e + 0.01 * i, 1.0) for i, trial in enumerate(trials)
            for e in range(1, epochs + 1)]  # fmt: skip


def test_curves_are_means_over_seeds_with_their_span(run):
    names = ["budget", "trial", "epoch", "train_loss", "val_accuracy", "seconds"]
    rows = curve_rows("found/scratch-e/ab/1", "found/scratch-e/ab/2", "trial 0", "finalist 1")
    rows += curve_rows("supernet", budget="") + curve_rows("found/scratch-e/ab/1", budget="macs=0.9")
    frame = series(pd.DataFrame(rows, columns=names), BUDGET)
    assert frame.groupby("arm")["trial"].nunique().to_dict() == {"found": 2, "study": 2, "supernet": 1}
    accuracies, losses = curves(frame, BUDGET).axes
    mean = next(line for line in accuracies.lines if line.get_linewidth() == 1.5)
    assert mean.get_ydata() == pytest.approx([10.5, 20.5, 30.5])
    assert losses.get_ylabel() == "training loss"
    assert accuracies.get_xscale() == "linear"
    longer = pd.DataFrame(rows + curve_rows("found/scratch-b/ab/1", epochs=20), columns=names)
    assert curves(series(longer, BUDGET), BUDGET).axes[0].get_xscale() == "log"


def test_a_mean_goes_as_far_as_all_its_trainings_and_former_candidates_are_left_out(run):
    names = ["budget", "trial", "epoch", "train_loss", "val_accuracy", "seconds"]
    rows = curve_rows("found/scratch-e/new/1", epochs=4) + curve_rows("found/scratch-e/new/2", epochs=2)
    rows += curve_rows("found/scratch-e/old/1", epochs=4)
    case = "slimming=0.5"
    rows = [(case, *row[1:]) for row in rows]
    rows += curve_rows("origin/l1/1000", "origin/none/1000", "origin/sss-0.5/1000", budget="")
    finals = pd.DataFrame({"candidate": ["new", "old"], "arm": ["found", "former found"]})
    table = pd.DataFrame(rows, columns=names)
    frame = series(table, case, finals)
    assert sorted(frame["trial"].unique()) == ["found/scratch-e/new/1", "found/scratch-e/new/2", "origin/l1/1000"]
    axes = curves(frame, BUDGET).axes[0]
    mean = next(line for line in axes.lines if line.get_linewidth() == 1.5)
    assert list(mean.get_xdata()) == [1, 2]
    assert "to be pruned" in labels(curves(frame, BUDGET))


@pytest.mark.parametrize(
    ("case", "own"), [("sss=0.5", ["sss-0.5"]), ("sss-blocks=0.5", ["sss-blocks-0.5"]), ("magnitude=0.9", ["none"]),
                      ("sss=0.7", [])]
)  # fmt: skip
def test_a_case_shows_the_network_that_its_own_method_pruned(case, own):
    names = ["budget", "trial", "epoch", "train_loss", "val_accuracy", "seconds"]
    there = ("l1", "none", "sss-0.5", "sss-blocks-0.5")
    rows = curve_rows(*(f"origin/{name}/1000" for name in there), budget="")
    frame = series(pd.DataFrame(rows, columns=names), case)
    assert sorted(frame["trial"].unique()) == [f"origin/{name}/1000" for name in own]


def test_a_supernet_in_training_has_its_curve(tmp_path):
    record = {"schema": 1, "config": {"model": "m", "dataset": "d", "budget": [BUDGET]}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    table = "budget,trial,epoch,train_loss,val_accuracy,seconds\n,supernet,1,2.0,0.1,1.0\n"
    (tmp_path / "curves.csv").write_text(table)
    assert [drawing.name for drawing in make(RunData(tmp_path), ["curves"])[0]] == ["curves-1"]


def test_sums_of_many_long_trainings_do_not_overflow():
    rows = [Expense("", "finals", arm, 3, 4 * 10**18, 60.0) for arm in ("base", "found", "uniform", "taper")]
    frame = parts(pd.DataFrame([asdict(row) for row in rows]))
    assert frame["train_macs"].sum() == pytest.approx(1.6e19)
    assert ledger_table(rows)["train_macs"].iloc[-1] == pytest.approx(1.6e19)


def test_what_the_choice_of_the_optimizer_cost_is_a_part_with_its_own_colour():
    rows = [
        Expense("", "supernet", "", 1, 5, 1.0),
        Expense("", "probe", "", 1, 2, 1.0),
        Expense("", "finals", "base", 1, 9, 1.0),
    ]
    frame = parts(pd.DataFrame([asdict(row) for row in rows]))
    assert frame["part"].tolist() == ["probe", "supernet", "finals: base"]
    colours = {patch.get_facecolor() for patch in ledger(frame).axes[0].patches}
    assert len(colours) == 3


def test_the_ledger_s_parts_are_all_of_it(run):
    rows = pd.DataFrame([asdict(row) for row in run.ledger])
    frame = parts(rows)
    assert frame["train_macs"].sum() == rows["train_macs"].sum()
    assert frame["part"].tolist() == ["supernet", "study", "finals: found"]
    figure = ledger(frame, base=1e13)
    assert [round(bar.get_width(), 6) for bar in figure.axes[0].patches] == pytest.approx([0.6, 0.2, 0.2])
    assert labels(figure) == ["supernet (3.0)", "study (1.0)", "finals: found (1.0)"]
    assert "5.0" in figure.axes[0].get_title()
    assert ledger(parts(ledger_table(run.ledger))).axes[0].get_title().endswith("50.0T")


def test_a_rule_is_drawn_with_its_uncertainty_beside_what_it_makes(shape):
    frame = line("guided", StageMean((0.2, 0.4, 0.6, 0.5, 0.3)), 5, (), 0.1)
    left, right = rule(frame, shape, BUDGET).axes
    assert [level.get_ydata()[0] for level in left.lines] == pytest.approx([0.2, 0.4, 0.6, 0.5, 0.3])
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.1, 0.3))
    pruned = next(points for points in right.lines if points.get_linestyle() == "None")
    assert pruned.get_ydata() == pytest.approx((shape["pruned"] / shape["ceiling"]).to_numpy())
    left, _ = rule(line("transferred", StageMean((1.0, 2.0, 4.0)), 3, (), 0.4), shape, BUDGET).axes
    assert [level.get_ydata()[0] for level in left.lines] == pytest.approx([0.25, 0.5, 1.0])  # ratios, within the axes
    spread = line("guided", StageMean((0.2, 0.4)), 2, (0.01, 0.02), 0.1)
    assert sorted(spread["uncertain"].unique()) == [0.01, 0.02]


def test_patterns_of_one_network_say_how_far_they_agree(fake_vgg):
    shapes = [pattern_of(fake_vgg, fake_vgg.snap({s.name: k * (1 + s.stage) / 6 for s in fake_vgg.slots}), name)
              for name, k in (("a", 0.9), ("b", 0.8))]  # fmt: skip
    frame = table([("case", shapes[0]), ("case", shapes[1])])
    assert "2 patterns, rank correlation" in patterns(frame, "t").axes[0].get_title()
    other = pattern_of(fake_vgg, fake_vgg.base, "c")
    short = replace(other, ratios=other.ratios[:4])
    assert patterns(table([("", shapes[0]), ("", short)]), "t").axes[0].get_title().endswith("different networks")


def test_runs_are_drawn_over_each_other(run, tmp_path, write_fake_run):
    other = RunData(write_fake_run(tmp_path / "other"))
    paths = draw(run, None, ("png",), out=tmp_path / "out", beside=[other])
    assert [path.name for path in paths] == ["compare-accuracy.png", "compare-widths.png"]
    both = pd.read_csv(tmp_path / "out" / "compare-accuracy.csv")
    assert both["run"].unique().tolist() == [run.path.name, "other"]
    drawing = side_by_side([run, other], ["accuracy"])[0][0]
    top, _, bottom, _ = drawing.figure.axes  # a row a run, on the same axes
    assert (top.get_title(loc="left"), bottom.get_title(loc="left")) == (run.path.name, "other")
    assert top.get_xlim() == bottom.get_xlim()
    assert len(top.collections) == len(bottom.collections)
    with pytest.raises(UsageError, match="twice"):
        draw(run, None, out=tmp_path, beside=[run])
    record = json.loads((tmp_path / "other" / "run.json").read_text())
    record["data"]["fingerprint"] = "another"
    (tmp_path / "other" / "run.json").write_text(json.dumps(record))
    with pytest.raises(PruneNasError, match=r"nothing was drawn: .* it takes runs of one network"):
        draw(run, ["accuracy"], out=tmp_path, beside=[RunData(tmp_path / "other")])
    with pytest.raises(UsageError, match="several runs"):
        draw(run, ["gamma"], out=tmp_path, beside=[other])


def test_runs_of_one_name_are_distinguished(tmp_path, write_fake_run):
    runs = [RunData(write_fake_run(tmp_path / place / "_run")) for place in ("a/x", "b/x", "c/y")]
    drawings, _ = side_by_side([*runs], ["widths"])
    assert sorted(drawings[0].data["pattern"].unique()) == ["a/x/_run (pruned)", "b/x/_run (pruned)", "y/_run (pruned)"]


def test_a_dark_figure_has_light_words_on_a_dark_page(run, tmp_path):
    (path,) = draw(run, ["widths"], ("png",), out=tmp_path, theme="dark")[:1]
    assert path.name == "widths-1-dark.png"
    image = imread(path)[:, :, :3]
    assert image[0, 0] == pytest.approx(to_rgb(style.DARK["#ffffff"]), abs=0.01)
    assert image.max() > 0.9
    with pytest.raises(UsageError, match="theme"):
        draw(run, ["widths"], out=tmp_path, theme="dusk")


def test_an_svg_turns_dark_by_itself(run):
    (drawing,) = make(run, ["accuracy"])[0]
    parsed = minidom.parseString(drawing.svg)  # noqa: S318 - our own
    css = "".join(node.firstChild.data for node in parsed.getElementsByTagName("style"))
    assert "prefers-color-scheme: dark" in css
    assert f'[style*="fill: #ffffff"] {{ fill: {style.DARK["#ffffff"]} !important }}' in css


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"methods", "kernels", "stability"}))  # those of a search
def test_nothing_is_clipped(run, kind):
    for drawing in make(run, [kind])[0]:
        figure = drawing.figure
        with style.styled():
            figure.draw_without_rendering()
        page = figure.bbox
        for text in [
            figure._suptitle,
            *figure.texts,
            *figure.legends,
            *(t for a in figure.axes for t in (a.title, a.xaxis.label)),
        ]:
            box = text.get_window_extent()
            assert box.width == 0 or (box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1)


def test_a_legend_below_covers_no_words(run):
    figure = gamma_of_slots(channels(run.scores, run.space), cuts(
        *((budget, {"conv1_2": (10, 0.2)}) for budget in ("macs=0.2", "macs=0.2,params=0.05"))
    ))  # fmt: skip
    with style.styled():
        figure.draw_without_rendering()
    (legend,) = (legend.get_window_extent() for legend in figure.legends)
    for text in (figure._suptitle, figure._supxlabel, figure._supylabel):
        assert text is None or not legend.overlaps(text.get_window_extent())


def test_legends_notes_and_labels_of_a_run_lie_beside_each_other(searched):
    drawings, _ = make(RunData(searched))
    assert len(drawings) >= 8
    for drawing in drawings:
        figure = drawing.figure
        with style.styled():
            figure.draw_without_rendering()
        words = [figure._suptitle, figure._supxlabel, figure._supylabel, *(axes.xaxis.label for axes in figure.axes)]
        boxes = [text.get_window_extent() for text in words if text is not None and text.get_text()]
        boxes += [legend.get_window_extent() for legend in figure.legends]
        for one, other in combinations(boxes, 2):
            assert not one.padded(-1).overlaps(other.padded(-1)), drawing.name


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
    from prune_nas.report.figures.space import layers
    from prune_nas.report.figures.space import space as draw_space

    space = trace("mobilenetv2").space
    with style.styled():
        (axes,) = draw_space(layers(space), space.model).axes
    producers = [layer.name for layer in space.layers if layer.kind in ("conv", "linear")]
    owner = {name: slot.name for slot in space.slots for name in slot.layers}
    heights = [bar.get_y() * 1.12 for container in axes.containers for bar in container]
    assert heights == pytest.approx([space.base[owner[name]] if name in owner else 10 for name in producers])
    assert len(axes.lines) == sum(len(slot.layers) > 1 for slot in space.slots) == 5
