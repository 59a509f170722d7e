"""Networks from a configuration and tensors, without the libraries' own loaders.

Those change settings of the whole process while they load (torch's default precision, how modules
register parameters), and here the engine and other loads go on in other threads meanwhile.
"""

from __future__ import annotations

import copy
import gc
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

Tensors = Mapping[str, torch.Tensor]

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of an autoencoder's attention before diffusers 0.13; SD 1.5's own file still has them."""


FIRST_VALUES = frozenset(
    getattr(torch.nn.init, name) for name in torch.nn.init.__all__ if name.endswith("_")
)
"""What layers call to get values to train from."""


class NoFirstValues(TorchFunctionMode):
    """While this lasts, this thread's new layers get no values: computing them takes time even
    where tensors have none."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in FIRST_VALUES:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def no_collection() -> Iterator[None]:
    """While this lasts, Python looks for no garbage: a thousand new modules would make it look
    through all that torch, diffusers and transformers consist of. Loads in several threads at once
    may end it early, which costs time alone."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Target:
    """Where and in which precision networks are wanted."""

    device: torch.device
    dtype: torch.dtype

    def network(self, cls: Any, config: Any, tensors: Tensors) -> Any:
        """A network made of ``tensors``, which it keeps where they need no conversion.

        Args:
            cls: a diffusers class (``config`` its dictionary) or a transformers one.
            tensors: by the class's own names; others are left out, such as averages of training.
                No file's memory: a file may be replaced while it is in use.

        Raises:
            RuntimeError: one is missing or has another shape.
        """
        with torch.device("meta"), NoFirstValues():
            network = cls.from_config(config) if hasattr(cls, "from_config") else cls(config)
        wanted = network.state_dict().keys()
        named = {todays_name(network, name): tensor for name, tensor in tensors.items()}
        own = {
            name: tensor.to(self.device, self.dtype)
            for name, tensor in named.items()
            if name in wanted
        }
        network.load_state_dict(own, assign=True)
        _number_positions(network.modules(), self.device)
        return network.eval().requires_grad_(False)


def twin(
    network: torch.nn.Module, taken: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor
) -> Any:
    """The same network in parameters of its own, whose tensors are those that ``taken`` gives.

    By default they are the very same tensors: a twin takes no memory.
    """
    shared: dict[int, Any] = {
        id(parameter): torch.nn.Parameter(taken(parameter.detach()), requires_grad=False)
        for parameter in network.parameters()
    }
    shared |= {id(buffer): taken(buffer) for buffer in network.buffers()}
    return copy.deepcopy(network, shared)


def todays_name(network: torch.nn.Module, name: str) -> str:
    """The name that a network has today for one of its parts in a file.

    transformers 5.6 took the level ``text_model`` out of one of its CLIP classes.
    """
    if not hasattr(network, "text_model"):
        name = name.removeprefix("text_model.")
    return re.sub(
        r"(mid_block\.attentions\.0\.)(query|key|value|proj_attn)\b",
        lambda found: found[1] + OLD_ATTENTION[found[2]],
        name,
    )


def _number_positions(modules: Iterable[torch.nn.Module], device: torch.device) -> None:
    """CLIP's position numbers are in no file: the only buffer that is made, not loaded."""
    for module in modules:
        positions = getattr(module, "position_ids", None)
        if isinstance(positions, torch.Tensor):
            module.position_ids = torch.arange(positions.shape[-1], device=device)[None]
