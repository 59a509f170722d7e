"""Where networks are while they work: on the device for good, or only while they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.networks import twin

TEXT = ("text_encoder", "text_encoder_2")
VAE = ("vae",)
UNET = ("unet",)


class Placement(Protocol):
    """Belongs to the engine's thread."""

    def visiting(self, model: DiffusionModel, parts: tuple[str, ...]) -> DiffusionModel:
        """The model with these networks on its device, for as long as it is held."""

    def settled(self, model: DiffusionModel) -> DiffusionModel:
        """The model with its UNet on its device, where it stays until another's is wanted."""


class Resident:
    """All networks are on the device, as long as their model is in memory."""

    def visiting(self, model: DiffusionModel, parts: tuple[str, ...]) -> DiffusionModel:  # noqa: ARG002
        return model

    def settled(self, model: DiffusionModel) -> DiffusionModel:
        return model


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.to(device, non_blocking=True)


@dataclass(slots=True)
class Visiting:
    """Networks wait in host memory. One UNet is on the device; text encoders and autoencoder come
    for one call.

    Weights never change, so nothing is carried back: the device has copies, which are dropped.
    """

    upload: Callable[[torch.Tensor, torch.device], torch.Tensor] = to_device
    _home: DiffusionModel | None = None
    _settled: DiffusionModel | None = None

    def visiting(self, model: DiffusionModel, parts: tuple[str, ...]) -> DiffusionModel:
        def copied(tensor: torch.Tensor) -> torch.Tensor:
            return self.upload(tensor, model.device)

        networks = {part: model.networks[part] for part in parts if part in model.networks}
        copies: dict[str, Any] = {part: twin(net, copied) for part, net in networks.items()}
        return replace(model, **copies)

    def settled(self, model: DiffusionModel) -> DiffusionModel:
        if self._settled is None or self._home is not model:
            self._home = self._settled = None  # first, or two would be there at a time
            self._settled = self.visiting(model, UNET)
            self._home = model
        return self._settled
