"""``afterdetail detect``: what a detector finds, without any diffusion model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from afterdetail.cli.files import check_writable, encoding_of, read, write
from afterdetail.cli.options import DEFAULT_MODELS, AsJson, Models, default_of
from afterdetail.cli.quiet import quiet_libraries
from afterdetail.options import parse_options
from afterdetail.types import Detection, Picture


def detect(
    file: Annotated[Path, typer.Argument(metavar="IN", help="A picture.")],
    detector: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="Detection model or weights file; several by commas."
        ),
    ] = default_of("detector"),
    confidence: Annotated[float, typer.Option(help="0 to 1: lower finds more.")] = default_of(
        "confidence"
    ),
    preview: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw boxes and outlines into this picture."),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Look in overlapping tiles of this many pixels, too.")
    ] = None,
    models: Models = DEFAULT_MODELS,
    as_json: AsJson = False,
) -> None:
    """Show what would be repainted: every object's label, score, box and outline."""
    options = parse_options({"detector": detector, "confidence": confidence, "tile": tile})
    if preview is not None:
        encoding_of(preview)
        check_writable(preview.parent)
    picture = read(file)
    with quiet_libraries():
        from afterdetail.detectors.registry import find_detector
        from afterdetail.models.catalogue import load_catalogue

        looking = find_detector(options.detector, load_catalogue(models), options.tile)
        found = looking.detect(picture.rgb, options.confidence)
    if preview is not None:
        _write_preview(picture, found, preview)
    if as_json:
        typer.echo(json.dumps([_as_json(item) for item in found]))
    else:
        typer.echo(_as_text(file, found))


def _write_preview(picture: Picture, found: list[Detection], file: Path) -> None:
    from afterdetail.images import encode
    from afterdetail.preview import draw

    write(file, encode(draw(picture, found), encoding_of(file)))


def _as_json(item: Detection) -> dict[str, object]:
    box = item.box
    return {
        "label": item.label,
        "score": round(item.score, 4),
        "box": [round(side, 2) for side in (box.x0, box.y0, box.x1, box.y1)],
        "polygons": [[[round(x, 2), round(y, 2)] for x, y in part] for part in item.polygons],
    }


def _as_text(file: Path, found: list[Detection]) -> str:
    if not found:
        return f"{file}: found nothing"
    lines = (
        f"  {item.label} {item.score:.2f}: {item.box.width:.0f}x{item.box.height:.0f} pixels "
        f"at {item.box.x0:.0f},{item.box.y0:.0f}"
        for item in found
    )
    return "\n".join([f"{file}: found {len(found)}", *lines])
