"""What a catalogue's entry says of its weights, held against what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from afterdetail.errors import WeightsError
from afterdetail.models.catalogue import Kind
from afterdetail.models.recognise import Recognised, Unrecognised
from afterdetail.options import Base


def as_told(
    name: str, path: Path, base: Base, kind: Kind | None, look: Callable[[], Recognised]
) -> Recognised:
    """What weights are; refused if that is not what their entry says.

    Args:
        kind: None: any kind of whole model. A ``base`` is a checkpoint like any other.
        look: recognises them.

    Raises:
        WeightsError: they are of another architecture, or of another base or kind; the message says
            what the entry has to say instead.
    """
    try:
        found = look()
    except Unrecognised as error:
        raise WeightsError(f"{name}: {path} cannot be served: {error}") from error
    keys: dict[str, str] = {}
    if not _is_of_kind(found.kind, kind):
        keys["kind"] = found.kind
    if found.base is not base:
        keys["base"] = found.base
    if keys:
        said = base if kind is None else f"{base} {kind}"
        todo = " and ".join(f'{key} = "{value}"' for key, value in keys.items())
        raise WeightsError(
            f"{name}: {path} is a {found.base} {found.kind}, the catalogue says {said}; "
            f"write {todo} there"
        )
    return found


def _is_of_kind(found: Kind, said: Kind | None) -> bool:
    if said is None:
        return found in (Kind.CHECKPOINT, Kind.REFINER)
    return found is (Kind.CHECKPOINT if said is Kind.BASE else said)
