"""The README's examples run as they stand, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


def test_readme_begins_with_two_command_lines():
    block = re.search(r"^```sh\n(.*?)^```", README, re.M | re.S)
    assert block is not None
    assert len(block[1].splitlines()) == 2


def test_files_that_the_readme_links_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_there_is_an_example_of_each_use():
    assert len(EXAMPLES) == 5
    assert all(sum(map(bool, example.splitlines())) <= 12 for example in EXAMPLES)  # about ten lines each


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_example_runs_as_it_stands(index, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[index], f"README example {index}", "exec"), {"__name__": "example"})  # noqa: S102
    printed = capsys.readouterr().out
    assert ("print(" in EXAMPLES[index]) == bool(printed)
    assert "nan" not in printed
