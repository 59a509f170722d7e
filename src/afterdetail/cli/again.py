"""``afterdetail again``: detail a picture as another one says that it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afterdetail.cli.batch import Manner, detail_all
from afterdetail.cli.files import plan, read_bytes
from afterdetail.cli.options import (
    DEFAULT_MODELS,
    AsJson,
    Device,
    ImageEncoding,
    Memory,
    takes_changes,
)
from afterdetail.cli.quiet import quiet_libraries
from afterdetail.errors import InvalidInput
from afterdetail.options import validated
from afterdetail.stages import Stage

if TYPE_CHECKING:
    from afterdetail.images.metadata import Metadata


@takes_changes
def again(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A picture that afterdetail has written.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="The picture to write (.png, .jpg).")
    ],
    changes: dict[str, object],
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
    memory: Memory = "high",
    image_encoding: ImageEncoding = None,
    as_json: AsJson = False,
) -> None:
    """Detail a picture again, with the options and the seed in its own metadata.

    Options given here are in place of those, in every stage.
    """
    from afterdetail.images.infotext import model_in
    from afterdetail.images.metadata import read_metadata

    metadata = read_metadata(read_bytes(file))
    stages = _stages(file, metadata, changes)
    tasks = plan([original or file], out, image_encoding)
    with quiet_libraries():
        from afterdetail.models.catalogue import Kind, built_in
        from afterdetail.pipeline import Detailer

        said = model_in(metadata)
        known = said in built_in().names(Kind.BASE)
        chosen = models or (said if known else DEFAULT_MODELS)
        with Detailer(chosen, device=device, memory=memory) as detailer:
            detail_all(detailer, tasks, stages, Manner(as_json))


def _stages(file: Path, metadata: Metadata, changes: Mapping[str, object]) -> list[Stage]:
    """What the picture says, but for the changes.

    Raises:
        InvalidInput: it does not say how it was detailed, or not in a way that is understood.
    """
    from afterdetail.images.infotext import stages_in

    try:
        return [validated(Stage, {**said, **changes}) for said in stages_in(metadata)]
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{file}: {error}", field=error.field) from None
