"""What is not loaded until the port is open; docs/adr/0013 says what each of them costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: The path of a start up to the first answer of the door.
START = "cli config jobs.schedules daemon store.engine jobs.pool jobs.service jobs.scrape jobs.scheduler server".split()
LATER = "flask werkzeug alembic mako pydantic rich requests lxml feedparser platformdirs sqlalchemy.dialects.postgresql"


def test_a_start_loads_neither_parsers_nor_flask_nor_what_the_settings_do_not_ask_for() -> None:
    code = f"import sys, {', '.join(START)}; print([name for name in {LATER.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
