"""One self-contained page: the verdict first, then the numbers, the figures and how they came about.

The page loads nothing and runs nothing. Figures are data URIs, so that the ids inside one SVG cannot meet those of
another; every text that comes from a file is escaped.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from prune_nas.design.answer import Timing
from prune_nas.design.files import write_text
from prune_nas.design.subject import width_words
from prune_nas.design.words import spoken
from prune_nas.report import glossary, paper_table
from prune_nas.report.answers import answers, subject
from prune_nas.report.figures import Drawing, Made, make, save
from prune_nas.report.run_data import RunData
from prune_nas.report.tables import TEXT, formatted, ledger_table, merged, millions, percent, quantity

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<header><h1>{title}</h1>{lead}
<nav aria-label="Sections">{contents}</nav></header>
<main>
{body}
</main>
</body>
</html>
"""


def write_report(run: RunData) -> Path:
    """Write `report.html` into the run's directory; returns the page's path."""
    return _write(run, make(run))


def write_all(run: RunData, *, figures: bool = True) -> Path:
    """Write the figures and `report.html` into the run's directory, each figure drawn once; returns the page's path.

    Without `figures` there is the page alone, which says that it has none.
    """
    if not figures:
        return _write(run, ([], ["The figures were left out. Draw them: prune-nas report RUN"]))
    made = make(run)
    save(made, out=run.path / "figures")
    return _write(run, made)


def _write(run: RunData, made: Made) -> Path:
    target = run.path / "report.html"
    write_text(target, page(run, made))
    return target


def page(run: RunData, made: Made | None = None) -> str:
    """The whole page; a section whose data the run lacks is left out with a line that says so.

    Args:
        run: of which it tells.
        made: its figures, if they are drawn already.
    """
    figures = _figures(*(made or make(run)))
    config = run.run.get("config") or {}
    title = f"prune-nas: {_network(run)} on {config.get('dataset', 'its data')}"
    css = files("prune_nas.report").joinpath("report.css").read_text(encoding="utf-8")
    sections = OF_COMPARISONS if config.get("cases") else SECTIONS
    body = "\n".join(
        f'<section id="{_anchor(heading)}">\n<h2>{heading}</h2>\n{section(run) if section else figures}\n</section>'
        for heading, section in sections
    )
    contents = " · ".join(f'<a href="#{_anchor(heading)}">{heading}</a>' for heading, _ in sections)
    return PAGE.format(title=escape(title), css=css, lead=_lead(run), contents=contents, body=body)


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def _wide(inside: str, label: str) -> str:
    """Something that may be wider than the page: it scrolls by itself, by keyboard too."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}">{inside}</div>'


def table(frame: pd.DataFrame) -> str:
    """`tables.results` or `tables.ledger_table` as HTML, in a box that scrolls by itself."""
    text = formatted(frame)
    return _cells([list(map(str, text)), *text.to_numpy().tolist()], [name in TEXT for name in text])


def _cells(rows: Sequence[Sequence[str]], words: Sequence[bool]) -> str:
    """Rows of text, the first of them the header; columns that are not words are set as numbers."""
    kinds = ["" if word else ' class="number"' for word in words]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(rows[0], kinds, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows[1:]
    )
    return _wide(f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>", "table")


def _network(run: RunData) -> str:
    """The network with its width and image size, where the run says them."""
    about, config = run.run.get("subject") or {}, run.run.get("config") or {}
    name = str(config.get("model", "a network"))
    if not about:
        return name
    return f"{name} ({width_words(float(about['base_width']))}, {about['image_size']})"


def _lead(run: RunData) -> str:
    """What the run is about, and how far it has come."""
    phases = run.run.get("phases") or {}
    words = " · ".join(f"{name}: {state}" for name, state in phases.items())
    lines = [f'<p class="subject">{escape(about)}</p>' if (about := subject(run)) else ""]
    remark = str(run.run.get("remark") or "")
    lines += [f"<p><strong>{escape(remark)}</strong></p>"] if remark else []
    return "".join([*lines, f'<p class="quiet">{escape(words)}</p>' if words else ""])


def _answer(run: RunData) -> str:
    """A box per budget: which file to use, how good it is, what it costs, how sure that is, and what comes next."""
    boxes = [
        f'<div class="answer"><h3>Under {escape(budget)}</h3><ul>'
        + "".join(f"<li>{escape(line)}</li>" for line in lines)
        + "</ul></div>"
        for budget, lines in answers(run)
    ]
    return "\n".join(boxes) or _missing("No answer yet: the finals have not finished.")


def _verdict(run: RunData) -> str:
    compares = bool((run.run.get("config") or {}).get("cases"))
    return "\n".join(_one_verdict(one, compares=compares) for one in run.verdicts) or _missing(
        "No verdict yet: the finals have not finished."
    )


def _one_verdict(verdict: Mapping[str, Any], *, compares: bool) -> str:
    lines = [
        f"<h3>{'' if compares else 'Under '}{escape(str(verdict.get('budget', '')))}</h3>",
        f'<p class="headline">{escape(str(verdict.get("headline", "")))}</p>',
        _list(verdict.get("sentences") or []),
    ]
    deploy = verdict.get("deploy")
    if deploy:
        words = (
            f"{spoken(deploy['arm'], deploy['schedule'])}: {percent(deploy['val_accuracy'])} % validation "
            f"accuracy, {quantity(deploy['macs'])} macs, {millions(deploy['params'])} params."
        )
        rule = (
            "Of its schedules it is the best on validation."
            if compares
            else "Chosen by validation accuracy. Within 0.5 points of the best, the found network goes first, then "
            "uniform scaling."
        )
        lines.append(f'<p><strong>Use</strong> {escape(words)} <span class="quiet">{rule}</span></p>')
    return "\n".join(lines)


def _paper(run: RunData) -> str:
    found = paper_table.lines(run)
    if not found:
        return _missing("No results yet: finals.csv is missing or empty.")
    rows, rivals = list(paper_table.rows_of(found)), list(paper_table.rivals_of(run, found))
    return "\n".join(
        [
            _cells(rows, [i < 2 for i in range(len(rows[0]))]),
            f'<p class="quiet">{escape(paper_table.NOTE)}</p>',
            "<h3>From scratch, beside shapes that need no pruning</h3>",
            _cells(rivals, [i < 3 for i in range(len(rivals[0]))]),
        ]
    )


def _together(run: RunData) -> str:
    return _list(paper_table.together(run)) or _missing("Nothing yet: no case has a verdict, or nothing was learnt.")


def _origins(run: RunData) -> str:
    """The networks that were pruned: how each was trained, and how it did."""
    noted = (run.run.get("origins") or {}).items()
    rows = [["network", "lambda", "epochs", "validation, %"]]
    for key, one in noted:
        strength, accuracy = one.get("strength"), one.get("val_accuracy")
        rows.append(
            [
                str(key).removeprefix("origin/"),
                "" if strength is None else f"{strength:.3g}",
                str(one.get("epochs", "")),
                str(one.get("error", "")) if accuracy is None else percent(accuracy),
            ]
        )
    plain = "Methods without a penalty prune the base of each seed."
    table = _cells(rows, [True, False, False, False]) if noted else ""
    return f'{table}\n<p class="quiet">{plain}</p>'


def _results(run: RunData) -> str:
    if not run.finals:
        return _missing("No results yet: finals.csv is missing or empty.")
    note = "Accuracies are means over n seeds. The final trainings alone read the test images, once."
    return f'{table(merged(run.results))}\n<p class="quiet">{note}</p>'


def _figures(drawings: Sequence[Drawing], notes: Sequence[str]) -> str:
    return "\n".join([*map(_figure, drawings), *map(_missing, notes)])


def _figure(drawing: Drawing) -> str:
    data = base64.b64encode(drawing.svg).decode()
    alt = escape(drawing.alt)
    image = _wide(f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">', "figure")
    return f"<figure>{image}<figcaption>{alt}.</figcaption></figure>"


def _rule(run: RunData) -> str:
    given = [
        {**rule, "budget": f"{rule.get('budget', '')}, transferred from {rule.get('source', '')}"}
        for rule in run.priors
    ]
    lines = (
        f"<dt>{escape(str(rule.get('budget', '')))} ({escape(str(rule.get('kind', '')))})</dt>"
        f"<dd>{escape(str(rule.get('explanation', '')))}</dd>"
        for rule in [*given, *run.rules]
    )
    return _definitions(lines) if given or run.rules else _missing("No rule yet: rule.json is missing.")


def _diagnosis(run: RunData) -> str:
    diagnosis = run.run.get("diagnosis") or {}
    if (run.run.get("phases") or {}).get("supernet") == "skipped":
        return _searched(run) + _missing("No supernet was trained: the widths come from a transferred rule.")
    if _masks(run):
        return (
            "<p>Single weights are masked: no channel goes, so that there are no scores of channels to diagnose.</p>\n"
        )
    if not diagnosis:
        return _searched(run) + _missing("No diagnosis yet: the supernet has not finished.")
    strength = diagnosis.get("strength")
    penalty = f"Supernet: penalty {diagnosis.get('penalty')}{f', strength {strength:.3g}' if strength else ''}."
    return f"{_searched(run)}<p>{escape(penalty)}</p>\n{_list(diagnosis.get('sentences') or [])}"


def _masks(run: RunData) -> bool:
    """Whether the run's budgets bound single weights."""
    return any(str(budget).startswith("weights=") for budget in (run.run.get("config") or {}).get("budget") or ())


def _searched(run: RunData) -> str:
    """The space, and what of it the study trained."""
    if run.space is None:
        return ""
    words = f"{len(run.space.slots)} free widths in {run.space.stages} stages"
    trained = [trial for trial in run.trials if trial.state != "REPEAT"]
    if trained:
        epochs = sorted({trial.epochs for trial in trained if trial.epochs})
        words += f". The study made {len(trained)} trainings of {' or '.join(map(str, epochs))} epochs"
    return f"<p>{escape(words)}.</p>\n"


def _ledger(run: RunData) -> str:
    return table(ledger_table(run.ledger)) if run.ledger else _missing("Nothing spent yet: ledger.csv is missing.")


def _latency(run: RunData) -> str:
    lines = [
        f"<tr><td>{escape(str(verdict.get('budget', '')))}</td><td>{escape(str(arm))}</td>"
        f"{_timed(Timing(float(m['median_ms']), float(m['iqr_ms'])))}"
        f"<td>{escape(_conditions(m))}</td></tr>"
        for verdict in run.verdicts
        for arm, m in (verdict.get("latency") or {}).items()
    ]
    if not lines:
        return _missing("Not measured yet.")
    names = (("budget", ""), ("arm", ""), ("median, ms", "number"), ("quartile range, ms", "number"), ("where", ""))
    head = "".join(f'<th scope="col" class="{kind}">{name}</th>' for name, kind in names)
    rows = "\n".join(lines)
    note = (
        "One forward pass, the networks measured in turns on the machine that ran the search. A time whose quartile "
        "range is as large as itself is not measured reliably."
    )
    made = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"
    return f'{_wide(made, "latencies")}\n<p class="quiet">{note}</p>'


def _conditions(measured: Mapping[str, Any]) -> str:
    """What a latency was measured under."""
    threads = f"{measured['threads']} thread{'' if measured['threads'] == 1 else 's'}"
    return f"{measured['device']}, {threads}, {measured['dtype']}, batch {measured['batch']}"


def _timed(time: Timing) -> str:
    if not time.reliable:
        return '<td class="number" colspan="2">not measured reliably</td>'
    return f'<td class="number">{time.ms:.3g}</td><td class="number">{time.iqr:.2g}</td>'


def _best(run: RunData) -> str:
    """How to use the network: the commands of each budget, whole, for the network that the verdict names."""
    if run.best is None:
        return _missing("No network yet: best.json is missing.")
    if run.verdicts and not run.verdicts[0].get("deploy"):
        return "<p>There is no network to use. best.json holds the network that the search ended with.</p>"
    name = "deploy.json" if (run.path / "deploy.json").exists() else "best.json"
    path = str(run.path / name)
    spec, dataset = shlex.quote(path), shlex.quote(str((run.run.get("config") or {}).get("dataset", "DATASET")))
    model, code = str(run.best.get("model", "")), ":" in str(run.best.get("model", ""))
    own = code and not model.startswith(("torchvision:", "timm:"))
    flag, keyword = (f" --model {shlex.quote(model)}", f", model={model!r}") if own else ("", "")
    masked = run.best.get("weights") or {}
    again = f"prune-nas train {spec}{flag} --dataset {dataset} --seeds 3   # from scratch, with n and spread\n"
    commands = (
        f"prune-nas export {spec}{flag} --format onnx   # or python, state, pt2\n"
        f"{'' if masked else again}\n# in Python, with the trained weights:\n"
        "import prune_nas as pn\n"
        f"network = pn.load_net({path!r}{keyword})   # an ordinary nn.Module in eval mode"
    )
    left = f" Of {int(masked['of']):,} weights of convolutions {int(masked['kept']):,} are not zero." if masked else ""
    pre = f'<pre role="region" tabindex="0" aria-label="commands">{escape(commands)}</pre>'
    others = sorted((run.path / "deploy").glob("*.json")) if (run.path / "deploy").is_dir() else []
    more = f" The networks of the other budgets are in deploy/: {', '.join(p.name for p in others)}." if others else ""
    found = " best.json holds the network that the search found." if name == "deploy.json" else ""
    return f"<p>{name} is the network to use.{escape(found)}{left}{escape(more)}</p>\n{pre}"


def _glossary(run: RunData) -> str:
    arms = {row.arm for row in run.finals} | set(run.widths.columns)
    cases = (run.run.get("config") or {}).get("cases")
    known = glossary.ARMS_OF_CASES if cases else glossary.ARMS_OF_MASKS if _masks(run) else glossary.ARMS
    words = {name: text for name, text in known.items() if name.removesuffix(" (best)") in arms}
    schedules = {row.schedule for row in run.finals} or set(glossary.SCHEDULES)
    words |= {name: text for name, text in glossary.SCHEDULES.items() if name in schedules} | glossary.TERMS
    return _definitions(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in words.items())


def _configuration(run: RunData) -> str:
    names = ("config", "data", "device", "precision", "machine", "versions")
    facts = {name: run.run[name] for name in names if name in run.run}
    facts["prune-nas"] = run.run.get("version", "")
    rows = "\n".join(
        f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>" for key, value in _flat(facts).items()
    )
    return _wide(f"<table><tbody>\n{rows}\n</tbody></table>", "configuration")


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            told = f"{item:.6g}" if isinstance(item, float) else item
            flat[f"{prefix}{key}"] = ", ".join(map(str, item)) if isinstance(item, list) else told
    return flat


def _list(sentences: Iterable[str]) -> str:
    items = "\n".join(f"<li>{escape(str(sentence))}</li>" for sentence in sentences)
    return f"<ul>\n{items}\n</ul>" if items else ""


def _definitions(lines: Iterable[str]) -> str:
    return "<dl>\n" + "\n".join(lines) + "\n</dl>"


def _missing(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'


SECTIONS: tuple[tuple[str, Callable[[RunData], str] | None], ...] = (
    ("Answer", _answer),
    ("Comparisons", _verdict),
    ("Results", _results),
    ("Figures", None),
    ("The rule in words", _rule),
    ("What was searched", _diagnosis),
    ("What it cost", _ledger),
    ("How fast it runs", _latency),
    ("Using the network", _best),
    ("What the words mean", _glossary),
    ("Configuration", _configuration),
)

OF_COMPARISONS: tuple[tuple[str, Callable[[RunData], str] | None], ...] = (
    ("Over all cases", _together),
    ("The table", _paper),
    ("Case by case", _verdict),
    ("Figures", None),
    ("The rules in words", _rule),
    ("The networks that were pruned", _origins),
    ("What it cost", _ledger),
    ("What the words mean", _glossary),
    ("Configuration", _configuration),
)
