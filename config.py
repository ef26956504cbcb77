"""The settings: names, defaults, limits, and where each value came from.

Defaults < TOML file < `GLEAND_*` environment < flags. Reading the layers is ours, so that every problem and every
value can name its source; what a value of each kind may be is in kinds.py. What needs a higher room (does the schedule
ever fire, does the scraper import) is not checked here but by `gleand check` and at start. A little over the budget
of lines: each setting takes two.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Meta

from errors import GleandError
from gleand import __version__
from kinds import Count, CountOrZero, Flag, Line, Read, absolute, all_like, fit, like, lower, number, pairs, size, split

ENV_PREFIX = "GLEAND_"
#: Variables with our prefix that are no settings: the file to read, the daemon the command line talks to.
ENV_OTHERS = ("GLEAND_CONFIG", "GLEAND_URL")
#: Sources that need no scraper of the user's own.
BUILT_IN_SOURCES = frozenset(
    "activitypub arxiv bluesky devto feed github gitea gitlab hackernews lobsters mastodon mediawiki mercurial reddit"
    " stackexchange youtube".split()
)
#: Never the name of a scraper: `http://...` would read as `source:handle`.
RESERVED_NAMES = BUILT_IN_SOURCES | {"http", "https"}
#: Settings that a running daemon takes over on SIGHUP; the others wait for a restart.
RELOADABLE = frozenset(
    "scrape_timeout_s stall_timeout_s default_schedule default_source handle_url host_delay_s host_concurrency"
    " body_limit_bytes connect_timeout_s read_timeout_s max_redirects max_posts_per_run user_agent contact"
    " allow_private_networks allowed_networks scrapers scraper_path log_level retention_days history_days"
    " drain_timeout_s respect_robots backoff_cap_s source_bases enabled_sources pages commands".split()
)
MIB = 1024 * 1024
#: The longest time-out a target may have (seconds).
WEEK_S = 7 * 86400.0
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_ORIGIN = r"https?://[a-z0-9._-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?"
_HOST = r"([a-z0-9._-]+|\[[0-9a-f:]+\])(:\d{1,5})?"
_NO_MEMORY = r"(?!sqlite(\+\w+)?://(/(:memory:)?)?(\?.*)?$).*"
_SECRET = ("api_token", "database_url")
_MAY_BE_EMPTY = ("contact", "allowed_origins", "allowed_hosts", "allowed_networks", "enabled_sources", "scrapers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with the settings."""

    #: Name of the setting, as it was given.
    setting: str
    #: Where it was given: `default`, `flag`, the variable, or the file.
    source: str
    #: A sentence that names both; never holds a secret.
    text: str


class ConfigError(GleandError):
    """The settings cannot work; `problems` has one readable sentence for each. Starting again would not help."""

    code = "config"

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(p.text for p in problems))
        self.problems = tuple(problems)


def _timezone(value: str) -> str:
    try:
        return value if value == "local" else ZoneInfo(value).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("should be local or a time zone such as Europe/Berlin") from None


def _scrapers(value: dict[str, str]) -> dict[str, str]:
    for name, entry in value.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"has the name {name[:40]!r}: lower-case letters, digits, _ and - are possible")
        if name in RESERVED_NAMES:
            raise ValueError(f"has the name {name!r}, which is taken")
        if not _ENTRY.fullmatch(entry):
            raise ValueError(f"should give {name} as module:function, not {entry[:80]!r}")
    return value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(network)) for network in value)
    except ValueError:
        raise ValueError("should hold networks such as 192.168.1.0/24 or fd00::/8") from None


def _built_in(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if name not in BUILT_IN_SOURCES:
            raise ValueError(f"names {name[:40]!r}, which is no built-in source")
    return value


def _bases(value: dict[str, str]) -> dict[str, str]:
    for name, base in value.items():
        if name not in BUILT_IN_SOURCES:
            raise ValueError(f"names {name[:40]!r}, which is no built-in source")
        if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", base):
            raise ValueError(f"should give {name} as an http:// or https:// URL")
    return {name: base.rstrip("/") for name, base in value.items()}


def _tables(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:  # Any: see _Tables
    for name in value:
        if not _NAME.fullmatch(name):
            raise ValueError(f"has the name {name[:40]!r}: lower-case letters, digits, _ and - are possible")
        if name in RESERVED_NAMES:
            raise ValueError(f"has the name {name!r}, which is taken")
    return value


def _user_data_dir() -> Path:
    import platformdirs  # late: 1.5 MB and 5 ms, and most daemons are told where to go

    return Path(platformdirs.user_data_dir("gleand"))


_Seconds = Annotated[float, Meta(gt=0, le=WEEK_S), Read(number)]
_SecondsOrZero = Annotated[float, Meta(ge=0, le=WEEK_S), Read(number)]
_Host = Annotated[str, like("[A-Za-z0-9._:%-]+", "should be an address or a name, without brackets, port or scheme")]
_Token = Annotated[str | None, like("[!-~]*", "should be printable ASCII without spaces: it goes into a header")]
_Database = Annotated[
    str | None,
    like(r"(sqlite|postgresql)(\+\w+)?://.*", "should be a URL that starts with sqlite:/// or postgresql+psycopg://"),
    like(_NO_MEMORY, "should name a file: a database in memory forgets everything"),
]
_Template = Annotated[
    str | None,
    like(r"https?://[^\s/]\S*", "should be an http:// or https:// URL"),
    like(r"[^{}]*\{handle\}[^{}]*", "should contain {handle} once, and no other braces"),
]
_Origins = Annotated[
    tuple[str, ...],
    Read(split),
    all_like(_ORIGIN, "should hold names such as https://app.example.org, without a path, and no wildcard"),
]
_Hosts = Annotated[
    tuple[str, ...], Read(split), all_like(_HOST, "should hold names such as gleand.example.org, and no wildcard")
]
_Scrapers = Annotated[dict[str, str], Read(pairs), _scrapers]
_Networks = Annotated[tuple[str, ...], Read(split), _networks]
_Enabled = Annotated[tuple[str, ...], Read(split), _built_in]
_Bases = Annotated[dict[str, str], Read(pairs), _bases]
_Tables = Annotated[dict[str, dict[str, Any]], _tables]  # Any: what is in a table is its source's to check


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the daemon is told; frozen. Made by `load`; made directly it takes its arguments and nothing else.

    Raises:
        ConfigError: With every argument that cannot work.
    """

    #: Address to listen on; one that others can reach needs `api_token`.
    host: _Host = "127.0.0.1"
    #: Port to listen on; 0: any that is free.
    port: Annotated[int, Meta(ge=0, le=65535), Read(number)] = 5000
    #: Directory of the database and its lock.
    data_dir: Annotated[Path, Read(absolute)] = field(default_factory=_user_data_dir)
    #: SQLAlchemy URL; None: SQLite in `data_dir`.
    database_url: _Database = field(default=None, repr=False)
    #: Child processes that scrape (count).
    workers: Annotated[int, Meta(ge=1, le=256), Read(number)] = 8
    #: Longest time a run may take (seconds); a target may set its own.
    scrape_timeout_s: _Seconds = 600.0
    #: Longest time a run may go without progress (seconds).
    stall_timeout_s: _Seconds = 120.0
    #: Between two timeout checks (seconds).
    check_interval_s: _Seconds = 30.0
    #: From SIGTERM to SIGKILL (seconds).
    stop_grace_s: _SecondsOrZero = 2.0
    #: `every N[smhd]`, a crontab line, or `manual`; for targets without their own.
    default_schedule: str = "every 15m"
    #: Source of a bare handle.
    default_source: str = "feed"
    #: Least time between two requests to one host (seconds).
    host_delay_s: _SecondsOrZero = 1.0
    #: Most runs on one host at once (count).
    host_concurrency: Count = 1
    #: Largest response, after decompression (bytes).
    body_limit_bytes: Annotated[int, Meta(gt=0), Read(size)] = 10 * MIB
    #: Whether loopback, private and link-local addresses may be scraped.
    allow_private_networks: Flag = False
    #: Private networks that may be scraped all the same, such as `192.168.1.0/24`.
    allowed_networks: _Networks = ()
    #: Whether robots.txt is asked (RFC 9309), also for its crawl-delay.
    respect_robots: Flag = True
    #: Longest wait of the backoff after failures (seconds); it never gives up.
    backoff_cap_s: _Seconds = 21600.0
    #: What we call ourselves to the sites.
    user_agent: Line = f"gleand/{__version__}"
    #: Address or page by which a site's operator can reach ours; added to the User-Agent.
    contact: Line = ""
    #: How long a stop waits for runs to end by themselves (seconds).
    drain_timeout_s: _SecondsOrZero = 10.0
    #: Memory a worker may use beyond what it has at its start (bytes).
    worker_memory_bytes: Annotated[int, Meta(ge=64 * MIB), Read(size)] = 1024 * MIB
    #: Scrapes after which a worker is replaced (count).
    worker_max_scrapes: Count = 500
    #: Longest wait for a connection (seconds).
    connect_timeout_s: _Seconds = 10.0
    #: Longest wait for the next bytes (seconds); does not bound the whole response.
    read_timeout_s: _Seconds = 30.0
    #: Redirects followed for one request (count).
    max_redirects: CountOrZero = 10
    #: Posts kept of one run (count); the run is marked as truncated.
    max_posts_per_run: Count = 5000
    #: Long polls and event streams held at once (count); beyond it a poll is answered at once, a stream with 503.
    max_waiters: CountOrZero = 1000
    #: In which crontab lines are read; `local`, or a name such as `Europe/Berlin`.
    timezone: Annotated[str, _timezone] = "local"
    #: How much is logged.
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Read(lower)] = "info"
    #: Origins of frontends that are served from elsewhere.
    allowed_origins: _Origins = ()
    #: Further names accepted in the Host header, such as the reverse proxy's.
    allowed_hosts: _Hosts = ()
    #: Bearer token for writes and, once set, for reads too.
    api_token: _Token = field(default=None, repr=False)
    #: URL template with `{handle}` that makes a bare handle a target of the default source.
    handle_url: _Template = None
    #: How long posts are kept that their source does not show any more (days); 0: for ever.
    retention_days: CountOrZero = 0
    #: How long runs, sweeps and the journal are kept (days); 0: for ever. The last run of each target stays.
    history_days: CountOrZero = 30
    #: Scrapers of your own: name to `module:function`.
    scrapers: _Scrapers = field(default_factory=dict)
    #: Directory their modules are found in; None: where the config file lies, if there is one.
    scraper_path: Annotated[Path | None, Read(absolute)] = None
    #: Pages without a feed: name to a table of selectors; see docs/sources.md.
    pages: _Tables = field(default_factory=dict)
    #: Programs that scrape: name to a table with `argv`; see docs/sources.md.
    commands: _Tables = field(default_factory=dict)
    #: Where a built-in source's own addresses begin, in place of its usual ones: name to URL.
    source_bases: _Bases = field(default_factory=dict)
    #: Built-in sources that are off unless named here, such as `reddit`.
    enabled_sources: _Enabled = ()
    _origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Put what fits in the place of what was given."""
        given = {name: getattr(self, name) for name in KINDS}
        wrong: list[tuple[str, str]] = []
        for name, value in given.items():
            try:
                if isinstance(value, str) and not value.strip() and name not in _MAY_BE_EMPTY:
                    raise ValueError("should not be empty; leave it out to use the default")
                object.__setattr__(self, name, fit(value, KINDS[name]))
            except ValueError as exc:
                wrong.append((name, str(exc)))
        wrong = wrong or list(self._at_odds())
        if wrong:
            raise ConfigError([self._problem(name, text, given[name]) for name, text in wrong])

    @property
    def db_url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.data_dir / 'gleand.db'}"

    @property
    def own_sources(self) -> dict[str, str]:
        """Sources of the user's own: name to an address with `{handle}` in it, or to nothing."""
        pages = {name: str(table.get("url", "")) for name, table in self.pages.items()}
        programs = {name: str(table.get("url", "")) for name, table in self.commands.items()}
        return dict.fromkeys(self.scrapers, "") | programs | pages

    def options_of(self, source: str) -> dict[str, Any]:  # Any: JSON values
        """What the settings say of a source of the user's own, for its worker."""
        if source in self.pages:
            return {"kind": "page"} | self.pages[source]
        return {"kind": "command"} | self.commands[source] if source in self.commands else {}

    def _at_odds(self) -> Iterator[tuple[str, str]]:
        known = sorted(BUILT_IN_SOURCES | set(self.own_sources))
        own = [*self.scrapers, *self.pages, *self.commands]
        for name in sorted({name for name in own if own.count(name) > 1}):
            yield "pages", f"and scrapers and commands should have different names: {name} comes twice"
        if self.default_source not in known:
            yield "default_source", f"should be one of {', '.join(known)}"
        if self.api_token is None and not is_loopback(self.host):
            yield "host", "can be reached by others: set api_token too, or listen on 127.0.0.1"

    def _problem(self, name: str, text: str, value: Any) -> Problem:  # Any: whatever was given
        """Say what is wrong with one setting; a secret's value stays out."""
        source = self._origins.get(name, "default")
        shown = "" if name in _SECRET else f", got {_clip(value)}"
        return Problem(setting=name, source=source, text=f"{name} ({source}) {text}{shown}")


#: Of every setting, by name; see kinds.py.
KINDS = {name: kind for name, kind in get_type_hints(Settings, include_extras=True).items() if name[0] != "_"}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; a name other than localhost counts as reachable."""
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(slots=True)
class _Layers:
    """Values by name, with their origins, as the layers are put on each other."""

    values: dict[str, Any]
    origins: dict[str, str]
    problems: list[Problem]

    def put(self, given: Mapping[str, Any], origin: str, *, variables: bool = False) -> None:
        """Put one layer on top; a name that is no setting is a problem. Without `origin`, keys are it."""
        for key, value in given.items():
            name, source = key.removeprefix(ENV_PREFIX).lower() if variables else key, origin or key
            if name not in KINDS or (variables and key != ENV_PREFIX + name.upper()):
                self.unknown(key, source, variables=variables)
            else:
                self.values[name], self.origins[name] = value, source

    def unknown(self, key: str, origin: str, *, variables: bool) -> None:
        import difflib

        names = [ENV_PREFIX + n.upper() for n in KINDS] if variables else list(KINDS)
        near = difflib.get_close_matches(key.upper() if variables else key, names, n=1, cutoff=0.5)
        where = "" if variables else f" ({origin})"
        text = f"{key[:80]!r}{where} is no setting" + (f"; did you mean {near[0]}?" if near else "")
        self.problems.append(Problem(setting=key, source=origin, text=text))


def load(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,  # Any: flags, judged by Settings
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read every layer and check the whole.

    Args:
        config: TOML file; None: the one `GLEAND_CONFIG` names, if any.
        overrides: Settings by name from flags.
        environ: In place of the process's environment.

    Raises:
        ConfigError: With every problem found, not only the first.
    """
    env = os.environ if environ is None else environ
    layers = _Layers(values={}, origins={}, problems=[])
    state_dir = env.get("STATE_DIRECTORY", "").split(":")[0]
    if state_dir:
        layers.put({"data_dir": state_dir}, "$STATE_DIRECTORY")
    if config is None and env.get("GLEAND_CONFIG"):
        config = Path(env["GLEAND_CONFIG"])
    if config is not None:
        config = Path(absolute(config))
        layers.put(_read_toml(config, layers.problems), str(config))
    ours = {k: v for k, v in env.items() if k.startswith(ENV_PREFIX) and k not in ENV_OTHERS}
    layers.put(ours, "", variables=True)
    layers.put(overrides or {}, "flag")
    if config is not None and layers.values.get("scrapers") and layers.values.get("scraper_path") is None:
        layers.put({"scraper_path": config.parent}, "where the config file lies")
    try:
        settings = Settings(**layers.values, _origins=layers.origins)
    except ConfigError as exc:
        layers.problems += exc.problems
    if layers.problems:
        raise ConfigError(layers.problems)
    return settings


def _read_toml(path: Path, problems: list[Problem]) -> dict[str, Any]:  # Any: TOML values
    import tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        text = f"the config file {path} cannot be read: {exc.strerror or 'unknown reason'}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        where = str(exc) if isinstance(exc, tomllib.TOMLDecodeError) else "it is not UTF-8"
        text = f"the config file {path} is not valid TOML: {where}"
    else:
        for name in ("data_dir", "scraper_path"):  # beside the file, whatever directory we are started in
            if isinstance(values.get(name), str) and values[name].strip():
                values[name] = path.parent / Path(values[name]).expanduser()
        return values
    problems.append(Problem(setting="config", source=str(path), text=text))
    return {}


def _clip(value: Any) -> str:  # Any: whatever was given
    text = ascii(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def mask_url(url: str) -> str:
    """Hide the password of a database URL, also one in the query or with an @ in it."""
    scheme, _, rest = url.partition("://")
    if "@" in rest:
        user, place = rest.rsplit("@", 1)
        rest = user.split(":")[0] + (":***" if ":" in user else "") + "@" + place
    return f"{scheme}://" + re.sub(r"(?i)([?&][^=&]*pass[^=&]*=)[^&]*", r"\1***", rest)


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """List every setting: its name, its value as it may be shown, where it came from."""
    lines = []
    for name in KINDS:
        value = getattr(settings, name)
        if name == "api_token" and value is not None:
            shown = "***"
        elif name == "database_url":
            shown = mask_url(settings.db_url)
        elif isinstance(value, tuple):
            shown = ", ".join(value) or "none"
        elif isinstance(value, dict):
            shown = ", ".join(f"{k}={v}" for k, v in value.items()) or "none"
        else:
            shown = "none" if value in (None, "") else str(value).lower() if isinstance(value, bool) else str(value)
        lines.append((name, shown, settings._origins.get(name, "default")))
    return lines
