"""What feeds that have not changed cost their site: of the scrapes that were asked for, how many ended in which answer.

Every round is a refresh of all. Half of the feeds come as nginx gives them, with an ETag; the others say in
Cache-Control besides that they are right for an hour. nginx's log has the answers.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.common import NGINX, add_targets, begin, feed, free_port, gleand, need, serving, table

#: Longest time one round may take (seconds).
ROUND_S = 120.0


@contextmanager
def site(home: Path, count: int) -> Iterator[tuple[str, Path]]:
    """That many feeds of each kind behind nginx: where, and its log."""
    log = home / "access.log"
    for kind in ("plain", "fresh"):
        (home / "www" / kind).mkdir(parents=True)
        for number in range(count):
            (home / "www" / kind / f"{number}.xml").write_text(feed(number))
    for each in (home, home.parent):
        each.chmod(0o755)  # nginx started by root reads them as somebody else
    port = free_port()
    config = NGINX.format(home=home, port=port).replace("access_log off;", f"access_log {log};")
    config = config.replace("default_type", "location /fresh/ { expires 1h; } default_type")
    (home / "nginx.conf").write_text(config)
    command = [need("nginx", "nginx-light"), "-c", str(home / "nginx.conf"), "-p", str(home)]
    with serving(command, port, "/plain/0.xml", log=home / "nginx.log") as served:
        yield served.url, log


def answers(log: Path, kind: str) -> Counter[str]:
    """Statuses of all that was asked for by the daemon until now."""
    return Counter(re.findall(rf'"GET /{kind}/\S+ HTTP/1.1" (\d+) .*"gleand/', log.read_text()))


def refresh_all(url: str) -> None:
    """Scrape every target, and wait for the end."""
    with requests.Session() as http:
        http.trust_env = False
        http.post(f"{url}/api/users/refresh-all", json={}, timeout=30).raise_for_status()
        until = time.monotonic() + ROUND_S
        while (status := http.get(f"{url}/api/scrape-status", timeout=10).json())["running"]:
            time.sleep(0.02)
            if time.monotonic() > until:
                raise SystemExit(f"the round took longer than {ROUND_S:g} s")
    if status["completed_users"] != status["total_users"]:
        raise SystemExit(f"only {status['completed_users']} scrapes of {status['total_users']} completed")


def share(number: int, count: int) -> str:
    return f"{100 * number / count:.0f} %"


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--feeds", type=int, default=100, help="of each kind")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    begin(__doc__)
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="gleand-bench-") as name,
        site(Path(name) / "site", args.feeds) as (url, log),
    ):
        with gleand(Path(name)) as daemon:
            kinds = {"plain": "with an ETag", "fresh": "and right for an hour"}
            add_targets(daemon.url, [f"{url}/{kind}/{n}.xml" for n in range(args.feeds) for kind in kinds])
            for number in range(1, args.rounds + 1):
                before = {kind: answers(log, kind) for kind in kinds}
                refresh_all(daemon.url)
                for kind, shown in kinds.items():
                    new = answers(log, kind) - before[kind]
                    nothing = args.feeds - new.total()
                    row = {"round": number, "feeds": shown, "200": share(new["200"], args.feeds)}
                    rows.append(row | {"304": share(new["304"], args.feeds), "nothing": share(nothing, args.feeds)})
    table(rows)


if __name__ == "__main__":
    main()
