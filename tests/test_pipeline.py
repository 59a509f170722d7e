"""The whole way on real photographs, with the embedded model."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from afterdetail import Detailer, DetailOptions, Outcome
from afterdetail.config import Settings
from afterdetail.errors import (
    Aborted,
    DeadlineExceeded,
    InpaintFailed,
    InvalidInput,
    UnknownName,
)
from afterdetail.images import from_any
from afterdetail.lifetime import Lifetime
from afterdetail.results import DetailResult, Found, Progress, Settled, Step
from afterdetail.safety.policy import SafetyPolicy
from afterdetail.types import RGB, Picture

PHOTOS = Path(__file__).parent / "data" / "photos"
ASTRONAUT = PHOTOS / "skimage_astronaut.png"
QUICK: dict[str, Any] = {"steps": 2, "strength": 0.5, "seed": 7}


@pytest.fixture(scope="module")
def detailer() -> Iterator[Detailer]:
    with Detailer(models="tiny", device="cpu") as running:
        yield running


def pixels(path: Path) -> RGB:
    return from_any(path).rgb


def group(faces: list[tuple[int, int]], size: tuple[int, int] = (512, 512)) -> RGB:
    """The astronaut's head pasted at each place, upper left corner given, over grey."""
    head = pixels(ASTRONAUT)[40:220, 140:310]
    canvas = np.full((size[1], size[0], 3), 128, np.uint8)
    for x, y in faces:
        part = canvas[max(y, 0) : y + 180, max(x, 0) : x + 170]
        part[:] = head[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]]
    return canvas


def test_a_picture_without_faces_comes_back_as_it_is(detailer: Detailer) -> None:
    result = detailer.detail(PHOTOS / "skimage_coffee.png", **QUICK)
    assert result.num_objects_detected == result.num_objects_inpainted == 0
    assert not result.withheld
    np.testing.assert_array_equal(result.picture.rgb, pixels(PHOTOS / "skimage_coffee.png"))


def test_a_face_is_repainted_and_nothing_else(detailer: Detailer) -> None:
    result = detailer.detail(ASTRONAUT, **QUICK, mask_dilation=0, mask_blur=0)
    (face,) = result.objects
    assert (face.outcome, face.seed) == (Outcome.INPAINTED, 7)
    changed = (result.picture.rgb != pixels(ASTRONAUT)).any(axis=2)
    ys, xs = np.nonzero(changed)
    box = face.detection.box
    assert box.x0 - 1 <= xs.min() and xs.max() < box.x1 + 1
    assert box.y0 - 1 <= ys.min() and ys.max() < box.y1 + 1
    assert changed.sum() > 0.9 * box.area


@pytest.mark.parametrize(
    "faces",
    [
        pytest.param([(20, 20), (300, 300)], id="apart"),
        pytest.param([(-20, -15)], id="in-the-corner"),
        pytest.param([(370, 350)], id="at-the-far-border"),
    ],
)
@pytest.mark.parametrize("union_masks", [False, True])
def test_pixels_outside_the_masks_are_untouched(
    detailer: Detailer, faces: list[tuple[int, int]], union_masks: bool
) -> None:
    from afterdetail import masks

    picture = group(faces)
    result = detailer.detail(picture, **QUICK, union_masks=union_masks)
    assert result.num_objects_inpainted == result.num_objects_detected == len(faces)
    size = (picture.shape[1], picture.shape[0])
    drawn = [masks.draw(item.detection, size) for item in result.objects]
    covered = masks.to_array(masks.union([masks.blur(masks.dilate(one, 4), 4) for one in drawn]))
    untouched = covered == 0
    np.testing.assert_array_equal(result.picture.rgb[untouched], picture[untouched])


def test_overlapping_masks_are_painted_one_on_the_other(detailer: Detailer) -> None:
    from afterdetail import masks

    picture = group([(40, 40), (230, 60)])
    result = detailer.detail(picture, **QUICK, mask_dilation=120)
    assert result.num_objects_inpainted == 2
    first = detailer.detail(picture, **QUICK, mask_dilation=120, max_num_detections=1)
    size = (picture.shape[1], picture.shape[0])
    over = masks.draw(result.objects[1].detection, size)
    over_second = masks.to_array(masks.blur(masks.dilate(over, 120), 4)) > 0
    # Where the second mask does not reach, the first object's result stands as it was alone.
    np.testing.assert_array_equal(result.picture.rgb[~over_second], first.picture.rgb[~over_second])


def test_at_most_the_most_confident_are_repainted(detailer: Detailer) -> None:
    result = detailer.detail(group([(20, 20), (300, 300)]), **QUICK, max_num_detections=1)
    assert [item.outcome for item in result.objects] == [Outcome.INPAINTED, Outcome.SKIPPED]
    assert result.num_objects_detected == 2


def test_alpha_and_profile_travel_along(detailer: Detailer) -> None:
    photo = Image.open(ASTRONAUT).convert("RGB")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    result = detailer.detail(photo, **QUICK)
    assert result.image.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(result.image)[..., 3], np.asarray(photo)[..., 3])


@pytest.mark.parametrize("sampler", ["DDIM", "HEUN", "DPM_PLUS_PLUS_SDE_KARRAS", "LCM"])
def test_the_same_seed_gives_the_same_picture(detailer: Detailer, sampler: str) -> None:
    one, other = (detailer.detail(ASTRONAUT, **QUICK, sampler=sampler) for _ in range(2))
    np.testing.assert_array_equal(one.picture.rgb, other.picture.rgb)


def test_inpaint_repaints_under_the_callers_mask(detailer: Detailer) -> None:
    mask = np.zeros((512, 512), np.uint8)
    mask[80:180, 170:280] = 255
    result = detailer.inpaint(ASTRONAUT, mask, **QUICK, mask_dilation=0, mask_blur=0)
    assert result.num_objects_inpainted == 1
    changed = (result.picture.rgb != pixels(ASTRONAUT)).any(axis=2)
    assert not changed[mask == 0].any()
    assert changed[mask > 0].mean() > 0.9


@pytest.mark.parametrize(
    ("mask", "options", "field"),
    [
        (np.zeros((512, 512), np.uint8), {}, "mask"),
        (np.full((64, 64), 255, np.uint8), {}, "mask"),
        (np.full((512, 512), 255, np.uint8), {"detector": "face_full_mediapipe"}, "detector"),
    ],
    ids=["empty", "other-size", "option-about-finding"],
)
def test_a_wrong_mask_is_refused(
    detailer: Detailer, mask: RGB, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        detailer.inpaint(ASTRONAUT, mask, **QUICK, **options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("options", "error", "field"),
    [
        ({"steps": 0}, InvalidInput, "steps"),
        ({"sampel": "DDIM"}, UnknownName, "sampel"),
        ({"detector": "face_fool_mediapipe"}, UnknownName, "detector"),
        ({"style_preset": "no such style"}, UnknownName, "style_preset"),
        ({"checkpoint": "none"}, UnknownName, "checkpoint"),
        ({"loras": {"none": 1}}, UnknownName, "loras"),
        ({"prompt": "<lora:none:1>"}, UnknownName, "loras"),
        ({"objects": {9: {"loras": {"none": 1}}}}, UnknownName, "loras"),
        ({"use_refiner": True}, InvalidInput, "use_refiner"),
    ],
)
@pytest.mark.parametrize("photo", ["skimage_astronaut.png", "skimage_coffee.png"])
def test_what_cannot_be_done_is_refused_with_or_without_a_face(
    detailer: Detailer,
    photo: str,
    options: dict[str, Any],
    error: type[InvalidInput],
    field: str,
) -> None:
    with pytest.raises(error) as caught:
        detailer.detail(PHOTOS / photo, **options)
    assert caught.value.field == field


def test_detect_needs_no_diffusion_model() -> None:
    with Detailer(models="sd15", device="cpu") as without_weights:
        (face,) = without_weights.detect(ASTRONAUT)
    assert face.label == "face"


@pytest.mark.parametrize(
    "how",
    [
        {"detector": "face_full_mediapipe, face_mesh_mediapipe"},
        {"detector": "face_full_mediapipe", "tile": 300},
    ],
    ids=["several", "tiles"],
)
def test_an_object_found_twice_counts_once(detailer: Detailer, how: dict[str, Any]) -> None:
    result = detailer.detail(ASTRONAUT, **QUICK, **how)
    assert result.num_objects_inpainted == result.num_objects_detected == 1


TWO = [(20, 20), (300, 300)]


def difference(one: DetailResult, other: DetailResult) -> np.ndarray[Any, Any]:
    """How far apart two results are, (H, W)."""
    apart = np.abs(one.picture.rgb.astype(int) - other.picture.rgb)
    return np.asarray(apart.max(axis=2))


def test_a_dry_run_tells_what_a_run_does(detailer: Detailer) -> None:
    options: dict[str, Any] = {"order": "left_to_right", "objects": {1: {"skip": True}}}
    dry = detailer.dry_run(group(TWO), **QUICK, **options)
    done = detailer.detail(group(TWO), **QUICK, **options)
    assert [item.outcome for item in dry.objects] == [Outcome.PLANNED, Outcome.SKIPPED]
    assert [item.outcome for item in done.objects] == [Outcome.INPAINTED, Outcome.SKIPPED]
    assert [item.detection for item in dry.objects] == [item.detection for item in done.objects]
    assert [item.seed for item in dry.objects] == [item.seed for item in done.objects]
    assert len(dry.masks) == 1
    np.testing.assert_array_equal(dry.picture.rgb, group(TWO))


def test_options_of_one_object_change_nothing_of_the_others(detailer: Detailer) -> None:
    picture = group(TWO)
    plain = detailer.detail(picture, **QUICK)
    other = detailer.detail(picture, **QUICK, objects={1: {"seed": 99, "strength": 1.0}})
    assert [item.seed for item in other.objects] == [7, 99]
    changed = difference(plain, other) > 1  # batches of other neighbours round differently
    box = plain.objects[1].detection.box
    ys, xs = np.nonzero(changed)
    assert changed.any()
    assert box.x0 - 20 < xs.min() and xs.max() < box.x1 + 20
    assert box.y0 - 20 < ys.min() and ys.max() < box.y1 + 20


def test_a_part_of_the_prompt_for_each_object(detailer: Detailer) -> None:
    options: dict[str, Any] = {**QUICK, "cfg_scale": 9, "order": "left_to_right"}
    plain, both, first = (
        detailer.detail(group(TWO), **options, prompt=prompt)
        for prompt in ("a man", "a man [SEP] a cat", "a man [SEP] [SKIP]")
    )
    assert first.num_objects_inpainted == 1
    assert difference(both, plain)[:256].max() <= 1
    assert difference(both, first)[:256].max() <= 1
    assert difference(both, first)[256:].max() > 1


def test_stages_follow_one_another(detailer: Detailer) -> None:
    eyes = {"detector": "eyes_mesh_mediapipe", "steps": 3}
    result = detailer.detail(ASTRONAUT, **QUICK, stages=[{}, eyes])
    assert [(item.stage, item.id, item.detection.label) for item in result.objects] == [
        (0, 0, "face"),
        (1, 0, "eyes"),
    ]
    assert result.num_objects_inpainted == 2
    faces = detailer.detail(ASTRONAUT, **QUICK)
    after = detailer.detail(faces.picture.rgb, **{**QUICK, **eyes})
    np.testing.assert_array_equal(result.picture.rgb, after.picture.rgb)


def test_a_stage_with_options_of_objects_looks_at_the_picture_as_it_came(
    detailer: Detailer,
) -> None:
    dry = detailer.dry_run(ASTRONAUT, stages=[{}, {}])
    wild = {**QUICK, "steps": 5, "strength": 1.0}
    objects = {0: {"strength": 0.5}}
    result = detailer.detail(ASTRONAUT, **wild, stages=[{}, {"objects": objects}])
    assert result.objects[1].detection == dry.objects[1].detection


def test_the_listener_hears_every_object(detailer: Detailer) -> None:
    heard: list[Progress] = []
    detailer.detail(group(TWO), **{**QUICK, "steps": 8, "strength": 1.0}, listener=heard.append)
    assert heard[0] == Found(stage=0, stages=1, objects=2, planned=2)
    for number in (0, 1):
        steps = [item for item in heard if isinstance(item, Step) and item.ids == (number,)]
        assert steps
        assert [item.step for item in steps] == sorted({item.step for item in steps})
        assert {item.steps for item in steps} == {8}
    settled = [item for item in heard if isinstance(item, Settled)]
    assert sorted(item.ids for item in settled) == [(0,), (1,)]
    assert {item.outcome for item in settled} == {Outcome.INPAINTED}


def test_a_listener_that_raises_ends_the_work(detailer: Detailer) -> None:
    def enough(progress: Progress) -> None:
        if isinstance(progress, Step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detailer.detail(ASTRONAUT, steps=200, strength=1.0, listener=enough)
    end = time.monotonic() + 10
    while detailer.engine.stats.jobs and time.monotonic() < end:
        time.sleep(0.02)
    assert detailer.engine.stats.jobs == 0


def test_the_size_to_repaint_at_is_one_of_the_models(detailer: Detailer) -> None:
    one = detailer.detail(ASTRONAUT, **QUICK, inpaint_size="128x128")
    np.testing.assert_array_equal(one.picture.rgb, detailer.detail(ASTRONAUT, **QUICK).picture.rgb)
    with pytest.raises(InvalidInput, match="128x128") as caught:
        detailer.detail(ASTRONAUT, inpaint_size="512x512")
    assert caught.value.field == "inpaint_size"


def test_a_deadline_stops_the_picture() -> None:
    options = DetailOptions(steps=200, strength=1.0)
    with Detailer(models="tiny", device="cpu") as running:
        running.load()
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            running.run(Picture(pixels(ASTRONAUT)), options, Lifetime(began + 0.3))
        assert time.monotonic() - began < 5


def test_a_caller_who_gives_up_stops_the_picture() -> None:
    options = DetailOptions(steps=200, strength=1.0)
    lifetime = Lifetime()
    with Detailer(models="tiny", device="cpu") as running:
        running.load()
        threading.Timer(0.3, lifetime.end).start()
        began = time.monotonic()
        with pytest.raises(Aborted):
            running.run(Picture(pixels(ASTRONAUT)), options, lifetime)
        assert time.monotonic() - began < 5
        with pytest.raises(Aborted):
            running.run(Picture(pixels(ASTRONAUT)), options, lifetime)


class Refusing:
    """A checker that refuses the crops whose number is given."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers
        self.crops: list[RGB] = []

    def score(self, rgb: RGB) -> float:
        self.crops.append(rgb)
        return float(len(self.crops) in self.numbers)


@pytest.mark.parametrize(
    ("refused", "options", "outcomes", "counts", "withheld"),
    [
        ((), {}, "inpainted inpainted", (2, 2, 0), False),
        ((1,), {}, "refused inpainted", (2, 1, 1), False),
        ((1, 2), {}, "refused refused", (2, 0, 2), True),
        ((1,), {"union_masks": True}, "refused refused", (2, 0, 1), True),
    ],
)
def test_what_the_safety_checker_refuses_stays_as_it_was(
    detailer: Detailer,
    monkeypatch: pytest.MonkeyPatch,
    refused: tuple[int, ...],
    options: dict[str, Any],
    outcomes: str,
    counts: tuple[int, int, int],
    withheld: bool,
) -> None:
    checker = Refusing(*refused)
    monkeypatch.setattr(detailer, "_safety", SafetyPolicy(checker))
    picture = group([(20, 20), (300, 300)])
    result = detailer.detail(picture, **QUICK, **options)
    assert [item.outcome for item in result.objects] == outcomes.split()
    assert counts == (
        result.num_objects_detected,
        result.num_objects_inpainted,
        result.num_removed_for_safety,
    )
    assert result.withheld is withheld
    for item in result.objects:
        box = item.detection.box
        inside = (slice(int(box.y0), int(box.y1)), slice(int(box.x0), int(box.x1)))
        kept = np.array_equal(result.picture.rgb[inside], picture[inside])
        assert kept is (item.outcome is Outcome.REFUSED)


def test_safety_is_on_or_off() -> None:
    with pytest.raises(InvalidInput):
        Detailer(models="tiny", safety="maybe")  # type: ignore[arg-type]


def test_if_every_object_fails_the_picture_fails(
    detailer: Detailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from afterdetail.engine import denoiser

    def broken(*_: object) -> None:
        raise RuntimeError("a kernel's own words")

    monkeypatch.setattr(denoiser, "predict", broken)
    with pytest.raises(InpaintFailed) as caught:
        detailer.detail(ASTRONAUT, **QUICK)
    assert "kernel" not in str(caught.value)


def test_library_command_line_and_endpoint_give_the_same_pixels(
    detailer: Detailer, tmp_path: Path
) -> None:
    import base64

    from afterdetail.server.app import create_app

    options = {**QUICK, "prompt": "a (smiling:1.2) woman", "negative_prompt": "blurry"}
    library = detailer.detail(ASTRONAUT, **options).picture.rgb

    body = {
        **options,
        "init_image": base64.b64encode(ASTRONAUT.read_bytes()).decode(),
        "image_encoding": "png",
        "detector": "face_full_mediapipe",
    }
    with TestClient(create_app(detailer, Settings())) as client:
        answer = client.post("/adetailer", json=body)
    assert answer.status_code == 200, answer.text
    endpoint = Image.open(io.BytesIO(base64.b64decode(answer.json()["image_b64"])))

    out = tmp_path / "out.png"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "afterdetail", "detail", str(ASTRONAUT), "-o", str(out)]
    done = subprocess.run(
        [*command, "--models", "tiny", "--device", "cpu", "--json", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_objects_inpainted"] == 1

    np.testing.assert_array_equal(np.asarray(endpoint.convert("RGB")), library)
    np.testing.assert_array_equal(np.asarray(Image.open(out).convert("RGB")), library)
