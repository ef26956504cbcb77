"""What the benchmarks share: a daemon of their own, feeds behind nginx, and reading /proc."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
NGINX = """daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
uwsgi_temp_path {home}/u; scgi_temp_path {home}/s; keepalive_requests 1000000;
server {{ listen 127.0.0.1:{port}; root {home}/www; default_type application/rss+xml; }} }}
"""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def feed(number: int, *, items: int = 10) -> str:
    """About 5 KB of RSS, different for each number."""
    item = (
        "<item><guid>{n}-{i}</guid><title>Post {i} of {n}</title><link>http://127.0.0.1/{n}/{i}</link>"
        "<pubDate>Tue, 01 Sep 2026 10:{i:02d}:00 GMT</pubDate><description>{text}</description></item>"
    )
    text = "A sentence that a person might have written. " * 6
    body = "".join(item.format(n=number, i=i, text=text) for i in range(items))
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>Feed {number}</title>{body}</channel></rss>'


def cpu_s(pid: int) -> float:
    """User and system time of one process (seconds)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serve_feeds(home: Path, count: int) -> tuple[subprocess.Popen[bytes], int]:
    """Start nginx over that many feeds."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        sys.exit("this benchmark needs nginx (Debian: nginx-light)")
    (home / "www").mkdir(parents=True)
    for number in range(count):
        (home / "www" / f"{number}.xml").write_text(feed(number))
    os.chmod(home, 0o755)
    port = free_port()
    (home / "nginx.conf").write_text(NGINX.format(home=home, port=port))
    return subprocess.Popen([binary, "-c", str(home / "nginx.conf"), "-p", str(home)]), port


def start_daemon(home: Path, **more: Any) -> tuple[subprocess.Popen[bytes], str]:
    """Start a daemon of its own and wait until it answers."""
    port = free_port()
    chosen = {
        "host_delay_s": 0,
        "host_concurrency": 1000,
        "allow_private_networks": "true",
        "default_schedule": "manual",
        "log_level": "warning",
    } | more
    flags = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, str(ROOT / "daemon.py"), "--port", str(port), "--data-dir", str(home / "data"), *flags]
    daemon = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            if requests.get(f"{url}/readyz", timeout=2).status_code == 200:
                return daemon, url
        except requests.RequestException:
            time.sleep(0.05)
    sys.exit("the daemon did not start")


def rss_mb(pid: int) -> float:
    """Resident memory of one process (MB)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
