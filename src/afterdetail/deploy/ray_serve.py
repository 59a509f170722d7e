"""The deployments: ingresses, which are the server as everywhere, and engines, which paint for all.

``afterdetail.deploy.ray_serve:application`` is what a Ray Serve config file imports; its ``args``
are :class:`~afterdetail.deploy.options.ClusterOptions`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from afterdetail.config import load_settings
from afterdetail.deploy.engine_replica import EngineReplica, MakeStudio, studio_of
from afterdetail.deploy.options import ClusterOptions
from afterdetail.deploy.remote import EngineLost, RemoteStudio, Send
from afterdetail.deploy.wire import Call, News
from afterdetail.errors import InvalidInput, QueueFull
from afterdetail.server import logs
from afterdetail.server.app import create_app
from afterdetail.server.auth import check_exposure, is_loopback
from afterdetail.server.run import SWITCH_SECONDS, load_in_background, make_detailer

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fastapi import FastAPI

    from afterdetail.pipeline import Detailer

NAME = "afterdetail"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",  # or a hung one keeps its calls for 27 s
    "RAY_SERVE_PROXY_USE_GRPC": "1",  # a quicker way to the ingress
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # nothing of ours blocks
}
REACHED_IN = 5.0
"""Seconds for a cluster's address to take a connection."""
LOGGING = {"enable_access_log": False}  # the server's own line has more to say
MANY = 10_000
"""Requests in one ingress, as far as Ray is concerned: admission is the server's own."""


class IngressReplica:
    """The HTTP server, with engines elsewhere."""

    def __init__(self, engine: Any, options: ClusterOptions) -> None:
        self._engine = engine
        self._options = options
        self._loading: Future[Detailer] | None = None

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = load_settings()
        if not self._options.anonymous:
            check_exposure("this cluster's proxies", settings)
        sys.setswitchinterval(SWITCH_SECONDS)
        logs.configure(settings.log_format)
        studio = RemoteStudio(sender(self._engine))
        make = partial(make_detailer, self._options.models, settings, studio=studio)
        self._loading = load_in_background(make)
        return create_app(self._loading, settings)

    def check_health(self) -> None:
        """Asked by Ray every few seconds. One that will never be ready is replaced."""
        if self._loading and self._loading.done():
            self._loading.result()


def sender(engine: Any) -> Send:
    """Sends calls through a handle of Ray Serve's."""
    from ray import exceptions
    from ray.serve.exceptions import (
        BackPressureError,
        DeploymentUnavailableError,
        ReplicaUnavailableError,
    )

    gone = (
        exceptions.RayActorError,  # died, or cannot be reached
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,  # an answer, together with the node it lay on
        exceptions.OwnerDiedError,
        exceptions.WorkerCrashedError,
        ReplicaUnavailableError,
        DeploymentUnavailableError,
    )

    async def send(call: Call, elsewhere: bool) -> AsyncGenerator[News, None]:
        warm = "" if elsewhere else call.checkpoint
        news = engine.options(stream=True, multiplexed_model_id=warm).paint.remote(call)
        try:
            async for one in news:
                yield one
        except BackPressureError:
            raise QueueFull("all engines are busy; try again later") from None
        except gone as error:
            raise EngineLost(type(error).__name__) from None
        finally:
            news.cancel()  # does nothing to one that is done

    return send


def application(args: Mapping[str, Any]) -> Any:
    """What a config file imports: Ray wants a function of its ``args`` and nothing else."""
    return assemble(ClusterOptions(**args))


def assemble(options: ClusterOptions, make: MakeStudio = studio_of) -> Any:
    """The application of these options, for ``serve.run``.

    Args:
        make: what makes an engine's studio.
    """
    from ray import serve

    engines = serve.deployment(EngineReplica).options(
        name="Engine",
        max_ongoing_requests=options.orders_at_once,
        max_queued_requests=options.most_waiting,
        ray_actor_options={
            "num_cpus": options.engine_cpus,
            "num_gpus": options.engine_gpus,
            "resources": options.engine_resources,
        },
        logging_config=LOGGING,
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=20,
        **_number(options),
    )
    ingress = serve.deployment(serve.ingress()(IngressReplica)).options(
        name="Ingress",
        num_replicas=options.ingresses,
        max_ongoing_requests=MANY,
        ray_actor_options={"num_cpus": options.ingress_cpus},
        logging_config=LOGGING,
        graceful_shutdown_timeout_s=30,
    )
    return ingress.bind(engines.bind(options, make), options)


def _number(options: ClusterOptions) -> dict[str, Any]:
    if options.max_engines <= options.engines:
        return {"num_replicas": options.engines}
    return {
        "num_replicas": None,
        "autoscaling_config": {
            "min_replicas": options.engines,
            "max_replicas": options.max_engines,
            "target_ongoing_requests": options.target_orders,
            "upscale_delay_s": 5,
            "downscale_delay_s": 300,
        },
    }


def run(address: str, host: str, port: int, options: ClusterOptions) -> None:
    """Serve from a cluster until a signal ends it. A cluster that was there before stays.

    Args:
        address: of the cluster; ``local`` for one of this machine alone, ``auto`` for the one that
            this machine belongs to.

    Raises:
        InvalidInput: Ray is not installed, the settings are wrong, or there is no such cluster.
    """
    check_exposure(host, load_settings())
    _check_reachable(address)
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    try:
        import ray
        from ray import serve
    except ImportError:
        raise InvalidInput("ray_missing", "install Ray: pip install 'afterdetail[ray]'") from None
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, **own)
    except (ConnectionError, ValueError):
        raise _no_cluster(address) from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        serve.start(http_options={"host": host, "port": port, "location": "EveryNode"})
        serve.run(assemble(_suited(options, host)), name=NAME, route_prefix="/")
        sys.stderr.write(f"afterdetail serves from a cluster at http://{host}:{port}\n")
        signal.pause()
    serve.delete(NAME)
    ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        try:
            socket.create_connection((host, int(port)), timeout=REACHED_IN).close()
        except (OSError, ValueError):
            raise _no_cluster(address) from None


def _no_cluster(address: str) -> InvalidInput:
    text = f"there is no Ray cluster at {address}; start one, or give --ray local"
    return InvalidInput("ray_missing", text)


def _suited(options: ClusterOptions, host: str) -> ClusterOptions:
    """A GPU for each engine, where the cluster has any; tokens, where others reach it."""
    import ray

    on_gpus = not (options.device or "cuda").startswith("cpu") and ray.cluster_resources().get(
        "GPU"
    )
    chosen = {"engine_gpus": 1.0 if on_gpus else 0.0, "anonymous": is_loopback(host)}
    return options.model_copy(update=chosen)
