"""Finding the function that scrapes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from errors import ScrapeFailed
from model import FetchLimits, Order, Post, Profile, Target
from sources.load import Found, load
from tests.support.sites import open_http

TARGET = Target(id=1, source="mine", handle="ann", url="")


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Path]:
    """A file for a module that no other test knows; forgotten afterwards."""
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path / f"scraper_{abs(hash(tmp_path))}.py"
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.startswith("scraper_"):
            del sys.modules[name]


def order(scraper: str | None, path: str | None = None, source: str = "mine") -> Order:
    target = Target(id=1, source=source, handle="ann", url="")
    return Order(
        run_id=1,
        token=1,
        target=target,
        timeout_s=10,
        stall_timeout_s=10,
        limits=FetchLimits(),
        scraper=scraper,
        scraper_path=path,
    )


def run(module: Path, source: str, function: str = "scrape") -> list[Found]:
    module.write_text("from model import Post, Profile\n" + source, encoding="utf-8")
    with open_http() as http:
        return list(load(order(f"{module.stem}:{function}", str(module.parent)))(TARGET, http))


def test_the_feed_source_is_built_in() -> None:
    from sources.feed import scrape

    assert load(order(None, source="feed")) is scrape


def test_a_source_that_is_not_there_is_named() -> None:
    with pytest.raises(ScrapeFailed, match="there is no source named 'gone'"):
        load(order(None, source="gone"))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def scrape(t, http): yield Post(native_id=t.handle)", [Post(native_id="ann")]),
        ("def scrape(t, http): return [Post(native_id='1')]", [Post(native_id="1")]),
        ("def scrape(t, http): return Post(native_id='1')", [Post(native_id="1")]),
        ("def scrape(t, http): return Profile(display_name='A')", [Profile(display_name="A")]),
        ("def scrape(t, http): return None", []),
        ("class scrape:\n def __init__(self, t, http): pass\n def __iter__(self): return iter(())", []),
    ],
)
def test_a_scraper_of_ones_own_may_yield_or_return(module: Path, source: str, found: list[Found]) -> None:
    assert run(module, source) == found


@pytest.mark.parametrize(("value", "kind"), [("'x'", "str"), ("b'x'", "bytes"), ("3", "int")])
def test_a_scraper_that_gives_something_else_is_named(module: Path, value: str, kind: str) -> None:
    with pytest.raises(ScrapeFailed, match=f"gave a {kind}, not a list of posts"):
        run(module, f"def scrape(t, http): return {value}")


def test_a_function_that_is_not_there_is_named(module: Path) -> None:
    with pytest.raises(ScrapeFailed, match="has no function 'other'"):
        run(module, "def scrape(t, http): return None", "other")


def test_what_cannot_be_called_is_named(module: Path) -> None:
    with pytest.raises(ScrapeFailed, match="'scrape' in the scraper's module .* cannot be called"):
        run(module, "scrape = 3")


def test_a_module_that_fails_to_load_says_how(module: Path) -> None:
    with pytest.raises(ScrapeFailed, match="cannot be imported: ZeroDivisionError: division by zero"):
        run(module, "1 / 0")


def test_a_module_that_wants_to_exit_fails_like_any_other(module: Path) -> None:
    with pytest.raises(ScrapeFailed, match="cannot be imported: SystemExit: 3"):
        run(module, "import sys\nsys.exit(3)")


def test_a_module_that_needs_another_names_that_one(module: Path) -> None:
    with pytest.raises(ScrapeFailed, match="needs 'no_such_library', which is not installed"):
        run(module, "import no_such_library")


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScrapeFailed, match="'scraper_nowhere' was not found in /"):
        load(order("scraper_nowhere:scrape", str(tmp_path)))
    sys.path.remove(str(tmp_path))


@pytest.mark.parametrize("entry", ["", "module", ":function", "module:", ":"])
def test_an_entry_of_another_form_is_named(entry: str) -> None:
    with pytest.raises(ScrapeFailed, match="is not of the form module:function"):
        load(order(entry))
