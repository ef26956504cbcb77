"""arXiv: an author's papers, by the export API, which answers in Atom.

A name is no identity there: everybody of that name is found. A new version of a paper is the same paper, edited. What
is new comes once a day; that no two requests come within three seconds is the daemon's matter (host_delay_s).
Source: info.arxiv.org/help/api (user's manual, terms of use).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from errors import ScrapeFailed
from model import Post, Profile, Remember, Target, Window
from sources.source import Account, Source, escaped, is_at, is_at_base, matched, segments

if TYPE_CHECKING:
    from sources.http import Http

#: How often new papers appear (seconds).
_DAY_S = 86400.0
#: Papers asked for (count): usually, and at most when `range` says so.
_USUAL, _MOST = 50, 500
_PART = r"[a-z](?:[a-z'.\-]*[a-z.])?"
_NAME = re.compile(rf"{_PART}(?:_{_PART})*")
#: An author's page ends in a number that tells people of one name apart; the API does not know it.
_AUTHOR_PAGE = re.compile(r"(.+)_\d+")
_PAPER = re.compile(r"/abs/(.+?)(?:v\d+)?$")


def _account(handle: str, base: str) -> Account:
    example = "arxiv:au:hinton_g, which is lastname_f"
    name = unicodedata.normalize("NFKD", handle.removeprefix("au:")).lower()
    name = "".join(c for c in name if not unicodedata.combining(c))
    name = matched(name, _NAME, what="the name of an author", example=example)[0]
    query = f"search_query=au:{escaped(name)}&sortBy=submittedDate&sortOrder=descending"
    return Account(handle=f"au:{name}", url=f"{base}/api/query?{query}&start=0&max_results={_USUAL}")


def _recognise(parts: SplitResult, base: str) -> Account | None:
    """The page of an author, `/a/lastname_f_1`."""
    if not (is_at(parts, "arxiv.org", "export.arxiv.org") or is_at_base(parts, base)):
        return None
    pieces = segments(parts)
    found = _AUTHOR_PAGE.fullmatch(pieces[1]) if len(pieces) == 2 and pieces[0] == "a" else None
    return _account(found[1], base) if found and _NAME.fullmatch(found[1]) else None


SOURCE = Source(
    name="arxiv",
    description="Papers of everybody on arXiv who has an author's name.",
    examples=("arxiv:au:hinton_g", "https://arxiv.org/a/hinton_g_1"),
    base="https://export.arxiv.org",
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Ask for the newest papers.

    Raises:
        ScrapeFailed: The API does not take the query, or there is no answer.
    """
    from sources.feeds import follow

    wanted = min(max(target.range or 0, _USUAL), _MOST)
    address = re.sub(r"max_results=\d+", f"max_results={wanted}", target.url)
    for found in follow(address, http, is_api=True, may_be_page=False):
        if isinstance(found, Profile):
            yield Profile(display_name=target.handle.removeprefix("au:"))
        elif isinstance(found, Post):
            yield _paper(found)
        else:
            yield found
    http.fresh_for(_DAY_S)


def _paper(post: Post) -> Post:
    if "/api/errors" in post.native_id:  # an error comes with status 200, as an entry
        raise ScrapeFailed("arXiv does not take this query")
    found = _PAPER.search(post.native_id)
    return replace(post, native_id=found[1]) if found else post
