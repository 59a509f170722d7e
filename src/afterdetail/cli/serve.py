"""``afterdetail serve``: the HTTP endpoint."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from afterdetail.cli.options import DEFAULT_MODELS, Device, Models


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    models: Models = DEFAULT_MODELS,
    device: Device = None,
    ui: Annotated[
        bool,
        typer.Option("--ui", envvar="AFTERDETAIL_UI", help="Serve a page for people at /ui, too."),
    ] = False,
) -> None:
    """Serve POST /adetailer. Settings come from the environment (AFTERDETAIL_...)."""
    from afterdetail.models.catalogue import load_catalogue
    from afterdetail.server.run import serve as run_server
    from afterdetail.ui.mount import check_installed, mount

    if ui:
        check_installed()
    page = partial(mount, catalogue=load_catalogue(models)) if ui else None
    run_server(host=host, port=port, models=models, device=device, page=page)
