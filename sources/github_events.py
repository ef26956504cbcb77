"""What GitHub's events say, in words: "pushed 3 commits to o/r". The texts are ours, the names GitHub's.

Source: docs.github.com (GitHub event types). Since October 2025 a push no longer lists its commits, and a pull
request has no title; where a payload has them still, they are told.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from model import Post
from sources.records import Record, identity, is_true, make_post, number, record, several, text, time

#: Most commits and pages of one event that are told (count).
_MAX_TOLD = 20
_REPO = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", re.ASCII)
_WORDS = re.compile(r"[A-Z][a-z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """One event in words."""

    line: str
    #: What was written with it.
    more: str = ""
    #: Address of what it is about; empty for the repository.
    url: str = ""
    kind: str = "post"


def make_event(event: Record, site: str) -> Post | None:
    """Make a post of an event; `site` is where a repository's page is. None without an id or a type."""
    kind, repo = text(event, "type"), text(event, "repo", "name")
    if not kind or not _REPO.fullmatch(repo):
        return None
    home = f"{site}/{repo}"
    payload = record(event, "payload")
    tell = TELLERS.get(kind)
    told = tell(payload, repo, home) if tell else _Told(line=f"{_in_words(kind)} in {repo}")
    return make_post(
        identity(event, "id"),
        told.url or home,
        plain_text=f"{told.line}\n{told.more}",
        author=text(event, "actor", "login"),
        published_at=time(event, "created_at"),
        kind=told.kind,
    )


def _in_words(kind: str) -> str:
    """`SponsorshipEvent` is a sponsorship."""
    return " ".join(_WORDS.findall(kind.removesuffix("Event"))).lower() or "something happened"


def _counted(count: int | None, word: str) -> str:
    if count is None or count < 1:
        return ""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _titled(line: str, title: str) -> str:
    return f"{line}: {title}" if title.strip() else line


def _push(payload: object, repo: str, home: str) -> _Told:
    branch = text(payload, "ref").removeprefix("refs/heads/")
    count = number(payload, "distinct_size") or number(payload, "size")
    what = _counted(count, "commit")
    subjects = [text(one, "message").partition("\n")[0] for one in several(payload, "commits")[:_MAX_TOLD]]
    before, head = identity(payload, "before"), identity(payload, "head")
    line = " ".join(filter(None, ("pushed", what, "to", repo, f"({branch})" if branch else "")))
    url = f"{home}/compare/{quote(before, safe='')}...{quote(head, safe='')}" if before and head else ""
    return _Told(line=line, more="\n".join(subjects), url=url)


def _create(payload: object, repo: str, home: str) -> _Told:
    what, name = text(payload, "ref_type"), text(payload, "ref")
    if what not in ("branch", "tag") or not name:
        return _Told(line=f"created the repository {repo}", more=text(payload, "description"))
    return _Told(line=f"created the {what} {name} in {repo}", url=f"{home}/tree/{_quoted(name)}")


def _delete(payload: object, repo: str, home: str) -> _Told:
    what = text(payload, "ref_type")
    return _Told(line=f"deleted the {what if what == 'tag' else 'branch'} {text(payload, 'ref')} in {repo}")


def _fork(payload: object, repo: str, home: str) -> _Told:
    name, url = text(payload, "forkee", "full_name"), text(payload, "forkee", "html_url")
    return _Told(line=f"forked {repo} to {name}" if name else f"forked {repo}", url=url)


def _watch(payload: object, repo: str, home: str) -> _Told:
    return _Told(line=f"starred {repo}")


def _issue(payload: object, repo: str, home: str) -> _Told:
    return _numbered(payload, repo, home, key="issue", what="issue", path="issues", with_body="opened")


def _pull(payload: object, repo: str, home: str) -> _Told:
    return _numbered(payload, repo, home, key="pull_request", what="pull request", path="pull", with_body="opened")


def _discussion(payload: object, repo: str, home: str) -> _Told:
    return _numbered(payload, repo, home, key="discussion", what="discussion", path="discussions", with_body="created")


def _numbered(payload: object, repo: str, home: str, *, key: str, what: str, path: str, with_body: str) -> _Told:
    """`opened issue #5 in o/r: title`."""
    action = text(payload, "action")
    if action == "closed" and (text(payload, key, "merged_at") or is_true(payload, key, "merged")):
        action = "merged"
    which = number(payload, key, "number") or number(payload, "number")
    label = f"{what} #{which}" if which else f"{'an' if what == 'issue' else 'a'} {what}"
    url = text(payload, key, "html_url") or (f"{home}/{path}/{which}" if which else "")
    line = f"{action.replace('_', ' ') or 'changed'} {label} in {repo}"
    body = text(payload, key, "body") if action == with_body else ""
    return _Told(line=_titled(line, text(payload, key, "title")), more=body, url=url)


def _comment(payload: object, repo: str, home: str) -> _Told:
    """A comment on an issue, a pull request, a discussion or a commit."""
    line, url = f"commented on a commit in {repo}", ""
    for key, what, path in (
        ("issue", "issue", "issues"),
        ("pull_request", "pull request", "pull"),
        ("discussion", "discussion", "discussions"),
    ):
        which = number(payload, key, "number")
        if which:
            line = _titled(f"commented on {what} #{which} in {repo}", text(payload, key, "title"))
            url = f"{home}/{path}/{which}"
            break
    body = text(payload, "comment", "body")
    return _Told(line=line, more=body, url=text(payload, "comment", "html_url") or url, kind="comment")


def _review(payload: object, repo: str, home: str) -> _Told:
    which = number(payload, "pull_request", "number")
    label = f"pull request #{which}" if which else "a pull request"
    did = {"approved": "approved", "changes_requested": "asked for changes in"}.get(text(payload, "review", "state"))
    line = _titled(f"{did or 'reviewed'} {label} in {repo}", text(payload, "pull_request", "title"))
    url = text(payload, "review", "html_url") or (f"{home}/pull/{which}" if which else "")
    return _Told(line=line, more=text(payload, "review", "body"), url=url, kind="comment")


def _release(payload: object, repo: str, home: str) -> _Told:
    tag, name = text(payload, "release", "tag_name"), text(payload, "release", "name")
    line = f"{text(payload, 'action') or 'published'} the release {tag or name} of {repo}"
    url = text(payload, "release", "html_url") or (f"{home}/releases/tag/{_quoted(tag)}" if tag else "")
    body = text(payload, "release", "body")
    return _Told(line=_titled(line, name if name != tag and tag else ""), more=body, url=url, kind="release")


def _quoted(name: str) -> str:
    """A branch or tag as one piece of a path."""
    return quote(name, safe="/", errors="replace")


def _public(payload: object, repo: str, home: str) -> _Told:
    return _Told(line=f"made {repo} public")


def _member(payload: object, repo: str, home: str) -> _Told:
    who = text(payload, "member", "login")
    return _Told(line=f"{text(payload, 'action') or 'added'} {who or 'somebody'} as a collaborator of {repo}")


def _wiki(payload: object, repo: str, home: str) -> _Told:
    pages = [text(page, "title") for page in several(payload, "pages")[:_MAX_TOLD]]
    url = next((text(page, "html_url") for page in several(payload, "pages")), "")
    return _Told(line=_titled(f"edited the wiki of {repo}", ", ".join(filter(None, pages))), url=url, kind="edit")


#: By the type of the event; one that is not here is told by its name.
TELLERS: dict[str, Callable[[object, str, str], _Told]] = {
    "CommitCommentEvent": _comment,
    "CreateEvent": _create,
    "DeleteEvent": _delete,
    "DiscussionCommentEvent": _comment,
    "DiscussionEvent": _discussion,
    "ForkEvent": _fork,
    "GollumEvent": _wiki,
    "IssueCommentEvent": _comment,
    "IssuesEvent": _issue,
    "MemberEvent": _member,
    "PublicEvent": _public,
    "PullRequestEvent": _pull,
    "PullRequestReviewCommentEvent": _comment,
    "PullRequestReviewEvent": _review,
    "PushEvent": _push,
    "ReleaseEvent": _release,
    "WatchEvent": _watch,
}
