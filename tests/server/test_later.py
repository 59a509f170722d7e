"""The asynchronous form, as the vendor's own client used it."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from afterdetail.config import Settings, parse_tokens
from afterdetail.errors import WeightsError
from afterdetail.server import later
from afterdetail.server.app import create_app
from afterdetail.server.files import Files
from afterdetail.server.responses import Responses
from afterdetail.server.tables import StoreUnavailable

if TYPE_CHECKING:
    from afterdetail.pipeline import Detailer

Body = dict[str, object]

LATER = {"X-OctoAI-Async": "1"}
ANNA = {"Authorization": "Bearer 12345678"}
BERT = {"Authorization": "Bearer abcdefgh"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state_dir=tmp_path / "state", tokens=parse_tokens("anna:12345678,bert:abcdefgh")
    )


def accepted(client: TestClient, body: Body) -> str:
    response = client.post("/adetailer", json=body, headers=ANNA | LATER)
    assert response.status_code == 200
    told = response.json()
    assert told.keys() == {"response_id", "poll_url"}
    assert told["poll_url"].endswith(told["response_id"])
    return str(told["poll_url"])


def completed(client: TestClient, poll_url: str, seconds: float = 60) -> Any:
    """Ask until it is completed, and fetch what it came to."""
    end = time.monotonic() + seconds
    seen: list[str] = []
    while time.monotonic() < end:
        told = client.get(poll_url, headers=ANNA).json()
        seen.append(told["status"])
        if told["status"] == "completed":
            assert set(seen) <= {"pending", "running", "completed"}
            return client.get(told["response_url"], headers=ANNA)
        assert "response_url" not in told
        time.sleep(0.02)
    raise TimeoutError(f"not completed: {seen[-1]}")


def test_it_gives_what_the_synchronous_form_gives(
    detailer: Detailer, body: Body, settings: Settings
) -> None:
    odd = body | {"width": 5}
    with TestClient(create_app(detailer, settings)) as client:
        deferred = completed(client, accepted(client, odd))
        at_once = client.post("/adetailer", json=odd, headers=ANNA)
    assert deferred.status_code == at_once.status_code == 200
    assert deferred.json() == at_once.json()
    for header in ("Content-Type", "X-Ignored-Fields"):
        assert deferred.headers[header] == at_once.headers[header]


def test_a_failure_is_completed_and_answers_as_it_would_have(
    detailer: Detailer, body: Body, settings: Settings
) -> None:
    with TestClient(create_app(detailer, settings)) as client:
        deferred = completed(client, accepted(client, body | {"checkpoint": "nosuch"}))
        at_once = client.post("/adetailer", json=body | {"checkpoint": "nosuch"}, headers=ANNA)
    assert deferred.status_code == at_once.status_code == 422
    assert deferred.json() == at_once.json()


def test_what_is_wrong_at_sight_is_not_accepted(
    detailer: Detailer, body: Body, settings: Settings
) -> None:
    with TestClient(create_app(detailer, settings)) as client:
        response = client.post("/adetailer", json=body | {"steps": 0}, headers=ANNA | LATER)
    assert response.status_code == 422
    assert not settings.state_dir.exists()


def test_ids_belong_to_the_token_that_made_them(
    detailer: Detailer, body: Body, settings: Settings
) -> None:
    with TestClient(create_app(detailer, settings)) as client:
        poll_url = accepted(client, body)
        completed(client, poll_url)
        for path in (poll_url, f"{poll_url}/result", "/adetailer/responses/nosuch"):
            response = client.get(path, headers=BERT)
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
            assert client.get(path).status_code == 401


def test_results_expire(detailer: Detailer, body: Body, settings: Settings) -> None:
    brief = settings.model_copy(update={"async_hours": 0.5 / 3600})
    with TestClient(create_app(detailer, brief)) as client:
        poll_url = accepted(client, body)
        completed(client, poll_url)
        time.sleep(0.6)
        for path in (poll_url, f"{poll_url}/result"):
            response = client.get(path, headers=ANNA)
            assert (response.status_code, response.json()["code"]) == (410, "expired")


def test_what_a_restart_interrupts_runs_again(
    detailer: Detailer, body: Body, settings: Settings
) -> None:
    slow = body | {"steps": 40, "strength": 1}
    with TestClient(create_app(detailer, settings)) as client:
        poll_url = accepted(client, slow)
        while client.get(poll_url, headers=ANNA).json()["status"] != "running":
            time.sleep(0.01)
    loading: Future[Detailer] = Future()
    with TestClient(create_app(loading, settings)) as client:
        assert client.get(poll_url, headers=ANNA).json()["status"] != "completed"
        loading.set_result(detailer)
        assert completed(client, poll_url).json()["num_objects_inpainted"] == 1


def test_a_server_without_models_fails_no_job_of_another(
    detailer: Detailer, body: Body, settings: Settings
) -> None:
    with closing(Responses(settings.state_dir, max_bytes=10**7, seconds=1000)) as store:
        number = store.add("anna", json.dumps(body).encode())
    loading: Future[Detailer] = Future()
    with TestClient(create_app(loading, settings)):
        loading.set_exception(WeightsError("damaged"))
        time.sleep(0.2)
    with TestClient(create_app(detailer, settings)) as client:
        assert completed(client, f"/adetailer/responses/{number}").status_code == 200


def test_a_job_of_a_server_that_is_gone_runs_on_another(
    detailer: Detailer, body: Body, settings: Settings, postgres: str
) -> None:
    shared = settings.model_copy(update={"state_url": postgres})
    with TestClient(create_app(detailer, shared)) as client:
        poll_url = accepted(client, body | {"steps": 60, "strength": 1})
    with TestClient(create_app(detailer, shared)) as client:
        assert completed(client, poll_url).json()["num_objects_inpainted"] == 1


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of a store that is not well."""
    monkeypatch.setattr(later, "PAUSES", (0.01, 0.01))
    monkeypatch.setattr(later, "LEASE", 0.3)


@dataclass
class Disk:
    """Refuses the first ``times`` results of more than ``room`` bytes."""

    times: int
    room: int = 0
    refused: int = 0

    def write(self, files: Files, name: str, data: bytes) -> None:
        if name.endswith(".result") and len(data) > self.room and self.refused < self.times:
            self.refused += 1
            raise OSError(28, "No space left on device")
        WRITE(files, name, data)


WRITE = Files.write


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("disk", "status"),
    [
        pytest.param(Disk(times=1), 200, id="for a moment: it is kept later"),
        pytest.param(Disk(times=99, room=1000), 503, id="its failure has room"),
        pytest.param(Disk(times=3), 200, id="for longer: it runs again"),
    ],
)
def test_a_result_that_cannot_be_kept_does_not_leave_the_job_running(
    detailer: Detailer,
    body: Body,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    disk: Disk,
    status: int,
) -> None:
    monkeypatch.setattr(Files, "write", lambda *given: disk.write(*given))
    with TestClient(create_app(detailer, settings)) as client:
        answer = completed(client, accepted(client, body))
    assert disk.refused
    assert answer.status_code == status
    if status == 503:
        assert answer.json()["code"] == "store_unavailable"


def test_the_server_ends_though_a_result_cannot_be_kept(
    detailer: Detailer, body: Body, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "PAUSES", (1000.0,))
    disk = Disk(times=1)
    monkeypatch.setattr(Files, "write", lambda *given: disk.write(*given))
    with TestClient(create_app(detailer, settings)) as client:
        poll_url = accepted(client, body)
        while not disk.refused:
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < later.PATIENCE
    with TestClient(create_app(detailer, settings)) as client:
        assert completed(client, poll_url).status_code == 200


def test_a_job_whose_beginning_cannot_be_noted_runs_all_the_same(
    detailer: Detailer, body: Body, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StoreUnavailable("the database is gone")

    monkeypatch.setattr(Responses, "start", fails)
    with TestClient(create_app(detailer, settings)) as client:
        assert completed(client, accepted(client, body)).status_code == 200


def test_a_folder_that_cannot_be_used_is_no_clients_fault(
    detailer: Detailer, body: Body, settings: Settings
) -> None:
    settings.state_dir.write_bytes(b"a file")
    with TestClient(create_app(detailer, settings)) as client:
        answer = client.post("/adetailer", json=body, headers=ANNA | LATER)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert str(settings.state_dir) not in answer.text
        assert client.post("/adetailer", json=body, headers=ANNA).status_code == 200


def test_the_address_is_the_one_that_is_set(
    detailer: Detailer, body: Body, settings: Settings
) -> None:
    public = settings.model_copy(update={"public_url": "https://example.org/images/"})
    with TestClient(create_app(detailer, public)) as client:
        poll_url = accepted(client, body)
        completed(client, poll_url.replace("https://example.org/images", ""))
    assert poll_url.startswith("https://example.org/images/adetailer/responses/")
