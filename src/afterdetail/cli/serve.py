"""``afterdetail serve``: the HTTP endpoint."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from afterdetail.cli.options import DEFAULT_MODELS, Device, Models
from afterdetail.errors import InvalidInput


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    models: Models = DEFAULT_MODELS,
    device: Device = None,
    ui: Annotated[
        bool,
        typer.Option("--ui", envvar="AFTERDETAIL_UI", help="Serve a page for people at /ui, too."),
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Serve from the Ray cluster at this address; local: one of this machine alone.",
        ),
    ] = None,
    engines: Annotated[
        int, typer.Option(min=1, help="With --ray: processes that paint, one for each GPU.")
    ] = 1,
) -> None:
    """Serve POST /adetailer. Settings come from the environment (AFTERDETAIL_...)."""
    from afterdetail.models.catalogue import load_catalogue
    from afterdetail.server.run import serve as run_server
    from afterdetail.ui.mount import check_installed, mount

    if ray is not None:
        if ui:
            raise InvalidInput("option_invalid", "--ui and --ray: a cluster has no page")
        return _serve_from_cluster(ray, host, port, models, device, engines)
    if ui:
        check_installed()
    page = partial(mount, catalogue=load_catalogue(models)) if ui else None
    return run_server(host=host, port=port, models=models, device=device, page=page)


def _serve_from_cluster(
    address: str, host: str, port: int, models: str, device: str | None, engines: int
) -> None:
    from afterdetail.deploy.options import ClusterOptions
    from afterdetail.deploy.ray_serve import run
    from afterdetail.models.catalogue import load_catalogue

    load_catalogue(models)  # what is wrong is told here, not in the log of some node
    options = ClusterOptions(models=models, device=device, engines=engines)
    run(address, host, port, options)
