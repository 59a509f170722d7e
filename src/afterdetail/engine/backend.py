"""What runs a model's UNet: the one seam between the engine and ways to compute faster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch

from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.text import added_arguments
from afterdetail.types import Size


class Backend(Protocol):
    """Runs UNets. ``predict`` belongs to the engine's thread, ``prepare`` may be called from any.

    ``rows_apart`` says that a row's result never depends on the other rows, not even by rounding.
    """

    name: str
    rows_apart: bool

    def prepare(self, model: DiffusionModel, sizes: Iterable[Size]) -> None:
        """Get ready for pictures of these sizes, so that the first job need not wait."""

    def predict(
        self,
        model: DiffusionModel,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        embeddings: torch.Tensor,
        added: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The UNet's output, float32 ``(rows, C, h, w)``.

        Args:
            latents: float32 ``(rows, channels, h, w)``.
            timesteps: float32 ``(rows,)``, one for each row.
            embeddings: float32 ``(rows, tokens, D)``.
            added: of SDXL float32 ``(rows, P + N)``, the rest of its conditioning.
        """


class EagerBackend:
    """PyTorch, operation by operation: runs everywhere, and what the others are held to."""

    name = "eager"
    rows_apart = False

    def prepare(self, model: DiffusionModel, sizes: Iterable[Size]) -> None:
        """Nothing to do."""

    def predict(
        self,
        model: DiffusionModel,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        embeddings: torch.Tensor,
        added: torch.Tensor | None = None,
    ) -> torch.Tensor:
        prediction: torch.Tensor = model.unet(
            latents.to(model.device, model.dtype),
            timesteps.to(model.device),
            encoder_hidden_states=embeddings.to(model.device, model.dtype),
            added_cond_kwargs=added_arguments(model, added),
            return_dict=False,
        )[0]
        return prediction.float()


def default_backend() -> Backend:
    """The fastest there is: CUDA graphs with a GPU, else OpenVINO where installed, else eager."""
    if torch.cuda.is_available():
        from afterdetail.engine.graphs import GraphBackend

        return GraphBackend()
    from afterdetail.engine import openvino  # imports this module: only now

    return openvino.OpenVINOBackend() if openvino.installed() else EagerBackend()
