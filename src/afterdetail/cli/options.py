"""The fields of :class:`~afterdetail.options.LibraryOptions` as options of a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from afterdetail.errors import InvalidInput
from afterdetail.options import LibraryOptions, parse_options

DEFAULT_MODELS = "sd15"

Models = Annotated[
    str,
    typer.Option(
        metavar="NAMES|FILE",
        help="Built-in bases ('tiny', 'sd15', 'sd15,sdxl') or a catalogue of your own (.toml).",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="cpu|cuda|mps", help="Where to compute.", show_default="the fastest"),
]
Memory = Annotated[
    Literal["high", "low"],
    typer.Option(help="low: for small cards; what is not needed waits in host memory. Slower."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ImageEncoding = Annotated[
    Literal["png", "jpeg"] | None,
    typer.Option(help="How to write pictures, whatever the extension.", show_default=False),
]
Metadata = Annotated[
    bool,
    typer.Option(
        "--metadata/--no-metadata",
        help="Keep EXIF and texts of IN, and add how it was detailed.",
    ),
]

REPEATED = ("seed", "loras")
ALIASES = {"loras": ("--lora",)}
METAVARS = {"detector": "NAME|FILE", "loras": "NAME[=WEIGHT]", "sampler": "NAME", "seed": "NUMBER"}
HELP = {
    "loras": "A LoRA to apply, and its weight (1 if none is given). Can be given more than once.",
    "seed": (
        "Object i, most confident first, is drawn with this seed + i; given more than once, with "
        "the i-th of them, cycling. Otherwise random."
    ),
}
"""Where the command line says it otherwise than the request does."""
WORDS = {"null": "not given", "Null": "Not given", "init_image": "IN"}
"""The request's, and what they are here."""


def takes_detail_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each request field; it gets them all as ``options``.

    ``mask_blur`` becomes ``--mask-blur``; ``seed`` and ``loras`` can be given more than once. Types
    are the command line's business, ranges are checked by :func:`parse_options`.
    """

    def with_options(**given: Any) -> None:
        fields = {name: given.pop(name) for name in LibraryOptions.model_fields}
        command(options=_validated(fields), **given)

    return _with_fields(command, with_options, "options", has_defaults=True)


def takes_changes(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a command that changes options: it gets those that were given, by name, as
    ``changes``.
    """

    def with_changes(**given: Any) -> None:
        fields = {name: given.pop(name) for name in LibraryOptions.model_fields}
        changes = _validated(fields).model_dump(exclude_unset=True)
        command(changes=changes, **given)

    return _with_fields(command, with_changes, "changes", has_defaults=False)


def _with_fields(
    command: Callable[..., None],
    called: Callable[..., None],
    replaced: str,
    *,
    has_defaults: bool,
) -> Callable[..., None]:
    """``called`` with the command's parameters, and one for each field in place of ``replaced``."""
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != replaced]
    fields = LibraryOptions.model_fields.items()
    parameters = [*own, *(_parameter(*item, has_default=has_defaults) for item in fields)]
    functools.update_wrapper(called, command)
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {item.name: item.annotation for item in parameters}
    return called


def default_of(field: str) -> Any:
    """The default of a request field."""
    return LibraryOptions.model_fields[field].default


def _parameter(name: str, field: FieldInfo, *, has_default: bool) -> inspect.Parameter:
    kind = _plain_type(field.annotation)
    default = field.default if has_default else None
    option = typer.Option(
        _flag(name, kind, default),
        *ALIASES.get(name, ()),
        help=_help(name, field, kind),
        show_default=default is not None,
        metavar=METAVARS.get(name),
        case_sensitive=False,
        rich_help_panel="What to find, and how to repaint it",
    )
    if name == "sampler":  # too many for a list of choices
        kind = str
    annotation: Any = list[kind] | None if name in REPEATED else kind  # type: ignore[valid-type]
    if default is None:
        annotation |= None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=getattr(default, "value", default) if kind is str else default,
        annotation=Annotated[annotation, option],
    )


def _flag(name: str, kind: Any, default: Any) -> str:
    """``--mask-blur``; for what can be turned off, ``--prompt-marks/--no-prompt-marks``."""
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if kind is bool and default is not False else f"--{flag}"


def _help(name: str, field: FieldInfo, kind: Any) -> str:
    text = HELP.get(name) or " ".join((field.description or "").split())
    for word, ours in WORDS.items():
        text = text.replace(word, ours)
    if issubclass(kind, Enum) and name in METAVARS:
        text += f" One of {', '.join(item.value for item in kind)}."
    return escape(text)


def _plain_type(annotation: Any) -> Any:
    """The type of one value: without ``Annotated``, ``None`` and alternatives; text for a dict."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _plain_type(next(arg for arg in get_args(annotation) if arg is not NoneType))
    return str if origin is dict else annotation


def _validated(fields: Mapping[str, Any]) -> LibraryOptions:
    """The options that were given, as a record; an error names the option, not the field."""
    given = {name: value for name, value in fields.items() if value not in (None, [])}
    seeds = given.get("seed", [])
    if len(seeds) == 1:
        given["seed"] = seeds[0]
    if "loras" in given:
        given["loras"] = _loras(given["loras"])
    if "sampler" in given:
        given["sampler"] = given["sampler"].upper()
    try:
        return parse_options(given)
    except InvalidInput as error:
        field = error.field or ""
        text = str(error).removeprefix(f"{field}: ")
        message = f"--{field.replace('_', '-')}: {text}"
        raise InvalidInput(error.code, message, field=field) from None


def _loras(given: Sequence[str]) -> dict[str, float | None]:
    """``NAME=WEIGHT`` or ``NAME``, whose weight is 1."""
    weights: dict[str, float | None] = {}
    for item in given:
        name, _, weight = item.partition("=")
        try:
            weights[name] = float(weight) if weight else None
        except ValueError:
            message = f"--lora: {item[:80]!r} is not NAME=WEIGHT, such as freckles=0.8"
            raise InvalidInput("lora_invalid", message, field="loras") from None
    return weights
