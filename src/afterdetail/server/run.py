"""``afterdetail serve``: the application in a process of its own."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import uvicorn

from afterdetail.config import Settings, load_settings
from afterdetail.models.catalogue import Catalogue, load_catalogue
from afterdetail.safety.policy import SafetyPolicy, make_policy
from afterdetail.server import logs
from afterdetail.server.app import Page, create_app
from afterdetail.server.auth import check_exposure
from afterdetail.server.service import Service

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer
    from afterdetail.studio import Studio

log = logging.getLogger("afterdetail.server")

SWITCH_SECONDS = 0.001
"""Between threads that want Python's lock. At Python's own 5 ms the event loop, which lets go of it
for every piece that it reads, waits a fifth of a second while a large body is parsed beside it."""


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    models: str | Path = "sd15",
    settings: Settings | None = None,
    *,
    device: str | None = None,
    page: Page | None = None,
) -> None:
    """Serve until a signal ends it. Answers at once, 503 ``loading`` until the models are there.

    Args:
        models: as for :class:`~afterdetail.Detailer`.
        settings: default: those of the environment.
        page: as for :func:`~afterdetail.server.app.create_app`.

    Raises:
        InvalidInput: wrong settings or models, or a host that needs tokens.
        AfterdetailError: the models could not be loaded.
    """
    settings = settings or load_settings()
    check_exposure(host, settings)
    sys.setswitchinterval(SWITCH_SECONDS)
    _say(_which(load_catalogue(models)))
    logs.configure(settings.log_format)
    loading = load_in_background(partial(make_detailer, models, settings, device))
    app = create_app(loading, settings, page=page)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        proxy_headers=False,  # nobody has said which proxy to believe
        server_header=False,
        access_log=False,  # ours has more to say
        log_config=None,
    )
    server = PoliteServer(config, app.state.service)
    loading.add_done_callback(lambda done: _when_loaded(done, server))
    # uvicorn ends gracefully and then sends itself the signal once more: that would be the end
    # before the engine's, and exit with a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        server.run()
    if loading.done():
        detailer = loading.result()
        if detailer.engine.failure:
            raise detailer.engine.failure
        detailer.close()


class PoliteServer(uvicorn.Server):
    """Ends in three steps: refuses new work, while `/health/ready` tells the load balancer;
    finishes what is under way; then closes its sockets. Ends too when the device is lost.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM the first time; Ctrl-C and the second SIGTERM do not wait."""
        closing, self.service.door.closing = self.service.door.closing, True
        if closing or sig != signal.SIGTERM:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to end."""
        door = self.service.door
        if self.service.device_lost:
            door.closing = True
        return await super().on_tick(counter) or (door.closing and door.count == 0)


def load_in_background(make: Callable[[], Detailer]) -> Future[Detailer]:
    """A detailer with its weights in memory; the thread dies with the process."""
    loading: Future[Detailer] = Future()

    def load() -> None:
        try:
            detailer = make()
            detailer.load()
        except BaseException as error:
            loading.set_exception(error)
        else:
            loading.set_result(detailer)

    threading.Thread(target=load, name="load-models", daemon=True).start()
    return loading


def make_detailer(
    models: str | Path,
    settings: Settings,
    device: str | None = None,
    studio: Studio | None = None,
) -> Detailer:
    """A detailer as the settings say. Raises as :class:`~afterdetail.Detailer`.

    Args:
        studio: what paints, if not models on ``device``.
    """
    from afterdetail.pipeline import Detailer  # takes seconds: it loads torch

    return Detailer(
        models,
        device,
        deterministic=settings.deterministic,
        max_objects=settings.max_objects,
        safety=_safety(settings),
        backend=settings.backend,
        memory=settings.memory,
        studio=studio,
        downloads=False,  # nothing while it serves: its bases come before that
    )


def _safety(settings: Settings) -> SafetyPolicy | Literal["off"]:
    policy = make_policy(
        settings.safety,
        settings.safety_threshold,
        settings.safety_folder,
        settings.safety_adjustment,
    )
    return policy or "off"


def _when_loaded(loading: Future[Detailer], server: uvicorn.Server) -> None:
    if loading.exception() is None:
        log.info("the models are loaded")
    else:
        server.should_exit = True


def _which(catalogue: Catalogue) -> str:
    bases = ", ".join(f"{base} by {spec.name!r}" for base, spec in catalogue.bases().items())
    return f"afterdetail serves {bases or 'no base model'}"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
