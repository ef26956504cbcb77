"""What the head of an XML feed says of its future and its past: when to come back, where older items are."""

from __future__ import annotations

import re

from sources.xml import Document, Fields, text_of

#: Longest time that a feed is believed to have nothing new (seconds).
MAX_FRESH_S = 86400.0
_PERIODS_S = {"hourly": 3600.0, "daily": 86400.0, "weekly": 604800.0, "monthly": 2592000.0, "yearly": 31536000.0}
#: In the order of preference: RFC 5005 has paged feeds and archived ones.
_OLDER = ("next", "prev-archive")


def fresh_s(head: Fields) -> float:
    """How long there will be nothing new (seconds): the longer of RSS's ttl and the syndication module; 0: not said.

    A day at most: who publishes once a year would not want to be forgotten.
    """
    ttl = _number(text_of(head, "ttl")) * 60.0
    period, frequency = text_of(head, "sy:updateperiod").strip().lower(), text_of(head, "sy:updatefrequency")
    update = 0.0
    if period in _PERIODS_S or _number(frequency):
        update = _PERIODS_S.get(period, _PERIODS_S["daily"]) / (_number(frequency) or 1)
    return min(max(ttl, update), MAX_FRESH_S)


def older(document: Document, head: Fields) -> str:
    """Address of the document with the items before these; empty where there is none."""
    links = head.get("atom:link", ())
    for rel in _OLDER:
        for element in links:
            if element.get("rel", "").lower().rpartition("/")[2] == rel:
                found = document.link(element.get("href"), element)
                if found:
                    return found
    return ""


def _number(text: str) -> int:
    """A whole number as people write it; 0 for anything else."""
    found = re.fullmatch(r"\s*(\d{1,9})(?:\.0*)?\s*", text, re.ASCII)
    return int(found[1]) if found else 0
