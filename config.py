"""The settings: names, defaults, limits, and where each value came from.

Defaults < TOML file < `GLEAND_*` environment < flags. Reading the layers is ours, so that every problem and every
value can name its source; types and limits are pydantic's. What needs a higher room (does the schedule ever fire,
does the scraper import) is not checked here but by `gleand check` and at start. A setting takes two lines, which
puts this module a little past the budget.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import platformdirs
from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, PrivateAttr, ValidationError, ValidationInfo
from pydantic import field_validator as check_field
from pydantic import model_validator as check_model
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from errors import GleandError
from gleand import __version__

ENV_PREFIX = "GLEAND_"
#: Variables with our prefix that are no settings: the file to read, the daemon the command line talks to.
ENV_OTHERS = ("GLEAND_CONFIG", "GLEAND_URL")
#: Sources that need no scraper of the user's own.
BUILT_IN_SOURCES = frozenset({"feed"})
#: Never the name of a scraper: `http://...` would read as `source:handle`.
RESERVED_NAMES = BUILT_IN_SOURCES | {"http", "https"}
#: Settings that a running daemon takes over on SIGHUP; the others wait for a restart.
RELOADABLE = frozenset(
    "scrape_timeout_s stall_timeout_s default_schedule default_source handle_url host_delay_s host_concurrency"
    " body_limit_bytes connect_timeout_s read_timeout_s max_redirects max_posts_per_run user_agent contact"
    " allow_private_networks scrapers scraper_path log_level retention_days history_days drain_timeout_s".split()
)
MIB = 1024 * 1024
#: The longest time-out a target may have (seconds).
WEEK_S = 7 * 86400.0
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_ORIGIN = re.compile(r"https?://[a-z0-9._-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:]+\])(:\d{1,5})?")
_SECRET = ("api_token", "database_url")


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


def _split(value: Any) -> Any:  # Any: whatever was given; pydantic judges it
    """Accept `a, b` from an environment variable or a flag where a list is wanted."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _pairs(value: Any) -> Any:  # Any: whatever was given; pydantic judges it
    """Accept `name=module:function, ...` from an environment variable or a flag."""
    parts = _split(value)
    if not isinstance(value, str):
        return value
    if not all("=" in part for part in parts):
        raise ValueError("should be written as name=module:function, separated by commas")
    return {name.strip(): entry.strip() for name, entry in (part.split("=", 1) for part in parts)}


def _one_line(value: str) -> str:
    if not all(" " <= c <= "~" for c in value):
        raise ValueError("may hold printable ASCII on one line only: it goes into a header")
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", value):
        raise ValueError("should be an address or a name, without brackets, port or scheme")
    return value


def _token(value: str | None) -> str | None:
    if value is not None and not all("!" <= c <= "~" for c in value):
        raise ValueError("should be printable ASCII without spaces: it goes into a header")
    return value


def _lower(value: Any) -> Any:  # Any: whatever was given; pydantic judges it
    return value.lower() if isinstance(value, str) else value


def _absolute(value: Path) -> Path:
    return Path(os.path.abspath(value.expanduser()))


_Seconds = Annotated[float, Field(gt=0, le=WEEK_S, allow_inf_nan=False)]
_SecondsOrZero = Annotated[float, Field(ge=0, le=WEEK_S, allow_inf_nan=False)]
_Count = Annotated[int, Field(gt=0, le=10**9)]
_CountOrZero = Annotated[int, Field(ge=0, le=10**9)]
_List = Annotated[tuple[str, ...], BeforeValidator(_split)]
_Line = Annotated[str, AfterValidator(_one_line)]
_Path = Annotated[Path, AfterValidator(_absolute)]


class Settings(BaseSettings):
    """What the daemon is told; frozen. Made by `load`; made directly it takes its arguments and nothing else."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    #: Address to listen on; one that others can reach needs `api_token`.
    host: Annotated[str, AfterValidator(_host)] = "127.0.0.1"
    #: Port to listen on; 0: any that is free.
    port: Annotated[int, Field(ge=0, le=65535)] = 5000
    #: Directory of the database and its lock.
    data_dir: _Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("gleand")))
    #: SQLAlchemy URL; None: SQLite in `data_dir`.
    database_url: Annotated[str | None, Field(repr=False)] = None
    #: Child processes that scrape (count).
    workers: Annotated[int, Field(ge=1, le=256)] = 8
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
    host_concurrency: _Count = 1
    #: Largest response, after decompression (bytes).
    body_limit_bytes: Annotated[ByteSize, Field(gt=0)] = ByteSize(10 * MIB)
    #: Whether loopback, private and link-local addresses may be scraped.
    allow_private_networks: bool = False
    #: What we call ourselves to the sites.
    user_agent: _Line = f"gleand/{__version__}"
    #: Address or page by which a site's operator can reach ours; added to the User-Agent.
    contact: _Line = ""
    #: How long a stop waits for runs to end by themselves (seconds).
    drain_timeout_s: _SecondsOrZero = 10.0
    #: Memory a worker may use beyond what it has at its start (bytes).
    worker_memory_bytes: Annotated[ByteSize, Field(ge=64 * MIB)] = ByteSize(1024 * MIB)
    #: Scrapes after which a worker is replaced (count).
    worker_max_scrapes: _Count = 500
    #: Longest wait for a connection (seconds).
    connect_timeout_s: _Seconds = 10.0
    #: Longest wait for the next bytes (seconds); does not bound the whole response.
    read_timeout_s: _Seconds = 30.0
    #: Redirects followed for one request (count).
    max_redirects: _CountOrZero = 10
    #: Posts kept of one run (count); the run is marked as truncated.
    max_posts_per_run: _Count = 5000
    #: Long polls and event streams held at once (count); beyond it a poll is answered at once, a stream with 503.
    max_waiters: _CountOrZero = 1000
    #: In which crontab lines are read; `local`, or a name such as `Europe/Berlin`.
    timezone: str = "local"
    #: How much is logged.
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    #: Origins of frontends that are served from elsewhere.
    allowed_origins: _List = ()
    #: Further names accepted in the Host header, such as the reverse proxy's.
    allowed_hosts: _List = ()
    #: Bearer token for writes and, once set, for reads too.
    api_token: Annotated[str | None, AfterValidator(_token), Field(repr=False)] = None
    #: URL template with `{handle}` that makes a bare handle a target of the default source.
    handle_url: str | None = None
    #: How long posts are kept that their source does not show any more (days); 0: for ever.
    retention_days: _CountOrZero = 0
    #: How long runs, sweeps and the journal are kept (days); 0: for ever. The last run of each target stays.
    history_days: _CountOrZero = 30
    #: Scrapers of your own: name to `module:function`.
    scrapers: Annotated[dict[str, str], BeforeValidator(_pairs)] = Field(default_factory=dict)
    #: Directory their modules are found in; None: where the config file lies, if there is one.
    scraper_path: _Path | None = None

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments only; `load` reads the layers."""
        return (init_settings,)

    @property
    def db_url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.data_dir / 'gleand.db'}"

    @check_field("*", mode="before")
    @classmethod
    def _given(cls, value: Any, info: ValidationInfo) -> Any:  # Any: whatever was given
        if isinstance(value, bool) and info.field_name != "allow_private_networks":
            raise ValueError("should not be true or false")
        may_be_empty = ("contact", "allowed_origins", "allowed_hosts", "scrapers")
        if isinstance(value, str) and info.field_name not in may_be_empty and not value.strip():
            raise ValueError("should not be empty; leave it out to use the default")
        return value

    @check_field("database_url")
    @classmethod
    def _database_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not re.match(r"(sqlite|postgresql)(\+\w+)?://", value):
            raise ValueError("should be a URL that starts with sqlite:/// or postgresql+psycopg://")
        if re.fullmatch(r"sqlite(\+\w+)?://(/(:memory:)?)?(\?.*)?", value):
            raise ValueError("should name a file: a database in memory forgets everything")
        return value

    @check_field("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        try:
            return value if value == "local" else ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("should be local or a time zone such as Europe/Berlin") from None

    @check_field("allowed_origins", "allowed_hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        origins = info.field_name == "allowed_origins"
        for name in value:
            if not (_ORIGIN if origins else _HOST).fullmatch(name.lower()):
                form = "https://app.example.org, without a path" if origins else "gleand.example.org"
                raise ValueError(f"should hold names such as {form}, and no wildcard")
        return tuple(name.lower() for name in value)

    @check_field("handle_url")
    @classmethod
    def _handle_url(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^\s/]\S*", value):
            raise ValueError("should be an http:// or https:// URL")
        if value is not None and re.findall(r"\{[^{}]*\}", value) != ["{handle}"]:
            raise ValueError("should contain {handle} once, and no other braces")
        return value

    @check_field("scrapers")
    @classmethod
    def _scrapers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, entry in value.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"has the name {name[:40]!r}: lower-case letters, digits, _ and - are possible")
            if name in RESERVED_NAMES:
                raise ValueError(f"has the name {name!r}, which is taken")
            if not _ENTRY.fullmatch(entry):
                raise ValueError(f"should give {name} as module:function, not {entry[:80]!r}")
        return value

    @check_model(mode="after")
    def _together(self) -> Settings:
        known = sorted(BUILT_IN_SOURCES | set(self.scrapers))
        if self.default_source not in known:
            raise ValueError(f"default_source|should be one of {', '.join(known)}")
        if self.api_token is None and not is_loopback(self.host):
            raise ValueError("host|can be reached by others: set api_token too, or listen on 127.0.0.1")
        return self


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
            if name not in Settings.model_fields or (variables and key != ENV_PREFIX + name.upper()):
                self.unknown(key, source, variables=variables)
            else:
                self.values[name], self.origins[name] = value, source

    def unknown(self, key: str, origin: str, *, variables: bool) -> None:
        names = [ENV_PREFIX + n.upper() for n in Settings.model_fields] if variables else list(Settings.model_fields)
        near = difflib.get_close_matches(key.upper() if variables else key, names, n=1, cutoff=0.5)
        where = "" if variables else f" ({origin})"
        text = f"{key[:80]!r}{where} is no setting" + (f"; did you mean {near[0]}?" if near else "")
        self.problems.append(Problem(setting=key, source=origin, text=text))


def load(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,  # Any: flags, judged by pydantic
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
        config = _absolute(config)
        layers.put(_read_toml(config, layers.problems), str(config))
    ours = {k: v for k, v in env.items() if k.startswith(ENV_PREFIX) and k not in ENV_OTHERS}
    layers.put(ours, "", variables=True)
    layers.put(overrides or {}, "flag")
    if config is not None and layers.values.get("scrapers") and layers.values.get("scraper_path") is None:
        layers.put({"scraper_path": config.parent}, "where the config file lies")
    try:
        settings = Settings(**layers.values)
    except ValidationError as exc:
        layers.problems += [_explain(error, layers) for error in exc.errors(include_url=False)]
    if layers.problems:
        raise ConfigError(layers.problems)
    settings._origins.update(layers.origins)
    return settings


def _read_toml(path: Path, problems: list[Problem]) -> dict[str, Any]:  # Any: TOML values
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


def _explain(error: Any, layers: _Layers) -> Problem:  # Any: pydantic's ErrorDetails
    """Say what is wrong with one setting; a secret's value stays out."""
    message = str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0]) if error["loc"] else ""
    if not name:
        name, message = message.split("|", 1)
    elif error["type"] != "value_error":
        message = message.replace("Input should", "should").replace("Value should", "should")
        message = message[:1].lower() + message[1:]
    source = layers.origins.get(name, "default")
    shown = "" if name in _SECRET or name not in layers.values else f", got {_clip(layers.values[name])}"
    return Problem(setting=name, source=source, text=f"{name} ({source}) {message}{shown}")


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
    for name in Settings.model_fields:
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
