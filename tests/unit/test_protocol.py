"""Posts on the wire: what arrives is what the daemon can keep, whichever way it was read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from jobs.protocol import MEDIA, TEXT_FIELDS, Decoder, ProtocolError, encode, order_message, order_of, post_from_wire
from jobs.protocol import post_to_wire as wire
from model import FetchLimits, Order, Post, Target

AT = datetime(2026, 1, 1, 12, 30, 15, 250_000, tzinfo=UTC)
POST = Post(
    native_id="1", url="http://a.example/", title="t", text="é \\u0041 \n", html="<p>", published_at=AT, media=("m",)
)


class Text(str):
    """As parsers give it."""


def travelled(post: Post) -> Post:
    (message,) = Decoder().feed(encode({"t": "posts", "token": 1, "posts": [wire(post)]}))
    return post_from_wire(message["posts"][0])


def changed(**fields: Any) -> Post:
    return Post(**({name: getattr(POST, name) for name in Post.__dataclass_fields__} | fields))


def test_a_post_arrives_as_it_was() -> None:
    assert travelled(POST) == POST
    assert travelled(changed(text="plain", published_at=None, media=())) == changed(
        text="plain", published_at=None, media=()
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"title": "a\0b"}, {"title": "a\ufffdb"}),
        ({"title": "a\ud800b"}, {"title": "a?b"}),
        ({"title": Text("a")}, {"title": "a"}),
        ({"media": [Text("a"), "b"]}, {"media": ("a", "b")}),
        ({"media": ("a",) * 2 * MEDIA}, {"media": ("a",) * MEDIA}),
        ({"published_at": AT.astimezone(timezone(timedelta(seconds=3601)))}, {"published_at": AT}),
        ({"published_at": datetime(1, 1, 2, tzinfo=UTC)}, {"published_at": None}),
        ({"published_at": datetime(9999, 1, 2, tzinfo=UTC)}, {"published_at": None}),
    ],
)
def test_what_does_not_fit_is_replaced_cut_or_left_out(given: dict[str, Any], kept: dict[str, Any]) -> None:
    assert travelled(changed(**given)) == changed(**kept)


@pytest.mark.parametrize("name", ["native_id", "url", "title", "author", "kind"])
def test_a_text_that_is_too_long_is_cut(name: str) -> None:
    most = TEXT_FIELDS[name]
    assert getattr(travelled(changed(**{name: "x" * (most + 1)})), name) == "x" * most
    assert getattr(travelled(changed(**{name: "x" * most})), name) == "x" * most


def test_a_time_without_an_offset_is_refused() -> None:
    with pytest.raises(ProtocolError, match="without an offset"):
        travelled(changed(published_at=datetime(2026, 1, 1)))  # noqa: DTZ001 - that is what is refused


@pytest.mark.parametrize("wrong", [{"media": (b"x",)}, {"published_at": AT.date()}, {"media": {1: object()}}])
def test_what_is_no_json_is_not_sent(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        travelled(changed(**wrong))


def test_an_order_arrives_as_it_was() -> None:
    target = Target(id=1, source="feed", handle="h", url="http://a.example/", range=5, remember={"etag": '"1"'})
    limits = FetchLimits(user_agent="é", max_posts=7)
    options = {"kind": "page", "selectors": ["a", {"b": 1}]}
    order = Order(run_id=1, token=1, target=target, timeout_s=1.5, stall_timeout_s=1, limits=limits, options=options)
    (message,) = Decoder().feed(encode(order_message(order)))
    assert order_of(message) == order
