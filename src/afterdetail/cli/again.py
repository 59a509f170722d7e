"""``afterdetail again``: detail a picture as another one says that it was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afterdetail.cli.batch import Manner, detail_all
from afterdetail.cli.files import plan, read_bytes
from afterdetail.cli.options import DEFAULT_MODELS, AsJson, Device, ImageEncoding
from afterdetail.cli.quiet import quiet_libraries
from afterdetail.options import validated
from afterdetail.stages import Stage


def again(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A picture that afterdetail has written.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="The picture to write (.png, .jpg).")
    ],
    original: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PICTURE", help="Begin with this picture, not with FILE itself."
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES|FILE",
            help="As for `detail`.",
            show_default="the built-in model that FILE names, else sd15",
        ),
    ] = None,
    device: Device = None,
    image_encoding: ImageEncoding = None,
    as_json: AsJson = False,
) -> None:
    """Detail a picture again, with the options and the seed in its own metadata."""
    from afterdetail.images.infotext import model_in, options_in
    from afterdetail.images.metadata import read_metadata

    metadata = read_metadata(read_bytes(file))
    options = validated(Stage, options_in(metadata))
    tasks = plan([original or file], out, image_encoding)
    with quiet_libraries():
        from afterdetail.models.catalogue import Kind, built_in
        from afterdetail.pipeline import Detailer

        said = model_in(metadata)
        known = said in built_in().names(Kind.BASE)
        with Detailer(models or (said if known else DEFAULT_MODELS), device=device) as detailer:
            detail_all(detailer, tasks, options, Manner(as_json))
