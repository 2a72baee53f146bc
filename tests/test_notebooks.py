"""The notebooks: each runs from top to bottom, every claim it checks is checked, and it is committed clean.

They run in a kernel of this interpreter under the same strict flags as all other tests: no key used twice, no implicit
broadcasting of ranks.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import aevae_jax

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ["01_autoencoder", "02_vae_and_its_loss", "03_ae_against_vae", "04_families"]
LONGEST_FUNCTION = 10
"""Lines; what needs more belongs in the package."""


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parsed(cell: Any) -> ast.Module:
    """A cell as Python, its IPython magics left out."""
    return ast.parse("\n".join("" if line.startswith("%") else line for line in cell.source.splitlines()))


def assertions(cell: Any) -> list[str]:
    """One name per `assert`: the cell and the line."""
    return [f"{cell.id}:{node.lineno}" for node in ast.walk(parsed(cell)) if isinstance(node, ast.Assert)]


class _Report(ast.NodeTransformer):
    """Notes each `assert` that was reached and held."""

    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        return [node, *ast.parse(f"_held.add({f'{self.cell.id}:{node.lineno}'!r})").body]


def reporting(notebook: Any) -> Any:
    """The notebook with every `assert` noted, and a last cell that prints those that held and the interpreter."""
    for cell in code_cells(notebook):
        if assertions(cell):
            cell.source = ast.unparse(_Report(cell).visit(parsed(cell)))
    first = nbformat.v4.new_code_cell("_held = set()", id="first")
    last = "import json, sys\nprint(json.dumps([sys.executable, sorted(_held)]))"
    notebook.cells = [first, *notebook.cells, nbformat.v4.new_code_cell(last, id="last")]
    return notebook


def execute(notebook: Any) -> Any:
    """Run all cells in a fresh kernel of this interpreter; raises `CellExecutionError` where one fails."""
    client = NotebookClient(notebook, timeout=300, startup_timeout=300, resources={"metadata": {"path": str(FOLDER)}})
    manager: Any = client.create_kernel_manager()
    manager.kernel_spec_manager.kernel_dirs = []  # no kernel that happens to be installed here, but this interpreter
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONOPTIMIZE", "MPLBACKEND")}
    strict = {"JAX_DEBUG_KEY_REUSE": "1", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    with tempfile.TemporaryDirectory() as sockets:
        # sockets in a directory of our own: tests that run side by side cannot take each other's ports
        manager.transport, manager.ip = "ipc", f"{sockets}/kernel"
        return client.execute(env=environment | strict)


def test_these_are_all_notebooks():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_without_traces_of_a_run(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == [], cell.id
        assert cell.execution_count is None, cell.id
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("name", NAMES)
def test_holds_no_logic_of_the_package(name):
    trees = [parsed(cell) for cell in code_cells(read(name))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    for node in nodes:
        assert not isinstance(node, ast.ClassDef), node.name
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= LONGEST_FUNCTION, node.name
    imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "aevae_jax"]
    assert imported
    assert {alias.name for node in imported for alias in node.names} <= set(aevae_jax.__all__)  # no old names


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        assert (FOLDER / link).is_file(), link


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_and_every_check_holds(name):
    notebook = read(name)
    expected = sorted(line for cell in code_cells(notebook) for line in assertions(cell))
    assert expected, "a notebook without a check"
    done = execute(reporting(notebook))
    outputs = [output for cell in code_cells(done) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    said = "".join(output.text for output in code_cells(done)[-1].outputs)  # a line may come in two parts
    assert json.loads(said) == [sys.executable, expected]
    assert any("image/png" in output.get("data", {}) for output in outputs), "a notebook without a picture"
    complaints = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert "Warning" not in complaints


@pytest.mark.slow
def test_a_check_that_does_not_hold_is_noticed():
    cells = [nbformat.v4.new_code_cell("assert 1 + 1 == 2\nassert 1 + 1 == 3", id="check")]
    with pytest.raises(CellExecutionError, match="AssertionError"):
        execute(reporting(nbformat.v4.new_notebook(cells=cells)))
