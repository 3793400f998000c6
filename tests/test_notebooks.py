"""Every notebook runs from top to bottom, and what is committed are outputs of such a run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def executed(path, monkeypatch):
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": "notebooks"}}).execute()
    return notebook


def test_there_are_five_in_order():
    assert [path.name[0] for path in NOTEBOOKS] == list("12345")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_with_its_outputs(path):
    cells = code(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    texts = [out.get("text") or out.get("data", {}).get("text/plain", "") for cell in cells for out in cell.outputs]
    assert not [text for text in texts if "NaN" in text or "Warning" in text]
    assert sum("image/png" in out.get("data", {}) for cell in cells for out in cell.outputs) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, monkeypatch):
    committed, fresh = nbformat.read(path, as_version=4), executed(path, monkeypatch)
    for before, after in zip(code(committed), code(fresh), strict=True):
        assert [sorted(o.get("data", {})) for o in before.outputs] == [sorted(o.get("data", {})) for o in after.outputs]
