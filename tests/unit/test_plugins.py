"""Sources that installed packages bring, and names that no scraper may have."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from errors import ScrapeFailed
from model import FetchLimits, Order, Post, Target
from sources.load import load
from sources.plugins import OWN_MODULES, check_scraper, discover, entry_points
from tests.support.sites import open_http

ROOT = Path(__file__).resolve().parents[2]


def install(home: Path, package: str, *lines: str) -> None:
    """A package with entry points, as pip would leave it."""
    info = home / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    points = "\n".join(lines)
    (info / "entry_points.txt").write_text(
        f"[gleand.sources]\n{points}\n[console_scripts]\nx = y:z\n", encoding="utf-8"
    )


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_sources_of_installed_packages_are_found_without_importing_them(packages: Path) -> None:
    install(packages, "nice", "nice = nice_sources.main:scrape", "other-1 = nice_sources:other [fast]")
    assert entry_points() == {"nice": "nice_sources.main:scrape", "other-1": "nice_sources:other"}
    assert "nice_sources" not in sys.modules
    assert discover().problems == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("feed = nice:scrape", "'feed' of the package nice has the name of a source that is built in"),
        ("http = nice:scrape", "'http' of the package nice has a name that cannot be used"),
        ("Nice = nice:scrape", "has a name that cannot be used: lower-case letters"),
        ("nice = nice", "the scraper 'nice' is not of the form module:function"),
        ("nice = sources.nice:scrape", "the scraper's module 'sources' has the name of one of gleand's own"),
        ("nice = queue:scrape", "the scraper's module 'queue' has the name of one of Python's own"),
    ],
)
def test_one_that_cannot_be_used_is_passed_over_and_said(packages: Path, line: str, why: str) -> None:
    install(packages, "nice", line, "good = nice:scrape")
    found = discover()
    assert found.usable == {"good": "nice:scrape"}
    (problem,) = found.problems
    assert why in problem


def test_a_name_that_two_packages_claim_is_nobodys(packages: Path) -> None:
    install(packages, "one", "same = one:scrape")
    install(packages, "two", "same = two:scrape")
    assert discover().usable == {}
    assert discover().problems == ("the source 'same' of the package one, two is offered more than once",)


def test_a_source_of_an_installed_package_is_loaded(packages: Path) -> None:
    (packages / "nice_loaded.py").write_text(
        "from model import Post\ndef scrape(target, http): yield Post(native_id=target.handle)\n", encoding="utf-8"
    )
    install(packages, "nice", "nice = nice_loaded:scrape")
    target = Target(id=1, source="nice", handle="ann", url="")
    limits = FetchLimits()
    order = Order(
        run_id=1, token=1, target=target, timeout_s=9, stall_timeout_s=9, limits=limits, scraper=entry_points()["nice"]
    )
    with open_http() as http:
        assert list(load(order)(target, http)) == [Post(native_id="ann")]
    del sys.modules["nice_loaded"]


@pytest.mark.parametrize("entry", ["my_site:scrape", "my.deep.site:scrape", "_x:Y", "site_1:scrape2"])
def test_a_scraper_with_a_name_of_its_own_may_be_imported(entry: str) -> None:
    assert check_scraper(entry) == []


@pytest.mark.parametrize("top", sorted(OWN_MODULES))
def test_a_module_with_the_name_of_one_of_ours_is_refused(top: str) -> None:
    for entry in (f"{top}:scrape", f"{top}.sub:scrape"):
        (problem,) = check_scraper(entry)
        assert problem == f"the scraper's module {top!r} has the name of one of gleand's own; call it something else"


@pytest.mark.parametrize("top", ["json", "select", "types", "queue", "email"])
def test_a_module_with_the_name_of_one_of_pythons_is_refused(top: str) -> None:
    (problem,) = check_scraper(f"{top}:scrape")
    assert "has the name of one of Python's own" in problem


@pytest.mark.parametrize("entry", ["", "x", "x:", ":y", "x:y:z", "x-y:z", "x:y()", "./x:y", "x.py:y z"])
def test_what_names_no_function_is_refused(entry: str) -> None:
    (problem,) = check_scraper(entry)
    assert "is not of the form module:function" in problem


def test_a_run_of_such_a_scraper_fails_with_the_same_sentence(tmp_path: Path) -> None:
    target = Target(id=1, source="mine", handle="ann", url="")
    (tmp_path / "store.py").write_text("def scrape(target, http): return []\n", encoding="utf-8")
    order = Order(
        run_id=1,
        token=1,
        target=target,
        timeout_s=9,
        stall_timeout_s=9,
        limits=FetchLimits(),
        scraper="store:scrape",
        scraper_path=str(tmp_path),
    )
    with pytest.raises(ScrapeFailed, match="the scraper's module 'store' has the name of one of gleand's own"):
        load(order)


def test_the_names_of_ours_are_those_of_the_tree() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    rooms = {one.removeprefix("gleand.app.").split(".")[0] for one in parser["options"]["packages"].split()}
    assert OWN_MODULES == rooms | {path.stem for path in ROOT.glob("*.py")}


def test_looking_for_them_loads_nothing_heavy() -> None:
    code = "import sys, sources.plugins as p; p.discover(); sys.exit(bool({'requests', 'lxml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
