"""Changes a catalogue of the user's own: adds files to it, takes them out again."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from afterdetail.errors import InvalidInput, UnknownName, WeightsError
from afterdetail.models.catalogue import Catalogue, Kind, ModelSpec, load_catalogue
from afterdetail.models.entries import NAME, Prediction
from afterdetail.models.header import Header, read_header
from afterdetail.models.recognise import Recognised, Unrecognised, recognise
from afterdetail.models.store import file_sha256, is_disk_full

COPIES = "models"
"""The folder beside a catalogue that copies go to."""
VELOCITY = re.compile(r"""^\s*parameterization:\s*["']?v["']?\s*$""", re.MULTILINE)
ENTRY = re.compile(r"^\[\[model\]\][^\n]*\n", re.MULTILINE)
MAX_TOLD = 300
"""Characters of what a file says of itself."""


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
    phrase = _told(header, "trigger_phrase")
    entry = _entry(
        {
            "name": name,
            "kind": _kind(found, known),
            "base": found.base,
            "path": str(path),
            "copied": copy,
            "sha256": file_sha256(path),
            "licence": _told(header, "license"),
            "trigger_words": [phrase] if phrase else [],
            "prediction": Prediction.VELOCITY if _predicts_velocity(file) else None,
        }
    )
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


def _told(header: Header, key: str) -> str:
    """What a file says of itself (the model specification of Stability AI): one line, or nothing.

    It is a stranger's text: no control characters for a terminal or a TOML file.
    """
    words = " ".join(header.metadata.get(f"modelspec.{key}", "").split())
    return "".join(letter for letter in words if letter.isprintable())[:MAX_TOLD]


def _entry(fields: Mapping[str, object]) -> str:
    """One table of the keys that have a value. JSON's strings, lists and booleans are TOML's."""
    told = {key: json.dumps(value, ensure_ascii=False) for key, value in fields.items() if value}
    return "\n".join(["[[model]]", *(f"{key} = {value}" for key, value in told.items()), ""])


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
    """Take a model out of a catalogue. A copy made by ``add`` is deleted, if no other entry has it.

    Raises:
        UnknownName: the catalogue's own entries have no such name.
    """
    spec = _read(catalogue).find(None, name)
    text = catalogue.read_text(encoding="utf-8")
    starts = [match.start() for match in ENTRY.finditer(text)] + [len(text)]
    blocks = [text[start:end] for start, end in pairwise(starts)]
    entries = {block: tomllib.loads(block)["model"][0] for block in blocks}
    kept = [block for block in blocks if entries[block]["name"] != spec.name]
    if len(kept) == len(blocks):
        names = (entry["name"] for entry in entries.values())
        raise UnknownName("model of this catalogue", name, names, field="name")
    _write(catalogue, text[: starts[0]] + "".join(kept))
    used = {other.source.path for other in _read(catalogue).models}
    path = Path(spec.source.path or "")
    beside = path.parent == (catalogue.parent / COPIES).resolve()
    if spec.copied and beside and spec.source.path not in used:
        path.unlink(missing_ok=True)
    return spec


def _write(catalogue: Path, text: str) -> None:
    """Replace the catalogue at once: a server may be reading it."""
    tomllib.loads(text)
    catalogue.parent.mkdir(parents=True, exist_ok=True)
    partial = catalogue.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(catalogue)
