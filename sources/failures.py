"""Why a request got no answer, in one sentence of ours, without a word of the server's."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import IncompleteRead

import requests
import urllib3

from model import FetchLimits


def causes(exc: BaseException) -> Iterator[BaseException]:
    """The error, what it wraps and what it came from; at most twelve."""
    queue: list[object] = [exc]
    for _ in range(12):
        if not queue:
            return
        one = queue.pop(0)
        if isinstance(one, BaseException):
            yield one
            queue += [*one.args, getattr(one, "reason", None), one.__cause__]


def is_network(exc: BaseException) -> bool:
    """Whether nobody answered: the name, the way or the network failed, not the server's own work.

    A machine that refuses the connection has answered.
    """
    kinds = (
        urllib3.exceptions.NameResolutionError,
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        requests.ConnectTimeout,
    )
    known = tuple(causes(exc))
    return any(isinstance(cause, kinds) for cause in known) and not any(
        isinstance(cause, ConnectionRefusedError) for cause in known
    )


def reason(exc: BaseException, host: str, limits: FetchLimits) -> str:
    """Say what happened."""
    known = tuple(causes(exc))

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in known)

    if any_is(urllib3.exceptions.NameResolutionError):
        return f"the name of {host} cannot be resolved"
    if any_is(ConnectionRefusedError):
        return f"{host} refused the connection"
    if any_is(urllib3.exceptions.NewConnectionError):  # before the time-out, which it is a kind of
        return f"{host} cannot be reached"
    if any_is(requests.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
        return f"connecting to {host} took longer than {limits.connect_timeout_s:g} s"
    if any_is(requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError):
        return f"{host} sent nothing for {limits.read_timeout_s:g} s"
    if any_is(requests.exceptions.SSLError, urllib3.exceptions.SSLError):
        return f"there is no secure connection to {host}: its certificate or its TLS is not acceptable"
    if any_is(IncompleteRead):
        return f"the answer of {host} was cut short"
    if any_is(requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError):
        return "the address has a bad host or port"
    return f"the connection to {host} broke, or what came over it is not HTTP"
