"""Looks whether the models of a catalogue are there, whole, and what their entries say."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from afterdetail.errors import ModelUnavailable, WeightsError
from afterdetail.models.catalogue import Kind, ModelSpec, built_in
from afterdetail.models.header import read_header
from afterdetail.models.recognise import is_autoencoder, recognise
from afterdetail.models.store import (
    has_weights,
    is_as_announced,
    locate,
    remedy,
    verify,
    weights_of,
)
from afterdetail.models.told import as_told
from afterdetail.options import Base

DIFFUSION = (Kind.BASE, Kind.CHECKPOINT, Kind.REFINER)


def was_never_pulled(spec: ModelSpec) -> bool:
    """Whether it is a built-in model of the hub that is not on this machine: no fault."""
    if spec.source.hub is None or spec not in built_in().models:
        return False
    try:
        locate(spec)
    except ModelUnavailable:
        return True
    return False


def check(spec: ModelSpec) -> None:
    """Look whether a model is there, whole, and what its entry says; its ``vae``, too.

    A file that the entry or the hub has a checksum of is read whole; of every safetensors file the
    header is read and the length compared with it. A folder has all parts that its kind needs.

    Raises:
        ModelUnavailable: it is not on this machine.
        WeightsError: it is damaged or another one than the entry says.
    """
    path = locate(spec)
    if path.is_file():
        _check_file(spec, path)
    elif spec.kind in DIFFUSION:
        _check_folder(spec, path)
    elif spec.kind is Kind.VAE:
        _check_network(spec, path)
    else:
        raise _wrong(spec, f"{path} is a folder, a {spec.kind} is one file; mend the catalogue")
    if spec.vae is not None:
        check(spec.vae)


def _check_file(spec: ModelSpec, path: Path) -> None:
    if spec.sha256 is None:
        _check_announced(spec, path)
    verify(spec, path)
    if spec.kind is Kind.DETECTOR:
        return
    header = read_header(path)
    if spec.kind is Kind.VAE:  # its header does not tell its base
        if not is_autoencoder(header):
            raise _wrong(spec, f"{path} is no autoencoder; mend the catalogue")
        return
    if spec.source.package is not None:  # our own LoRAs are for small models
        return
    look = partial(recognise, header, with_vae=spec.vae is None)
    as_told(spec.name, path, _base(spec), spec.kind, look)


def _check_folder(spec: ModelSpec, folder: Path) -> None:
    # It imports torch and diffusers, for seconds: not where only files are checked.
    from afterdetail.models.folder import NETWORKS, SCHEDULER_CONFIG, read_layout

    if spec.sha256 is not None:
        raise _wrong(spec, f"{folder} is a folder, sha256 is of one file; mend the catalogue")
    layout = read_layout(
        spec.name, _base(spec), folder, spec.kind, with_vae=spec.vae is None, todo=remedy(spec)
    )
    for part in sorted(layout.parts):
        if part in NETWORKS:
            _check_network(spec, folder / part)
        elif part == "scheduler":
            _check_json(spec, folder / part / SCHEDULER_CONFIG)
        else:
            _check_tokenizer(spec, folder / part)


def _base(spec: ModelSpec) -> Base:
    assert spec.base is not None, "the catalogue gives every kind but a detector a base"
    return spec.base


def _check_network(spec: ModelSpec, part: Path) -> None:
    _check_json(spec, part / "config.json")
    if not has_weights(part):
        raise _wrong(spec, f"{part} has no .safetensors weights, or not all; {remedy(spec)}")
    for name in weights_of(file.name for file in part.iterdir()):
        if name.endswith(".safetensors"):
            read_header(part / name)
            _check_announced(spec, part / name)


def _check_tokenizer(spec: ModelSpec, part: Path) -> None:
    vocabulary = part / "tokenizer.json"
    _check_json(spec, vocabulary if vocabulary.exists() else part / "vocab.json")


def _check_json(spec: ModelSpec, file: Path) -> None:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _wrong(spec, f"{file} is missing; {remedy(spec)}") from error
    except (OSError, ValueError) as error:
        raise _wrong(spec, f"{file} is damaged; {remedy(spec)}") from error


def _check_announced(spec: ModelSpec, file: Path) -> None:
    if not is_as_announced(file):
        raise _wrong(spec, f"{file} is damaged: the hub's sha256 is another; {remedy(spec)}")


def _wrong(spec: ModelSpec, problem: str) -> WeightsError:
    return WeightsError(f"{spec.name}: {problem}")
