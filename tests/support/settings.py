"""Settings that make every function of tests/support/scrapers.py a source."""

from __future__ import annotations

import re

from tests.support.daemon import SCRAPERS


def scrapers(module: str = "scrapers") -> dict[str, str]:
    """`scrapers` and `scraper_path` for a Daemon."""
    text = (SCRAPERS / f"{module}.py").read_text(encoding="utf-8")
    names = re.findall(r"^def (\w+)\(target, http\)", text, re.MULTILINE)
    pairs = ",".join(f"{name}={module}:{name}" for name in names)
    return {"scrapers": pairs, "scraper_path": str(SCRAPERS)}
