"""A small cluster on this machine: two engines and an ingress, each a process."""

from __future__ import annotations

import asyncio
import base64
import io
import secrets
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml  # type: ignore[import-untyped]
from PIL import Image

from afterdetail.deploy.options import ClusterOptions
from afterdetail.deploy.wire import Call, Report
from afterdetail.images import from_any
from afterdetail.studio import Order
from afterdetail.types import RGB

pytest.importorskip("ray", reason="needs the extra: pip install 'afterdetail[ray]'")

PHOTO = Path(__file__).parents[1] / "data" / "photos" / "skimage_astronaut.png"
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # or Ray writes one into the home folder
    "OMP_NUM_THREADS": "1",
    "AFTERDETAIL_BACKEND": "eager",  # the library's own
    "AFTERDETAIL_SAFETY": "off",
}
BODY = {
    "init_image": base64.b64encode(PHOTO.read_bytes()).decode(),
    "image_encoding": "png",
    "detector": "face_full_mediapipe",
    "steps": 4,
    "seed": 1,
}

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning"),  # Ray's
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of its proxy."""
    import ray
    from ray import serve

    from afterdetail.deploy.ray_serve import NAME, assemble

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ClusterOptions(
        models="tiny", device="cpu", engines=2, engine_cpus=1, ingress_cpus=1, anonymous=True
    )
    state = str(tmp_path_factory.mktemp("state"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ENVIRONMENT | {"AFTERDETAIL_STATE_DIR": state}).items():
            patch.setenv(name, value)
        ray.init(
            "local",
            num_cpus=3,
            object_store_memory=100_000_000,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
        )
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(assemble(options), name=NAME, route_prefix="/")
            yield f"http://127.0.0.1:{port}"
        finally:
            serve.shutdown()
            ray.shutdown()


@pytest.fixture(scope="module")
def client(cluster: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster, timeout=200) as asking:
        until = time.monotonic() + 100
        while asking.get("/health/ready").status_code != 200 and time.monotonic() < until:
            time.sleep(0.1)
        yield asking


def picture(answer: httpx.Response) -> RGB:
    assert answer.status_code == 200, answer.text
    data = base64.b64decode(answer.json()["image_b64"])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_a_cluster_paints_the_pixels_of_one_process(client: httpx.Client) -> None:
    from afterdetail import Detailer

    with Detailer("tiny", "cpu") as detailer:
        alone = detailer.detail(from_any(PHOTO).rgb, steps=4, seed=1).picture.rgb
    np.testing.assert_array_equal(picture(client.post("/adetailer", json=BODY)), alone)


def test_a_wrong_request_is_answered_as_everywhere(client: httpx.Client) -> None:
    answer = client.post("/adetailer", json=BODY | {"loras": {"nosuch": 1}})
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "unknown_name")


@pytest.fixture
def engine(client: httpx.Client) -> Any:
    """A handle of the engines; ready as the cluster is."""
    from ray import serve

    from afterdetail.deploy.ray_serve import NAME

    assert client.get("/health/ready").status_code == 200
    return serve.get_deployment_handle("Engine", NAME)


def test_an_abort_crosses(engine: Any, order: Order) -> None:
    from afterdetail.deploy.ray_serve import sender

    send = sender(engine)
    long = replace(order, steps=200, strength=1)

    async def leave() -> Report:
        letters = send(Call((long,)), False)
        async for news in letters:
            if news.progress:
                break
        await letters.aclose()
        return news.report

    async def look(name: str) -> Report:
        while True:
            async for news in send(Call(()), False):
                if news.report.engine == name:
                    return news.report

    def later() -> Report:
        return asyncio.run(asyncio.wait_for(look(before.engine), 60))

    before = asyncio.run(leave())
    while (after := later()).stats.jobs:
        time.sleep(0.05)
    assert before.stats.jobs == 1
    assert after.stats.jobs_done == before.stats.jobs_done, "it was not aborted, it was done"


def test_row_31_an_engine_killed_under_load_is_no_error(client: httpx.Client) -> None:
    slow = BODY | {"steps": 30}
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(client.post, "/adetailer", json=slow) for _ in range(4)]
        time.sleep(0.5)
        engines = [one for one in psutil.Process().children(recursive=True) if is_engine(one)]
        assert len(engines) == 2
        engines[0].kill()
        first, *others = [picture(one.result()) for one in asking]
    for other in others:
        np.testing.assert_allclose(other.astype(int), first, atol=1)


def is_engine(process: psutil.Process) -> bool:
    return "ServeReplica:afterdetail:Engine" in " ".join(process.cmdline())


def test_ray_builds_the_application_of_the_config_file() -> None:
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as build

    from afterdetail.deploy.ray_serve import application

    config = Path(__file__).parents[2] / "deploy" / "ray-serve.yaml"
    (described,) = yaml.safe_load(config.read_text(encoding="utf-8"))["applications"]
    assert build(application, described["args"])._bound_deployment.name == "Ingress"
