"""The files in ``deploy/`` say what the code says: its settings, its metrics, its commands."""

from __future__ import annotations

import configparser
import importlib
import json
import re
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from afterdetail.cli.main import app as cli
from afterdetail.config import Settings
from afterdetail.deploy.options import ClusterOptions
from afterdetail.deploy.ray_serve import ENVIRONMENT
from afterdetail.results import Outcome
from afterdetail.server.app import create_app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
RAY_SERVE = yaml.safe_load((DEPLOY / "ray-serve.yaml").read_text(encoding="utf-8"))
KUBERAY = yaml.safe_load((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))

METRIC = re.compile(r"\b(?:afterdetail|process)_\w+")


@pytest.fixture(scope="module")
def unit() -> configparser.SectionProxy:
    """The service of the systemd unit; of several lines with one name, all."""

    class Several(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            if isinstance(value, list) and key in self:
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    parser = configparser.RawConfigParser(dict_type=Several, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / "afterdetail.service", encoding="utf-8")
    assert parser.sections() == ["Unit", "Service", "Install"]
    return parser["Service"]


@pytest.mark.parametrize("name", sorted(path.name for path in DEPLOY.iterdir()))
def test_every_setting_named_is_one(name: str) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    named = {word.lower() for word in re.findall(r"\bAFTERDETAIL_(\w+)", text)}
    assert named <= Settings.model_fields.keys()


def commands() -> list[list[str]]:
    """Every way in which these files start the server."""
    images = [json.loads(line) for line in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)]
    text = (DEPLOY / "afterdetail.service").read_text(encoding="utf-8")
    (start,) = re.findall(r"^ExecStart=\S+/afterdetail (.*)$", text, re.MULTILINE)
    return [*images, start.split()]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_option_of_a_command_is_one(command: list[str]) -> None:
    """``--help`` after it: read to the end, not run."""
    done = CliRunner().invoke(cli, [*command, "--help"])
    assert done.exit_code == 0, done.output
    options = {word for word in command if word.startswith("--")}
    assert all(option in done.output for option in options)


class TestDockerfile:
    def test_compose_builds_a_target_of_it(self) -> None:
        service = COMPOSE["services"]["afterdetail"]
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert f"AS {service['build']['target']}\n" in DOCKERFILE

    def test_each_target_that_serves_is_no_root(self) -> None:
        stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
        serving = [stage for stage in stages if "ENTRYPOINT" in stage]
        assert len(serving) == 2
        assert all("\nUSER 10001\n" in stage for stage in serving)
        assert "useradd --uid 10001" in DOCKERFILE

    def test_what_it_copies_is_let_through(self) -> None:
        ignore = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        let_in = [line[1:] for line in ignore if line.startswith("!")]
        assert all((ROOT / name).exists() for name in let_in)
        needed = {"src", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "constraints.txt"}
        assert needed <= set(let_in)

    def test_compose_mounts_what_it_declares(self) -> None:
        (line,) = re.findall(r"^VOLUME (\[.*\])$", DOCKERFILE, re.MULTILINE)
        mounts = [volume.split(":") for volume in COMPOSE["services"]["afterdetail"]["volumes"]]
        assert {place for _, place in mounts} == set(json.loads(line))
        assert {name for name, _ in mounts} == COMPOSE["volumes"].keys()


class TestCluster:
    def test_the_application_is_imported_with_args_that_it_takes(self) -> None:
        (application,) = RAY_SERVE["applications"]
        module, _, name = application["import_path"].partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        options = ClusterOptions(**application["args"])
        assert options.max_engines > options.engines  # it scales
        assert not options.anonymous

    def test_kubernetes_serves_the_same(self) -> None:
        assert yaml.safe_load(KUBERAY["spec"]["serveConfigV2"]) == RAY_SERVE

    def test_nodes_have_what_the_command_line_sets(self) -> None:
        cluster = KUBERAY["spec"]["rayClusterConfig"]
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            (container,) = group["template"]["spec"]["containers"]
            assert (
                ENVIRONMENT.items()
                <= {one["name"]: one["value"] for one in container["env"]}.items()
            )

    def test_there_is_a_node_for_each_engine(self) -> None:
        (gpu,) = KUBERAY["spec"]["rayClusterConfig"]["workerGroupSpecs"][1:]
        assert gpu["maxReplicas"] >= RAY_SERVE["applications"][0]["args"]["max_engines"]

    def test_its_version_is_the_one_tried(self) -> None:
        pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        assert f"ray=={KUBERAY['spec']['rayClusterConfig']['rayVersion']}" in pins


def test_supervisors_wait_for_the_longest_request(unit: configparser.SectionProxy) -> None:
    limit = Settings.model_fields["request_timeout"].default
    assert float(unit["TimeoutStopSec"]) > limit
    minutes, seconds = re.fullmatch(  # type: ignore[union-attr]
        r"(\d+)m(\d+)s", COMPOSE["services"]["afterdetail"]["stop_grace_period"]
    ).groups()
    assert 60 * int(minutes) + int(seconds) > limit


def test_supervisors_start_it_again(unit: configparser.SectionProxy) -> None:
    assert unit["Restart"] == COMPOSE["services"]["afterdetail"]["restart"] == "on-failure"


def queries() -> list[str]:
    panels = DASHBOARD["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


class TestDashboard:
    @pytest.fixture(scope="class")
    @staticmethod
    def served() -> set[str]:
        """The names on `/metrics` of a server that has answered."""
        app = create_app(Future(), Settings())
        counted = app.state.service.metrics
        counted.saw_stages({"detect": 0.1})
        counted.objects.labels(Outcome.INPAINTED.value).inc()
        with TestClient(app, client=("127.0.0.1", 5)) as client:
            client.post("/adetailer", json={})
            page = client.get("/metrics").text
        return {METRIC.match(line)[0] for line in page.splitlines() if line[0] != "#"}  # type: ignore[index]

    def test_it_asks_for_what_is_served(self, served: set[str]) -> None:
        asked = {name for query in queries() for name in METRIC.findall(query)}
        assert len(asked) > 15
        assert asked - served == set()

    def test_it_shows_all_of_ours(self, served: set[str]) -> None:
        asked = " ".join(queries())
        ours = {name for name in served if not name.endswith(("_created", "_count", "_sum"))}
        left_out = {name for name in ours if name.startswith("afterdetail") and name not in asked}
        assert left_out <= {"afterdetail_models", "afterdetail_stage_seconds_bucket"}

    def test_panels_lie_apart(self) -> None:
        """On Grafana's grid of 24 columns."""
        places: set[tuple[int, int]] = set()
        for panel in DASHBOARD["panels"]:
            at = panel["gridPos"]
            tiles = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert max(x for x, _ in tiles) < 24
            assert not tiles & places
            places |= tiles
        numbers = [panel["id"] for panel in DASHBOARD["panels"]]
        assert len(numbers) == len(set(numbers))
