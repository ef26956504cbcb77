"""Finds the function that scrapes: a built-in source, one that the settings describe, or a `module:function`.

Importing runs the user's code; that happens here, inside a worker, under the run's deadline.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from errors import ScrapeFailed
from model import Order, Post, Profile, Remember, Target, Window
from sources.http import Http
from sources.plugins import check_scraper
from sources.registry import BUILT_IN

#: Kinds of sources that are written down in the settings, and the module that reads each.
_BY_SETTINGS = {"page": "sources.page", "command": "sources.command"}
Found = Post | Profile | Remember | Window
Scrape = Callable[[Target, Http], Iterator[Found]]


def load(order: Order) -> Scrape:
    """Give the function for this order.

    A module is imported once per worker: a changed file is seen when the worker is replaced.

    Raises:
        ScrapeFailed: There is no such source, module or function; the message names it.
    """
    if order.scraper is not None:
        return _own(order.scraper, order.scraper_path)
    kind = order.options.get("kind")
    if kind in _BY_SETTINGS:
        bind: Callable[[Mapping[str, Any]], Scrape] = importlib.import_module(_BY_SETTINGS[kind]).bind
        return bind(order.options)
    if kind is not None:
        raise ScrapeFailed(f"there is no kind of source {kind!r}")
    if order.target.source in BUILT_IN:
        scrape: Scrape = importlib.import_module(f"sources.{order.target.source}").scrape
        return scrape
    raise ScrapeFailed(f"there is no source named {order.target.source!r}")


def _own(entry: str, path: str | None) -> Scrape:
    wrong = check_scraper(entry)
    if wrong:
        raise ScrapeFailed(wrong[0])
    module_name, _, name = entry.partition(":")
    if path is not None and path not in sys.path:
        sys.path.insert(0, path)
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        where = f" in {path}" if path else ""
        if exc.name is not None and (module_name == exc.name or module_name.startswith(f"{exc.name}.")):
            raise ScrapeFailed(f"the scraper's module {module_name!r} was not found{where}") from exc
        raise ScrapeFailed(f"the scraper's module {module_name!r} needs {exc.name!r}, which is not installed") from exc
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - a user's module may raise anything while it is imported
        raise ScrapeFailed(
            f"the scraper's module {module_name!r} cannot be imported: {type(exc).__name__}: {exc}"
        ) from exc
    function = getattr(module, name, None)
    if function is None:
        raise ScrapeFailed(f"the scraper's module {module_name!r} has no function {name!r}")
    if not callable(function):
        raise ScrapeFailed(f"{name!r} in the scraper's module {module_name!r} cannot be called")
    return as_iterator(function, entry)


def as_iterator(function: Callable[[Target, Http], object], entry: str) -> Scrape:
    """What a scraper may give, as an iterator: nothing, one value, or many; `entry` names it in the error."""

    def scrape(target: Target, http: Http) -> Iterator[Found]:
        found = function(target, http)
        if found is None:
            return iter(())
        if isinstance(found, (Post, Profile, Remember, Window)):
            return iter((found,))
        if isinstance(found, (str, bytes)) or not isinstance(found, Iterable):
            raise ScrapeFailed(f"the scraper {entry!r} gave a {type(found).__name__}, not a list of posts")
        return iter(found)

    return scrape
