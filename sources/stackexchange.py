"""Users of Stack Overflow and the other sites of the Stack Exchange network, by its API: questions and answers.

Without a key an address may ask 300 times a day, all targets together. Source: api.stackexchange.com/docs
(users/{ids}/posts, the wrapper object, throttle).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

from errors import ScrapeFailed
from model import Post, Profile, Remember, Target, Window
from sources.paging import NoAccount, Page, walk
from sources.places import is_at_other_base
from sources.records import Record, identity, is_true, listed, make_post, named, number, read_posts, text, time
from sources.source import Account, Source, matched, segments

if TYPE_CHECKING:
    from sources.http import Answer, Http

_HANDLE = re.compile(r"(\d{1,12})@([A-Za-z0-9-]{1,60}(?:\.[A-Za-z0-9-]{1,60}){0,4})", re.ASCII)
#: Sites with a domain of their own; each has a `meta.` beside it, and Stack Overflow other languages.
_DOMAINS = ("stackoverflow.com", "superuser.com", "serverfault.com", "askubuntu.com", "mathoverflow.net")
_ALONE = ("stackapps.com",)
_LANGUAGES = frozenset({"es", "ja", "meta", "pt", "ru"})
_API = "https://api.stackexchange.com/2.3"
_ACCEPT = {"Accept": "application/json"}
#: The API's word for too many requests, and how long it is left alone when it does not say (seconds).
_THROTTLED, _THROTTLED_S = 502, 600.0


def _account(handle: str, base: str) -> Account:
    example = "stackexchange:22656@stackoverflow"
    found = matched(handle, _HANDLE, what="a user of the form ID@site", example=example)
    user, site = found[1].lstrip("0") or "0", _site(found[2].lower())
    query = f"site={site}&order=desc&sort=creation&pagesize=100&filter=withbody"
    return Account(handle=f"{user}@{site}", url=f"{base}/users/{user}/posts?{query}")


def _site(name: str) -> str:
    """A site's name as the API has it: `stackoverflow`, `unix`, `mathoverflow.net`."""
    name = name.removeprefix("www.").removesuffix(".stackexchange.com").removesuffix(".com")
    return "mathoverflow.net" if name == "mathoverflow" else name


def _recognise(parts: SplitResult, base: str) -> Account | None:
    pieces = segments(parts)
    if len(pieces) not in (2, 3) or pieces[0] != "users" or not re.fullmatch(r"\d{1,12}", pieces[1], re.ASCII):
        return None
    host = (parts.hostname or "").removeprefix("www.").removeprefix("m.")
    if is_at_other_base(parts, base, _API):
        return _account(f"{pieces[1]}@stackoverflow", base)
    if parts.port not in (None, 80, 443) or not _is_site(host):
        return None
    return _account(f"{pieces[1]}@{host}", base)


def _is_site(host: str) -> bool:
    before, _, rest = host.partition(".")
    if host in _DOMAINS + _ALONE or (host.endswith(".stackexchange.com") and before not in ("api", "chat", "data")):
        return True
    return rest in _DOMAINS and (before == "meta" or (before in _LANGUAGES and rest == "stackoverflow.com"))


SOURCE = Source(
    name="stackexchange",
    description="A user of Stack Overflow or another Stack Exchange site: questions and answers.",
    examples=("stackexchange:22656@stackoverflow", "https://unix.stackexchange.com/users/22222/name"),
    base=_API,
    account=_account,
    recognise=_recognise,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Read the user's posts from the newest back.

    Raises:
        ScrapeFailed: There is no such user or site, or the answer is not one of the API.
    """
    user, _, site = target.handle.partition("@")
    answer = _ask(http, target.url, site, conditional=True)
    if answer.not_modified:
        return
    owner = {"name": ""}

    def read(page: Answer) -> Page:
        body = page.json()
        items = listed(body, "items")
        posts, unread = read_posts(items, _post, http.on_progress)
        owner["name"] = owner["name"] or next(filter(None, (text(i, "owner", "display_name") for i in items)), "")
        older = _older(target.url, items) if is_true(body, "has_more") else ""
        return Page(posts=posts, unread=unread, older=older, is_to_rest=_rest(page.url, body, http))

    walked = walk(target, http, answer, read, headers=_ACCEPT)
    if not walked.posts and not target.remember:
        url = f"{target.url.partition('/posts?')[0]}?site={site}"
        body = _ask(http, url, site, conditional=False).json()
        _rest(url, body, http)
        found = listed(body, "items")
        if not found:
            raise NoAccount(f"{site} has no user {user}")
        owner["name"] = text(found[0], "display_name")
    yield named(unescape(owner["name"]))
    yield from walked.results(target, answer)


def _ask(http: Http, url: str, site: str, *, conditional: bool) -> Answer:
    """Ask the API, which says in the body of a 400 whether there is no such site or there were too many requests."""
    from sources.http import BadStatus

    try:
        return http.get(url, headers=_ACCEPT, conditional=conditional, is_api=True)
    except BadStatus as exc:
        if exc.status != 400:
            raise
        try:
            said: object = json.loads(exc.body)
        except (ValueError, RecursionError):
            said = None
        if number(said, "error_id") != _THROTTLED:
            raise NoAccount(f"Stack Exchange has no site {site}", status=400) from exc
        found = re.search(r"available in (\d{1,6}) second", text(said, "error_message"))
        wait_s = float(found[1]) if found else _THROTTLED_S
        http.leave_alone(url, wait_s, "Stack Exchange had too many requests from here")
        raise ScrapeFailed("Stack Exchange had too many requests from here", retry_after_s=wait_s) from exc


def _older(url: str, items: list[object]) -> str:
    """By time, not by page: nothing slips from one page to the next."""
    times = [at for item in items if (at := number(item, "creation_date")) is not None]
    return f"{url}&todate={times[-1]}" if times else ""


def _rest(url: str, body: object, http: Http) -> bool:
    """Do as the answer says: `backoff` is a wait in seconds, and a quota that is used up lasts until midnight UTC."""
    backoff, quota = number(body, "backoff"), number(body, "quota_remaining")
    if backoff is not None and backoff > 0:
        http.leave_alone(url, float(backoff), "Stack Exchange asked for a pause (backoff)")
    if quota == 0:
        now = datetime.now(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        http.leave_alone(url, (midnight - now).total_seconds(), "Stack Exchange's quota for today is used up")
    return quota == 0 or bool(backoff and backoff > 0)


def _post(item: Record) -> Post | None:
    return make_post(
        identity(item, "post_id"),
        text(item, "link"),
        title=unescape(text(item, "title")) if text(item, "post_type") != "answer" else "",
        markup=text(item, "body"),
        author=unescape(text(item, "owner", "display_name")),
        published_at=time(item, "creation_date"),
        kind="comment" if text(item, "post_type") == "answer" else "post",
    )
