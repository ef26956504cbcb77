"""What a preview found, for a person: the outcome, the first posts as a table, and what to know of them."""

from __future__ import annotations

from terminal.printing import View, clean, complain, table

#: Posts in the table (count); `--json` has more.
ROWS = 20
TITLE_CHARS = 60


def show_preview(view: View) -> bool:
    """Print a preview; whether the scrape completed."""
    import click

    who = f"{view['source']}:{view['handle']}"
    if view["outcome"] != "COMPLETED":
        complain(f"{who}: {view['outcome']}: {view['error']}")
        _tell(view)
        return False
    named = f" ({view['display_name']})" if view["display_name"] else ""
    click.echo(clean(f"{who}{named}: {view['posts_found']} posts would be kept"))
    rows = [
        [post["published_at"], post["kind"], (post["title"] or post["post_text"])[:TITLE_CHARS], post["post_url"]]
        for post in view["posts"][:ROWS]
    ]
    if rows:
        table(["published", "kind", "title", "url"], rows)
    _tell(view)
    return True


def _tell(view: View) -> None:
    import click

    for note in view["notes"]:
        click.echo(clean(f"note: {note}"))
    if view.get("next"):
        click.echo(clean(view["next"]))
