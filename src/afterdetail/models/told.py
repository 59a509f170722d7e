"""What a catalogue's entry says of its weights, held against what they are."""

from __future__ import annotations

from pathlib import Path

from afterdetail.errors import WeightsError
from afterdetail.models.catalogue import Kind
from afterdetail.models.recognise import Recognised
from afterdetail.options import Base


def check_told(name: str, path: Path, found: Recognised, base: Base, kind: Kind | None) -> None:
    """Refuse weights that are of another base or kind than their entry says.

    Args:
        kind: None: any kind of whole model. A ``base`` is a checkpoint like any other.

    Raises:
        WeightsError: the message says what the entry has to say instead.
    """
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


def _is_of_kind(found: Kind, said: Kind | None) -> bool:
    if said is None:
        return found in (Kind.CHECKPOINT, Kind.REFINER)
    return found is (Kind.CHECKPOINT if said is Kind.BASE else said)
