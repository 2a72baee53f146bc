"""Who may import whom, and who may print: read from the source, nothing is run but one fresh interpreter."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aevae_jax
from aevae_jax import distributions
from aevae_jax.models import likelihoods

PACKAGE = Path(aevae_jax.__file__).parent
FLOORS = (
    {
        "renamed",
        "lazy",
        "types",
        "errors",
        "codable",
        "conditions",
        "discrete",
        "keys",
        "values",
        "limits",
        "suggestions",
        "durable",
        "caches",
        "memory",
        "cores",
        "threads",
        "figures",
        "charts",
        "asides",
    },
    {"distributions", "checkpoints", "objectives", "training"},
    {"models"},
    {"data"},
    {"evaluation", "compression"},
    {"runs"},
    {"cli"},
    {"__main__"},
)
"""The wings, and the files of the ground floor. Each may import what stands on a lower floor; none its neighbours."""

VALUE_FILES = (
    "types",
    "errors",
    "limits",
    "suggestions",
    "values",
    "durable",
    "caches",
    "models.likelihoods",
    "models.architectures",
    "models.priors",
    "models.flow_priors",
    "models.posteriors",
    "models.parts",
    "models.autoencoder",
    "models.vae",
    "models.two_level",
    "models.families",
    "models.vq",
    "models.categorical",
    "models.quantizers",
    "models.code_priors",
    "discrete",
    "objectives.losses",
    "objectives.quantization",
    "training.optimizers",
    "data.built_in",
    "data.loading",
    "data.files",
    "checkpoints.locks",
    "checkpoints.signals",
    "checkpoints.array_files",
    "checkpoints.store",
    "runs.records",
    "runs.directory",
    "runs.provenance",
    "runs.run",
    "runs.same_run",
    "runs.summaries",
    "runs.fitting",
    "evaluation",
    "distributions",
    "cli.main",
)
"""Files that the command line reads before it knows whether any array will be computed."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imported(tree):
    """Full names of all modules that a file imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not read by this test: write aevae_jax.name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(tree):
    """Names of this package's modules that a file imports, without the package's own name."""
    names = [name.split(".")[1:] for name in imported(tree) if name.split(".")[0] == "aevae_jax"]
    assert all(names), "import aevae_jax.name, not the package: it hides what is needed"
    known = {module_name(path) for path in FILES}
    found = {next((".".join(name[:n]) for n in (2, 1) if ".".join(name[:n]) in known), name[0]) for name in names}
    return found - {"__version__"}


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


GRAPH = {module_name(path): inside(parsed(path)) for path in FILES}


def floor(name):
    return next((number for number, wings in enumerate(FLOORS) if name.partition(".")[0] in wings), None)


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_imports_point_downwards(name):
    wing = name.partition(".")[0]
    assert floor(name) is not None, f"{name} stands on no floor: add it to FLOORS"
    upwards = {
        other
        for other in GRAPH[name]
        if other.partition(".")[0] != wing and (floor(other) is None or floor(other) >= floor(name) > 0)
    }
    assert not upwards, f"{name} imports {sorted(upwards)}, which stand above or beside it, or are no files"


def test_the_page_on_the_architecture_shows_these_floors():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if re.match(r"\| \d ", line)]
    shown = [(int(number), name) for number, wings in rows for name in re.findall(r"`(\w+)`", wings)]
    assert sorted(shown) == sorted((number, name) for number, wings in enumerate(FLOORS) for name in wings)


@pytest.mark.parametrize("wing", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_a_wing_says_what_is_in_each_of_its_files(wing):
    listed = re.findall(r"^ *(\w+\.py) ", (PACKAGE / wing / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (PACKAGE / wing).glob("*.py") if path.name != "__init__.py")


def test_no_file_asks_to_be_two():
    sources = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "experiments").rglob("*.py")]
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {path: count for path, count in lines.items() if count > 400} == {}


def test_no_files_import_each_other_in_a_circle():
    """Doors hand on what stands behind them, so a file that imports its own door would be in a circle with it."""
    doors = {name for name in GRAPH if name in {other.partition(".")[0] for other in GRAPH if "." in other}}
    for name, others in GRAPH.items():
        assert name.partition(".")[0] not in others & doors or name in doors, f"{name} imports its own door"
    rest = {name: set(others) for name, others in GRAPH.items()}
    while free := {name for name, others in rest.items() if not others & set(rest)}:
        rest = {name: others for name, others in rest.items() if name not in free}
    assert not rest


def test_a_name_that_a_distribution_shares_with_a_likelihood_is_qualified():
    """`Normal(...)` alone is the likelihood that people type; the distribution is always `distributions.Normal`."""
    shared = {name for name, thing in vars(likelihoods).items() if isinstance(thing, type)} & set(distributions.__all__)
    assert {"Bernoulli", "Normal", "Tabular"} <= shared
    root = PACKAGE.parent
    sources = {path: parsed(path) for path in [*FILES, *sorted(root.glob("experiments/**/*.py"))]}
    for path in sorted(root.glob("notebooks/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
        sources[path] = ast.parse("\n".join(line for line in lines if not line.startswith(("%", "!"))))
    for path, tree in sources.items():
        found = {name.rpartition(".")[2] for name in imported(tree) if name.startswith("aevae_jax.distributions.")}
        assert PACKAGE / "distributions" in path.parents or not found & shared, f"{path} imports {found & shared}"


def test_private_names_stay_in_their_wing():
    for path in FILES:
        wing = module_name(path).partition(".")[0]
        for name in imported(parsed(path)):
            *where, last = name.split(".")
            assert not (
                last.startswith("_") and where[:1] == ["aevae_jax"] and where[1:2] != [wing] and last != "__version__"
            ), f"{module_name(path)} imports {name}"


TESTS = Path(__file__).parent
PRIVATE_OF_OTHERS = {"_asdict", "_exit", "_fields", "_replace", "_value"}
"""Of named tuples, of `os`, and of JAX's arrays: whoever asks for a value."""


def private_names(tree):
    """Names with an underscore that a file of tests takes from elsewhere: of attributes, imports, and of attributes
    that are named by a text, to read or to replace them.
    """
    own, found = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                own.add(name)
            case ast.Attribute(attr=name):
                found.add(name)
            case ast.alias(name=name):
                found.update(name.split("."))
            case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called), args=arguments):
                if called in ("getattr", "hasattr", "setattr", "delattr", "attrgetter", "methodcaller"):
                    texts = [a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                    found.update(name for text in texts for name in text.split("."))
    return {name for name in found - own - PRIVATE_OF_OTHERS if re.match("_(?!_)", name)}


def test_tests_name_nothing_that_is_private():
    """They say what can be seen from outside, so that a renaming within breaks none of them."""
    named = {path.relative_to(TESTS).as_posix(): private_names(parsed(path)) for path in TESTS.rglob("*.py")}
    assert {path: names for path, names in named.items() if names} == {}


def test_the_walk_sees_private_names_in_every_way_of_naming_them():
    source = (
        "from aevae_jax.runs import _a\nfitting._b()\nmonkeypatch.setattr(fitting, '_c', 1)\ngetattr(run, '_d')\n"
        "monkeypatch.setattr('aevae_jax._e.f', 1)\nclass Own:\n def _g(self): self._h = os._exit(1)\nx._g, y._h\n"
    )
    assert private_names(ast.parse(source)) == {"_a", "_b", "_c", "_d", "_e"}


def test_the_package_itself_imports_nothing_before_it_is_asked():
    assert inside(parsed(PACKAGE / "__init__.py")) == {"renamed"}


def test_every_exported_name_exists():
    assert all(getattr(aevae_jax, name) is not None for name in aevae_jax.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = aevae_jax.no_such_name


def test_the_walk_sees_local_and_aliased_imports():
    source = (
        "def f():\n    from aevae_jax import runs as r\n    import aevae_jax.cli as c\n    from aevae_jax.data import D"
    )
    assert inside(ast.parse(source)) == {"runs", "cli", "data"}
    assert inside(ast.parse("from aevae_jax.data.rows import inside\nfrom aevae_jax.runs import fitting")) == {
        "data.rows",
        "runs.fitting",
    }


PRINTER = "cli.terminal"  # so that nothing is printed that could steer a terminal
READERS = {
    "tensorflow_datasets": ("data.tfds",),
    "grain": ("data.streams",),
    "sklearn.datasets": ("data.built_in",),
    "pyarrow": ("data.table_files", "data.table_columns", "data.table_entries"),
}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_each_library_that_reads_data_is_imported_in_its_place(path):
    names = [name for name in imported(parsed(path)) if name.startswith(tuple(READERS))]
    assert not [
        name
        for name in names
        for reader, homes in READERS.items()
        if name.startswith(reader) and module_name(path) not in homes
    ]


@pytest.mark.parametrize("path", [path for path in FILES if module_name(path) != PRINTER], ids=module_name)
def test_one_file_prints_and_no_other(path):
    """Else a stranger's text would reach the terminal by another way; the live line of `asides` is plain text."""
    tree = parsed(path)
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"print", "pprint", "sys.stdout.write", "sys.stderr.write"} & set(calls)
    libraries = [name for name in imported(tree) if name.split(".")[0] in ("rich", "logging")]
    live = {
        "rich.console.Console",
        "rich.progress.Progress",
        "rich.progress.SpinnerColumn",
        "rich.progress.TextColumn",
        "rich.table.Column",
    }
    assert set(libraries) <= (live if module_name(path) == "asides" else set())


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_nothing_executes_text_or_reads_pickles(path):
    tree = parsed(path)
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not {"eval", "exec", "__import__", "compile", "os.system"} & calls
    assert not [name for name in imported(tree) if name.split(".")[0] in ("pickle", "dill", "cloudpickle", "marshal")]


OPTIONAL_OR_HEAVY = {
    "PIL",
    "absl",
    "grain",
    "matplotlib",
    "orbax",
    "pyarrow",
    "rich",
    "scipy",
    "skimage",
    "sklearn",
    "tensorflow_datasets",
}
"""What a function may import itself: what need not be installed, or takes long to import and is used there alone."""


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_stand_at_the_top(path):
    functions = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)]
    inner = {name.partition(".")[0] for function in functions for name in imported(function)}
    assert inner <= OPTIONAL_OR_HEAVY


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
