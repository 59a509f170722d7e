"""Changes a catalogue of the user's own: adds files to it, checks them, takes them out again."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from itertools import pairwise
from pathlib import Path

from afterdetail.errors import InvalidInput, UnknownName, WeightsError
from afterdetail.models.catalogue import Catalogue, Kind, ModelSpec, load_catalogue
from afterdetail.models.entries import NAME, Prediction
from afterdetail.models.header import read_header
from afterdetail.models.recognise import Recognised, Unrecognised, recognise
from afterdetail.models.store import file_sha256, is_disk_full, locate, verify

COPIES = "models"
"""The folder beside a catalogue that copies go to."""
VELOCITY = re.compile(r"""^\s*parameterization:\s*["']?v["']?\s*$""", re.MULTILINE)
ENTRY = re.compile(r"^\[\[model\]\][^\n]*\n", re.MULTILINE)


def add(catalogue: Path, file: Path, *, name: str | None = None, copy: bool = False) -> ModelSpec:
    """Put a weights file into a catalogue, which is made if there is none.

    What it is, is read from its header, and from the ``.yaml`` of the same name beside it, if there
    is one. The first checkpoint of a base becomes the base itself.

    Args:
        name: how requests name it; None: the file's name.
        copy: copy it beside the catalogue; else it stays where it is.

    Raises:
        InvalidInput: the name is taken or not a name, or the catalogue is wrong.
        WeightsError: the file is damaged or of nothing that is served, or the disk is full.
    """
    header = read_header(file)
    try:
        found = recognise(header)
    except Unrecognised as error:
        raise WeightsError(f"{file} cannot be served: {error}") from error
    known = _read(catalogue)
    name = _free_name(name or file.stem, known)
    path = _copied(file, catalogue.parent / COPIES) if copy else file.resolve()
    kind = _kind(found, known)
    entry = _entry(name, kind, found, path, file_sha256(path), _predicts_velocity(file))
    before = catalogue.read_text(encoding="utf-8") if catalogue.exists() else ""
    _write(catalogue, f"{before.rstrip()}\n\n{entry}".lstrip())
    return load_catalogue(catalogue).find(None, name)


def _read(catalogue: Path) -> Catalogue:
    if catalogue.suffix != ".toml":
        raise InvalidInput(
            "catalogue_invalid", f"{catalogue}: a catalogue is a .toml file", field="models"
        )
    return load_catalogue(catalogue) if catalogue.exists() else Catalogue(())


def _free_name(name: str, known: Catalogue) -> str:
    wanted = re.sub(r"[^\w .+()-]", "-", name)[:100]
    if not NAME.fullmatch(wanted) or wanted in known.names():
        problem = "is taken" if wanted in known.names() else "is no name"
        raise InvalidInput(
            "name_invalid", f"{wanted!r} {problem}; give another with --name", field="name"
        )
    return wanted


def _kind(found: Recognised, known: Catalogue) -> Kind:
    if found.kind is Kind.CHECKPOINT and found.base not in known.bases():
        return Kind.BASE
    return found.kind


def _predicts_velocity(file: Path) -> bool:
    """Whether the settings of the original training code, which some checkpoints come with, say so.

    Nothing in such a file does.
    """
    settings = file.with_suffix(".yaml")
    text = settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else ""
    return bool(VELOCITY.search(text))


def _entry(
    name: str, kind: Kind, found: Recognised, path: Path, sha256: str, velocity: bool
) -> str:
    fields = {
        "name": name,
        "kind": str(kind),
        "base": str(found.base),
        "path": str(path),
        "sha256": sha256,
    }
    if velocity:
        fields["prediction"] = str(Prediction.VELOCITY)
    # A JSON string is a TOML string.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["[[model]]", *lines, ""])


def _copied(file: Path, folder: Path) -> Path:
    """A copy that is there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name
    if target.exists():
        raise InvalidInput("name_invalid", f"{target} is there already", field="name")
    partial = target.with_suffix(".partial")
    try:
        shutil.copyfile(file, partial)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        full = "the disk is full" if is_disk_full(error) else str(error.strerror)
        raise WeightsError(f"cannot copy {file} to {folder}: {full}") from error
    return target.resolve()


def remove(catalogue: Path, name: str) -> ModelSpec:
    """Take a model out of a catalogue. Its file is deleted only if it is a copy made by ``add``.

    Raises:
        UnknownName: the catalogue's own entries have no such name.
    """
    spec = _read(catalogue).find(None, name)
    text = catalogue.read_text(encoding="utf-8")
    starts = [match.start() for match in ENTRY.finditer(text)] + [len(text)]
    blocks = [text[start:end] for start, end in pairwise(starts)]
    kept = [block for block in blocks if tomllib.loads(block)["model"][0]["name"] != spec.name]
    if len(kept) == len(blocks):
        names = (tomllib.loads(block)["model"][0]["name"] for block in blocks)
        raise UnknownName("model of this catalogue", name, names, field="name")
    _write(catalogue, text[: starts[0]] + "".join(kept))
    path = Path(spec.source.path or "")
    if path.parent == (catalogue.parent / COPIES).resolve():
        path.unlink(missing_ok=True)
    return spec


def check(spec: ModelSpec) -> None:
    """Look whether a model is there, whole, and what its entry says. Reads all of its file.

    Raises:
        ModelUnavailable: it is not on this machine.
        WeightsError: it is damaged or another one than the entry says.
    """
    path = locate(spec)
    verify(spec, path)
    if path.is_dir() or spec.kind is Kind.DETECTOR:
        return
    header = read_header(path)
    # An autoencoder's header does not tell its base, nor that of our own LoRAs for small models.
    if spec.kind is Kind.VAE or spec.source.package is not None:
        return
    try:
        found = recognise(header, with_vae=spec.vae is None)
    except Unrecognised as error:
        raise WeightsError(f"{spec.name}: {path} cannot be served: {error}") from error
    said = Kind.CHECKPOINT if spec.kind is Kind.BASE else spec.kind
    if (found.kind, found.base) != (said, spec.base):
        raise WeightsError(
            f"{spec.name}: {path} is a {found.base} {found.kind}, the catalogue says "
            f"{spec.base} {spec.kind}; mend the catalogue"
        )


def _write(catalogue: Path, text: str) -> None:
    """Replace the catalogue at once: a server may be reading it."""
    tomllib.loads(text)
    catalogue.parent.mkdir(parents=True, exist_ok=True)
    partial = catalogue.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(catalogue)
