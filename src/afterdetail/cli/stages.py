"""``--stages FILE``: several turns of finding and repainting, written down."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from afterdetail.cli.files import read_bytes
from afterdetail.errors import InvalidInput
from afterdetail.options import LibraryOptions
from afterdetail.stages import Stage, parse_stages


def stages_of(file: Path | None, options: LibraryOptions) -> tuple[Stage, ...]:
    """The stages of a file, each with the options of the command line that it does not have itself;
    without a file, the one stage that the options are.

    The file is JSON, a list of objects as in ``POST /v1/detail``, or TOML, a ``[[stage]]`` each.

    Raises:
        InvalidInput: the file cannot be read, is neither, or an option in it is wrong.
    """
    shared = options.model_dump(exclude_defaults=True)
    if file is None:
        return parse_stages(None, shared)
    data = read_bytes(file)
    try:
        return parse_stages(_listed(data, is_toml=file.suffix == ".toml"), shared)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{file}: {error}", field=error.field) from None


def _listed(data: bytes, *, is_toml: bool) -> list[Mapping[str, object]]:
    try:
        text = data.decode("utf-8")
        given = tomllib.loads(text).get("stage") if is_toml else json.loads(text)
    except ValueError as error:  # of both formats, and of UTF-8
        what = "TOML" if is_toml else "JSON"
        raise InvalidInput("stages_invalid", f"not {what}: {error}", field="stages") from None
    if isinstance(given, list) and all(isinstance(stage, dict) for stage in given):
        return given
    form = "[[stage]] tables" if is_toml else "a list of JSON objects"
    message = f"needs {form}, one for each stage"
    raise InvalidInput("stages_invalid", message, field="stages")
