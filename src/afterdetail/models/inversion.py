"""Textual inversion (Gal et al. 2022): new words for text encoders, each a few vectors of input.

Files are those of diffusers (one tensor, named by the word), of AUTOMATIC1111's web UI
(``emb_params``), and of SDXL trainers (``clip_l`` and ``clip_g``, for its two encoders).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from afterdetail.errors import InvalidInput, WeightsError
from afterdetail.models.catalogue import ModelSpec
from afterdetail.models.store import locate, verify_once
from afterdetail.models.tensors import read_tensors

FIRST, SECOND = "text_encoder", "text_encoder_2"
OF_SDXL = {"clip_l": FIRST, "clip_g": SECOND}


@dataclass(frozen=True, slots=True, eq=False)
class Inversion:
    """A word and its vectors: for one text encoder or for both, float32 ``(vectors, D)`` each.

    Compared by identity, as models are.
    """

    name: str
    of_first: torch.Tensor | None
    of_second: torch.Tensor | None = None

    @property
    def vectors(self) -> int:
        """How many tokens the word is worth."""
        parts = (self.of_first, self.of_second)
        return max(len(part) for part in parts if part is not None)

    def vector(self, encoder: str, index: int) -> torch.Tensor | None:
        """float32 ``(D,)``; None where this encoder has none."""
        part = self.of_first if encoder == FIRST else self.of_second
        return None if part is None or index >= len(part) else part[index]


def read_inversion(spec: ModelSpec) -> Inversion:
    """Read an embedding's file.

    Raises:
        ModelUnavailable: it is not on this machine.
        InvalidInput: ``adapter_incompatible``: it is damaged or no embedding.
    """
    file = locate(spec)
    try:
        verify_once(spec, file)
        tensors = {name: _rows(tensor) for name, tensor in read_tensors(file).items()}
        parts = {OF_SDXL.get(name, FIRST): tensor for name, tensor in tensors.items()}
        if not tensors or len(parts) != len(tensors) or any(map(_is_odd, parts.values())):
            raise ValueError(f"it has the tensors {', '.join(tensors)[:80] or 'of nothing'}")
    except (WeightsError, ValueError) as error:
        head = f"embedding {spec.name!r} is damaged or none"
        message = f"{head}: {' '.join(str(error).split())[:200]}"
        raise InvalidInput("adapter_incompatible", message, field="prompt", public=head) from error
    return Inversion(spec.name, parts.get(FIRST), parts.get(SECOND))


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """A single vector may be saved without its leading axis."""
    return (tensor[None] if tensor.dim() == 1 else tensor).float()


def _is_odd(tensor: torch.Tensor) -> bool:
    return tensor.dim() != 2 or not bool(torch.isfinite(tensor).all())
