"""Files and requests that nobody would write: any answer will do that owns to no fault of ours."""

from __future__ import annotations

import base64
import json
import string
from collections import Counter

import pytest
from benchmarks.abuse import damaged
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.conftest import Open

from afterdetail.config import Settings
from afterdetail.schema.request import AdetailerRequest

Body = dict[str, object]

FILES = 300


@pytest.fixture(scope="module")
def any_size(open_client: Open) -> TestClient:
    return open_client(Settings(resolutions="any"))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_are_refused_or_read(any_size: TestClient, body: Body) -> None:
    """Those that the benchmark sends more of."""
    statuses: Counter[int] = Counter()
    for number in range(FILES):
        data = base64.b64encode(damaged(number)).decode()
        statuses[any_size.post("/adetailer", json=body | {"init_image": data}).status_code] += 1
    assert statuses.keys() == {200, 422}
    assert min(statuses.values()) > FILES / 20


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
words = st.text(string.printable, max_size=300)
FIELDS = st.sampled_from(sorted(AdetailerRequest.model_fields))
near: dict[str, st.SearchStrategy[object]] = {
    "prompt": words | st.text(max_size=2000),
    "negative_prompt": words,
    "sampler": st.sampled_from(["DDIM", "LCM", "PNDM", "DPM_SINGLE", "KLMS", "UNI_PC"]),
    "steps": st.integers(1, 4),
    "strength": st.floats(0.01, 1),
    "cfg_scale": st.floats(0.01, 50),
    "seed": st.integers(1, 2**32 - 1) | st.lists(st.integers(1, 9), max_size=3),
    "mask_dilation": st.integers(0, 10**9),
    "mask_blur": st.integers(0, 10**9),
    "mask_padding": st.integers(0, 10**9),
    "max_num_detections": st.integers(1, 10**30),
    "confidence": st.floats(0, 1),
    "union_masks": st.booleans(),
    "loras": st.dictionaries(words, st.none() | st.floats(), max_size=2),
    "checkpoint": words,
    "style_preset": st.sampled_from(["base", "Anime", "anime "]) | words,
    "image_encoding": st.sampled_from(["png", "jpeg"]),
    "detector": st.sampled_from(["face_full_mediapipe", "eyes_mesh_mediapipe", "face_yolov8n"]),
}


@given(
    st.fixed_dictionaries({}, optional=near),
    st.dictionaries(
        st.sampled_from(sorted(AdetailerRequest.model_fields)) | words, junk, max_size=1
    )
    | st.just({}),
)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_made_up_requests_are_refused_or_done(
    any_size: TestClient, body: Body, fields: Body, wrong: Body
) -> None:
    content = json.dumps(body | fields | wrong)
    response = any_size.post(
        "/adetailer", content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code in {200, 422}, response.text
    if response.status_code == 422:
        assert all(
            problem.keys() == {"loc", "msg", "type"} for problem in response.json()["detail"]
        )
