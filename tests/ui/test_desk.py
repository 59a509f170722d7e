"""The page's work goes through the service: it waits, and it is refused, as any request."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from afterdetail.config import Settings
from afterdetail.errors import AfterdetailError, DeadlineExceeded, Loading, QueueFull
from afterdetail.server.service import Service
from afterdetail.stages import Stage
from afterdetail.ui.desk import Desk

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

QUICK = Stage(steps=1, strength=0.3, seed=1)


def loaded(detailer: Detailer) -> Future[Detailer]:
    future: Future[Detailer] = Future()
    future.set_result(detailer)
    return future


def desk_of(future: Future[Detailer], **settings: object) -> Desk:
    return Desk(Service.of(Settings.model_validate(settings), future))


def test_a_picture_waits_for_the_models(detailer: Detailer, two_faces: Path) -> None:
    future: Future[Detailer] = Future()
    desk = desk_of(future)

    async def drop() -> list[int]:
        look = asyncio.create_task(desk.look(two_faces, QUICK, ""))
        await asyncio.sleep(0.05)
        assert desk.loading and not look.done()
        future.set_result(detailer)
        return (await look).planned

    assert asyncio.run(drop()) == [0, 1]


def test_what_takes_too_long_is_ended(two_faces: Path) -> None:
    desk = desk_of(Future(), request_timeout=0.1)
    with pytest.raises(DeadlineExceeded, match=r"0\.1 seconds"):
        asyncio.run(desk.look(two_faces, QUICK, ""))


def test_looking_takes_nothing_of_the_queue_and_repainting_does(
    detailer: Detailer, two_faces: Path
) -> None:
    desk = desk_of(loaded(detailer), queue_work=1)
    desk.service.admission.admit("", 0)  # as much as there is room for

    async def visit() -> None:
        assert (await desk.look(two_faces, QUICK, "")).planned == [0, 1]
        with pytest.raises(QueueFull):
            await desk.detail(two_faces, QUICK, "", lambda _: None)

    asyncio.run(visit())
    assert desk.service.admission.requests == 1, "what was refused holds nothing"


def test_a_server_that_ends_takes_no_more(detailer: Detailer, two_faces: Path) -> None:
    desk = desk_of(loaded(detailer))
    desk.service.door.closing = True
    with pytest.raises(Loading):
        asyncio.run(desk.look(two_faces, QUICK, ""))


def test_a_file_of_a_detector_is_not_opened(detailer: Detailer, two_faces: Path) -> None:
    desk = desk_of(loaded(detailer))
    stage = Stage(detector="/etc/hostname.pt")
    with pytest.raises(AfterdetailError, match="unknown detector"):
        asyncio.run(desk.look(two_faces, stage, ""))
