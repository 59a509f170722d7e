"""What happens when the page's controls are used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache

from afterdetail import images
from afterdetail.errors import AfterdetailError, InvalidInput
from afterdetail.images.infotext import finished
from afterdetail.models.catalogue import Catalogue
from afterdetail.models.choose import choose
from afterdetail.options import seeded
from afterdetail.results import DetailedObject, DetailResult, Outcome
from afterdetail.stages import Stage
from afterdetail.ui import markup, snippets
from afterdetail.ui.controls import FINDING, SHAPING, outline_of, stage_of
from afterdetail.ui.desk import Desk
from afterdetail.ui.drawing import Sketch
from afterdetail.ui.layout import NOTHING_YET, Parts, lay_out
from afterdetail.ui.progress import Follower, follow, name_of

KEPT = 24
"""Pictures in the gallery of one visit."""
POLL_SECONDS = 0.2
CACHE_SECONDS = 6 * 3600
"""After which uploaded and finished pictures are deleted."""
FOUND = "This would be repainted. Click an object to leave it out, or to take it in again."
LOADING = "The models are being loaded. A picture dropped now waits for them."
NOT_FOUND = "Nothing found. Lower the confidence, look in tiles, or try another detector."

Update = dict[gr.components.Component, Any]
"""New values of components; those not in it stay as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Visit:
    """What the page knows of the picture at hand. ``skipped`` are ids left out by hand."""

    file: Path
    sketch: Sketch
    skipped: frozenset[int]


def make_page(desk: Desk, catalogue: Catalogue) -> gr.Blocks:
    """The page around a desk where its work is done."""
    with gr.Blocks(
        title="afterdetail", analytics_enabled=False, delete_cache=(600, CACHE_SECONDS)
    ) as blocks:
        handlers = Handlers(desk, lay_out(catalogue), str(blocks.GRADIO_CACHE))
        handlers.wire(blocks)
    # Gradio lets one visitor in at a time; ours is the server's admission.
    blocks.queue(default_concurrency_limit=None, api_open=False)
    return blocks


@dataclass(frozen=True, slots=True, eq=False)
class Handlers:
    """The page's reactions. ``cache`` is the folder from which Gradio serves files; ``running`` has
    the work of each visit that waits for one."""

    desk: Desk
    parts: Parts
    cache: str
    running: dict[str, asyncio.Task[DetailResult]] = field(default_factory=dict)

    def wire(self, blocks: gr.Blocks) -> None:
        """Say what happens when."""
        parts = self.parts
        options = list(parts.options.values())
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        last = {"trigger_mode": "always_last", **quiet}
        seen = [parts.visit, parts.found, parts.objects, parts.seen, parts.go]
        changes = {name: option.change for name, option in parts.options.items()}
        finding = [parts.file.change, *(changes[name] for name in FINDING)]
        gr.on(finding, self.look, [parts.file, *options], seen, **last)
        shaping = [changes[name] for name in SHAPING]
        gr.on(shaping, self.look_again, [parts.visit, parts.file, *options], seen, **last)
        parts.found.select(self.toggle, [parts.visit, *options], seen, **quiet)
        parts.objects.input(self.choose, [parts.visit, parts.objects, *options], seen, **last)
        parts.go.click(
            self.detail,
            [parts.visit, parts.encoding, parts.gallery, *options],
            [parts.go, parts.stop, parts.progress, parts.compare, parts.download, parts.gallery],
            **quiet,
        )
        parts.stop.click(self.stop, None, None, **quiet)
        blocks.load(self.greet, None, parts.seen, **quiet)
        gr.on(
            [blocks.load, parts.visit.change, parts.encoding.change, *changes.values()],
            self.explain,
            [parts.visit, parts.encoding, *options],
            [parts.curl, parts.python],
            **last,
        )

    def greet(self) -> str:
        """The page was opened."""
        return markup.said(LOADING if self.desk.loading else NOTHING_YET)

    async def look(self, request: gr.Request, file: str | None, *values: object) -> Update:
        """A picture was dropped, or an option changed that says what is found."""
        if not file:
            return self._nothing(markup.said(NOTHING_YET))
        return await self._look(request, Path(file), frozenset(), values)

    async def look_again(
        self, request: gr.Request, visit: Visit | None, file: str | None, *values: object
    ) -> Update:
        """An option changed that says what is done with what was found."""
        if visit is None:
            return await self.look(request, file, *values)
        return await self._look(request, visit.file, visit.skipped, values)

    async def toggle(
        self, request: gr.Request, click: gr.SelectData, visit: Visit | None, *values: object
    ) -> Update:
        """The picture was clicked: the object there is left out, or taken in again."""
        hit = visit.sketch.at(click.index) if visit else None
        if visit is None or hit is None:
            return {self.parts.visit: gr.skip()}
        return await self._look(request, visit.file, visit.skipped ^ {hit}, values)

    async def choose(
        self, request: gr.Request, visit: Visit | None, chosen: list[int], *values: object
    ) -> Update:
        """The list of objects was changed."""
        if visit is None:
            return {self.parts.visit: gr.skip()}
        ids = {item.id for item in visit.sketch.objects}
        return await self._look(request, visit.file, frozenset(ids - set(chosen)), values)

    async def _look(
        self,
        request: gr.Request,
        file: Path,
        skipped: frozenset[int],
        values: Sequence[object],
    ) -> Update:
        parts = self.parts
        try:
            stage = outline_of(values, skipped)
            sketch = await self.desk.look(file, stage, request.username or "")
        except AfterdetailError as error:
            return self._nothing(markup.complaint(error.public))
        choices = [(_described(item), item.id) for item in sketch.objects]
        return {
            parts.visit: Visit(file, sketch, skipped),
            parts.found: gr.Image(value=sketch.drawn, visible=True),
            parts.objects: gr.CheckboxGroup(
                choices=choices, value=sketch.planned, visible=bool(choices)
            ),
            parts.seen: markup.said(FOUND if choices else NOT_FOUND),
            parts.go: gr.Button(interactive=bool(sketch.planned)),
        }

    def _nothing(self, message: str) -> Update:
        parts = self.parts
        return {
            parts.visit: None,
            parts.found: gr.Image(value=None, visible=False),
            parts.objects: gr.CheckboxGroup(choices=[], value=[], visible=False),
            parts.seen: message,
            parts.go: gr.Button(interactive=False),
        }

    async def detail(
        self,
        request: gr.Request,
        visit: Visit | None,
        encoding: images.Encoding,
        gallery: list[tuple[str, str]] | None,
        *values: object,
    ) -> AsyncIterator[Update]:
        """Repaint the chosen objects, saying how far each is."""
        parts = self.parts
        if visit is None:
            return
        try:
            stage = seeded(stage_of(values, visit.skipped))
            follower = follow(_planned(visit.sketch.objects))
            work = asyncio.create_task(
                self.desk.detail(visit.file, stage, request.username or "", follower.hear)
            )
            with self._stoppable(request, work):
                async for shown in watched(work, follower):
                    yield self._state(shown, busy=True)
            if work.cancelled():
                yield self._state(markup.said("Stopped."), busy=False)
                return
            result = work.result()
            done = await asyncio.to_thread(self._keep, visit, stage, result, encoding)
        except AfterdetailError as error:
            yield self._state(markup.complaint(error.public), busy=False)
            return
        yield self._state(markup.said(summary(result, stage)), busy=False) | {
            parts.compare: markup.compare(address(str(visit.file)), address(done)),
            parts.download: gr.DownloadButton(value=done, interactive=True),
            parts.gallery: gr.Gallery(
                value=[(done, Path(done).name), *(gallery or [])][:KEPT], visible=True
            ),
        }

    async def stop(self, request: gr.Request) -> None:
        """Stop was pressed. :meth:`detail` says that it has ended, as it says all else of its work:
        of two events that write to one place the older may come last."""
        if work := self.running.get(request.session_hash or ""):
            work.cancel()

    @contextmanager
    def _stoppable(self, request: gr.Request, work: asyncio.Task[DetailResult]) -> Iterator[None]:
        visitor = request.session_hash or ""
        self.running[visitor] = work
        try:
            yield
        finally:
            self.running.pop(visitor, None)  # a program may ask twice as one visitor

    def _state(self, message: str, *, busy: bool) -> Update:
        parts = self.parts
        return {
            parts.go: gr.Button(interactive=not busy),
            parts.stop: gr.Button(interactive=busy),
            parts.progress: message,
        }

    def _keep(
        self, visit: Visit, stage: Stage, result: DetailResult, encoding: images.Encoding
    ) -> str:
        """Write the picture where Gradio serves it from, with how it was made in its metadata."""
        picture, catalogue = result.picture, self.desk.service.loaded().catalogue
        model = choose(stage, picture.size, catalogue).model.name
        data = finished(picture, encoding, visit.file.read_bytes(), [stage], model)
        name = f"{visit.file.stem}-detailed.{encoding}"
        return str(save_bytes_to_cache(data, name, self.cache))

    def explain(
        self, request: gr.Request, visit: Visit | None, encoding: str, *values: object
    ) -> tuple[str, str]:
        """The settings as programs."""
        skipped = visit.skipped if visit else frozenset()
        try:
            stage = stage_of(values, skipped)
        except InvalidInput as error:
            return f"# {error}", f"# {error}"
        settings = snippets.Settings(
            server=self.desk.service.settings.public_url or server_of(request),
            picture=visit.file.name if visit else "picture.png",
            encoding=encoding,
            options=stage.model_dump(mode="json", exclude_defaults=True),
            token=bool(request.username),
        )
        return snippets.as_curl(settings), snippets.as_python(settings)


async def watched(work: asyncio.Task[DetailResult], follower: Follower) -> AsyncIterator[str]:
    """How far the work is, every now and then until it is done; it ends if nobody listens."""
    try:
        while not work.done():
            yield follower.shown()
            await asyncio.wait({work}, timeout=POLL_SECONDS)
    finally:
        if not work.done():
            work.cancel()
            with suppress(asyncio.CancelledError, AfterdetailError):
                await work


def _planned(objects: Iterable[DetailedObject]) -> list[DetailedObject]:
    return [item for item in objects if item.outcome is Outcome.PLANNED]


def _described(item: DetailedObject) -> str:
    return f"{name_of(item)} ({item.detection.score:.2f})"


def summary(result: DetailResult, stage: Stage) -> str:
    """What was done, in a sentence, and the seed to have it done again."""
    text = f"Repainted {result.num_objects_inpainted} in {sum(result.timings.values()):.1f} s"
    if isinstance(stage.seed, int):
        text += f" with seed {stage.seed}"
    if result.num_removed_for_safety:
        text += f"; the safety checker refused {result.num_removed_for_safety}"
    if result.num_objects_failed:
        text += f"; {result.num_objects_failed} failed"
    return text + "."


def server_of(request: gr.Request) -> str:
    """The server as the visitor's browser addresses it."""
    return f"{request.request.url.scheme}://{request.request.url.netloc}"


def address(file: str) -> str:
    """Where Gradio serves a file of its cache, relative to the page."""
    return f"gradio_api/file={file}"
