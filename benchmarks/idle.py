"""What a daemon costs before it has work, ours and Scrapyd's in turn: its first answer, and memory once it is idle.

From the start of the program to the first 200 of the call that `benchmarks.status` polls, and, a while later, the
memory and the CPU of the program and all of its processes (RSS counts what they share several times, PSS once). What it
prints is of this machine at this moment.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.common import Served, begin, below_cpu_s, cpu_s, descendants, gleand, over_rounds, pss_mb, rss_mb, table
from benchmarks.peers import scrapyd
from benchmarks.status import OURS

Program = Callable[[Path], AbstractContextManager[Served]]


def measure(program: Program, settle_s: float, idle_s: float) -> dict[str, float]:
    """Start it, let it settle, watch it idle."""
    with tempfile.TemporaryDirectory(prefix="gleand-bench-") as name, program(Path(name)) as served:
        time.sleep(settle_s)
        used = cpu_s(served.pid) + below_cpu_s(served.pid)
        time.sleep(idle_s)
        used = cpu_s(served.pid) + below_cpu_s(served.pid) - used
        pids = [served.pid, *descendants(served.pid)]
        return {
            "first answer s": served.first_answer_s,
            "processes": float(len(pids)),
            "RSS MB": sum(map(rss_mb, pids)),
            "PSS MB": sum(map(pss_mb, pids)),
            "of the daemon itself": pss_mb(served.pid),
            "CPU %": 100 * used / idle_s,
        }


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settle-s", type=float, default=3.0, help="from the first answer to the measurement")
    parser.add_argument("--idle-s", type=float, default=5.0, help="how long the CPU is watched")
    parser.add_argument("--no-peer", action="store_true", help="measure ours alone")
    args = parser.parse_args()
    begin(__doc__)
    programs: dict[str, Program] = {"gleand": lambda home: gleand(home, path=OURS)}
    if not args.no_peer:
        programs["Scrapyd"] = scrapyd
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    for program in programs.values():
        measure(program, 0.0, 0.1)  # not counted: the files are read and compiled for the first time
    for _ in range(args.rounds):
        for name, program in programs.items():
            seen[name].append(measure(program, args.settle_s, args.idle_s))
    table([{"": name} | over_rounds(rounds) for name, rounds in seen.items()])
    for name, rounds in seen.items():
        print(f"{name}: first answers", *(f"{each['first answer s']:.2f}" for each in rounds))


if __name__ == "__main__":
    main()
