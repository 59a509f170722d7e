"""How the page looks, and that nothing of it comes from elsewhere."""

from __future__ import annotations

import gradio as gr
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SYSTEM_FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
SYSTEM_MONO = ("ui-monospace", "monospace")

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'self'; frame-ancestors 'none'"
)
"""Content Security Policy (W3C): the browser itself refuses whatever is not of this server.
Gradio's page has inline scripts and compiles its templates."""

# A circle with a soft ring: a mask. In the page, so that nobody asks the server for a file.
HEAD = (
    '<link rel="icon" href="data:image/svg+xml,'
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='7' fill='%23e69f00' fill-opacity='.5'/%3E"
    "%3Ccircle cx='8' cy='8' r='4' fill='%23e69f00'/%3E%3C/svg%3E\">"
)

CSS = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
.gradio-container :focus-visible { outline: 3px solid var(--color-accent); outline-offset: 2px; }
#found img { cursor: pointer; }
.status { min-height: 1.5em; margin: 0; }
.status.error { color: var(--error-text-color); font-weight: 600; }
.jobs { list-style: none; margin: 0; padding: 0; }
.jobs li { display: grid; grid-template-columns: 8em 1fr 9em; gap: .75em; align-items: center; }
.jobs progress { width: 100%; height: .6em; appearance: none; border: 0; border-radius: 1em;
  overflow: hidden; background: var(--border-color-primary); }
.jobs progress::-webkit-progress-bar { background: var(--border-color-primary); }
.jobs progress::-webkit-progress-value { background: var(--color-accent); }
.jobs progress::-moz-progress-bar { background: var(--color-accent); }
#progress:not(:has(p)), #compare:not(:has(figure)) { display: none; }
#gallery:not(:has(.preview)) .grid-wrap { min-height: 0; }
#gallery:has(.preview) .grid-wrap { min-height: 36em; }
#gallery .grid-container { grid-template-columns: repeat(auto-fill, minmax(min(30%, 9em), 1fr)); }
@media (max-width: 480px) { .jobs li { grid-template-columns: 5em 1fr 7em; } }
.compare { position: relative; --at: 50%; max-width: 100%; margin: 0; }
.compare img { display: block; width: 100%; height: auto; border-radius: var(--radius-lg); }
.compare .after { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)); }
.compare .frame { position: relative; cursor: ew-resize; touch-action: pan-y; }
.compare .frame::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--at);
  width: 2px; background: white; box-shadow: 0 0 3px black; }
.compare input { width: 100%; height: 2.2em; accent-color: var(--color-accent); }
.compare .sides { display: flex; justify-content: space-between; font-size: .85em; }
"""


def theme() -> gr.themes.Base:
    """Gradio's own, in fonts that every machine has, and with hints dark enough to read."""
    fonts = {"font": list(SYSTEM_FONTS), "font_mono": list(SYSTEM_MONO)}
    return gr.themes.Default(primary_hue="blue", **fonts).set(
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300"
    )


class FromHereOnly:
    """Adds the policy to what is served under one path."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self.app = app
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self.path):
            await self.app(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self.app(scope, receive, send_with_policy)
