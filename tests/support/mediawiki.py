"""MediaWiki on SQLite behind PHP's own server, by Debian's packages: an account is a user, a post an edit.

Nothing is copied: the wiki's settings and its database are in the test's directory, and MW_CONFIG_FILE says so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from tests.support.daemon import free_port
from tests.support.waiting import wait_until

CODE = Path("/usr/share/mediawiki")
_PASSWORD = "correct-horse-battery"
_DEBIAN = "mediawiki php-cli php-sqlite3 php-mbstring php-xml php-intl"


def need_mediawiki() -> str:
    """The php command; without the wiki the test is skipped, also in CI: only NEED_SERVERS makes that a failure."""
    php = shutil.which("php")
    if php is None or not (CODE / "maintenance" / "install.php").is_file():
        reason = f"MediaWiki is not installed (Debian: {_DEBIAN})"
        if os.environ.get("NEED_SERVERS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return php


class MediaWiki:
    """A wiki with users; use as a context manager."""

    def __init__(self, home: Path) -> None:
        self.php = need_mediawiki()
        self.home = home
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.env = {**os.environ, "MW_CONFIG_FILE": str(home / "LocalSettings.php"), "LC_ALL": "C.UTF-8"}
        self._minutes = 0
        home.mkdir(parents=True)
        where = ["--dbtype=sqlite", f"--dbpath={home}", "--dbname=wiki", f"--confpath={home}"]
        itself = [f"--server={self.url}", "--scriptpath=", f"--pass={_PASSWORD}", "Wiki", "Admin"]
        self.maintain("install", *where, *itself)

    # -- what people do there ------------------------------------------------------------------------------------

    def maintain(self, script: str, *args: str, text: str = "") -> None:
        """Run one of the scripts that come with the software."""
        command = [self.php, str(CODE / "maintenance" / f"{script}.php"), *args]
        done = subprocess.run(command, env=self.env, input=text, text=True, capture_output=True, cwd=self.home)
        assert done.returncode == 0, (script, args, done.stdout[-2000:], done.stderr[-2000:])

    def add_user(self, name: str) -> None:
        """Let somebody sign up."""
        self.maintain("createAndPromote", name, _PASSWORD)

    def edit(self, user: str, title: str, text: str, *, summary: str = "") -> None:
        """Edit a page now, or begin one."""
        self.maintain("edit", "--user", user, "--summary", summary, title, text=text)

    def write(self, user: str, titles: Sequence[str], *, summary: str = "", apart_min: int = 1) -> None:
        """Begin pages, so many minutes after each other, in 2024; later calls go on from there."""
        files = []
        self._minutes += 1
        for title in titles:
            self._minutes += apart_min
            file = self.home / "texts" / f"{title}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"What {user} knows of {title}.", encoding="utf-8")
            written = (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=self._minutes)).timestamp()
            os.utime(file, (written, written))
            files.append(str(file))
        self.maintain("importTextFiles", "--user", user, "--summary", summary, "--use-timestamp", *files)

    def delete(self, title: str) -> None:
        """Delete a page with its history."""
        self.maintain("deleteBatch", text=f"{title}\n")

    def numbers(self, user: str) -> list[str]:
        """Numbers of a user's edits, newest first, as the wiki itself says."""
        query = {"action": "query", "list": "usercontribs", "ucuser": user, "uclimit": "500", "format": "json"}
        answer = requests.get(f"{self.url}/api.php", params=query, timeout=30).json()
        return [str(edit["revid"]) for edit in answer["query"]["usercontribs"]]

    # -- how it is asked -----------------------------------------------------------------------------------------

    def feed(self, user: str) -> str:
        """Address of the Atom feed of a user's edits."""
        return f"{self.url}/api.php?action=feedcontributions&user={quote(user)}&feedformat=atom"

    def asked(self, part: str) -> list[str]:
        """Requests so far whose address has this part, in order.

        A line is written after the answer, and one request after the other is served: so one of ours comes last.
        """
        requests.get(f"{self.url}/mark.txt", timeout=30)
        log = (self.home / "php.log").read_text(encoding="utf-8", errors="replace")
        return [path for path in re.findall(r"\[\d{3}\]: GET (\S+)", log) if part in path]

    def __enter__(self) -> MediaWiki:
        command = [self.php, "-S", self.host, "-t", str(CODE)]
        with open(self.home / "php.log", "wb") as log:
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, cwd=self.home)
        try:
            wait_until(self.answers, within_s=30)
        except BaseException:
            self.__exit__()
            raise
        return self

    def answers(self) -> bool:
        """It serves; fails at once when it has ended instead."""
        assert self.process.poll() is None, (self.home / "php.log").read_text(encoding="utf-8")
        try:
            return requests.get(f"{self.url}/api.php?action=query&format=json", timeout=10).status_code == 200
        except requests.RequestException:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)
