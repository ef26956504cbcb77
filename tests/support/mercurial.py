"""hgweb: a real server that nobody here wrote; a repository is an account, a commit a post."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import requests

from tests.support.daemon import free_port
from tests.support.waiting import wait_until


def need_hg() -> str:
    """The hg command; skips the test where it is missing, fails it in CI."""
    binary = shutil.which("hg")
    if binary is None:
        reason = "Mercurial is not installed (Debian: mercurial)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return binary


class Hgweb:
    """Repositories behind `hg serve`; use as a context manager."""

    def __init__(self, home: Path, names: list[str]) -> None:
        self.hg = need_hg()
        self.home = home
        self.env = {**os.environ, "HGRCPATH": "", "HGUSER": "Ann Author <ann@a.example>", "HGENCODING": "utf-8"}
        for name in names:
            (home / name).mkdir(parents=True)
            self.run(name, "init")
            self.commit(name, "first commit")
        self.port = free_port()

    def run(self, name: str, *args: str) -> None:
        """A command in a repository."""
        subprocess.run([self.hg, *args], cwd=self.home / name, env=self.env, check=True, capture_output=True)

    def commit(self, name: str, message: str) -> None:
        """Add a changeset."""
        with open(self.home / name / "file.txt", "a", encoding="utf-8") as file:
            file.write(f"{message}\n")
        self.run(name, "commit", "--addremove", "--message", message)

    def feed(self, name: str, kind: str = "atom-log") -> str:
        """Address of a repository's feed."""
        return f"http://127.0.0.1:{self.port}/{name}/{kind}"

    def __enter__(self) -> Hgweb:
        config = self.home / "hgweb.conf"
        config.write_text(f"[paths]\n/ = {self.home}/*\n", encoding="utf-8")
        command = [self.hg, "serve", "-a", "127.0.0.1", "-p", str(self.port), "--webdir-conf", str(config)]
        with open(self.home / "hgweb.log", "wb") as log:
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        wait_until(self.answers, within_s=20)
        return self

    def answers(self) -> bool:
        """It serves pages."""
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)
