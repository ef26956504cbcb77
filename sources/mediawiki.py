"""Users of Wikipedia and other wikis that run MediaWiki, by its API: their edits.

Source: mediawiki.org (API:Usercontribs, API:Users, API:Etiquette, Manual:Maxlag parameter).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qs

from errors import ScrapeFailed, Unusable
from model import Post, Profile, Remember, Target, Window
from sources.paging import NoAccount, Page, fetch, walk
from sources.places import at_host, host_in, is_feed
from sources.records import (
    Record,
    identity,
    is_true,
    listed,
    make_post,
    named,
    number,
    read_posts,
    record,
    several,
    text,
    time,
)
from sources.source import Account, Source, escaped, is_at_base, matched, segments

if TYPE_CHECKING:
    from sources.http import Answer, Http

#: What the software allows in a name, less what no handle may have.
_HANDLE = re.compile(r"([^\s@/#<>\[\]|{}\"&\x00-\x1f\x7f]{1,255})@([^\s@/]+)")
_PROJECTS = (
    *("wikipedia.org", "wiktionary.org", "wikibooks.org", "wikinews.org", "wikiquote.org", "wikisource.org"),
    *("wikiversity.org", "wikivoyage.org", "wikimedia.org", "wikidata.org", "mediawiki.org", "wikifunctions.org"),
)
#: Projects without a language before them.
_SINGLE = frozenset({"wikidata.org", "mediawiki.org", "wikifunctions.org"})
#: What the namespace of users is called; the English name works on every wiki.
_USER = frozenset(
    """user benutzer benutzerin utilisateur utilisatrice usuario usuaria usuário usuária utente gebruiker användare
    bruker bruger käyttäjä wikipedysta wikipedystka uživatel uživatelka szerkesztő kullanıcı участник участница
    користувач користувачка 利用者 用户 使用者 사용자 مستخدم משתמש""".split()
)
_CONTRIBUTIONS = frozenset(
    """special:contributions special:contribs spezial:beiträge spécial:contributions especial:contribuciones
    especial:contribuições speciale:contributi speciaal:bijdragen specjalna:wkład служебная:вклад
    特別:投稿記録 special:用户贡献""".split()
)
#: How long a wiki that lags is left alone where it does not say so itself (seconds).
_LAG_S = 5.0
_ACCEPT = {"Accept": "application/json"}


def _account(handle: str, base: str) -> Account:
    example = "mediawiki:Jimbo_Wales@en.wikipedia.org"
    found = matched(handle, _HANDLE, what="a user of the form Name@host", example=example)
    return _at(found[1], found[2], base)


def _at(user: str, host: str, base: str, scheme: str = "https") -> Account:
    user = _spelled(user)
    host = _wiki(host_in(host))
    if not _HANDLE.fullmatch(f"{user}@{host}"):
        raise Unusable(f"{user[:80]!r} cannot be the name of a user")
    query = f"list=usercontribs%7Cusers&ucuser={escaped(user)}&ususers={escaped(user)}&uclimit=50"
    props = "ucprop=ids%7Ctitle%7Ctimestamp%7Ccomment%7Csizediff"
    end = f"action=query&{query}&{props}&format=json&formatversion=2&maxlag=5"
    return Account(handle=f"{user}@{host}", url=f"{at_host(base, host, scheme)}/api.php?{end}")


def _spelled(user: str) -> str:
    """One spelling of a name, as the software has it: underscores for spaces, the first letter in upper case, an
    address of IPv6 written out."""
    user = re.sub(r"[\s_]+", "_", user).strip("_")
    try:
        groups = ipaddress.IPv6Address(user).exploded.split(":")
        return ":".join(f"{int(group, 16):X}" for group in groups)
    except ValueError:
        first = user[:1].upper()
        return first + user[1:] if len(first) == 1 else user


def _wiki(host: str) -> str:
    """The host that answers, for the mobile one and for a project's bare domain."""
    project = next((each for each in _PROJECTS if host == each or host.endswith(f".{each}")), "")
    if not project:
        return host
    before = [part for part in host.removesuffix(project).split(".") if part not in ("", "m")]
    return ".".join([*(before or ["www"]), project])


def _recognise(parts: SplitResult, base: str) -> Account | None:
    host = _wiki(parts.netloc)
    is_project = any(host.endswith(f".{each}") and (each in _SINGLE or host != f"www.{each}") for each in _PROJECTS)
    return _read_address(parts, base) if is_project or is_at_base(parts, base) else None


def _read_address(parts: SplitResult, base: str) -> Account | None:
    """The user whom a page of any wiki is about."""
    user = "" if is_feed(parts) else _user_of(parts)
    try:
        return _at(user, parts.netloc, base, parts.scheme) if user else None
    except Unusable:
        return None


def _user_of(parts: SplitResult) -> str:
    """The name in `User:Name` or `Special:Contributions/Name`, in the path or as `title`; empty without one."""
    query = parse_qs(parts.query)
    if query.keys() & {"action", "curid", "diff", "feed", "oldid"}:
        return ""
    pieces = segments(parts)
    if "index.php" in pieces:
        pieces = pieces[pieces.index("index.php") + 1 :] or query.get("title", [""])[0].split("/")
    elif pieces[:1] == ["wiki"]:
        pieces = pieces[1:]
    else:
        return ""
    page = re.sub(r"[\s_]+", "_", pieces[0] if pieces else "").strip("_")
    namespace, _, name = page.partition(":")
    if len(pieces) == 1 and namespace.strip("_").lower() in _USER:
        return name.strip("_")
    if page.lower() in _CONTRIBUTIONS and len(pieces) <= 2:
        return pieces[1] if len(pieces) == 2 else query.get("target", [""])[0]
    return ""


SOURCE = Source(
    name="mediawiki",
    description="Edits of a user of Wikipedia or another wiki that runs MediaWiki.",
    examples=("mediawiki:Jimbo_Wales@en.wikipedia.org", "https://en.wikipedia.org/wiki/User:Jimbo_Wales"),
    base="https://{host}/w",
    account=_account,
    recognise=_recognise,
    read_address=_read_address,
)


def scrape(target: Target, http: Http) -> Iterator[Post | Profile | Remember | Window]:
    """Read the user's edits from the newest back.

    Raises:
        ScrapeFailed: There is no such user or wiki, the wiki lags, or the answer is not one of its API.
    """
    user, _, host = target.handle.rpartition("@")
    answer = fetch(http, target.url, headers=_ACCEPT, absent={404: f"{host} has no API where it was looked for"})
    if answer.not_modified:
        return
    site = target.url.partition("/api.php?")[0]

    def read(page: Answer) -> Page:
        body = page.json()
        _check(page, body, http)
        edits = listed(body, "query", "usercontribs")
        posts, unread = read_posts(edits, lambda edit: _edit(edit, site), http.on_progress)
        return Page(posts=posts, unread=unread, older=_older(target.url, body) if edits else "")

    walked = walk(target, http, answer, read, headers=_ACCEPT)
    known = next(iter(several(answer.json(), "query", "users")), None)
    if not walked.posts and (is_true(known, "missing") or (is_true(known, "invalid") and not _is_ip(user))):
        raise NoAccount(f"{host} has no user {user}")
    yield named(text(known, "name") or user.replace("_", " "))
    yield from walked.results(target, answer)


def _check(answer: Answer, body: object, http: Http) -> None:
    """Raise ScrapeFailed for an error, which comes with status 200; one that asks to wait is obeyed."""
    code = text(body, "error", "code")
    if code in ("maxlag", "ratelimited"):
        said = answer.headers.get("Retry-After", "").strip()
        wait = float(said) if re.fullmatch(r"\d{1,6}", said, re.ASCII) else _LAG_S
        http.leave_alone(answer.url, wait, "the wiki is busy and asks to wait")
        raise ScrapeFailed("the wiki is busy and asks to wait", retry_after_s=wait)
    if code.startswith("baduser"):
        raise NoAccount("the wiki takes no such name for a user")
    if code == "readapidenied":
        raise ScrapeFailed("the wiki shows nothing to strangers")
    if code or "error" in record(body):
        raise ScrapeFailed("the wiki refused the request")


def _is_ip(user: str) -> bool:
    try:
        ipaddress.ip_address(user)
    except ValueError:
        return False
    return True


def _older(url: str, body: object) -> str:
    marks = [text(body, "continue", key) for key in ("uccontinue", "continue")]
    if not marks[0] or not all(mark.isprintable() and len(mark) <= 200 for mark in marks):
        return ""
    return f"{url}&uccontinue={escaped(marks[0])}&continue={escaped(marks[1])}"


def _edit(edit: Record, site: str) -> Post | None:
    native_id, change = identity(edit, "revid"), number(edit, "sizediff")
    return make_post(
        native_id,
        f"{site}/index.php?diff={escaped(native_id)}",
        title=text(edit, "title"),
        plain_text=text(edit, "comment") or ("" if change is None else f"{change:+} bytes"),
        author=text(edit, "user"),
        published_at=time(edit, "timestamp"),
        kind="edit",
    )
