"""What is where on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr

from afterdetail.models.catalogue import Catalogue
from afterdetail.ui import markup
from afterdetail.ui.controls import FIELDS, GROUPS, build

IDLE_SECONDS = 3600
"""After which a visit's state is forgotten."""
NOTHING_YET = "Drop a picture: what would be repainted is shown before anything is."
CODE = {"interactive": False, "show_label": False, "show_line_numbers": False, "wrap_lines": True}
KINDS = [".png", ".jpg", ".jpeg", ".webp"]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The components that handlers read and write. ``options`` are by field."""

    visit: gr.State
    options: Mapping[str, gr.components.Component]
    file: gr.File
    found: gr.Image
    objects: gr.CheckboxGroup
    seen: gr.HTML
    go: gr.Button
    stop: gr.Button
    progress: gr.HTML
    compare: gr.HTML
    encoding: gr.Radio
    download: gr.DownloadButton
    gallery: gr.Gallery
    curl: gr.Code
    python: gr.Code


def lay_out(catalogue: Catalogue) -> Parts:
    """Put the components into the Blocks at hand: the picture's way on the left, from dropping it
    to the result; the options on the right. On a phone the options come last.
    """
    gr.Markdown("# afterdetail\nFinds faces and hands, repaints each, puts them back.")
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            file = gr.File(label="Picture (PNG, JPEG, WebP)", file_types=KINDS, height=132)
            _take_uploads_only(file)
            found = _found()
            seen = gr.HTML(markup.said(NOTHING_YET), elem_id="seen")
            objects = gr.CheckboxGroup([], label="Objects to repaint", visible=False)
            with gr.Row():
                go = gr.Button("Detail", variant="primary", interactive=False, elem_id="go")
                stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=80)
            progress = gr.HTML("", elem_id="progress")
            compare = gr.HTML("", elem_id="compare")
            with gr.Row():
                encoding = gr.Radio(["png", "jpeg"], value="png", label="File format")
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
        with gr.Column(scale=2, min_width=320):
            options = _options(catalogue)
    gallery = _gallery()
    with gr.Accordion("The same from a program", open=False), gr.Tabs():
        with gr.Tab("curl"):
            curl = gr.Code(language="shell", elem_id="curl", **CODE)
        with gr.Tab("Python"):
            python = gr.Code(language="python", elem_id="python", **CODE)
    return Parts(
        visit=gr.State(None, time_to_live=IDLE_SECONDS),
        options=options,
        file=file,
        found=found,
        objects=objects,
        seen=seen,
        go=go,
        stop=stop,
        progress=progress,
        compare=compare,
        encoding=encoding,
        download=download,
        gallery=gallery,
        curl=curl,
        python=python,
    )


def _found() -> gr.Image:
    return gr.Image(
        show_label=False,
        format="jpeg",
        interactive=False,
        buttons=["fullscreen"],
        elem_id="found",
        visible=False,
        alt_text="The picture with the objects found marked and numbered",
    )


def _gallery() -> gr.Gallery:
    return gr.Gallery(
        [],
        label="This visit's pictures",
        height="auto",
        object_fit="contain",
        buttons=["download", "fullscreen"],
        interactive=False,
        visible=False,
        elem_id="gallery",
    )


def _options(catalogue: Catalogue) -> dict[str, gr.components.Component]:
    made: dict[str, gr.components.Component] = {}
    for group in GROUPS:
        with gr.Accordion(group.title, open=group.open):
            made |= {field: build(field, catalogue) for field in group.fields}
    return {field: made[field] for field in FIELDS}


def _take_uploads_only(file: gr.File) -> None:
    """Have a component refuse addresses: Gradio would fetch them, outside of our URL policy."""
    move = file.async_move_resource_to_block_cache

    async def move_upload(name: str | None) -> str | None:
        if name and "://" in name:
            raise gr.Error("only uploaded pictures are taken", print_exception=False)
        return await move(name)  # type: ignore[no-any-return]

    file.async_move_resource_to_block_cache = move_upload
