"""Every error gleand raises. One root, few families; messages are sentences. HTTP codes live in web/answers.py."""

from __future__ import annotations

from typing import Any


class GleandError(Exception):
    """Root. `code` is stable and for machines, the message is for people."""

    code = "error"

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:  # Any: JSON values
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class BadRequest(GleandError):
    """The shape of a request is wrong; nothing was changed."""

    code = "bad_request"


class Unusable(GleandError):
    """A well-formed value that cannot work (unknown source, a schedule that never fires)."""

    code = "unusable"


class NotFound(GleandError):
    """No such target, run or sweep."""

    code = "not_found"


class Refused(GleandError):
    """The lifecycle says no; `refused_by` in the details names the guard."""

    code = "refused"


class InvalidTransition(Refused):
    """The table has no such edge."""

    code = "invalid_transition"


class GuardRejected(Refused):
    """The edge exists and one of its guards did not hold."""

    code = "guard_rejected"


class LostRace(Refused):
    """The row moved between reading and writing it: what was done beside it must be undone too."""

    code = "lost_race"


class AlreadyRunning(Refused):
    """Asked for what is in progress or queued already."""

    code = "already_running"


class Busy(GleandError):
    """Every worker is busy; nothing was begun, and a moment later it may be."""

    code = "busy"


class TooMany(GleandError):
    """As many of these are in progress as may be at once; nothing was done."""

    code = "too_many"


class Draining(GleandError):
    """The daemon is stopping and takes no more writes."""

    code = "draining"


class CannotListen(GleandError):
    """The port is taken, or the address is not ours."""

    code = "cannot_listen"


class StoreUnavailable(GleandError):
    """The database refused or did not answer; nothing of the request was kept."""

    code = "store_unavailable"


class StoreRejected(GleandError):
    """The database took nothing of one operation, nor would it the next time: a fault of ours, or of the data."""

    code = "internal"


class ScrapeFailed(GleandError):
    """Raised by sources: this run cannot succeed, and the message says why."""

    code = "scrape_failed"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
