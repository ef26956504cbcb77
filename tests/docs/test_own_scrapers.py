"""The pages for authors: their code runs, their tables are taken, and what they say of names is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sources import command_items, command_options, page_options
from sources.command_options import check_command
from sources.page_options import check_page
from sources.registry import BUILT_IN, Registry

ROOT = Path(__file__).resolve().parents[2]
OWN = (ROOT / "docs/own-scrapers.md").read_text(encoding="utf-8")
SOURCES = (ROOT / "docs/sources.md").read_text(encoding="utf-8")


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_template_passes_its_own_test(tmp_path: Path) -> None:
    for block in fenced(OWN, "python"):
        (name,) = re.findall(r"\A# (\w+\.py)$", block, re.MULTILINE)
        (tmp_path / name).write_text(block, encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my_site.py", "test_my_site.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_my_site.py"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_tables_can_work() -> None:
    tables = [tomllib.loads(block) for block in fenced(SOURCES, "toml")]
    pages = [table for one in tables for table in one.get("pages", {}).values()]
    commands = [table for one in tables for table in one.get("commands", {}).values()]
    assert (len(pages), len(commands)) == (2, 2)
    assert [check_page(table) for table in pages] == [[], []]
    assert [check_command(table) for table in commands] == [[], []]


def test_each_key_of_a_table_is_described() -> None:
    part = SOURCES.split("## Pages without a feed")[1].split("## Programs")[0]
    for key in (*page_options.FIELDS, "url", "item", "next", "format", "date_format", "timezone"):
        assert re.search(rf"^\| [^|]*`{key}`", part, re.MULTILINE), key
    part = SOURCES.split("## Programs")[1]
    for key in (*command_options.FIELDS, "argv", "cwd", "fields", "at_least"):
        assert re.search(rf"`{key}`|^{key} = ", part, re.MULTILINE), key
    assert set(command_options.FIELDS) == set(command_items.NAMES)


@pytest.mark.parametrize("name", ["gitlab", "youtube", "lobsters", "arxiv", "gitea", "reddit", "mercurial"])
def test_each_source_by_feed_is_in_the_table_with_accounts_that_are_its_own(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \|(.*)\|$", SOURCES.split("## Accounts by feed")[1], re.MULTILINE)
    accounts, _, base = row.split("|")
    everything = Registry(own={}, bases={}, enabled=("reddit",))
    examples = [text for text in re.findall(r"`([^`]+)`", accounts) if "..." not in text]
    assert examples and all(everything.resolve(text).source == name for text in examples)
    assert base.strip(" `") == BUILT_IN[name].base
