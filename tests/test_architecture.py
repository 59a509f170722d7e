"""Imports point down, and the light doors stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "afterdetail"

# Bottom first. A room may import from the layers below its own, and from itself.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"types", "errors"}),
    frozenset({"options", "config", "lifetime"}),
    frozenset({"images", "prompts", "stages"}),
    frozenset({"models", "results"}),
    frozenset(
        {"detectors", "masks", "regions", "waves", "engine", "safety", "composite", "preview"}
    ),
    frozenset({"recipes", "studio"}),
    frozenset({"targets"}),
    frozenset({"repaint"}),
    frozenset({"flow"}),
    frozenset({"pipeline"}),
    frozenset({"schema"}),
    frozenset({"server"}),
    frozenset({"ui", "deploy"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def imported_rooms(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported_modules(path)]
    return {part[1] for part in parts if part[0] == "afterdetail" and len(part) > 1}


def test_every_room_has_a_layer() -> None:
    assert {room_of(path) for path in FILES} - RANK.keys() == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    above = {
        other
        for other in imported_rooms(path) - {room}
        if other in RANK and RANK[other] >= RANK[room]
    }
    assert above == set(), f"{room} must not import {above}"


def test_scheduler_never_imports_torch() -> None:
    imported = imported_modules(PACKAGE / "engine" / "scheduler.py")
    assert not {name for name in imported if name.split(".")[0] in {"torch", "diffusers"}}


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("engine", {"fastapi", "starlette", "uvicorn", "httpx", "pydantic"}),
        ("models", {"fastapi", "starlette", "uvicorn", "httpx"}),
    ],
)
def test_the_engine_hears_nothing_of_the_web(room: str, forbidden: set[str]) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        assert not {name.split(".")[0] for name in imported_modules(path)} & forbidden, path


def test_only_deploy_knows_of_ray() -> None:
    knowing = {
        room_of(path)
        for path in FILES
        for name in imported_modules(path)
        if name.split(".")[0] == "ray"
    }
    assert knowing == {"deploy"}


@pytest.mark.parametrize("module", ["afterdetail", "afterdetail.cli.main"])
def test_light_modules_do_not_load_torch(module: str) -> None:
    heavy = "('torch', 'diffusers', 'transformers', 'gradio', 'ray')"
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
