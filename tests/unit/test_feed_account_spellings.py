"""However an account that is followed by its feed is written, it is one target; other pages are left to `feed`."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from errors import Unusable
from sources.registry import BUILT_IN, Registry
from sources.urls import normalise_url
from tests.support.services import registry

NAMES = ("gitlab", "youtube", "lobsters", "arxiv", "gitea", "reddit", "mercurial")
CHANNEL = "UCHnyfMqiRRG1u-2MsSQLbXA"
LIST = "PLkahZjV5wKe8w91V35LfDhTqdk9cPR7xZ"
ALL = Registry(own={}, bases={}, enabled=("reddit",))
ARXIV = "https://export.arxiv.org/api/query?search_query=au:{}&sortBy=submittedDate&sortOrder=descending"

#: Source, handle, address that is fetched first (its beginning), and the spellings.
SAME: list[tuple[str, str, str, list[str]]] = [
    (
        *("gitlab", "ann_b.c", "https://gitlab.com/ann_b.c.atom"),
        ["gitlab:Ann_b.c", "gitlab:@ann_b.c", "https://gitlab.com/Ann_B.c", "http://www.gitlab.com/ann_b.c/?x=1#top"],
    ),
    (
        *("youtube", CHANNEL, f"https://www.youtube.com/feeds/videos.xml?channel_id={CHANNEL}"),
        [
            *(f"youtube:{CHANNEL}", f"https://youtube.com/channel/{CHANNEL}"),
            f"https://m.youtube.com/channel/{CHANNEL}/videos?view=0",
        ],
    ),
    (
        *("youtube", "@veritasium", "https://www.youtube.com/@veritasium"),
        [
            *("youtube:@Veritasium", "https://www.youtube.com/@veritasium/", "https://youtube.com/@Veritasium/about"),
            *("http://m.youtube.com/@veritasium?si=abc", "https://www.youtube.com/%40veritasium"),
        ],
    ),
    (
        *("youtube", "@中文·x", "https://www.youtube.com/@%E4%B8%AD%E6%96%87%C2%B7x"),
        ["youtube:@中文·x", "https://www.youtube.com/@中文·X", "https://www.youtube.com/@%E4%B8%AD%E6%96%87%C2%B7x"],
    ),
    ("youtube", "c/some.name", "https://www.youtube.com/c/some.name", ["https://www.youtube.com/c/Some.Name/videos"]),
    ("youtube", "user/vsauce", "https://www.youtube.com/user/vsauce", ["https://youtube.com/user/Vsauce"]),
    (
        *("youtube", f"playlist/{LIST}", f"https://www.youtube.com/feeds/videos.xml?playlist_id={LIST}"),
        [f"youtube:{LIST}", f"youtube:list={LIST}", f"https://www.youtube.com/playlist?list={LIST}&si=1"],
    ),
    (
        *("lobsters", "ann-b_1", "https://lobste.rs/~ann-b_1/stories.rss"),
        [
            *("lobsters:Ann-b_1", "lobsters:~ann-b_1", "https://lobste.rs/~Ann-b_1", "https://lobste.rs/u/ann-b_1/"),
            *("https://www.lobste.rs/~ann-b_1/stories?x=y", "https://lobste.rs/newest/ann-b_1"),
        ],
    ),
    (
        *("arxiv", "au:del_maestro_a", ARXIV.format("del_maestro_a")),
        [
            *("arxiv:au:Del_Maestro_A", "arxiv:del_maestro_a", "https://arxiv.org/a/del_maestro_a_1"),
            "https://www.arxiv.org/a/del_maestro_a_2/?x",
        ],
    ),
    ("arxiv", "au:godel_k", ARXIV.format("godel_k"), ["arxiv:Gödel_K"]),
    ("arxiv", "au:o'neill_b", ARXIV.format("o%27neill_b"), ["arxiv:au:O'Neill_B"]),
    (
        *("gitea", "ann@codeberg.org", "https://codeberg.org/ann.rss"),
        [
            *("gitea:Ann@Codeberg.org", "gitea:@ann@codeberg.org", "https://codeberg.org/Ann/?tab=activity"),
            *("http://www.codeberg.org/ann", "gitea:https://codeberg.org/ann"),
        ],
    ),
    ("gitea", "ann@gitea.com", "https://gitea.com/ann.rss", ["https://gitea.com/ann"]),
    (
        *("gitea", "ann@git.example.org:3000", "https://git.example.org:3000/ann.rss"),
        ["gitea:ann@git.example.org:3000", "gitea:https://git.example.org:3000/Ann"],
    ),
    ("gitea", "ann@127.0.0.1:3000", "http://127.0.0.1:3000/ann.rss", ["gitea:http://127.0.0.1:3000/ann"]),
    (
        *("reddit", "u/ann_b-c", "https://www.reddit.com/user/ann_b-c/submitted/.rss?limit=25"),
        [
            *("reddit:u/Ann_b-c", "reddit:/user/ann_b-c/", "reddit:U/ann_b-c", "https://old.reddit.com/u/Ann_b-c"),
            *("https://www.reddit.com/user/ann_b-c/submitted/?sort=new", "https://m.reddit.com/user/ann_b-c"),
        ],
    ),
    (
        *("reddit", "r/python", "https://www.reddit.com/r/python/new/.rss?limit=25"),
        ["reddit:r/Python", "https://reddit.com/r/Python/", "https://np.reddit.com/r/Python/new"],
    ),
    (
        *("mercurial", "https://hg.example.org/a/b/atom-log", "https://hg.example.org/a/b/atom-log"),
        [
            *("https://hg.example.org/a/b/atom-log", "https://HG.example.org/a/b/rss-log?x=1"),
            *("mercurial:hg.example.org/a/b", "mercurial:hg.example.org/a/b/", "mercurial:hg.example.org/a/b/rss-log"),
            "mercurial:https://hg.example.org/a/b",
        ],
    ),
    (
        *("mercurial", "http://127.0.0.1:8000/atom-log", "http://127.0.0.1:8000/atom-log"),
        ["http://127.0.0.1:8000/rss-log", "mercurial:http://127.0.0.1:8000", "mercurial:http://127.0.0.1:8000/"],
    ),
    (
        *("mercurial", "https://hg.example.org/r/atom-log/stable", "https://hg.example.org/r/atom-log/stable"),
        ["https://hg.example.org/r/rss-log/stable/"],
    ),
]
SPELLINGS = [(*one[:3], text) for one in SAME for text in one[3]]

OTHERS = [
    *("https://gitlab.com/", "https://gitlab.com/explore", "https://gitlab.com/Help", "https://gitlab.com/a/b"),
    *("https://gitlab.com/ann.atom", "https://gitlab.com/-/", "https://gitlab.com/users/sign_in"),
    *("https://gitlab.example.org/ann", "https://gitlab.com:8443/ann", "https://docs.gitlab.com/ee"),
    *("https://www.youtube.com/", "https://www.youtube.com/watch?v=abc&list=" + LIST, "https://youtu.be/abc"),
    f"https://www.youtube.com/feeds/videos.xml?channel_id={CHANNEL}",
    *("https://www.youtube.com/channel/UCshort", "https://www.youtube.com/playlist?list=x", "https://youtube.com/c"),
    *("https://www.youtube.com/playlist", "https://www.youtube.com/@", "https://www.youtube.com/@a/b/c"),
    *("https://www.youtube.com/shorts/abc", "https://www.youtube.com/results?search_query=x"),
    *("https://lobste.rs/", "https://lobste.rs/newest", "https://lobste.rs/s/abc/title", "https://lobste.rs/rss"),
    *("https://lobste.rs/~ann/stories.rss", "https://lobste.rs/~ann/threads", "https://lobste.rs/t/python"),
    *("https://lobste.rs/~~ann", "https://lobste.rs/newest.rss", "https://lobste.rs/~ann.rss"),
    *("https://arxiv.org/", "https://arxiv.org/abs/2401.00001", "https://arxiv.org/a/hinton_g_1.atom2"),
    *("https://arxiv.org/a/hinton_g", "https://arxiv.org/list/cs.AI/recent", "https://rss.arxiv.org/rss/cs.AI"),
    *(
        "https://codeberg.org/",
        "https://codeberg.org/explore",
        "https://codeberg.org/ann/repo",
        "https://gitea.com/API",
    ),
    *("https://codeberg.org/ann.rss", "https://codeberg.org/ann.png", "https://git.example.org/ann"),
    *("https://docs.codeberg.org/ann", "https://codeberg.org/a--b"),
    *("https://www.reddit.com/", "https://www.reddit.com/r/python/comments/abc/title", "https://www.reddit.com/r/"),
    *("https://www.reddit.com/r/python/.rss", "https://www.reddit.com/user/ann/submitted.rss"),
    *("https://hg.example.org/repo", "https://hg.example.org/repo/log", "https://hg.example.org/repo/atom-tags"),
]

BAD = [
    *("gitlab:", "gitlab:-ann", "gitlab:ann.", "gitlab:ann.git", "gitlab:ANN.Atom", "gitlab:a/b", "gitlab:ä"),
    *("youtube:veritasium", "youtube:@", "youtube:@a b", "youtube:UC123", "youtube:@" + "a" * 200, "youtube:watch?v=1"),
    *("lobsters:_x", "lobsters:" + "a" * 26, "lobsters:a.b", "lobsters:ä"),
    *("arxiv:au:", "arxiv:au:Ann-", "arxiv:2401.00001", "arxiv:李", "arxiv:a__b", "arxiv:_a", "arxiv:all:x"),
    *("gitea:ann", "gitea:ann@", "gitea:@host", "gitea:a..b@codeberg.org", "gitea:ann@ho/st", "gitea:ann@-"),
    *("reddit:ann", "reddit:u/an", "reddit:r/a", "reddit:x/ann", "reddit:u/" + "a" * 21, "reddit:r/_x"),
    *("mercurial:repo", "mercurial:", "mercurial:..", "mercurial:a..b/repo"),
]


@pytest.mark.parametrize(("name", "handle", "url", "text"), SPELLINGS, ids=[one[3] for one in SPELLINGS])
def test_every_spelling_is_one_account(name: str, handle: str, url: str, text: str) -> None:
    found = ALL.resolve(text)
    assert (found.source, found.handle) == (name, handle)
    assert found.url.startswith(url) and normalise_url(found.url) == found.url


@pytest.mark.parametrize(("name", "handle"), [one[:2] for one in SAME])
def test_a_handle_is_a_spelling_of_itself(name: str, handle: str) -> None:
    found = ALL.resolve(handle, source=name)
    if not handle.startswith("http"):
        found = ALL.resolve(f"{name}:{handle}")
    assert found.handle == handle


@pytest.mark.parametrize("url", OTHERS)
def test_what_is_no_profile_is_left_to_the_feed_source(url: str) -> None:
    assert ALL.resolve(url).source == "feed"


@pytest.mark.parametrize("text", BAD)
def test_what_cannot_be_an_account_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Unusable) as caught:
        ALL.resolve(text)
    assert caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("url", ["https://example.org/x", "https://codeberg.org/explore", "https://gitlab.com/"])
def test_an_address_that_is_said_to_be_a_sources_own_and_is_not_is_refused(url: str) -> None:
    for name in ("gitlab", "youtube", "lobsters", "arxiv", "reddit"):
        with pytest.raises(Unusable, match=f"the address is not one of {name}'s"):
            ALL.resolve(url, source=name)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "mercurial"])
def test_another_base_stands_in_for_the_service(name: str) -> None:
    handle = next(one[1] for one in SAME if one[0] == name)
    found = registry(name, "http://127.0.0.1:8123").resolve(f"{name}:{handle}")
    assert found.url.startswith("http://127.0.0.1:8123/")
    assert found.host == "127.0.0.1:8123"
    assert found.handle == handle


@pytest.mark.parametrize(
    ("name", "path", "handle"),
    [
        ("gitlab", "Ann", "ann"),
        ("youtube", "@Ann/videos", "@ann"),
        ("lobsters", "~Ann", "ann"),
        ("arxiv", "a/ann_b_1", "au:ann_b"),
        ("gitea", "Ann", "ann@127.0.0.1:8123"),
        ("reddit", "r/Ann", "r/ann"),
    ],
)
def test_pages_at_another_base_are_recognised(name: str, path: str, handle: str) -> None:
    found = registry(name, "http://127.0.0.1:8123").resolve(f"http://127.0.0.1:8123/{path}")
    assert (found.source, found.handle) == (name, handle)


@pytest.mark.parametrize("text", ["reddit:u/ann", "https://www.reddit.com/r/python"])
def test_reddit_is_off_unless_it_is_switched_on(text: str) -> None:
    with pytest.raises(Unusable, match="the source reddit is off: its terms restrict automated access") as caught:
        Registry(own={}, bases={}, enabled=()).resolve(text)
    assert "enabled_sources" in (caught.value.hint or "")


def test_each_source_shows_examples_that_are_its_own() -> None:
    for name in NAMES:
        for example in BUILT_IN[name].examples:
            assert ALL.resolve(example).source == name


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_typed_is_an_account_that_is_stable_or_a_refusal(name: str) -> None:
    rng = random.Random(name)
    alphabet = "aAzZ09_-.@~/:%?=&'·äİß中\u0301 <\n\0UCPL" + "".join(one[1] for one in SAME if one[0] == name)
    for _ in range(4000):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(0, 40)))
        for given in (f"{name}:{text}", f"https://{rng.choice(['gitlab.com', 'youtube.com', 'codeberg.org'])}/{text}"):
            try:
                found = ALL.resolve(given)
            except Unusable:
                continue
            assert ALL.resolve(found.handle, source=found.source) == found


def test_the_adapters_load_nothing_heavy() -> None:
    imports = ", ".join(f"sources.{name}" for name in NAMES)
    code = f"import sys, {imports}; sys.exit(bool({{'requests', 'lxml', 'sources.http'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
