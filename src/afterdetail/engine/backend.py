"""What runs a model's UNet: the one seam between the engine and ways to compute faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch

from afterdetail.config import BackendName
from afterdetail.errors import InvalidInput
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.text import added_arguments
from afterdetail.types import Size

EAGER_ROWS_CPU = 4
"""More give no more speed there, and let every job wait for more others."""


class Backend(Protocol):
    """Runs UNets. ``predict`` belongs to the engine's thread, ``prepare`` may be called from any.

    ``rows_apart`` says that a row's result never depends on the other rows, not even by rounding.
    """

    name: str
    rows_apart: bool

    def rows_on_cpu(self, model: DiffusionModel) -> int:
        """The rows that keep a CPU busy: with more in flight, jobs only slow each other down."""

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

    def rows_on_cpu(self, model: DiffusionModel) -> int:  # noqa: ARG002 (the same of all models)
        """Two guided jobs."""
        return EAGER_ROWS_CPU

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
            added_cond_kwargs=added_arguments(
                None if added is None else added.to(model.device),
                model.dtype,
                refiner=model.is_refiner,
            ),
            return_dict=False,
        )[0]
        return prediction.float()


def make_backend(name: BackendName | None, device: torch.device) -> Backend:
    """The backend of this name.

    Args:
        name: ``auto`` is CUDA graphs on a GPU, and on a CPU OpenVINO where it is installed. None is
            the same without OpenVINO: its seconds of compiling are lost on a few pictures.
        device: where the models are.

    Raises:
        InvalidInput: there is no such backend, or it cannot run here.
    """
    from afterdetail.engine import graphs, openvino  # they import this module: only now

    if name is None or name == "auto":
        compiles = name == "auto" and device.type == "cpu" and openvino.installed()
        name = "graphs" if device.type == "cuda" else "openvino" if compiles else "eager"
    if name == "graphs" and device.type != "cuda":
        raise _cannot(f"graphs need a CUDA device, and the models are on {device.type}")
    if name == "openvino" and not openvino.installed():
        raise _cannot("openvino is not installed; pip install 'afterdetail[openvino]'")
    made: dict[str, Callable[[], Backend]] = {
        "eager": EagerBackend,
        "graphs": graphs.GraphBackend,
        "openvino": openvino.OpenVINOBackend,
    }
    if name not in made:
        raise _cannot(f"there is no {name!r:.80}; backends: auto, {', '.join(made)}")
    return made[name]()


def _cannot(reason: str) -> InvalidInput:
    return InvalidInput("backend_unavailable", f"backend: {reason}", field="backend")
