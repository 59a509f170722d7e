"""``afterdetail serve``: the HTTP endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from afterdetail.cli.options import DEFAULT_MODELS, Device, Models


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    models: Models = DEFAULT_MODELS,
    device: Device = None,
) -> None:
    """Serve POST /adetailer. Settings come from the environment (AFTERDETAIL_...)."""
    from afterdetail.server.run import serve as run_server

    run_server(host=host, port=port, models=models, device=device)
