"""The documents and the code: generated parts, tables, commands, links, and what must not stand in them."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import click
import pytest

import cli
from config import ENV_PREFIX, KINDS, Settings, load
from docs.generate import PAGES, comments, render
from fsm.guards import GUARDS
from fsm.machine import mermaid
from fsm.states import EDGES, State, Trigger
from jobs.views import empty_status
from model import Post, Target

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"


def tracked() -> list[Path]:
    """What is, or would be, in the repository; everything but ignored directories where git is missing."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
        found = [ROOT / name for name in names if name]
    except (OSError, subprocess.CalledProcessError):
        found = [p for p in ROOT.rglob("*") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]
    return sorted(path for path in found if path.is_file())


def pages() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without the header."""
    below = text[text.index(f"\n{heading}\n") :]
    lines = [line for line in below[: below.index("\n\n", below.index("\n|"))].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# -- generated parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_generated_parts_are_what_the_code_gives_now(name: str) -> None:
    assert render(read(name)) == read(name), f"{name} is stale: run 'make docs'"


def test_each_page_with_a_generated_part_is_generated() -> None:
    found = {str(p.relative_to(ROOT)) for p in pages() if "<!-- generated: " in p.read_text(encoding="utf-8")}
    assert found == set(PAGES)


def test_a_part_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="has no end"):
        render("<!-- generated: edges -->\n")


def test_the_readme_draws_the_lifecycle_as_the_machine_does() -> None:
    assert fenced(read("README.md"), "mermaid") == [mermaid()]


# -- settings --------------------------------------------------------------------------------------------------------


def test_each_setting_has_a_row_with_its_variable_and_a_meaning() -> None:
    cells = {row[0]: row[-1] for row in rows(read("docs/settings.md"), "## All of them")}
    assert set(cells) == {f"`{n}`<br>`{ENV_PREFIX}{n.upper()}`" for n in KINDS}
    assert all(cells.values())


def test_each_setting_has_a_comment_that_gives_a_unit_where_it_is_a_number() -> None:
    units = ("(seconds)", "(bytes)", "(count)", "(days)")
    said = comments()
    types = get_type_hints(Settings)
    for name in KINDS:
        assert said[name], name
        if name.endswith(("_s", "_bytes", "_days")) or (types[name] is int and name != "port"):
            assert any(unit in said[name] for unit in units), f"the comment of {name} names no unit"


def test_the_settings_that_the_readme_names_exist() -> None:
    names = {n for row in rows(read("README.md"), "## Settings in short") for n in re.findall(r"`([a-z_]+)`", row[0])}
    assert names and names <= set(KINDS)


@pytest.mark.parametrize("name", ["README.md", "docs/settings.md"])
def test_the_configuration_files_shown_can_be_loaded(name: str, tmp_path: Path) -> None:
    for text in fenced(read(name), "toml"):
        path = tmp_path / "gleand.toml"
        path.write_text(text, encoding="utf-8")
        assert load(path, environ={}).scrapers == tomllib.loads(text)["scrapers"]


# -- lifecycle -------------------------------------------------------------------------------------------------------


def test_the_table_of_edges_equals_the_codes_edges() -> None:
    shown = {(t.strip("`"), source, dest): (guards, waived) for t, source, dest, guards, waived in edge_rows()}
    code = {
        (e.trigger.value, e.source.value, e.dest.value): ({g.__name__ for g in e.guards}, set(e.waivable))
        for e in EDGES
    }
    assert {edge: (names(guards), names(waived)) for edge, (guards, waived) in shown.items()} == code


def edge_rows() -> list[list[str]]:
    return rows(read("docs/lifecycle.md"), "## Every edge")


def names(cell: str) -> set[str]:
    return set() if cell == "none" else {name.strip("` ") for name in cell.split(",")}


def test_the_table_of_pairs_has_every_state_and_trigger() -> None:
    shown = rows(read("docs/lifecycle.md"), "## Where each trigger leads")
    leads = {(e.source, e.trigger): e.dest.value for e in EDGES}
    assert shown == [[f"**{s.value}**", *(leads.get((s, t), "-") for t in Trigger)] for s in State]


def test_each_guard_is_described() -> None:
    assert all(f"| `{guard.__name__}` |" in read("docs/lifecycle.md") for guard in GUARDS)


@pytest.mark.parametrize("state", list(State), ids=lambda s: s.value)
def test_each_state_has_a_paragraph_that_says_in_out_and_crash(state: State) -> None:
    text = read("docs/lifecycle.md")
    part = text[text.index(f"\n### {state.value}\n") :].split("\n### ")[1].split("\n## ")[0]
    assert all(word in part for word in ("**In:**", "**Out:**", "**Crash"))
    triggers = {e.trigger.value for e in EDGES if e.source is state and e.dest is not state}
    assert all(f"`{trigger}`" in part for trigger in triggers)


# -- commands --------------------------------------------------------------------------------------------------------


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):(?!=)", read("Makefile"), re.MULTILINE))


def shell_lines() -> list[str]:
    lines = []
    for name in ("README.md", "CONTRIBUTING.md", "docs/operations.md", "docs/settings.md"):
        lines += [line for block in fenced(read(name), "sh") for line in block.splitlines() if line.strip()]
    return lines


def options(command: click.Command) -> set[str]:
    return {text for parameter in command.params for text in parameter.opts} | {"--help"}


def test_make_help_lists_every_target() -> None:
    shown = set(re.findall(r"^([a-z-]+):.*##", read("Makefile"), re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)[0].split())
    assert shown == phony == make_targets()


def test_the_shell_lines_are_commands_that_exist() -> None:
    seen = set()
    for line in shell_lines():
        words = shlex.split(line, comments=True)
        if words[:3] == [".venv/bin/python", "-m", "gleand"]:
            words = words[2:]
        seen.add(words[0])
        if words[0] == "make":
            assert words[1] in make_targets(), line
            if words[1] == "run":
                check_flags(cli.gleand.commands["serve"], words[2:], line)
        elif words[0] == "gleand":
            check_verb(words[1:], line)
        elif words[0] == "curl":
            (path,) = re.findall(r"http://127\.0\.0\.1:5000(/[\w/-]+)", line)
            assert f"{path}`" in read("docs/api.md"), line
        else:
            assert words[0] in ("sqlite3", "python3"), f"who checks this? {line}"
    assert {"make", "gleand", "curl"} <= seen


def check_verb(words: list[str], line: str) -> None:
    assert words[0] in cli.gleand.commands, line
    command = cli.gleand.commands[words[0]]
    assert {w for w in words if w.startswith("-")} <= options(command), line
    command.make_context(words[0], words[1:]).close()


def check_flags(command: click.Command, arguments: list[str], line: str) -> None:
    for argument in arguments:
        flags = shlex.split(argument.removeprefix("ARGS="))
        assert {w for w in flags if w.startswith("-")} <= options(command), line


def test_make_and_the_command_line_are_named_rightly_in_the_text() -> None:
    for path in pages():
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"`make ([a-z]+)", text):
            assert target in make_targets(), f"{path.name}: make {target}"
        for verb in re.findall(r"`(?:\.venv/bin/python -m )?gleand ([a-z]+)`", text):
            assert verb in cli.gleand.commands, f"{path.name}: gleand {verb}"


def test_each_verb_is_in_the_changelog() -> None:
    assert all(f"`{verb}`" in read("CHANGELOG.md").replace("gleand serve", "serve") for verb in cli.gleand.commands)


# -- examples --------------------------------------------------------------------------------------------------------


def test_the_status_example_has_the_fields_of_a_status() -> None:
    (example,) = (json.loads(text) for text in fenced(read("README.md"), "json"))
    assert set(example) == set(empty_status())


def test_the_scraper_of_the_readme_gives_posts() -> None:
    (text,) = fenced(read("README.md"), "python")
    scope: dict[str, object] = {}
    exec(compile(text, "my_site.py", "exec"), scope)
    items = json.dumps([{"id": 7, "url": "https://example.org/7", "title": "t", "text": "x"}])
    http = SimpleNamespace(get=lambda url: SimpleNamespace(text=items))
    found = list(scope["scrape"](Target(id=1, source="my_site", handle="alice", url=""), http))  # type: ignore[operator]
    assert found == [Post(native_id="7", url="https://example.org/7", title="t", text="x")]


# -- links, routes, words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(ROOT)))
def test_each_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{page.name} links to {link}"


def test_each_page_under_docs_can_be_reached_from_the_readme() -> None:
    reached, ahead = set(), [README]
    while ahead:
        page = ahead.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text(encoding="utf-8"))
        ahead += [(page.parent / link).resolve() for link in links if ":" not in link]
    assert {p for p in pages() if "docs" in p.relative_to(ROOT).parts[:1]} <= reached


def test_each_route_is_described() -> None:
    routes = json.loads(read("openapi.json"))["paths"]
    shown = set(re.findall(r"(?<![\w/])(/[a-z][\w\-./{}]*)", re.sub(r"\{\w+\}", "{}", read("docs/api.md"))))
    missing = {route for route in routes if re.sub(r"\{\w+\}", "{}", route) not in shown}
    assert not missing, "describe them in docs/api.md"


def test_the_changelog_has_an_unreleased_section_first() -> None:
    versions = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])


def test_each_decision_is_listed_and_has_its_four_parts() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]}: "), path.name
        parts = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "What follows", "Refused"], path.name
        assert f"({path.name})" in read("docs/adr/README.md"), path.name


def test_each_dependency_has_a_line_in_the_decisions() -> None:
    import configparser

    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = parser["options"]["install_requires"] + parser["options.extras_require"]["dev"]
    text = read("docs/adr/0010-dependencies.md").lower()
    for name in re.findall(r"^([\w\-]+)", lines, re.MULTILINE):
        assert re.search(rf"\b{re.escape(name.lower())}\b", text), f"{name} has no line in docs/adr/0010"


@pytest.mark.parametrize("module", ["daemon.py", "cli.py"])
def test_each_exit_code_is_described(module: str) -> None:
    found: dict[str, int] = {}
    for node in ast.parse(read(module)).body:
        if isinstance(node, ast.Assign):
            targets = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else [node.targets[0]]
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            pairs = zip(targets, values, strict=False)
            found |= {
                t.id: v.value
                for t, v in pairs
                if isinstance(t, ast.Name) and t.id.startswith("EXIT_") and isinstance(v, ast.Constant)
            }
    heading = {"daemon.py": "| of the daemon ", "cli.py": "| of the command line "}[module]
    table = read("docs/operations.md").split(heading)[1].split("\n\n")[0]
    described = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert described == set(found.values()) and found


def test_the_log_lines_that_are_named_are_written() -> None:
    part = read("docs/operations.md").split("## The log")[1].split("The lines to know:")[1]
    code = "".join(path.read_text(encoding="utf-8") for path in tracked() if path.suffix == ".py")
    named = re.findall(r"`([a-z_]+)`", part)
    assert named and all(re.search(rf"""['"]{name}[ '"]""", code) for name in named)


def test_the_glossary_is_in_order_and_says_each_word_once() -> None:
    words = [line.split("|")[1].strip() for line in read("docs/glossary.md").splitlines() if line.startswith("| ")][1:]
    assert words == sorted(words) and len(words) == len(set(words))


def test_nothing_names_a_path_of_somebodys_machine() -> None:
    here = [] if ROOT == Path("/opt/gleand") else [re.escape(str(ROOT)) + "/"]  # operations.md names that one
    homes = re.compile("|".join([r"(?<![\w}).])/(?:home|Users|root)/\w", r"[A-Z]:\\Users", r"\.pyenv", *here]))
    for path in tracked():
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = homes.search(text)
        assert found is None, f"{path.relative_to(ROOT)} has {text[found.start() :][:60]!r}" if found else ""
