"""The built wheel in an environment of its own: its data files are there, and it works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "tests" / "data" / "photos" / "skimage_astronaut.png"
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def call(*command: str | Path) -> str:
    """Run a command away from the source tree, and without its import paths."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    finished = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd="/",
        env={name: value for name, value in os.environ.items() if name not in hidden},
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    subprocess.run([*PIP, "wheel", *options, ROOT], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of a new environment with the wheel, and the dependencies of this one.

    The dependencies' folder is put on the path as it is; the .pth files in it, which lead to the
    source tree, are not read then.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    variables = {"base": str(folder), "platbase": str(folder)}
    packages, scripts = (
        Path(sysconfig.get_path(name, "venv", variables)) for name in ("purelib", "scripts")
    )
    call(*PIP, "--python", scripts / "python", "install", "--no-index", "--no-deps", wheel)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "afterdetail").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert packed == source
    assert {
        "afterdetail/models/tiny/unet/diffusion_pytorch_model.safetensors",
        "afterdetail/models/models.toml",
        "afterdetail/prompts/styles.toml",
        "afterdetail/detectors/weights/face_landmark.tflite",
        "afterdetail/py.typed",
    } <= packed


def test_the_wheel_carries_licence_and_notice(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name).name for name in archive.namelist() if ".dist-info/" in name}
    assert {"LICENSE", "NOTICE", "entry_points.txt"} <= names


def test_the_code_that_runs_is_the_wheels(environment: Path) -> None:
    code = "import afterdetail; print(afterdetail.__file__)"
    found = Path(call(environment / "python", "-c", code).strip())
    assert found.is_relative_to(environment.parent)
    assert not found.is_relative_to(ROOT)


def test_its_version_is_that_of_the_code(environment: Path) -> None:
    code = "from importlib.metadata import version; print(version('afterdetail'))"
    metadata = call(environment / "python", "-c", code).strip()
    assert call(environment / "afterdetail", "--version") == f"afterdetail {metadata}\n"


def test_the_installed_command_details_a_photograph(environment: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    said = call(
        *(environment / "afterdetail", "detail", PHOTO, "-o", output),
        *("--models", "tiny", "--steps", "2", "--json"),
    )
    assert json.loads(said)["num_objects_inpainted"] == 1
    assert output.stat().st_size > 10_000
