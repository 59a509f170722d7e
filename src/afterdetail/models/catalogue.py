"""Which models there are: the built-in ``models.toml`` and catalogues of the user's in its form.

A catalogue is data. Nothing here opens a weights file or the network; see
:mod:`afterdetail.models.store` for that. Names are looked up, never made into paths.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from afterdetail.errors import InvalidInput, UnknownName
from afterdetail.options import Base
from afterdetail.types import Size

BUILT_IN = Path(__file__).with_name("models.toml")
HOSTED_PREFIX = "octoai:"
"""Names of the hosted endpoint's own models began with this; it is ignored."""
NAME = re.compile(r"[^\W_][\w .+()-]{0,99}")
"""No separators of paths or lists, nothing that starts like an option or a hidden file."""
PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


class Kind(StrEnum):
    BASE = "base"
    CHECKPOINT = "checkpoint"
    REFINER = "refiner"
    VAE = "vae"
    LORA = "lora"
    EMBEDDING = "embedding"
    DETECTOR = "detector"

    @property
    def field(self) -> str:
        """The request field to blame when such a model is missing."""
        return FIELDS[self]


FIELDS = {
    Kind.BASE: "inpainting_base_model",
    Kind.CHECKPOINT: "checkpoint",
    Kind.REFINER: "use_refiner",
    Kind.VAE: "inpainting_base_model",
    Kind.LORA: "loras",
    Kind.EMBEDDING: "prompt",
    Kind.DETECTOR: "detector",
}


class Outline(StrEnum):
    """What of a detected object is repainted."""

    BOX = "box"
    SEGMENTATION = "segmentation"


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights come from: exactly one of ``package``, ``hub`` and ``path`` is set.

    ``package`` is a path inside the afterdetail package; ``hub`` an ``owner/name`` on the hub, with
    one ``file`` of it or, without, the whole diffusers folder at ``revision``; ``path`` an absolute
    path of the user's.
    """

    package: str | None = None
    hub: str | None = None
    file: str | None = None
    revision: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if sum(place is not None for place in (self.package, self.hub, self.path)) != 1:
            raise ValueError("give exactly one of path, hub and package")
        if self.hub is None and (self.file is not None or self.revision is not None):
            raise ValueError("file and revision belong to a hub repository")

    @property
    def filename(self) -> str:
        """The name of the file, or of the folder where there is no single file."""
        return Path(self.file or self.path or self.package or str(self.hub)).name


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One entry of a catalogue."""

    name: str
    kind: Kind
    source: Source
    base: Base | None = None
    """None for detectors."""
    sha256: str | None = None
    licence: str = "unknown"
    sizes: tuple[Size, ...] = ()
    """Of bases, checkpoints and refiners: the pictures they repaint."""
    label: str = ""
    """Of detectors: what detections are called; empty: the name of the class."""
    classes: tuple[str | int, ...] = ()
    """Of detectors: the classes to keep; empty: all."""
    outline: Outline = Outline.BOX
    trigger_words: tuple[str, ...] = ()
    clip_skip: int = 0
    """Of bases and checkpoints: layers of the text encoders left out at their end."""
    vae: ModelSpec | None = None
    """Of bases, checkpoints and refiners: the autoencoder that takes the place of their own."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The models one process may use. Names are unique across kinds."""

    models: tuple[ModelSpec, ...]

    def names(self, kind: Kind | None = None) -> tuple[str, ...]:
        """The names of a kind, or all, in the order of the catalogue."""
        return tuple(spec.name for spec in self.models if kind in (None, spec.kind))

    def find(self, kind: Kind | None, name: str, *, field: str = "name") -> ModelSpec:
        """The entry of this name; ``octoai:`` in front of it is ignored.

        Raises:
            UnknownName: no entry of this kind has the name; ``field`` is the request's to blame.
        """
        wanted = name.removeprefix(HOSTED_PREFIX)
        for spec in self.models:
            if spec.name == wanted and kind in (None, spec.kind):
                return spec
        raise UnknownName(kind or "model", name, self.names(kind), field=field)

    def of(self, kind: Kind, base: Base) -> tuple[ModelSpec, ...]:
        """The entries of a kind that belong to a base."""
        return tuple(spec for spec in self.models if spec.kind is kind and spec.base is base)

    def bases(self) -> dict[Base, ModelSpec]:
        """What is served: the base model of each base, the first where there are several."""
        served = [spec for spec in self.models if spec.kind is Kind.BASE]
        return {spec.base: spec for spec in reversed(served) if spec.base is not None}


@cache
def built_in() -> Catalogue:
    """Every entry of the built-in file, whether served or not."""
    return Catalogue(_read(BUILT_IN))


def load_catalogue(models: str | Path) -> Catalogue:
    """The catalogue that ``models`` stands for.

    Args:
        models: the path of a ``.toml`` file: its entries and the built-in detectors, every ``base``
            entry served; or names of built-in bases separated by commas (``"sd15,sdxl"``): the
            built-in catalogue with just these served.

    Raises:
        InvalidInput: the file cannot be read or an entry is wrong: file, entry and key are named.
        UnknownName: no built-in base has that name.
    """
    builtin = built_in()
    if str(models).endswith(".toml"):
        own = _read(Path(models).expanduser())
        names = {spec.name for spec in own}
        rest = (spec for spec in builtin.models if spec.kind is Kind.DETECTOR)
        catalogue = Catalogue(own + tuple(spec for spec in rest if spec.name not in names))
    else:
        wanted = [name.strip() for name in str(models).split(",")]
        served = {builtin.find(Kind.BASE, name, field="models") for name in wanted}
        catalogue = Catalogue(
            tuple(s for s in builtin.models if s.kind is not Kind.BASE or s in served)
        )
    _check_one_per_base(catalogue, str(models))
    return catalogue


def parse_size(text: str) -> Size:
    """``"640x1536"`` is 640 wide and 1536 high; ValueError for anything else."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise ValueError(f"{text!r} is not a size like '512x768' (width x height)")
    return int(match[1]), int(match[2])


def _sizes(value: Any) -> Any:
    return [parse_size(str(item)) for item in value] if isinstance(value, list) else value


def _name(value: Any) -> Any:
    if isinstance(value, str) and not NAME.fullmatch(value):
        raise ValueError(
            "a name begins with a letter or digit and has letters, digits, spaces and . _ + ( ) -"
        )
    return value


class _Entry(BaseModel):
    """One ``[[model]]`` table as it is written."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[StrictStr, BeforeValidator(_name)]
    kind: Kind
    base: Base | None = None
    package: StrictStr | None = None
    hub: Annotated[StrictStr, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    file: StrictStr | None = None
    revision: StrictStr | None = None
    path: StrictStr | None = None
    sha256: Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    licence: StrictStr = "unknown"
    sizes: Annotated[tuple[Size, ...], BeforeValidator(_sizes)] = ()
    label: StrictStr = ""
    classes: tuple[StrictStr | StrictInt, ...] = ()
    outline: Outline = Outline.BOX
    trigger_words: tuple[StrictStr, ...] = ()
    clip_skip: Annotated[StrictInt, Field(ge=0, le=10)] = 0
    vae: StrictStr | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.base is None) != (self.kind is Kind.DETECTOR):
            word = "no base" if self.kind is Kind.DETECTOR else "a base, sd15 or sdxl"
            raise ValueError(f"a {self.kind} has {word}")
        weights = self.file or self.path or ""
        if self.kind is not Kind.DETECTOR and weights.lower().endswith(PICKLED):
            raise ValueError(f"{weights}: diffusion weights must be .safetensors, never a pickle")
        inside = [
            part for place in (self.package, self.hub and self.file) for part in _parts(place)
        ]
        if ".." in inside:
            raise ValueError("a path inside a repository or the package has no '..'")
        return self


def _parts(place: str | None) -> list[str]:
    return re.split(r"[/\\]", place or "")


def _read(file: Path) -> tuple[ModelSpec, ...]:
    """Read and check one catalogue file."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(f"cannot read the model catalogue {file}: {error.strerror}") from error
    except ValueError as error:  # broken TOML, or not UTF-8
        raise _wrong(f"{file} is not TOML: {error}") from error
    entries = tables.pop("model", [])
    if tables or not isinstance(entries, list):
        given = ", ".join(tables) or "model"
        raise _wrong(f"{file}: {given!r}: a catalogue is made of [[model]] tables only")
    specs = tuple(_spec(file, number, entry) for number, entry in enumerate(entries, start=1))
    specs = tuple(
        _with_vae(file, spec, entry.get("vae"), specs)
        for spec, entry in zip(specs, entries, strict=True)
    )
    for name, count in Counter(spec.name for spec in specs).items():
        if count > 1:
            raise _wrong(f"{file}: model {name!r}: name: {count} entries have it")
    return specs


def _spec(file: Path, number: int, table: object) -> ModelSpec:
    name = table.get("name", f"number {number}") if isinstance(table, dict) else f"number {number}"
    try:
        entry = _Entry.model_validate(table)
        source = _source(entry, file.parent)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "entry"
        text = first["msg"].removeprefix("Value error, ")
        raise _wrong(f"{file}: model {name!r}: {key}: {text}") from None
    except ValueError as error:
        raise _wrong(f"{file}: model {name!r}: source: {error}") from None
    return ModelSpec(
        name=entry.name,
        kind=entry.kind,
        source=source,
        base=entry.base,
        sha256=entry.sha256,
        licence=entry.licence,
        sizes=entry.sizes or _usual_sizes(entry, file),
        label=entry.label,
        classes=entry.classes,
        outline=entry.outline,
        trigger_words=entry.trigger_words,
        clip_skip=entry.clip_skip,
    )


def _with_vae(
    file: Path, spec: ModelSpec, name: str | None, own: tuple[ModelSpec, ...]
) -> ModelSpec:
    """An entry with the autoencoder that it names: one of the same file, or a built-in one."""
    if name is None:
        return spec
    known = own if file == BUILT_IN else own + built_in().models
    for vae in known:
        if (vae.name, vae.kind, vae.base) == (name, Kind.VAE, spec.base):
            return replace(spec, vae=vae)
    names = ", ".join(vae.name for vae in known if (vae.kind, vae.base) == (Kind.VAE, spec.base))
    raise _wrong(
        f"{file}: model {spec.name!r}: vae: no {name!r} of {spec.base}; known: {names or 'none'}"
    )


def _source(entry: _Entry, folder: Path) -> Source:
    """The source of an entry; a ``file`` without a ``hub`` is a path of the user's."""
    path, file = entry.path, entry.file
    if entry.hub is None and path is None:
        path, file = file, None
    if path is not None:
        path = str((folder / Path(path).expanduser()).resolve())
    return Source(
        package=entry.package, hub=entry.hub, file=file, revision=entry.revision, path=path
    )


def _usual_sizes(entry: _Entry, file: Path) -> tuple[Size, ...]:
    """A base or checkpoint that names no sizes repaints at those of the built-in base."""
    if entry.kind not in (Kind.BASE, Kind.CHECKPOINT, Kind.REFINER) or file == BUILT_IN:
        return ()
    assert entry.base is not None, "checked with the entry"
    return built_in().find(Kind.BASE, entry.base).sizes


def _check_one_per_base(catalogue: Catalogue, models: str) -> None:
    served: dict[Base | None, str] = {}
    for spec in catalogue.models:
        if spec.kind is Kind.BASE and spec.base in served:
            pair = f"{served[spec.base]!r} and {spec.name!r}"
            raise _wrong(
                f"{models}: {pair} are both bases of {spec.base}; make one kind = 'checkpoint'"
            )
        if spec.kind is Kind.BASE:
            served[spec.base] = spec.name


def _wrong(message: str) -> InvalidInput:
    return InvalidInput(
        "catalogue_invalid", message, field="models", public="the model catalogue is wrong"
    )
