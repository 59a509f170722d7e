"""UNets compiled by OpenVINO for the CPU (the extra ``openvino``): same results, less time.

On a CPU a batch of rows gives nothing over its rows one by one (``docs/engine.md``), so a network
is compiled for one row, and the rows of a forward run side by side on the cores. Hence any number
of rows needs one compilation, and a row cannot depend on its neighbours.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from afterdetail.engine.backend import EagerBackend
from afterdetail.engine.ircache import IRCache, runtime
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.types import Size

log = logging.getLogger(__name__)

Shape = tuple[tuple[int, ...], tuple[int, ...]]
"""Of one row's latents ``(channels, h, w)`` and embeddings ``(tokens, D)``."""

MOST_SHAPES = 4
"""Compiled shapes kept of a model, the least recently used out first: each copies the weights."""

TOKENS_OF_A_WINDOW = 77


def installed() -> bool:
    return find_spec("openvino") is not None


class _OneOutput(torch.nn.Module):
    """The UNet with the plain signature that a tracer wants."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        prediction: torch.Tensor = self.unet(
            latents, timesteps, encoder_hidden_states=embeddings, return_dict=False
        )[0]
        return prediction


@dataclass(slots=True)
class _Network:
    """One model's UNet: as OpenVINO's graph, and compiled for the shapes in use."""

    graph: Any
    queues: OrderedDict[Shape, Any] = field(default_factory=OrderedDict)


class OpenVINOBackend:
    """Runs UNets of float32 models on the CPU; hands others, and any with LoRAs, to ``eager``.

    A model that OpenVINO cannot convert is logged and runs eagerly too.

    Args:
        streams: rows computed side by side, each with its part of the cores. Two serve the two
            rows of a single guided job; more rows keep them busy without waiting for each other.
        threads: cores to use; None takes all.
        cache: where converted graphs are kept; None converts in every process anew.
    """

    name = "openvino"
    rows_apart = True

    def __init__(
        self,
        streams: int | None = None,
        threads: int | None = None,
        cache: IRCache | None = IRCache(),  # noqa: B008 (immutable)
    ) -> None:
        cores = threads or os.cpu_count() or 1
        self._streams = min(streams or 2, cores)
        self._threads = cores
        self._cache = cache
        self._eager = EagerBackend()
        self._networks: WeakKeyDictionary[torch.nn.Module, _Network | None] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def rows_on_cpu(self, model: DiffusionModel) -> int:
        """One for each stream; of a model that runs eagerly, as there."""
        return self._streams if _compiles(model) else self._eager.rows_on_cpu(model)

    def prepare(self, model: DiffusionModel, sizes: Iterable[Size]) -> None:
        """Convert the model and compile it for these sizes: seconds, the first time more."""
        if not _compiles(model):
            return
        tokens = (TOKENS_OF_A_WINDOW, int(model.unet.config.cross_attention_dim))
        for width, height in list(sizes)[:MOST_SHAPES]:
            factor = model.latent_factor
            latents = (int(model.unet.config.in_channels), height // factor, width // factor)
            self._queue(model, (latents, tokens))

    def predict(
        self,
        model: DiffusionModel,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        embeddings: torch.Tensor,
        added: torch.Tensor | None = None,
    ) -> torch.Tensor:
        queue = self._queue(model, (tuple(latents.shape[1:]), tuple(embeddings.shape[1:])))
        if queue is None:
            return self._eager.predict(model, latents, timesteps, embeddings, added)
        results: list[Any] = [None] * len(latents)
        queue.set_callback(lambda request, row: results.__setitem__(row, _output(request)))
        inputs = [part.float().contiguous().numpy() for part in (latents, timesteps, embeddings)]
        for row in range(len(latents)):
            queue.start_async([part[row : row + 1] for part in inputs], row, share_inputs=True)
        queue.wait_all()
        return torch.from_numpy(np.concatenate(results))

    def _queue(self, model: DiffusionModel, shape: Shape) -> Any | None:
        """Requests to the model compiled for one row of this shape; None where eager must do."""
        if not _compiles(model):
            return None
        ready = self._networks.get(model.unet)
        if ready is not None:
            with suppress(KeyError):  # without the lock: another thread may be compiling
                ready.queues.move_to_end(shape)
                return ready.queues[shape]
        with self._lock:
            network = self._network(model)
            if network is None:
                return None
            if shape not in network.queues:
                network.queues[shape] = self._compile(network.graph, shape)
            while len(network.queues) > MOST_SHAPES:
                network.queues.popitem(last=False)
            return network.queues[shape]

    def _network(self, model: DiffusionModel) -> _Network | None:
        if model.unet not in self._networks:
            try:
                self._networks[model.unet] = _Network(self._graph(model))
            except Exception as error:  # whatever a tracer meets: eager runs it all the same
                log.warning("%s: OpenVINO cannot run it; running eagerly", model.name)
                log.debug("the cause", exc_info=error)
                self._networks[model.unet] = None
        return self._networks[model.unet]

    def _graph(self, model: DiffusionModel) -> Any:
        if self._cache is None:
            return convert(model)
        return self._cache.get(model.unet, lambda: convert(model))

    def _compile(self, graph: Any, shape: Shape) -> Any:
        openvino = runtime()
        latents, embeddings = shape
        fixed = graph.clone()
        fixed.reshape({0: [1, *latents], 1: [1], 2: [1, *embeddings]})
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # a CPU with bf16 units would round otherwise
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": self._streams,
            "ENABLE_CPU_PINNING": False,  # this process is not alone on its cores
        }
        compiled = openvino.Core().compile_model(fixed, "CPU", settings)
        return openvino.AsyncInferQueue(compiled, self._streams)


def _compiles(model: DiffusionModel) -> bool:
    """Not in other precisions, not with LoRAs, whose weights come and go, and not SDXL."""
    plain = model.unet.config.addition_embed_type is None and not model.adapted
    return plain and model.device.type == "cpu" and model.dtype == torch.float32


def _output(request: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(request.get_output_tensor(0).data)


def convert(model: DiffusionModel) -> Any:
    """The UNet as OpenVINO's graph, float32, of free shape."""
    openvino = runtime()
    config = model.unet.config
    example = (
        torch.zeros(2, int(config.in_channels), 16, 16),
        torch.zeros(2),
        torch.zeros(2, TOKENS_OF_A_WINDOW, int(config.cross_attention_dim)),
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, of every branch on a shape
        return openvino.convert_model(_OneOutput(model.unet), example_input=example)
