"""The page as a person uses it, in a headless browser."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from afterdetail.cli.main import main
from afterdetail.config import Settings, parse_tokens

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

SECONDS = 60_000
"""Milliseconds that a busy machine may take for anything."""


class Page:
    """A browser's page with the addresses that it has asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: set[str] = set()
        self.problems: list[str] = []
        page.set_default_timeout(SECONDS)
        page.on("request", lambda request: self.asked.add(request.url))
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def drop(self, file: Path) -> None:
        self.page.set_input_files("input[type=file]", str(file))

    def wait_for(self, where: str, text: str) -> None:
        self.page.locator(where).filter(has_text=text).first.wait_for()

    def is_checked(self, label: str) -> bool:
        return bool(self.page.get_by_label(label).is_checked())


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = Page(context.new_page())
    opened.page.goto(f"{address}/ui/")
    opened.page.wait_for_selector("#go")
    yield opened
    context.close()


def test_a_visit_from_picture_to_download(
    page: Page, address: str, two_faces: Path, tmp_path: Path
) -> None:
    page.page.get_by_label("number input for Steps").fill("60")
    page.drop(two_faces)
    page.wait_for("#seen", "This would be repainted")
    page.page.wait_for_selector("#found img")
    assert page.is_checked("0 face") and page.is_checked("1 face")

    box = page.page.locator("#found img").bounding_box()
    page.page.mouse.click(box["x"] + 0.27 * box["width"], box["y"] + 0.22 * box["height"])
    page.page.wait_for_function(
        "[...document.querySelectorAll('input[type=checkbox]')].some(box => !box.checked"
        " && box.closest('label')?.textContent.includes('0 face'))"
    )
    assert page.is_checked("1 face")

    page.page.locator("#go").click()
    page.wait_for("#progress", "step ")
    page.wait_for("#progress", "Repainted 1 in")
    with page.page.expect_download() as download:
        page.page.locator("#download").click()
    assert download.value.suggested_filename == "two-detailed.png"
    detailed = tmp_path / "detailed.png"
    download.value.save_as(detailed)
    before, after = (np.asarray(Image.open(file)) for file in (two_faces, detailed))
    changed = (before != after).any(axis=2)
    assert not changed[:, :512].any(), "the face that was left out is as it was"
    assert changed[:, 512:].any()
    again = tmp_path / "again.png"
    assert main(["again", str(detailed), "--from", str(two_faces), "-o", str(again)]) == 0
    assert np.array_equal(after, np.asarray(Image.open(again))), "it says how it was made"
    page.page.wait_for_selector("#gallery img")
    assert page.problems == []
    hosts = {urlsplit(url).netloc for url in page.asked if url.startswith("http")}
    assert hosts == {urlsplit(address).netloc}, "nothing comes from elsewhere"


def test_before_and_after_are_compared_with_the_keyboard(page: Page, two_faces: Path) -> None:
    page.page.get_by_label("number input for Steps").fill("2")
    page.drop(two_faces)
    page.wait_for("#seen", "This would be repainted")
    page.page.locator("#go").focus()
    page.page.keyboard.press("Enter")
    slider = page.page.locator("#compare input[type=range]")
    slider.focus()
    for _ in range(3):
        page.page.keyboard.press("ArrowRight")
    assert slider.input_value() == "53"
    shown = "getComputedStyle(document.querySelector('#compare .after')).clipPath"
    assert "53%" in page.page.evaluate(shown)


def test_before_and_after_are_compared_with_the_mouse(page: Page, two_faces: Path) -> None:
    page.page.get_by_label("number input for Steps").fill("2")
    page.drop(two_faces)
    page.wait_for("#seen", "This would be repainted")
    page.page.locator("#go").click()
    page.page.wait_for_function(
        "[...document.querySelectorAll('#compare img')].filter(seen => seen.naturalWidth).length"
        " == 2"
    )
    frame = page.page.locator("#compare .frame")
    frame.hover(position={"x": 250, "y": 9})  # waits until the page moves no longer
    page.page.mouse.down()
    frame.hover(position={"x": 0.2 * frame.bounding_box()["width"], "y": 9})
    slider = page.page.locator("#compare input[type=range]")
    assert slider.input_value() == "20"


@pytest.mark.parametrize("how", ["stop", "leave"])
def test_work_that_nobody_waits_for_ends(
    page: Page, two_faces: Path, detailer: Detailer, how: str
) -> None:
    page.page.get_by_label("number input for Steps").fill("200")
    page.page.get_by_label("number input for Denoising strength").fill("1")
    page.drop(two_faces)
    page.wait_for("#seen", "This would be repainted")
    page.page.locator("#go").click()
    page.wait_for("#progress", "step ")
    assert detailer.engine.stats.jobs == 2
    if how == "stop":
        page.page.locator("#stop").click()
        page.wait_for("#progress", "Stopped.")
    else:
        page.page.close()
    done = detailer.engine.stats.jobs_done
    deadline = time.monotonic() + SECONDS / 1000
    while detailer.engine.stats.jobs:
        assert time.monotonic() < deadline, "its jobs went on"
        time.sleep(0.05)
    assert detailer.engine.stats.jobs_done == done, "they did not end by being done"


def test_what_is_wrong_is_said(page: Page, tmp_path: Path, two_faces: Path) -> None:
    wrong = tmp_path / "wrong.png"
    wrong.write_text("this is no picture")
    page.drop(wrong)
    page.wait_for("#seen [role=alert]", "none of PNG, JPEG, WebP")
    assert page.page.locator("#go").is_disabled()
    page.page.get_by_label("Clear").or_(page.page.get_by_label("Remove")).first.click()
    page.wait_for("#seen", "Drop a picture")
    page.drop(two_faces)
    page.wait_for("#seen", "This would be repainted")
    page.page.get_by_label("Seed").fill("lucky")
    page.page.get_by_text("Selection", exact=True).click()
    page.page.get_by_label("Only the largest").fill("1")
    page.page.wait_for_function("document.querySelectorAll('input:checked').length == 2")
    page.page.locator("#go").click()
    page.wait_for("#progress [role=alert]", "Seed: 'lucky' is not a whole number")


def test_the_command_it_shows_does_the_same(page: Page, two_faces: Path, tmp_path: Path) -> None:
    page.page.locator("#option-prompt textarea").fill("it's (a:1.2) face")
    page.page.locator("#option-objects textarea").fill("1: an old man")
    page.page.get_by_label("number input for Steps").fill("2")
    page.drop(two_faces)
    page.page.get_by_text("The same from a program").click()
    page.wait_for("#curl", "two.png")
    command = page.page.locator("#curl .cm-content").inner_text()
    assert "it'" in command
    done = subprocess.run(
        ["bash", "-c", command.replace("two.png", str(two_faces), 1)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "two-detailed.png") as image:
        assert image.size == Image.open(two_faces).size


def test_a_phone_sees_all_of_it(page: Page, two_faces: Path) -> None:
    page.page.set_viewport_size({"width": 390, "height": 780})
    page.page.get_by_label("number input for Steps").fill("2")
    page.drop(two_faces)
    page.wait_for("#seen", "This would be repainted")
    page.page.locator("#go").click()
    page.page.wait_for_selector("#gallery img")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.page.evaluate(wide) <= 0


def test_with_tokens_the_page_asks_for_one(browser: Any, serve: Any) -> None:
    address = serve(Settings(tokens=parse_tokens("ann:secret-of-ann")))
    context = browser.new_context()
    page = Page(context.new_page())
    page.page.goto(f"{address}/ui/")
    for secret in ("secret-of-bob", "secret-of-ann"):
        page.page.get_by_label("username").fill("ann")
        page.page.get_by_label("password").fill(secret)
        page.page.get_by_role("button", name="Login").click()
        if secret.endswith("bob"):
            page.wait_for("body", "Incorrect Credentials")
    page.page.wait_for_selector("#go")
    context.close()


def test_without_a_login_nothing_is_told(serve: Any) -> None:
    import httpx

    address = serve(Settings(tokens=parse_tokens("ann:secret-of-ann")))
    assert httpx.get(f"{address}/ui/config").status_code == 401
    assert httpx.get(f"{address}/docs").status_code == 401
    upload = httpx.post(f"{address}/ui/gradio_api/upload", files={"files": b"x"})
    assert upload.status_code == 401


def test_addresses_are_not_fetched(address: str) -> None:
    """The page's file input, called without the page: Gradio itself would fetch a URL."""
    import httpx

    config = httpx.get(f"{address}/ui/config").json()
    look = next(item for item in config["dependencies"] if item["api_name"] == "look")
    data: list[Any] = [None] * len(look["inputs"])
    data[0] = {"path": "http://example.org/x.png", "meta": {"_type": "gradio.FileData"}}
    call = {"data": data, "fn_index": look["id"], "session_hash": "abc"}
    httpx.post(f"{address}/ui/gradio_api/queue/join", json=call).raise_for_status()
    told = httpx.get(
        f"{address}/ui/gradio_api/queue/data", params={"session_hash": "abc"}, timeout=30
    )
    assert "only uploaded pictures are taken" in told.text
