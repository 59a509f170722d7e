"""Which models there are: the built-in ``models.toml`` and catalogues of the user's in its form.

A catalogue is data. Nothing here opens a weights file or the network; see
:mod:`afterdetail.models.store` for that. Names are looked up, never made into paths.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from afterdetail.errors import InvalidInput, UnknownName
from afterdetail.models.entries import Entry, Prediction
from afterdetail.models.entries import Kind as Kind
from afterdetail.models.entries import Outline as Outline
from afterdetail.options import Base
from afterdetail.types import Size

BUILT_IN = Path(__file__).with_name("models.toml")
HOSTED_PREFIX = "octoai:"
"""Names of the hosted endpoint's own models began with this; it is ignored."""
ALONG = {"tiny": "tiny-xl"}
"""Built-in bases that another one brings along, unless one of their kind is named too."""


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
    copied: bool = False
    """Its file was copied to where it is by ``models add``, and goes with the entry."""
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
    prediction: Prediction | None = None
    """Of bases, checkpoints and refiners: what they predict; None: what their files say."""
    zero_snr: bool = False
    """Of the same: their noise schedule ends without signal, whatever their files say."""
    of: str | None = None
    """Of refiners and LoRAs: the base or checkpoint that they were made for; None: any."""
    vae: ModelSpec | None = None
    """Of bases, checkpoints and refiners: the autoencoder that takes the place of their own."""

    def suits(self, model: ModelSpec) -> bool:
        """Whether a refiner or LoRA goes with a base or checkpoint."""
        return self.base is model.base and self.of in (None, model.name)


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
        served: dict[Base, ModelSpec] = {}
        for spec in self.models:
            if spec.kind is Kind.BASE and spec.base is not None:
                served.setdefault(spec.base, spec)
        return served


@cache
def built_in() -> Catalogue:
    """Every entry of the built-in file, whether served or not."""
    return Catalogue(_read(BUILT_IN))


def load_catalogue(models: str | Path) -> Catalogue:
    """The catalogue that ``models`` stands for.

    Args:
        models: the path of a ``.toml`` file: its entries and the built-in detectors, every ``base``
            entry served; or names of built-in bases separated by commas (``"sd15,sdxl"``): the
            built-in catalogue with just these served. ``"tiny"`` stands for both embedded bases.

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
        served = _served(builtin, [name.strip() for name in str(models).split(",")])
        catalogue = Catalogue(
            tuple(
                spec
                for spec in builtin.models
                if (spec.name if spec.kind is Kind.BASE else spec.of) in {None, *served}
            )
        )
    _check_one_per_base(catalogue, str(models))
    return catalogue


def _served(builtin: Catalogue, names: Iterable[str]) -> set[str]:
    """The bases of these names, and those that they bring along."""
    named = [builtin.find(Kind.BASE, name, field="models") for name in names]
    taken = {spec.base for spec in named}
    along = [builtin.find(Kind.BASE, ALONG[spec.name]) for spec in named if spec.name in ALONG]
    return {spec.name for spec in named} | {s.name for s in along if s.base not in taken}


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
    for spec in specs:
        _check_of(file, spec, specs)
    return specs


def _check_of(file: Path, spec: ModelSpec, own: tuple[ModelSpec, ...]) -> None:
    """What an entry is made for stands in the same file."""
    models = [s for s in own if s.kind in (Kind.BASE, Kind.CHECKPOINT) and s.base is spec.base]
    if spec.of is not None and spec.of not in {model.name for model in models}:
        names = ", ".join(model.name for model in models)
        raise _wrong(
            f"{file}: model {spec.name!r}: of: no base or checkpoint {spec.of!r} of {spec.base};"
            f" known: {names or 'none'}"
        )


def _spec(file: Path, number: int, table: object) -> ModelSpec:
    name = table.get("name", f"number {number}") if isinstance(table, dict) else f"number {number}"
    try:
        entry = Entry.model_validate(table)
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
        copied=entry.copied,
        sha256=entry.sha256,
        licence=entry.licence,
        sizes=entry.sizes or _usual_sizes(entry, file),
        label=entry.label,
        classes=entry.classes,
        outline=entry.outline,
        trigger_words=entry.trigger_words,
        clip_skip=entry.clip_skip,
        prediction=entry.prediction,
        zero_snr=entry.zero_snr,
        of=entry.of,
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


def _source(entry: Entry, folder: Path) -> Source:
    """The source of an entry; a ``file`` without a ``hub`` is a path of the user's."""
    path, file = entry.path, entry.file
    if entry.hub is None and path is None:
        path, file = file, None
    if path is not None:
        path = str((folder / Path(path).expanduser()).resolve())
    return Source(
        package=entry.package, hub=entry.hub, file=file, revision=entry.revision, path=path
    )


def _usual_sizes(entry: Entry, file: Path) -> tuple[Size, ...]:
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
