"""``afterdetail serve``: the application in a process of its own."""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from afterdetail.config import Settings, load_settings
from afterdetail.models.catalogue import Catalogue, load_catalogue
from afterdetail.server.app import create_app
from afterdetail.server.auth import check_exposure

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer


def serve(
    host: str = "127.0.0.1",
    port: int = 8000,
    models: str | Path = "sd15",
    settings: Settings | None = None,
    *,
    device: str | None = None,
) -> None:
    """Serve until a signal ends it. Answers at once, 503 ``loading`` until the models are there.

    Args:
        models: as for :class:`~afterdetail.Detailer`.
        settings: default: those of the environment.

    Raises:
        InvalidInput: wrong settings or models, or a host that needs tokens.
        AfterdetailError: the models could not be loaded.
    """
    settings = settings or load_settings()
    check_exposure(host, settings)
    _say(_which(load_catalogue(models)))
    loading = _load_in_background(models, device, settings)
    config = uvicorn.Config(
        create_app(loading, settings),
        host=host,
        port=port,
        proxy_headers=False,  # nobody has said which proxy to believe
        server_header=False,
    )
    server = uvicorn.Server(config)
    loading.add_done_callback(lambda done: _stop_if_failed(done, server))
    # uvicorn ends gracefully and then sends itself the signal once more: that would be the end
    # before the engine's, and exit with a failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        server.run()
    if loading.done():
        loading.result().close()


def _load_in_background(
    models: str | Path, device: str | None, settings: Settings
) -> Future[Detailer]:
    """A detailer with its weights in memory; the thread dies with the process."""
    loading: Future[Detailer] = Future()

    def load() -> None:
        try:
            from afterdetail.pipeline import Detailer  # takes seconds: it loads torch

            detailer = Detailer(
                models,
                device,
                deterministic=settings.deterministic,
                max_objects=settings.max_objects,
            )
            detailer.load()
        except BaseException as error:
            loading.set_exception(error)
        else:
            loading.set_result(detailer)

    threading.Thread(target=load, name="load-models", daemon=True).start()
    return loading


def _stop_if_failed(loading: Future[Detailer], server: uvicorn.Server) -> None:
    if loading.exception() is not None:
        server.should_exit = True


def _which(catalogue: Catalogue) -> str:
    bases = ", ".join(f"{base} by {spec.name!r}" for base, spec in catalogue.bases().items())
    return f"afterdetail serves {bases or 'no base model'}"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
