"""Style presets: wordings put around a detailer's prompts, kept in ``styles.toml``."""

from __future__ import annotations

import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from afterdetail.errors import UnknownName


@dataclass(frozen=True, slots=True)
class Style:
    """A wording. ``prompt`` has ``{prompt}`` among its parts; parts are divided by ``", "``."""

    name: str
    prompt: str
    negative: str


def names() -> tuple[str, ...]:
    """The 78 names, in the order of the hosted endpoint's SDK."""
    return tuple(style.name for style in _styles().values())


def find(name: str) -> Style:
    """The style of this name, in whatever case and Unicode form it is written.

    Raises:
        UnknownName: there is none; the message has the closest names.
    """
    try:
        return _styles()[_key(name)]
    except KeyError:
        raise UnknownName("style", name, names(), field="style_preset") from None


def apply(name: str, prompt: str, negative: str) -> tuple[str, str]:
    """Both prompts in the wording of a style; ``base`` returns them as they are.

    Raises:
        UnknownName: there is no such style.
    """
    style = find(name)
    if style.name == "base":
        return prompt, negative
    parts = (prompt if part == "{prompt}" else part for part in style.prompt.split(", "))
    return _joined(*parts), _joined(negative, style.negative)


def _joined(*parts: str) -> str:
    return ", ".join(stripped for part in parts if (stripped := part.strip(" \t\r\n,")))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@cache  # of one entry: the shipped file
def _styles() -> dict[str, Style]:
    text = files("afterdetail.prompts").joinpath("styles.toml").read_text(encoding="utf-8")
    return {_key(name): Style(name, **wording) for name, wording in tomllib.loads(text).items()}
