"""The notebooks run from top to bottom, and hold no output in version control."""

import json
import os
import sysconfig
from base64 import b64decode
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "docs" / "notebooks").glob("*.ipynb"))


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


def outputs_left(notebook: dict[str, Any]) -> list[str]:
    """The code cells that hold an output or a count."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_stripped(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert outputs_left(notebook) == []
    notebook["cells"][2]["execution_count"] = 1
    assert len(outputs_left(notebook)) == 1


@pytest.mark.slow
def test_the_frontier_is_drawn_from_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    # A cell that fails raises CellExecutionError.
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "30 runs: 2 strategy x 3 privacy.epsilon x 5 initial.seed" in printed
    assert "the better of two, by private selection" in printed
    pictures = [out.data["image/png"] for cell in code for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(pictures) == 1 and b64decode(pictures[0]).startswith(b"\x89PNG")
    assert len(list((tmp_path / "frontier" / "runs").glob("*/result.json"))) == 30
    if kept := os.environ.get("WARDROUND_KEEP_NOTEBOOK"):
        Path(kept).write_bytes(b64decode(pictures[0]))
