"""The service's settings: read once from the environment (KDIFFE_…) and the command line, handed in at the top."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from model_store.admission import LONGEST_ID
from model_store.store import DEFAULT_ROOT
from service.errors import StartError
from service.index.options import IndexOptions
from service.jobs.cron import check_cron

SQLITE = "sqlite:///"
REDIS = ("redis://", "rediss://", "unix://")


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


class Settings(BaseSettings):
    """What the service is started with."""

    model_config = SettingsConfigDict(env_prefix="KDIFFE_", frozen=True, extra="forbid", validate_default=True)

    store: Path = Field(DEFAULT_ROOT, description="Directory of the model store.")
    state: str = Field(
        "",
        repr=False,
        description="URL of the state store, SQLite's or Redis's; empty for sqlite:///STORE/state.sqlite3.",
    )
    state_password: SecretStr | None = Field(None, description="Password of the Redis state store.")
    host: str = Field("127.0.0.1", description="Address to listen on; another than loopback needs an admin key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 for any free one.")
    workers: int = Field(1, ge=1, description="Number of serving processes on one socket.")
    admin_key: SecretStr | None = Field(None, description="Key of the admin requests, at least 16 characters.")
    refresh_every: int = Field(
        100, ge=1, description="T, the item vectors and the index are refreshed at multiples of this sequence number."
    )
    index: Literal["faiss", "exact", "ivf", "hnsw"] = Field(
        "faiss", description="The vector index: FAISS's exact one, numpy's, or an approximate one of FAISS."
    )
    index_gpu: bool = Field(True, description="Whether the faiss index lies on a GPU where FAISS sees one.")
    index_lists: int = Field(0, ge=0, description="IVF: number of lists; 0 for the square root of the items' number.")
    index_probes: int = Field(32, ge=1, description="IVF: lists that a search reads.")
    index_links: int = Field(32, ge=2, le=512, description="HNSW: links of an item.")
    index_effort: int = Field(128, ge=1, description="HNSW: candidates that a search keeps.")
    index_recall: float = Field(
        0.95,
        ge=0,
        le=1,
        description="An approximate index that finds less of the true top 20 gives way to exact search.",
    )
    max_k: int = Field(200, ge=1, le=10_000, description="Largest number of items that a request may ask for.")
    max_users: int = Field(100, ge=1, description="Largest number of users in one POST /recommend.")
    max_batch: int = Field(1000, ge=1, description="Largest number of interactions in one request.")
    max_request_bytes: int = Field(1 << 20, ge=1024, description="Largest request body in bytes.")
    max_id_length: int = Field(
        LONGEST_ID, ge=1, le=LONGEST_ID, description="Longest user id, item id, type or idempotency key."
    )
    max_lag: int = Field(
        10_000, ge=1, description="Writes are answered 503 while so many interactions wait to be applied and settled."
    )
    apply_timeout: float = Field(
        30.0, gt=0, description="Seconds that a write waits for being applied before it is answered 503."
    )
    read_timeout: float = Field(
        2.0,
        gt=0,
        description="Seconds that a read with ?at_least=SEQ waits before it is answered 503.",
    )
    require_keys: Literal["read", "write", "admin"] = Field(
        "admin",
        description="Requests of this scope or a higher one (read, write, admin) need a key; health checks never do.",
    )
    rate_limit: float = Field(
        0.0,
        ge=0,
        description="Requests a second of one key, or of one address without a key, in each process; 0 for any number.",
    )
    rate_burst: float = Field(2.0, ge=0, description="Seconds' worth of requests that may come at once.")
    keys_interval: float = Field(1.0, gt=0, description="Seconds between looks at the state's API keys.")
    cors_origins: tuple[str, ...] = Field(
        (), description='Origins whose pages may call, as JSON: ["https://shop.example"]; none by default.'
    )
    traces: str = Field(
        "", description="OTLP/HTTP address of a collector of traces, http://HOST:4318/v1/traces; none where empty."
    )
    trace_ratio: float = Field(1.0, ge=0, le=1, description="Share of the requests that are traced.")
    cached_lists: int = Field(
        4096, ge=0, description="Lists that are kept as bytes until the log goes on; 0 makes every list anew."
    )
    poll_interval: float = Field(0.2, gt=0, description="Seconds between looks at the log for writes of others.")
    version_interval: float = Field(0.25, gt=0, description="Seconds between looks at the store's active version.")
    keep_warm: float = Field(
        3600.0,
        ge=0,
        description="Seconds for which the version before stays in memory, so that a roll back is one step.",
    )
    compact: bool = Field(
        False, description="Whether a retrain drops from the log what every version of the store holds."
    )
    jobs: Path | None = Field(None, description="Directory of the jobs' files; empty for STORE/.jobs.")
    trainer: Literal["here", "elsewhere"] = Field(
        "here", description="Whether retrain jobs run beside the service, or wait for a `kdiffe trainer`."
    )
    job_seconds: float = Field(0, ge=0, description="Seconds that a training may take; 0 for no limit.")
    job_memory_mb: int = Field(0, ge=0, description="MiB of memory that a training may use; 0 for no limit.")
    gate_margin: float = Field(
        0.05,
        ge=0,
        description=(
            "A new version whose validation metrics are lower by more than this share is not activated; 1 activates "
            "any that is sound, and spares a retrain the trial that measures it."
        ),
    )
    retrain_cron: str = Field("", description="When to retrain: a cron expression of five fields, in UTC.")
    retrain_interactions: int = Field(0, ge=0, description="Retrain after so many new interactions; 0 for never.")
    graceful_shutdown: int = Field(10, ge=1, description="Seconds that requests under way get when the service stops.")
    console: bool = Field(False, description="Whether the console, a web page, is served at /console.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

    @field_validator("admin_key")
    @classmethod
    def _long_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError(
                "the admin key has fewer than 16 characters; make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        return value

    @field_validator("retrain_cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        return check_cron(value) if value else value

    @field_validator("state")
    @classmethod
    def _known_state(cls, value: str) -> str:
        if value and not value.startswith(REDIS) and (not value.startswith(SQLITE) or value == SQLITE):
            # Without the value: a mistyped address may hold a password.
            raise ValueError("is not sqlite:///PATH (sqlite:////PATH for an absolute path), nor redis://HOST/DB")
        return value

    @model_validator(mode="after")
    def _key_for_others(self) -> Settings:
        if self.admin_key is None and not is_loopback(self.host):
            raise ValueError(f"host={self.host!r} lets other machines in: set KDIFFE_ADMIN_KEY, or listen on 127.0.0.1")
        return self

    @property
    def state_url(self) -> str:
        """Where the state is kept."""
        return self.state or f"{SQLITE}{self.store / 'state.sqlite3'}"

    @property
    def admin_secret(self) -> str | None:
        """The admin key's text, None where there is none."""
        return None if self.admin_key is None else self.admin_key.get_secret_value()

    @property
    def state_secret(self) -> str | None:
        """The Redis server's password, None where there is none beside the URL's."""
        return None if self.state_password is None else self.state_password.get_secret_value()

    @property
    def index_options(self) -> IndexOptions:
        """How the index is made."""
        return IndexOptions(
            self.index_gpu,
            self.index_lists,
            self.index_probes,
            self.index_links,
            self.index_effort,
            self.index_recall,
        )

    @property
    def jobs_directory(self) -> Path:
        """Where jobs keep their files."""
        return self.jobs or self.store / ".jobs"


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """Environment variables that are nearly a setting's, and the setting's: they would be passed over in silence.

    What is less alike is left alone: a cluster sets variables of its own (KDIFFE_SERVICE_HOST), and so do our tools.
    """
    known = [f"KDIFFE_{name.upper()}" for name in Settings.model_fields]
    unknown = sorted(name for name in names if name.startswith("KDIFFE_") and name not in known)
    nearest = {name: get_close_matches(name, known, n=1, cutoff=0.9) for name in unknown}
    return {name: found[0] for name, found in nearest.items() if found}


def misspelling_notes(names: Iterable[str]) -> str:
    """What to tell of them at the start, one line each."""
    return "".join(
        f"kdiffe: {name} is no setting and changes nothing; is {meant} meant?\n"
        for name, meant in misspelt(names).items()
    )


def read_settings(**overrides: Any) -> Settings:
    """Settings from the environment; an override that is not None goes before it.

    Raises:
        StartError: a value that can't be used. The text never holds the value of a secret.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except SettingsError as error:
        # A variable that should be JSON and is not; the text names the field, never the value.
        raise StartError(f"The service can't start with these settings: {error}: write it as JSON.") from None
    except ValidationError as error:
        # Only the fields' names and the messages: pydantic's own text would show the input.
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise StartError(f"The service can't start with these settings: {problems}.") from None
