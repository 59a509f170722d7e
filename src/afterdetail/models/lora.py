"""Low-rank adapters (Hu et al. 2021): a model with some of them melted into its weights.

diffusers translates the layouts of the files (its own, peft's and kohya's); a layer's new weight is
then ``W + sum(weight * scale * up @ down)``. diffusers' own way of applying them is not taken: it
needs seconds for each change and prints while it works. Tests hold the outcome to it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)

from afterdetail.errors import InvalidInput, WeightsError
from afterdetail.models.choose import LoraUse
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.header import Header, read_header
from afterdetail.models.networks import todays_name, twin
from afterdetail.models.recognise import Unrecognised, check_adapter
from afterdetail.models.store import locate, verify_once
from afterdetail.models.tensors import read_tensors

Tensors = dict[str, torch.Tensor]

NETWORKS = ("unet", "text_encoder", "text_encoder_2")
"""What a LoRA may change."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
UNFIT = (WeightsError, Unrecognised, ValueError, RuntimeError, KeyError, TypeError)
"""What a file raises that is no LoRA of the model it is put on."""
UNET_PARTS = frozenset({"down_blocks", "mid_block", "up_blocks"})


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a LoRA of weight 1 adds to one layer: ``up @ down``.

    ``down`` is ``(rank, in...)`` and ``up`` ``(out, rank...)``, both already scaled.
    """

    network: str
    layer: str
    down: torch.Tensor
    up: torch.Tensor

    def added_to(self, weight: torch.Tensor, share: float) -> torch.Tensor:
        """float32, the shape of ``weight``."""
        if self.up.shape[0] != weight.shape[0] or self.down[0].numel() != weight[0].numel():
            raise ValueError(f"{self.network}.{self.layer} has another shape")
        up, down = (part.flatten(1).to(weight.device).float() for part in (self.up, self.down))
        return torch.addmm(weight.flatten(1).float(), up, down, alpha=share).reshape(weight.shape)


def with_loras(model: DiffusionModel, loras: Iterable[LoraUse]) -> DiffusionModel:
    """A model with LoRAs applied; ``model`` is left as it is, and shares what does not change.

    Raises:
        InvalidInput: ``adapter_incompatible``: a LoRA of another base, or a broken file.
        ModelUnavailable: the weights of a LoRA are not on this machine.
    """
    weights: dict[tuple[str, str], torch.Tensor] = {}
    # The last bits of a sum depend on its order: a set's must not depend on the request's order.
    for use in sorted(loras, key=lambda use: (use.spec.name, use.weight)):
        try:
            _add(model, use, weights)
        except UNFIT as error:
            raise _incompatible(use, error) from error
    twins = {name: twin(model.networks[name]) for name in dict.fromkeys(n for n, _ in weights)}
    for (network, layer), weight in weights.items():
        twins[network].get_submodule(layer).weight = torch.nn.Parameter(
            weight.to(model.dtype), requires_grad=False
        )
    return replace(model, **twins, adapted="unet" in twins)


def _add(model: DiffusionModel, use: LoraUse, weights: dict[tuple[str, str], torch.Tensor]) -> None:
    """Add one LoRA to the weights of the layers it changes.

    Raises:
        ValueError and others of the libraries: it does not fit, or is no LoRA.
    """
    fits = False
    for change in read_lora(model, use):
        where = change.network, change.layer
        layer = _layer(model, *where)
        if layer is not None:
            weights[where] = change.added_to(weights.get(where, layer.weight), use.weight)
            fits = True
    if not fits:
        raise ValueError("it changes no layer of this model")


def _layer(model: DiffusionModel, network: str, name: str) -> Any:
    """A layer that has weights; None where the model has no such, which diffusers passes over."""
    try:
        layer = model.networks[network].get_submodule(name)
    except (AttributeError, KeyError):
        return None
    return layer if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) else None


def read_lora(model: DiffusionModel, use: LoraUse) -> Iterator[Change]:
    """The changes of a file, by the names that ``model`` has for its layers.

    Raises:
        WeightsError: it is no whole safetensors file.
        Unrecognised: it is an adapter, but no plain LoRA.
        ValueError, KeyError: it is no LoRA, or not all there.
    """
    file = locate(use.spec)
    verify_once(use.spec, file)
    header = read_header(file)
    check_adapter(header)
    tensors, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
        _with_alphas(_with_network(read_tensors(file))), unet_config=model.unet.config
    )
    for network in NETWORKS:
        mine = {
            name.removeprefix(f"{network}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{network}.")
        }
        if mine and network in model.networks:
            yield from _changes(model, network, mine, _settings(header, network))


def _with_network(tensors: Tensors) -> Tensors:
    """diffusers' earliest files hold the UNet's layers alone and do not say so."""
    if {name.partition(".")[0] for name in tensors} <= UNET_PARTS:
        return {f"unet.{name}": tensor for name, tensor in tensors.items()}
    return tensors


def _with_alphas(tensors: Tensors) -> Tensors:
    """kohya's scale, alpha / rank, multiplied into the matrix it belongs to."""
    scaled = {name: tensor for name, tensor in tensors.items() if not name.endswith(".alpha")}
    for name, alpha in tensors.items():
        if name.endswith(".alpha"):
            down = name.removesuffix("alpha") + "lora_down.weight"
            scaled[down] = tensors[down].float() * (float(alpha) / tensors[down].shape[0])
    return scaled


def _changes(
    model: DiffusionModel, network: str, tensors: Tensors, settings: Mapping[str, Any]
) -> Iterator[Change]:
    named = _as_peft(network, tensors)
    if not any(name.endswith(DOWN) for name in named):
        raise ValueError(f"its layers of the {network} have names that are not known")
    for name, down in named.items():
        if name.endswith(DOWN):
            layer = name.removesuffix(DOWN)
            yield Change(
                network,
                todays_name(model.networks[network], layer),
                down.float() * _scale(settings, layer, down.shape[0]),
                named[layer + UP],
            )


def _as_peft(network: str, tensors: Tensors) -> Tensors:
    if any(name.endswith(DOWN) for name in tensors):
        return tensors
    if network == "unet":
        renamed: Tensors = convert_unet_state_dict_to_peft(tensors)
    else:
        renamed = convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
    return renamed


def _settings(header: Header, network: str) -> Mapping[str, Any]:
    """peft's configuration of a network's adapter, which diffusers leaves in the metadata."""
    saved = json.loads(header.metadata.get("lora_adapter_metadata", "{}"))
    prefix = f"{network}."
    return {key.removeprefix(prefix): saved[key] for key in saved if key.startswith(prefix)}


def _scale(settings: Mapping[str, Any], layer: str, rank: int) -> float:
    """peft's scale, alpha / rank; a layer's own alpha goes before that of all."""
    patterns = settings.get("alpha_pattern") or {}
    own = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer))
    alpha = next(own, settings.get("lora_alpha", rank))
    return float(alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))


def _incompatible(use: LoraUse, error: Exception) -> InvalidInput:
    head = f"LoRA {use.spec.name!r} does not fit this model or is damaged"
    reason = " ".join(str(error).split())[:200]
    return InvalidInput("adapter_incompatible", f"{head}: {reason}", field="loras", public=head)
