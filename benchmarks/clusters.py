"""Clusters for benchmarks: nodes on this machine, and engines whose UNet is a sleep."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import psutil
import torch

from afterdetail.config import Settings
from afterdetail.deploy.options import ClusterOptions
from afterdetail.deploy.ray_serve import ENVIRONMENT, NAME, assemble
from afterdetail.engine.backend import EagerBackend
from afterdetail.engine.engine import Engine
from afterdetail.engine.service import EngineService
from afterdetail.models.catalogue import load_catalogue
from afterdetail.models.choose import Choice
from afterdetail.models.diffusion import DiffusionModel
from afterdetail.models.loader import ModelPool
from afterdetail.options import Sampler
from afterdetail.studio import LocalStudio, Order

PORT = 8151
STORE = {"object_store_memory": 100_000_000}


class Sleep(EagerBackend):
    """Predicts nothing, in the time it is told."""

    name = "sleep"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def predict(
        self,
        model: DiffusionModel,  # noqa: ARG002
        latents: torch.Tensor,
        timesteps: torch.Tensor,  # noqa: ARG002
        embeddings: torch.Tensor,  # noqa: ARG002
        added: torch.Tensor | None = None,  # noqa: ARG002
    ) -> torch.Tensor:
        time.sleep(self._seconds)
        return torch.zeros_like(latents)


def sleeping(seconds: float, resident: int) -> Callable[..., LocalStudio]:
    """Makes the studio of an engine that sleeps, with memory for so many models."""

    def make(options: ClusterOptions, _: Settings) -> LocalStudio:
        pool = ModelPool(torch.device("cpu"))
        (spec, *_others) = load_catalogue(options.models).bases().values()
        pool.limit = int((resident + 0.5) * sum(pool.get(spec).storages.values()))
        return LocalStudio(pool, EngineService(Engine(backend=Sleep(seconds))))

    return make


@contextmanager
def cluster(nodes: int, engines_each: int) -> Iterator[Any]:
    """A head, where the ingress is, and nodes for engines."""
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    state = tempfile.mkdtemp(prefix="afterdetail-bench-")
    os.environ.update(ENVIRONMENT | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})
    os.environ.update({"OMP_NUM_THREADS": "1", "AFTERDETAIL_STATE_DIR": state})
    os.environ.update({"AFTERDETAIL_BACKEND": "eager", "AFTERDETAIL_SAFETY": "off"})
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4} | STORE)
    for _ in range(nodes):
        made.add_node(num_cpus=0, resources={"engine": engines_each}, **STORE)
    ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    try:
        yield made
    finally:
        serve.shutdown()
        ray.shutdown()
        made.shutdown()


def deploy(
    engines: int, make: Callable[..., LocalStudio] | None = None, models: str = "tiny", **more: Any
) -> Any:
    """A handle of the engines, once they and the ingress are there."""
    from ray import serve

    options = ClusterOptions(
        models=models,
        device="cpu",
        engines=engines,
        max_engines=engines,
        engine_cpus=0,
        engine_resources={"engine": 1},
        anonymous=True,
        **more,
    )
    app = assemble(options, make) if make else assemble(options)
    serve.run(app, name=NAME, route_prefix="/")
    until = time.monotonic() + 120
    while httpx.get(f"http://127.0.0.1:{PORT}/health/ready").status_code != 200:
        if time.monotonic() > until:
            raise TimeoutError("the cluster did not get ready")
        time.sleep(0.2)
    return serve.get_deployment_handle("Engine", NAME)


def order(choice: Choice, steps: int = 10, seed: int = 1) -> Order:
    image = np.full((64, 64, 3), 90, np.uint8)
    mask = np.full((64, 64), 255, np.uint8)
    return Order(choice, image, mask, "", "", Sampler.DDIM, steps, 1.0, 1.0, seed)


def processes(part: str) -> list[psutil.Process]:
    """Those of the cluster that have ``part`` in the name that Ray gave them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if part in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it has just ended
            continue
    return found


def engine_processes() -> list[psutil.Process]:
    return processes("ServeReplica:afterdetail:Engine")


def processor_seconds(part: str) -> float:
    """Spent by all of those so far."""
    spent = [process.cpu_times() for process in processes(part)]
    return sum(times.user + times.system for times in spent)


def running_engines() -> int:
    """Those that take calls."""
    from ray import serve

    states = serve.status().applications[NAME].deployments["Engine"].replica_states
    return int(states.get("RUNNING", 0))
