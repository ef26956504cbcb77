"""Two ways to poll an address over kept connections: as fast as it answers (wrk), and at a pace (a client of our own).

As fast as it answers is a closed loop: each connection asks again once it has its answer, so whoever answers slowly is
asked less, and nothing is left over for anybody else on the machine. At a pace, a request is due at its time whether
or not the one before it was answered, and what it waited for its turn counts.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.common import need

#: An answer that takes longer is an error, for both (seconds); wrk's own default.
TIMEOUT_S = 2
_Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_DONE = """function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("figures %d %d %f %f %f %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency.max, e.connect + e.read + e.write + e.status, e.timeout))
end
"""


def closed_loop(url: str, connections: int, seconds: float) -> dict[str, float]:
    """Let wrk poll with one thread; latencies in milliseconds.

    An answer that took longer than TIMEOUT_S counts as a time-out and is not among the latencies; what was not answered
    at all shows nowhere. To the percentiles wrk adds what a connection that had to wait would have asked meanwhile.
    """
    wrk = need("wrk", "wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_DONE)
        script.flush()
        command = [
            wrk,
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}",
            f"--timeout={TIMEOUT_S}s",
            "--latency",
        ]
        command += ["-s", script.name, url]
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    line = next(line for line in told.splitlines() if line.startswith("figures "))
    count, micros, p50, p99, longest, errors, late = map(float, line.split()[1:])
    return {
        "answers/s": 1e6 * count / micros,
        "p50 ms": p50 / 1000,
        "p99 ms": p99 / 1000,
        "max ms": longest / 1000,
        "errors": errors,
        "timeouts": late,
    }


@dataclass(slots=True)
class _Seen:
    """What all pollers saw (seconds)."""

    from_sent: list[float] = field(default_factory=list)
    from_due: list[float] = field(default_factory=list)
    errors: int = 0
    late: int = 0


def paced(url: str, connections: int, seconds: float, *, hz: float) -> dict[str, float]:
    """Poll at `hz` on each connection, their turns spread evenly; latencies in milliseconds.

    From sending: what the server and the way there took. From when it was due: also what it waited for the answer
    before it, and for this client, which shares the machine and wakes up to a millisecond late.
    """
    seen = _Seen()
    asyncio.run(_all(url, connections, seconds, 1.0 / hz, seen))
    return {
        "answers/s": len(seen.from_sent) / seconds,
        "p50 ms": _percentile_ms(seen.from_sent, 0.5),
        "p99 ms": _percentile_ms(seen.from_sent, 0.99),
        "max ms": _percentile_ms(seen.from_sent, 1.0),
        "p99 from due ms": _percentile_ms(seen.from_due, 0.99),
        "errors": float(seen.errors),
        "timeouts": float(seen.late),
    }


def _percentile_ms(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


async def _all(url: str, connections: int, seconds: float, period_s: float, seen: _Seen) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time() + 0.1
    starts = (began + period_s * number / connections for number in range(connections))
    await asyncio.gather(*(_poll(url, start, began + seconds, period_s, seen) for start in starts))


async def _poll(url: str, due: float, until: float, period_s: float, seen: _Seen) -> None:
    """One connection; a new one after an error."""
    parts, loop = urlsplit(url), asyncio.get_running_loop()
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    link: _Link | None = None
    while due < until:
        await asyncio.sleep(due - loop.time())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                link = link or await asyncio.open_connection(parts.hostname, parts.port)
                sent = loop.time()
                link[1].write(request)
                seen.errors += await _status(link[0]) != 200
            seen.from_sent.append(loop.time() - sent)
            seen.from_due.append(loop.time() - due)
        except TimeoutError:
            seen.late += 1
            link = _drop(link)
        except (OSError, EOFError, ValueError):
            seen.errors += 1
            link = _drop(link)
        due += period_s
    _drop(link)


def _drop(link: _Link | None) -> _Link | None:
    """Close it; gives what is left, which is nothing."""
    if link is not None:
        link[1].close()
    return None


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(head[9:12])
