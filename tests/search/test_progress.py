import pytest
from rich.console import Console

from prune_nas.search.progress import View


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_numbers_stay_however_long_the_note(columns, monkeypatch):
    view = View()
    view.console = Console(width=columns, force_terminal=True)
    paper = Console(width=columns, record=True)
    with view.phase("finalists", 40) as bar:
        for epoch in range(7):
            bar.advance(f"finalist 1 of macs=0.4,params=0.05 with a long name, epoch {epoch}: 80.0 % on validation")
        paper.print(bar._progress.get_renderable())
    text = paper.export_text()
    assert "finalist 1" in text
    assert "7/40 epochs" in text
    assert "left" in text
    assert max(map(len, text.splitlines())) <= columns


def test_the_best_so_far_is_said_with_what_comes_next(capsys):
    view = View()
    view.console = Console(stderr=True, force_terminal=False, width=200)
    with view.phase("study", 10) as bar:
        bar.ended(0.5, "trial 0")
        bar.ended(None, "trial 1")
        bar.ended(0.4, "trial 2")
        bar.advance("trial 3, epoch 1: 20.0 % on validation")
    assert (
        "study, 1 of 10 epochs: trial 3, epoch 1: 20.0 % on validation (best so far 50.0 %: trial 0)"
        in capsys.readouterr().err
    )


def test_sentences_are_broken_between_words_on_a_terminal_only():
    words = "a sentence of several words that is longer than the line"
    terminal, file = (View() for _ in range(2))
    terminal.console = Console(width=20, force_terminal=True, record=True)
    file.console = Console(width=20, force_terminal=False, record=True)
    for view in (terminal, file):
        view.say(words)
    lines = terminal.console.export_text().splitlines()
    assert " ".join(line.strip() for line in lines) == words
    assert max(map(len, lines)) <= 20
    assert file.console.export_text() == words + "\n"


def test_the_last_line_of_a_phase_is_said(capsys):
    view = View()
    with view.phase("supernet", 3) as bar:
        for accuracy in ("10.0 %", "20.0 %", "30.0 %"):
            bar.advance(f"{accuracy} on validation")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "supernet, 1 of 3 epochs: 10.0 % on validation", "supernet, 3 of 3 epochs: 30.0 % on validation",
    ]  # fmt: skip
