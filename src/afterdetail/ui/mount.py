"""The page as a part of the server's application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI
from starlette.routing import Mount

from afterdetail.config import Token
from afterdetail.errors import InvalidInput
from afterdetail.models.catalogue import Catalogue
from afterdetail.server.app import PAGE
from afterdetail.server.auth import client_of
from afterdetail.server.door import Door
from afterdetail.server.service import Service

TICK_SECONDS = 0.3
WELCOME = "Name: the name of your token. Password: the token itself."


def check_installed() -> None:
    """
    Raises:
        InvalidInput: Gradio is not there; the message says how to get it.
    """
    if find_spec("gradio") is None:
        raise InvalidInput(
            "ui_missing", "the page needs the extra [ui]: pip install 'afterdetail[ui]'"
        )


def mount(app: FastAPI, service: Service, catalogue: Catalogue) -> None:
    """Add the page at ``/ui``. If the server has tokens, it asks for one with a form of its own."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    import gradio as gr

    from afterdetail.ui.desk import Desk
    from afterdetail.ui.look import CSS, HEAD, FromHereOnly, theme
    from afterdetail.ui.page import make_page

    tokens = service.settings.all_tokens()
    gr.mount_gradio_app(
        app,
        make_page(Desk(service), catalogue),
        PAGE,
        auth=login_of(tokens) if tokens else None,
        auth_message=WELCOME,
        max_file_size=service.settings.max_body_bytes,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        footer_links=[],
        theme=theme(),
        css=CSS,
        head=HEAD,
    )
    app.add_middleware(FromHereOnly, path=PAGE)
    _end_streams_with(app, service.door)


def login_of(tokens: tuple[Token, ...]) -> Callable[[str, str], bool]:
    """Whether a name and a secret are those of a token."""

    def accepted(name: str, secret: str) -> bool:
        return bool(name) and client_of(f"Bearer {secret}", tokens) == name

    return accepted


def _end_streams_with(app: FastAPI, door: Door) -> None:
    """Have Gradio end what it streams to open pages once the server is told to end: a server waits
    for its connections, and each open page has one for as long as it is open.
    """
    (page,) = (route.app for route in app.routes if isinstance(route, Mount) and route.path == PAGE)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        async with inner(app) as state:
            watching = asyncio.create_task(end())
            yield state
            watching.cancel()

    async def end() -> None:
        while not door.closing:
            await asyncio.sleep(TICK_SECONDS)
        page.stop_event.set()  # type: ignore[attr-defined]  # of Gradio's App

    app.router.lifespan_context = lifespan  # type: ignore[assignment]
