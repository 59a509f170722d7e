"""The settings on the page as a program: what to send to have the same done without it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

CURL = """\
curl --fail-with-body{token} --header 'Accept: image/{encoding}' \\
  --form {picture} \\
  --form {options} \\
  --output {out} \\
  {url}
"""
CURL_TOKEN = ' --header "Authorization: Bearer $AFTERDETAIL_TOKEN"'
PYTHON = """\
import json
{imports}
import requests

options = {options}
with open({picture!r}, "rb") as picture:
    answer = requests.post(
        {url!r},
        headers={{"Accept": "image/{encoding}"{token}}},
        files={{"image": picture}},
        data={{"options": json.dumps(options)}},
        timeout=300,
    )
answer.raise_for_status()
with open({out!r}, "wb") as detailed:
    detailed.write(answer.content)
"""
PYTHON_TOKEN = ', "Authorization": f"Bearer {os.environ[\'AFTERDETAIL_TOKEN\']}"'
PLAIN_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the page would do now. ``options`` are those that are not at their defaults."""

    server: str
    picture: str
    encoding: str
    options: Mapping[str, object]
    token: bool

    @property
    def url(self) -> str:
        return f"{self.server.rstrip('/')}/v1/detail"

    @property
    def file(self) -> str:
        """The picture's own name, where curl has no second meaning for a character of it."""
        return self.picture if PLAIN_NAME.fullmatch(self.picture) else "picture.png"

    @property
    def out(self) -> str:
        return f"{PurePath(self.file).stem}-detailed.{self.encoding}"


def as_curl(settings: Settings) -> str:
    """A command for a POSIX shell."""
    options = json.dumps(dict(settings.options), ensure_ascii=False)
    return CURL.format(
        token=CURL_TOKEN if settings.token else "",
        encoding=settings.encoding,
        picture=shlex.quote(f"image=@{settings.file}"),
        options=shlex.quote(f"options={options}"),
        out=shlex.quote(settings.out),
        url=shlex.quote(settings.url),
    )


def as_python(settings: Settings) -> str:
    """A program that needs requests."""
    return PYTHON.format(
        imports="import os\n" if settings.token else "",
        options=_literal(settings.options),
        picture=settings.file,
        url=settings.url,
        encoding=settings.encoding,
        token=PYTHON_TOKEN if settings.token else "",
        out=settings.out,
    )


def _literal(options: Mapping[str, object]) -> str:
    if not options:
        return "{}"
    lines = "".join(f"    {name!r}: {value!r},\n" for name, value in options.items())
    return f"{{\n{lines}}}"
