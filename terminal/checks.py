"""Whether the scrapers of the settings can be imported, as a worker would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

#: Imports a scraper, and fails where there is no such function.
_IMPORT = "import importlib,sys;m,f=sys.argv[1].split(':');callable(getattr(importlib.import_module(m),f)) or 1/0"
#: How long an import may take (seconds).
IMPORT_S = 30.0


def import_problems(settings: Any) -> list[tuple[str, str]]:  # Any: config.Settings
    """Import each scraper as a worker would, in a process of its own: it is somebody's code."""
    paths = [str(settings.scraper_path or ""), str(Path(__file__).resolve().parent.parent)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("GLEAND_")}
    env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    wrong = []
    for name, entry in settings.scrapers.items():
        try:
            command = [sys.executable, "-P", "-c", _IMPORT, entry]
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=IMPORT_S, check=False)
            why = (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""
        except subprocess.TimeoutExpired:
            why = f"it was still importing after {IMPORT_S:g} s"
        if why:
            wrong.append(("scrapers", f"scrapers: {name} = {entry} cannot be imported: {why}"))
    return wrong
