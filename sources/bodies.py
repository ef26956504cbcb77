"""Undoing the compression of an answer, never past a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from errors import ScrapeFailed


class TooLarge(ScrapeFailed):
    """The body goes past the limit; what came before that was given."""


class Inflate:
    """Undoes gzip (any number of members) or deflate (zlib's or raw), never past the limit."""

    def __init__(self, wbits: int, limit: int) -> None:
        self._wbits = wbits
        self._limit = limit
        self._made = 0
        self._started = False
        self._stream = zlib.decompressobj(wbits)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What comes out of the next piece. Raises ScrapeFailed."""
        while data:
            self._choose(data)
            try:
                out = self._stream.decompress(data, self._limit - self._made + 1)
            except zlib.error as exc:
                raise ScrapeFailed("the answer is not compressed the way it says it is") from exc
            self._made += len(out)
            if self._made > self._limit:
                yield out[: self._limit - self._made]
                raise TooLarge(f"the answer is larger than the limit of {self._limit} bytes, decompressed")
            yield out
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data = self._stream.unused_data
                if self._wbits != 31 or not data.startswith(b"\x1f"):
                    return  # padding after the last member
                self._stream = zlib.decompressobj(self._wbits)

    def _choose(self, data: bytes) -> None:
        if not self._started and self._wbits == zlib.MAX_WBITS:
            if data[0] & 0x0F != 8:  # no zlib header: raw deflate, as some servers send it
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._started = True

    def finish(self) -> None:
        """There is no more. Raises ScrapeFailed when there should be."""
        if not self._stream.eof:
            raise ScrapeFailed("the answer was cut short")


def inflater(encoding: str, limit: int) -> Inflate | None:
    """What undoes a Content-Encoding; None for no encoding. Raises ScrapeFailed for one that we do not send for."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip"):
        return Inflate(31, limit)
    if name == "deflate":
        return Inflate(zlib.MAX_WBITS, limit)
    raise ScrapeFailed("the answer is encoded in a way that was not asked for")
