"""Who may import whom, and who may print: read from the source, nothing is run but one fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aevae_jax

PACKAGE = Path(aevae_jax.__file__).parent
ORDER = (
    "types", "limits", "mistyped",
    "keys", "values", "durable", "memory", "layout", "distributions", "compound", "tabular",
    "likelihoods", "networks", "architectures", "priors", "models", "bounds", "objectives", "optimizers", "loops",
    "parallel", "training", "data", "evaluation", "statistics", "generation", "figures", "files", "weights", "locks",
    "signals", "array_files", "checkpoints", "records", "places", "environment", "runs", "same_run", "plans", "tracing",
    "trainer", "diagnosis", "keeping", "fitting", "reproduction", "features", "quality", "protocols", "importance",
    "annealing", "latents", "checkup", "completion", "terminal", "console", "data_commands",
    "evaluation_commands", "run_commands", "generation_commands", "cli",
)  # fmt: skip
"""Each file may import those to its left, at the top and inside functions. A new file takes its place here."""

WITHIN = {
    "data": ("datasets", "given", "splits", "tables", "table_text", "table_columns", "table_files",
             "preparation", "prepared", "rows", "arrays", "pictures", "cache", "tfds_files", "tfds", "streams",
             "inspection"),
}  # fmt: skip
"""The same for the files of a folder; its `__init__` may import them all."""

VALUE_FILES = (
    "types", "limits", "mistyped",
    "values", "durable", "likelihoods", "architectures", "priors", "models", "objectives", "optimizers",
    "data", "locks", "signals", "array_files", "checkpoints", "records", "places", "environment", "runs",
    "same_run", "fitting",
)  # fmt: skip
"""Files that the command line reads before it knows whether any array will be computed."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(tree):
    """Full names of all modules that a file imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not read by this test: write aevae_jax.name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(tree, folder=""):
    """Names of this package's files that a file imports; with a folder, of the files in it."""
    parts = [name.split(".") for name in imported(tree) if name.split(".")[0] == "aevae_jax"]
    assert all(len(part) > 1 for part in parts), "import aevae_jax.name, not the package: it hides what is needed"
    if folder:
        return {part[2] for part in parts if part[1] == folder and part[2] in WITHIN[folder]}
    return {part[1] for part in parts} - {"__version__"}


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_downwards(path):
    folder, _, name = module_name(path).rpartition(".")
    place = "has no place in the order of imports: add it in test_imports.py"
    top = folder or name
    assert top in ORDER, f"{path.name} {place}"
    upwards = inside(parsed(path)) - set(ORDER[: ORDER.index(top)]) - {folder}
    if folder and name != "__init__":
        assert name in WITHIN[folder], f"{path.name} {place}"
        upwards |= inside(parsed(path), folder) - set(WITHIN[folder][: WITHIN[folder].index(name)])
    assert not upwards, f"{path.name} imports {sorted(upwards)}, which stand above it or are no files"


def test_the_package_itself_imports_nothing_before_it_is_asked():
    assert not inside(parsed(PACKAGE / "__init__.py"))
    assert set(aevae_jax._HOME) <= set(ORDER)


def test_every_exported_name_exists():
    assert all(getattr(aevae_jax, name) is not None for name in aevae_jax.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = aevae_jax.no_such_name


def test_the_walk_sees_local_and_aliased_imports():
    source = (
        "def f():\n    from aevae_jax import runs as r\n    import aevae_jax.cli as c\n    from aevae_jax.data import D"
    )
    assert inside(ast.parse(source)) == {"runs", "cli", "data"}


PRINTER = "terminal"  # so that nothing is printed that could steer a terminal
READERS = {"tensorflow_datasets": ("data.tfds",), "grain": ("data.streams",), "sklearn.datasets": ("data.__init__",),
           "pyarrow": ("data.table_files", "data.table_columns")}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_each_library_that_reads_data_is_imported_in_its_place(path):
    names = [name for name in imported(parsed(path)) if name.startswith(tuple(READERS))]
    assert not [name for name in names for reader, homes in READERS.items()
                if name.startswith(reader) and module_name(path) not in homes]  # fmt: skip


@pytest.mark.parametrize("path", [path for path in FILES if module_name(path) != PRINTER], ids=module_name)
def test_one_file_prints_and_no_other(path):
    """Else a stranger's text would reach the terminal by another way; the live line of `console` is plain text."""
    tree = parsed(path)
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"print", "pprint", "sys.stdout.write", "sys.stderr.write"} & set(calls)
    libraries = [name for name in imported(tree) if name.split(".")[0] in ("rich", "logging")]
    live = {"rich.console.Console", "rich.progress.Progress", "rich.progress.SpinnerColumn",
            "rich.progress.TextColumn", "rich.table.Column"}  # fmt: skip
    assert set(libraries) <= (live if module_name(path) == "console" else set())


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_nothing_executes_text_or_reads_pickles(path):
    tree = parsed(path)
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not {"eval", "exec", "__import__", "compile", "os.system"} & calls
    assert not [name for name in imported(tree) if name.split(".")[0] in ("pickle", "dill", "cloudpickle", "marshal")]


def test_value_files_load_without_arrays():
    """Otherwise `--help` would wait seconds for libraries that it does not use."""
    code = (
        "import sys\n"
        f"import {', '.join(f'aevae_jax.{name}' for name in VALUE_FILES)}\n"
        "print([name for name in ('jax', 'jaxlib', 'numpy', 'flax', 'optax', 'scipy', 'sklearn', 'matplotlib')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.stderr == ""
    assert done.stdout == "[]\n"
