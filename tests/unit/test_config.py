"""Settings: layers, origins, limits, and errors that a person can act on."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from config import KINDS, ConfigError, Settings, describe, is_loopback, load, mask_url


def wrong(environ: dict[str, str], **overrides: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(None, overrides, environ)
    return [problem.text for problem in caught.value.problems]


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gleand.toml"
    path.write_text(text, encoding="utf-8")
    return path


def origin(settings: Settings, name: str) -> str:
    return {n: where for n, _, where in describe(settings)}[name]


def test_without_anything_the_defaults_hold() -> None:
    st = load(environ={})
    assert (st.host, st.port, st.workers, st.default_schedule) == ("127.0.0.1", 5000, 8, "every 15m")
    assert (st.body_limit_bytes, st.worker_memory_bytes) == (10 * 1024**2, 1024**3)
    assert (st.api_token, st.handle_url, st.allowed_hosts, st.scrapers) == (None, None, (), {})
    assert origin(st, "port") == "default"


def test_flags_win_over_variables_over_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, "port = 1\nworkers = 2\nmax_redirects = 3\n")
    st = load(path, {"port": 7}, {"GLEAND_PORT": "6", "GLEAND_WORKERS": "5"})
    assert (st.port, st.workers, st.max_redirects) == (7, 5, 3)
    assert [origin(st, n) for n in ("port", "workers", "max_redirects")] == ["flag", "GLEAND_WORKERS", str(path)]


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    assert load(environ={"GLEAND_CONFIG": str(toml(tmp_path, "port = 9"))}).port == 9


def test_gleand_url_is_no_setting_and_no_error() -> None:
    assert load(environ={"GLEAND_URL": "http://127.0.0.1:5000"}).port == 5000


def test_settings_made_directly_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLEAND_PORT", "9")
    assert Settings().port == 5000


def test_settings_made_directly_are_checked() -> None:
    assert Settings(port="9", allowed_hosts="a.example, b.example").allowed_hosts == ("a.example", "b.example")
    with pytest.raises(ConfigError, match="port .* should be a whole number, at least 0, at most 65535, got 'x'"):
        Settings(port="x")


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load(environ={}).port = 1  # type: ignore[misc]  # that is the point


def test_systemd_s_state_directory_is_where_the_data_goes() -> None:
    st = load(environ={"STATE_DIRECTORY": "/var/lib/gleand:/var/lib/other"})
    assert st.data_dir == Path("/var/lib/gleand")
    assert st.db_url == "sqlite:////var/lib/gleand/gleand.db"
    assert origin(st, "data_dir") == "$STATE_DIRECTORY"


def test_the_database_url_is_absolute_even_when_the_directory_is_not() -> None:
    st = load(None, {"data_dir": "here"}, {})
    assert st.db_url == f"sqlite:///{Path.cwd() / 'here' / 'gleand.db'}"


def test_a_database_url_wins_over_the_directory() -> None:
    url = "postgresql+psycopg://u:p@db/gleand"
    assert load(environ={"GLEAND_DATABASE_URL": url}).db_url == url


@pytest.mark.parametrize(("name", "near"), [("prot", "port"), ("scrape_timeout", "scrape_timeout_s")])
def test_an_unknown_key_names_the_nearest_right_one(tmp_path: Path, name: str, near: str) -> None:
    path = toml(tmp_path, f"{name} = 1")
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    assert caught.value.problems[0].text == f"{name!r} ({path}) is no setting; did you mean {near}?"


def test_an_unknown_variable_names_the_nearest_right_one() -> None:
    assert wrong({"GLEAND_WORKER": "3"}) == ["'GLEAND_WORKER' is no setting; did you mean GLEAND_WORKERS?"]


def test_every_problem_is_told_at_once() -> None:
    assert len(wrong({"GLEAND_PORT": "x", "GLEAND_WORKERS": "0", "GLEAND_NONE_SUCH_AT_ALL": "1"})) == 3


BAD = {
    "port": ["-1", "65536", "http", "1.5"],
    "workers": ["0", "257"],
    "scrape_timeout_s": ["0", "-1", "nan", "inf", "604801"],
    "stall_timeout_s": ["0"],
    "check_interval_s": ["0"],
    "stop_grace_s": ["-0.1"],
    "drain_timeout_s": ["-1"],
    "worker_memory_bytes": ["63 MiB", "some"],
    "body_limit_bytes": ["0", "-5", "10 apples"],
    "host_concurrency": ["0"],
    "host_delay_s": ["-1"],
    "max_posts_per_run": ["0"],
    "retention_days": ["-1"],
    "timezone": ["Mars/Olympus", "../etc/passwd", "Europe"],
    "log_level": ["loud"],
    "user_agent": ["a\nb", ""],
    "contact": ["a\r\nX-Evil: 1"],
    "default_source": ["nowhere"],
    "handle_url": ["https://x.example/", "ftp://x/{handle}", "https://x/{handle}/{other}", ""],
    "allowed_origins": ["*", "null", "https://x.example/path"],
    "allowed_hosts": ["*", "https://x.example"],
    "database_url": ["mysql://u:geheim@h/d", "sqlite://", "sqlite:///:memory:", ""],
    "host": ["", "[::1]", "127.0.0.1:80/x"],
    "api_token": ["", "two words", "new\nline"],
    "scrapers": ["x", "x=nofunction", "Upper=a:b", "feed=a:b", "http=a:b", "x=a:b.c"],
    "allow_private_networks": ["perhaps"],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_a_value_that_cannot_work_is_refused_with_its_name_and_source(name: str, value: str) -> None:
    variable = f"GLEAND_{name.upper()}"
    (text,) = wrong({variable: value})
    assert text.startswith(f"{name} ({variable}) ")
    assert "\n" not in text


@pytest.mark.parametrize(("given", "size"), [("10 MiB", 10 * 1024**2), ("512kB", 512_000), ("4096", 4096)])
def test_sizes_may_have_units(given: str, size: int) -> None:
    assert load(environ={"GLEAND_BODY_LIMIT_BYTES": given}).body_limit_bytes == size


def test_lists_from_variables_are_separated_by_commas() -> None:
    st = load(environ={"GLEAND_ALLOWED_HOSTS": "A.example, b.example:8080", "GLEAND_ALLOWED_ORIGINS": ""})
    assert (st.allowed_hosts, st.allowed_origins) == (("a.example", "b.example:8080"), ())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "x", "should be a whole number, at least 0, at most 65535, got 'x'"),
        ("scrape_timeout_s", 0, "should be a number, more than 0, at most 604800, got 0"),
        (
            "body_limit_bytes",
            "10 apples",
            "should be a number of bytes, or one with a unit such as 10 MiB, got '10 apples'",
        ),
        ("log_level", "loud", "should be one of debug, info, warning, error, got 'loud'"),
        ("allow_private_networks", "perhaps", "should be true or false, got 'perhaps'"),
        ("contact", 5, "should be a string, got 5"),
        ("scraper_path", 5, "should be a path, got 5"),
        ("allowed_hosts", ["a", 1], "does not fit: Expected `str`, got `int` - at `$[1]`, got ['a', 1]"),
        ("scrapers", ["a"], "does not fit: Expected `object`, got `array`, got ['a']"),
    ],
)
def test_a_problem_says_what_would_fit(name: str, value: Any, said: str) -> None:
    assert wrong({}, **{name: value}) == [f"{name} (flag) {said}"]


@pytest.mark.parametrize(("given", "meant"), [("5", 5), (" 5 ", 5), ("5.0", 5), (5.0, 5)])
def test_a_whole_number_may_be_written_in_more_than_one_way(given: Any, meant: int) -> None:
    workers = load(None, {"workers": given}, {}).workers
    assert (workers, type(workers)) == (meant, int)


@pytest.mark.parametrize(("given", "meant"), [("yes", True), ("ON", True), ("1", True), ("off", False), (0, False)])
def test_yes_and_no_may_be_written_in_more_than_one_way(given: Any, meant: bool) -> None:
    assert load(None, {"allow_private_networks": given}, {}).allow_private_networks is meant


def test_true_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="should not be true or false"):
        load(toml(tmp_path, "port = true"), environ={})


def test_an_address_others_can_reach_needs_a_token() -> None:
    assert "set api_token too" in wrong({"GLEAND_HOST": "0.0.0.0"})[0]
    assert load(environ={"GLEAND_HOST": "0.0.0.0", "GLEAND_API_TOKEN": "t"}).api_token == "t"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(load(environ={"GLEAND_HOST": host}).host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "localhost.example.org"])
def test_other_addresses_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_scrapers_are_found_where_the_config_file_lies(tmp_path: Path) -> None:
    st = load(toml(tmp_path, 'default_source = "mine"\n[scrapers]\nmine = "my.mod:scrape"'), environ={})
    assert (st.scrapers, st.scraper_path, st.default_source) == ({"mine": "my.mod:scrape"}, tmp_path, "mine")
    assert origin(st, "scraper_path") == "where the config file lies"


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    st = load(toml(tmp_path, 'scraper_path = "own"\ndata_dir = "data"'), environ={})
    assert (st.scraper_path, st.data_dir) == (tmp_path / "own", tmp_path / "data")


def test_scrapers_from_a_variable() -> None:
    st = load(environ={"GLEAND_SCRAPERS": "a=m:f, b-2=p.m:g"})
    assert (st.scrapers, st.scraper_path) == ({"a": "m:f", "b-2": "p.m:g"}, None)


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{path} is not valid TOML"):
        load(path, environ={})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml", environ={})


def test_secrets_are_never_shown() -> None:
    url = "postgresql+psycopg://gleand:ge@heim@db.example/gleand?sslpassword=geheim"
    st = load(environ={"GLEAND_API_TOKEN": "geheim-token", "GLEAND_DATABASE_URL": url})
    for shown in (repr(st), str(st), repr(describe(st))):
        assert "heim" not in shown
    assert ("api_token", "***", "GLEAND_API_TOKEN") in describe(st)


def test_problems_with_secrets_do_not_hold_them() -> None:
    texts = wrong({"GLEAND_API_TOKEN": "ge heim", "GLEAND_DATABASE_URL": "mysql://u:geheim@h/d"})
    assert len(texts) == 2
    assert "heim" not in " ".join(texts)


def test_the_database_s_password_is_masked() -> None:
    assert mask_url("postgresql://u:p@w@h/d") == "postgresql://u:***@h/d"
    assert mask_url("sqlite:////var/x.db") == "sqlite:////var/x.db"


def test_every_setting_is_described() -> None:
    assert [name for name, _, _ in describe(load(environ={}))] == list(KINDS)
