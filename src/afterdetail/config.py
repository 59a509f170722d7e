"""The settings of the server, from the environment: ``AFTERDETAIL_MAX_BODY_BYTES=64000000``."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from afterdetail.errors import InvalidInput

TOKEN = re.compile(r"(?P<name>[\w.@-]{1,64}):(?P<secret>[\x21-\x2b\x2d-\x7e]{8,512})")
"""No commas and no spaces, since both divide tokens."""


@dataclass(frozen=True, slots=True)
class Token:
    """A client's name and the SHA-256 of its token; the token itself is not kept."""

    name: str
    digest: bytes


def parse_tokens(text: str) -> tuple[Token, ...]:
    """Tokens written ``name:token``, divided by commas or line ends; ``#`` begins a comment line.

    Raises:
        ValueError: one is written otherwise; its place is told, its text is not.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    items = [item for line in lines for item in re.split(r"[,\s]+", line) if item]
    return tuple(_token(number, item) for number, item in enumerate(items, start=1))


def _token(number: int, item: str) -> Token:
    match = TOKEN.fullmatch(item)
    if match is None:
        raise ValueError(
            f"token number {number} is not written as name:token (8 characters or more)"
        )
    return Token(match["name"], sha256(match["secret"].encode()).digest())


def _tokens(value: Any) -> Any:
    return parse_tokens(value) if isinstance(value, str) else value


def _words(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(word.strip().lower() for word in value.split(",") if word.strip())


BackendName: TypeAlias = Literal["auto", "eager", "graphs", "openvino"]

Words: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Ports: TypeAlias = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_words)]
Tokens: TypeAlias = Annotated[tuple[Token, ...], NoDecode, BeforeValidator(_tokens)]


def _webhook_key(value: Any) -> Any:
    """The bytes of a secret as Standard Webhooks writes it.

    Raises:
        ValueError: it is written otherwise; its text is not told.
    """
    if not isinstance(value, str) or not value:
        return value or b""
    try:
        key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not value.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("needs whsec_ and 24 to 64 bytes in base64")
    return key


WebhookKey: TypeAlias = Annotated[bytes, NoDecode, BeforeValidator(_webhook_key)]


def default_state_dir() -> Path:
    """``$XDG_STATE_HOME/afterdetail``, as the XDG base directory specification has it."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "afterdetail"


class Settings(BaseSettings):
    """Every setting of the server. Lists are written with commas."""

    model_config = SettingsConfigDict(
        env_prefix="AFTERDETAIL_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    tokens: Annotated[Tokens, Field(repr=False)] = ()
    """Who may use the server: `name:token,name:token`. Empty: whoever can reach it."""
    tokens_file: Path | None = None
    """A file with more of them, one `name:token` a line."""
    allow_anonymous: bool = False
    """Listen on other addresses than loopback without any tokens."""

    resolutions: Literal["listed", "any"] = "listed"
    """Of `POST /adetailer`. `listed`: one of the sizes of the hosted endpoint; `any`: any size, as
    all other paths take."""
    detectors: Literal["listed", "any"] = "listed"
    """Of `POST /adetailer`. `listed`: the six of the hosted endpoint; `any`: all of the catalogue,
    as all other paths take."""
    max_body_bytes: PositiveInt = 32_000_000
    """Bytes of a request's body; base64 is a third larger than the picture."""
    max_pixels: PositiveInt = 50_000_000
    """Width x height of a picture."""
    max_objects: PositiveInt = 64
    """Objects repainted in one picture, the most confident ones."""
    upload_timeout: PositiveFloat = 60
    """Seconds within which a request's body has to arrive."""
    request_timeout: PositiveFloat = 300
    """Seconds a request may take, waiting included."""
    deterministic: bool = False
    """The same request gives the same pixels to the last bit, whatever else is running; slower."""
    memory: Literal["high", "low"] = "high"
    """`low`: for small cards. Text encoders, autoencoder and idle models wait in host memory, the
    autoencoder works in tiles of 512 pixels, and the backend is `eager`; slower."""
    backend: BackendName = "auto"
    """What runs the UNet: `eager`, `graphs` (CUDA), `openvino` (CPU, an extra), or the fastest."""
    threads: PositiveInt = 32
    """Requests worked on at once; the others wait."""

    queue_seconds: PositiveFloat = 60
    """Seconds of work, at the speed measured, that may wait before more is refused."""
    queue_work: PositiveInt = 20_000
    """Row-steps of work that may wait; a face at the defaults has 36."""
    queue_bytes: PositiveInt = 1_000_000_000
    """Bytes of all bodies that are being read or waiting."""
    requests_per_minute: NonNegativeInt = 0
    """Requests that one token may send in a minute; 0 for any number."""

    safety: Literal["on", "off"] = "on"
    """`on`: a classifier looks at each repainted crop; a refused one is left as it was."""
    safety_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The classifier's score from which a crop is refused."""
    safety_folder: Path | None = None
    """Folder of Stable Diffusion's own checker (config.json, model.safetensors), asked too."""
    safety_adjustment: float = 0
    """Added to that checker's scores, which refuse above 0: 0.02 is strict, -0.02 lenient."""

    state_dir: Path = Field(default_factory=default_state_dir)
    """Folder for the jobs and results of the asynchronous form; made when first needed."""
    state_url: Annotated[str, Field(repr=False)] = ""
    """A database instead, which several servers share: `postgresql+pg8000://user:password@host/db`.
    Needs the extra `postgres`. The jobs of a server that is gone run on another."""
    state_files: Annotated[str, Field(repr=False)] = ""
    """Where their files lie then, as fsspec has it: a folder all servers see, or `s3://bucket/x`."""
    async_hours: PositiveFloat = 24
    """Hours for which such a result is kept."""
    async_bytes: PositiveInt = 10_000_000_000
    """Bytes of all such jobs and results; more are refused."""
    hung_after: NonNegativeFloat = 0
    """Seconds of one engine step after which `/health/live` says 503; 0: 8 on a GPU, and 300 on a
    processor, where a full batch is slow."""
    metrics_token: Annotated[str, Field(repr=False)] = ""
    """Token for `/metrics`; without it they answer to this machine only."""
    log_format: Literal["text", "json"] = "text"
    """How the log is written, to standard error."""
    traces: bool = False
    """Send OpenTelemetry traces to the collector that its own variables name. Needs the extra
    `otel`."""

    webhook_secret: Annotated[WebhookKey, Field(repr=False)] = b""
    """`whsec_` and 24 to 64 bytes in base64, which sign webhooks; empty: none are sent."""

    public_url: str = ""
    """Where clients reach the server, as in `https://example.org`; empty: as they addressed it."""

    url_timeout: PositiveFloat = 10
    """Seconds to fetch `init_image_url`, redirects included."""
    max_url_bytes: PositiveInt = 32_000_000
    """Bytes of a picture fetched by URL."""
    url_ports: Ports = (80, 443)
    """The ports `init_image_url` may name."""
    url_allow_hosts: Words = ()
    """If set, only from these hosts; `.example.org` stands for its subdomains too."""
    url_deny_hosts: Words = ()
    """Never from these hosts, written in the same way."""
    allow_private_urls: bool = False
    """Fetch from private and loopback addresses too. Only where every client is trusted."""

    def hung_after_on(self, device_type: str) -> float:
        """Seconds of one engine step after which the engine counts as hung."""
        return self.hung_after or (300.0 if device_type == "cpu" else 8.0)

    def all_tokens(self) -> tuple[Token, ...]:
        """Those of the environment and those of the file.

        Raises:
            InvalidInput: the file cannot be read, or is written wrong.
        """
        if self.tokens_file is None:
            return self.tokens
        try:
            return self.tokens + parse_tokens(self.tokens_file.read_text(encoding="utf-8"))
        except OSError as error:
            problem = str(error.strerror)
        except ValueError as error:  # written wrong, or not UTF-8
            problem = str(error)
        raise InvalidInput(
            "settings_invalid", f"tokens_file {self.tokens_file}: {problem}", field="tokens_file"
        )


def settings_table() -> str:
    """Every setting as a row of a Markdown table, for the documentation."""
    rows = [
        f"| `AFTERDETAIL_{name.upper()}` | {_shown(name, field)} | {_one_line(field)} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _shown(name: str, field: FieldInfo) -> str:
    if name == "state_dir":
        return "`~/.local/state/afterdetail`"
    value = field.default
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return "" if value in ("", b"", None) else f"`{str(value).lower()}`"


def _one_line(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def load_settings() -> Settings:
    """The settings of this process's environment.

    Raises:
        InvalidInput: one of them is wrong; it is named by its variable.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0])
        text = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(
            "settings_invalid", f"AFTERDETAIL_{name.upper()}: {text}", field=name
        ) from None
