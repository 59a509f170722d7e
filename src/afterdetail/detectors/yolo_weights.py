"""YOLOv8 weights from files: ``.pt`` as ultralytics writes them, and ``.safetensors``."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from afterdetail.detectors.yolo_network import YoloNetwork, fold_batch_norms
from afterdetail.detectors.yolo_pickle import StandIn, read_pt
from afterdetail.errors import WeightsError

ACTIVATION = "torch.nn.modules.activation.SiLU"
MAX_NAMES_TEXT = 100_000
"""Characters of class names worth parsing: far more than a thousand classes have."""


@dataclass(frozen=True, slots=True)
class YoloWeights:
    """Tensors by their published names, as stored, and the names of the classes, if given."""

    tensors: dict[str, Tensor]
    class_names: tuple[str, ...] | None


def load_network(path: Path) -> tuple[YoloNetwork, tuple[str, ...]]:
    """The network of a weights file, ready to run, and the name of each class.

    Raises:
        WeightsError: the file is damaged, refused, or not YOLOv8; it is named.
    """
    weights = read_weights(path)
    try:
        network = YoloNetwork(fold_batch_norms(weights.tensors))
        _try(network)
    except WeightsError as error:
        raise WeightsError(
            f"{path} is not a YOLOv8 detection or segmentation model: {error}"
        ) from None
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} is not a YOLOv8 network: its layers do not fit") from error
    return network, checked_names(path, weights.class_names, network.classes)


def read_weights(path: Path) -> YoloWeights:
    """Read a ``.pt`` or ``.safetensors`` file; see :func:`load_network` for what is raised."""
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pt(path)


def checked_names(path: Path, names: tuple[str, ...] | None, classes: int) -> tuple[str, ...]:
    """One name for each class; their numbers where the file has no names.

    Raises:
        WeightsError: there are more or fewer names than the network has classes.
    """
    names = names or tuple(str(number) for number in range(classes))
    if len(names) != classes:
        raise WeightsError(f"{path} names {len(names)} classes, but its network has {classes}")
    return names


def parse_names(value: Any) -> tuple[str, ...] | None:
    """Class names from ``{0: "face"}``, ``["face"]``, or either as text; None for anything else."""
    if isinstance(value, str) and len(value) <= MAX_NAMES_TEXT:
        try:
            value = json.loads(value)
        except ValueError:
            value = _literal(value)
    if isinstance(value, dict):
        value = _by_number(value)
    return tuple(str(name) for name in value) if isinstance(value, list | tuple) else None


def _by_number(names: dict[Any, Any]) -> list[Any] | None:
    try:
        return [names[key] for key in sorted(names, key=int)]
    except (TypeError, ValueError, OverflowError):  # keys that are no numbers
        return None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


@torch.inference_mode()
def _try(network: YoloNetwork) -> None:
    """Run once on the smallest picture there is: layers that do not fit each other fail here."""
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network(torch.zeros(1, 3, 32, 32))


def _read_safetensors(path: Path) -> YoloWeights:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            names = parse_names((file.metadata() or {}).get("names"))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is truncated or no safetensors file") from error
    return YoloWeights(_without_prefix(_arrays(tensors)), names)


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Saved from a wrapper, ``model.0`` is ``model.model.0``."""
    first = next((name for name in tensors if "model.0.conv." in name), "model.0.conv.")
    prefix = first[: first.index("model.0.conv.")]
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _arrays(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without batch norms' counters."""
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _read_pt(path: Path) -> YoloWeights:
    content = read_pt(path)
    model = _model_of(content)
    if model is None:
        raise WeightsError(f"{path} is no model that ultralytics saved")
    tensors: dict[str, Tensor] = {}
    _collect(path, model, "", tensors, set())
    return YoloWeights(_arrays(tensors), parse_names(model.state.get("names")))


def _model_of(content: Any) -> StandIn | None:
    """The averaged model if there is one, else the model: as ultralytics chooses."""
    if not isinstance(content, dict):
        return None
    candidates = (content.get("ema"), content.get("model"))
    return next((model for model in candidates if isinstance(model, StandIn)), None)


def _collect(
    path: Path, module: StandIn, prefix: str, tensors: dict[str, Tensor], seen: set[int]
) -> None:
    """Gather parameters and buffers of a module and its children under their dotted names.

    A module is visited once: a hostile file could nest one in itself.
    """
    if id(module) in seen:
        return
    seen.add(id(module))
    _check_activation(path, module)
    for kind in ("_parameters", "_buffers"):
        for name, value in (module.state.get(kind) or {}).items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}{name}"] = value
    for name, child in (module.state.get("_modules") or {}).items():
        if isinstance(child, StandIn):
            _collect(path, child, f"{prefix}{name}.", tensors, seen)


def _check_activation(path: Path, module: StandIn) -> None:
    """Weights say nothing of the activation between them; the module does."""
    if not module.path.endswith(".Conv"):
        return
    activation = (module.state.get("_modules") or {}).get("act")
    if isinstance(activation, StandIn) and activation.path != ACTIVATION:
        raise WeightsError(f"{path} is not a YOLOv8 network: it has {activation.path}, not SiLU")
