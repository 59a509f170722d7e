"""The header of a ``.safetensors`` file: names and shapes of its tensors, without reading them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from afterdetail.errors import WeightsError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says it holds, its names as :func:`todays_key` has them."""

    shapes: Mapping[str, Shape]
    metadata: Mapping[str, str]

    def under(self, prefix: str) -> dict[str, Shape]:
        """The tensors whose names begin with ``prefix``, without it."""
        return {
            name.removeprefix(prefix): shape
            for name, shape in self.shapes.items()
            if name.startswith(prefix)
        }

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.shapes)


def read_header(file: Path) -> Header:
    """The names, shapes and metadata of a file; its length is checked against them.

    Raises:
        WeightsError: no such file, no safetensors file, or one that is not whole.
    """
    if file.suffix != ".safetensors":
        raise WeightsError(
            f"{file}: diffusion weights must be .safetensors (a pickle could run code); "
            "download the .safetensors version or convert it"
        )
    try:
        with safe_open(file, framework="pt") as opened:
            names = opened.keys()  # a list: the file itself is no mapping
            shapes = {todays_key(n): tuple(opened.get_slice(n).get_shape()) for n in names}
            return Header(shapes, opened.metadata() or {})
    except FileNotFoundError as error:
        raise WeightsError(f"no file {file}; put it there or mend the catalogue") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{file} is damaged or not whole ({error}); download it again"
        ) from error


def todays_key(name: str) -> str:
    """The name that a checkpoint's tensor has in most files.

    Some merges of SD 1.x leave out a level of CLIP; AUTOMATIC1111's web UI reads those, too.
    """
    return re.sub(
        r"^(cond_stage_model\.transformer\.)(embeddings|encoder|final_layer_norm)\.",
        r"\1text_model.\2.",
        name,
    )


def count(names: Iterable[str], prefix: str) -> int:
    """How many numbers follow ``prefix``: two for ``blocks.`` in ``blocks.0.a, blocks.1.a``."""
    numbers = (
        name.removeprefix(prefix).partition(".")[0] for name in names if name.startswith(prefix)
    )
    return len({number for number in numbers if number.isdecimal()})
