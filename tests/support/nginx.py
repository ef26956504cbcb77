"""nginx: the server that most static sites are behind, with a configuration of its own in a directory of the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.support.daemon import free_port
from tests.support.waiting import wait_until

#: What is asked for to see how far the log is.
_MARK = "/mark"
_LOG = """{"at": $msec, "status": $status, "path": "$request_uri", "agent": "$http_user_agent",
 "encoding": "$sent_http_content_encoding", "etag": "$sent_http_etag", "asked_etag": "$http_if_none_match",
 "asked_since": "$http_if_modified_since"}""".replace("\n", "")
#: One process, so that its pid is the one we started, it needs no other user, and its log is in the order of the
#: requests. Nothing is outside the directory. `text/xml` is what nginx calls a file that ends in `.atom.xml`.
_CONFIG = """
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 64; }}
http {{
  client_body_temp_path temp_body;
  proxy_temp_path temp_proxy;
  fastcgi_temp_path temp_fastcgi;
  uwsgi_temp_path temp_uwsgi;
  scgi_temp_path temp_scgi;
  types {{ text/html html; text/xml xml; text/plain txt; }}
  gzip on;
  gzip_min_length 20;
  gzip_types text/xml text/plain;
  log_format asked escape=json '{log}';
  server {{
    listen 127.0.0.1:{port};
    root "{site}";
    access_log asked.log asked;
    {server}
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One line of the access log; what was not sent is empty."""

    #: When it was answered (seconds since 1970).
    at: float
    status: int
    path: str
    agent: str
    #: Content-Encoding and ETag of the answer.
    encoding: str
    etag: str
    #: If-None-Match and If-Modified-Since of the request.
    asked_etag: str
    asked_since: str


def need_nginx() -> str:
    """The nginx command; skips the test where it is missing, fails it in CI and where NEED_SERVERS is set."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        reason = "nginx is not installed (Debian: nginx-light)"
        if os.environ.get("CI") or os.environ.get("NEED_SERVERS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return binary


class Nginx:
    """Serves the directory `site` on loopback; use as a context manager."""

    def __init__(self, home: Path, *, server: str = "") -> None:
        """`server`: lines for the server's block, such as `expires 1h;`."""
        self.binary = need_nginx()
        self.home, self.site = home, home / "site"
        self.site.mkdir(parents=True)
        self.server = server
        self.port = free_port()
        self._marks = 0

    def url(self, path: str) -> str:
        """Address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def __enter__(self) -> Nginx:
        config = self.home / "nginx.conf"
        text = _CONFIG.format(log=_LOG, port=self.port, site=self.site, server=self.server)
        config.write_text(text, encoding="utf-8")
        command = [self.binary, "-p", str(self.home), "-c", str(config), "-e", str(self.home / "error.log")]
        self.process = subprocess.Popen(command)
        try:
            wait_until(self.answers, within_s=20)
        except BaseException:
            self.__exit__()
            raise
        return self

    def answers(self) -> bool:
        """It serves; fails at once when it has ended instead."""
        assert self.process.poll() is None, (self.home / "error.log").read_text(encoding="utf-8")
        try:
            return requests.get(self.url(_MARK), timeout=5).status_code == 404
        except requests.RequestException:
            return False

    def asked(self, path: str | None = None) -> list[Request]:
        """Requests so far, of one path or all, in order.

        A line is written after the answer, so a request of ours comes last and is waited for.
        """
        self._marks += 1
        mark = f"{_MARK}?{self._marks}"
        requests.get(self.url(mark), timeout=5)
        log = self.home / "asked.log"
        wait_until(lambda: f'"path": "{mark}"' in log.read_text(encoding="utf-8"))
        found = [Request(**json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]
        return [one for one in found if not one.path.startswith(_MARK) and path in (None, one.path)]

    def statuses(self, path: str) -> list[int]:
        """What requests for a path were answered with, in order."""
        return [one.status for one in self.asked(path)]

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)
