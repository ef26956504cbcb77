"""What a preview found, for a person: the outcome, the first posts as a table, and what to know of them."""

from __future__ import annotations

from terminal.printing import View, complain, table

#: Posts in the table (count); `--json` has more.
ROWS = 20
TITLE_CHARS = 60


def show_preview(view: View) -> bool:
    """Print a preview; whether the scrape completed."""
    import click

    who = f"{view['source']}:{view['handle']}"
    if view["outcome"] != "COMPLETED":
        complain(f"{who}: {view['outcome']}: {view['error']}")
        return False
    named = f" ({view['display_name']})" if view["display_name"] else ""
    click.echo(f"{who}{named}: {view['posts_found']} posts would be kept")
    rows = [
        [post["published_at"], post["kind"], (post["title"] or post["post_text"])[:TITLE_CHARS], post["post_url"]]
        for post in view["posts"][:ROWS]
    ]
    if rows:
        table(["published", "kind", "title", "url"], rows)
    for note in view["notes"]:
        click.echo(f"note: {note}")
    return True
