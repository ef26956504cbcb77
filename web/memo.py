"""Requests that came before, byte for byte: a client that polls sends the same head each time.

A head that is here needs no parser, no task and no second look at who asks: the door has judged these very bytes, at
this very address of ours, and its judgement depends on nothing else that changes while the daemon runs. What it found
out is kept as a recipe; the answer is made from the board as it stands. Not here: which requests may be kept, which
the connection says of the bytes and the door of their meaning.

No request can be smuggled past the parser: what is looked up is one whole read, between two messages, and it is equal
to what the parser once took whole as one message without a body. Anything that differs, or goes on, goes to the parser.
A token cannot be guessed by timing, since a dictionary compares hashes first, and those are seeded anew at each start.
"""

from __future__ import annotations

from web.answers import Headers, as_bytes, raw_headers
from web.protocols import Page, ServiceLike
from web.status import StatusCall, held_page, status_answer

#: Requests kept (count); the oldest goes.
MOST = 256
#: Longest head that is kept (bytes).
HEAD_BYTES = 2048

Pairs = list[tuple[bytes, bytes]]
#: The connection's own address, or None, and a head.
Key = tuple[tuple[str, int | None] | None, bytes]


class Recipe:
    """How a status call is answered that the gate has let in, and that does not wait."""

    __slots__ = ("_call", "_date", "_head", "_more", "_page", "_ready", "_service", "_tags")

    def __init__(
        self, service: ServiceLike, call: StatusCall, *, tags: frozenset[str] | None, head: bool, more: Headers
    ) -> None:
        """`tags`: of If-None-Match; `head`: whether it is a HEAD; `more`: headers that depend on who asks."""
        self._service, self._call, self._tags, self._head, self._more = service, call, tags, head, more
        self._page: Page | None = None
        self._date: Pairs | None = None
        self._ready = b""

    def answer(self, date: Pairs) -> bytes | None:
        """Give the whole answer as of now; None when the board does not hold the page. `date`: headers to begin with.

        It is made anew when the board shows another page, or there is another `date`; both are never changed, but
        replaced.
        """
        page = held_page(self._service, self._call)
        if page is not self._page or date is not self._date:
            if page is None:
                return None
            answer = status_answer(page, self._tags)
            self._ready = as_bytes(answer, [*date, *raw_headers(answer, self._more)], head=self._head)
            self._page, self._date = page, date
        return self._ready


class Memo:
    """Recipes by request. Used on the loop only."""

    def __init__(self) -> None:
        self._recipes: dict[Key, Recipe] = {}

    def __len__(self) -> int:
        return len(self._recipes)

    def keep(self, key: Key, recipe: Recipe) -> None:
        """Remember how a request is answered."""
        if key not in self._recipes and len(self._recipes) >= MOST:
            del self._recipes[next(iter(self._recipes))]
        self._recipes[key] = recipe

    def answer(self, key: Key, date: Pairs) -> bytes | None:
        """Give the whole answer to a request that came before; None: it did not, or it has to go the usual way."""
        recipe = self._recipes.get(key)
        if recipe is None:
            return None
        try:
            return recipe.answer(date)
        except Exception:  # noqa: BLE001  # the usual way meets it too, and says what it is
            return None
