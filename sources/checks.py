"""What is wrong with the sources of the settings, before anything is scraped. Light: nobody's code is run."""

from __future__ import annotations

from typing import Any

from sources.command_options import check_command
from sources.page_options import check_page
from sources.plugins import check_scraper


def check_sources(settings: Any) -> list[tuple[str, str]]:  # Any: config.Settings
    """Problems of pages, commands and scrapers: the setting, and a sentence that names the source."""
    wrong = [("pages", f"pages.{name} {text}") for name, table in settings.pages.items() for text in check_page(table)]
    wrong += [
        ("commands", f"commands.{name} {text}")
        for name, table in settings.commands.items()
        for text in check_command(table)
    ]
    wrong += [
        ("scrapers", f"scrapers: {name}: {text}")
        for name, entry in settings.scrapers.items()
        for text in check_scraper(entry)
    ]
    return wrong
