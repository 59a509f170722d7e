"""``afterdetail detail``: pictures in, detailed pictures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afterdetail.cli.batch import Manner, detail_all
from afterdetail.cli.files import plan, without_done
from afterdetail.cli.options import (
    DEFAULT_MODELS,
    AsJson,
    Device,
    ImageEncoding,
    Memory,
    Metadata,
    Models,
    takes_detail_options,
)
from afterdetail.cli.quiet import quiet_libraries
from afterdetail.cli.stages import stages_of
from afterdetail.cli.watch import Watcher, watch_folders
from afterdetail.options import LibraryOptions

SOME_FAILED = 1

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="IN...", help="Pictures, folders of them, or patterns ('*.png')."),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="OUT",
        help="The picture to write (.png, .jpg); for several, a folder.",
    ),
]
Stages = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Several turns, faces and then eyes: a .json or .toml file with the options of "
        "each. Those given here are for every stage that does not have its own.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Repaint nothing: OUT shows the masks of what would be."),
]
SideBySide = Annotated[
    bool,
    typer.Option("--side-by-side", help="Write OUT.before-after, too: both in one picture."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Leave out pictures whose OUT is there: go on with a batch."),
]
Watch = Annotated[
    bool,
    typer.Option("--watch", help="Stay, and detail what comes into the folders, until Ctrl-C."),
]


@takes_detail_options
def detail(
    inputs: Inputs,
    out: Out,
    options: LibraryOptions,
    stages: Stages = None,
    models: Models = DEFAULT_MODELS,
    device: Device = None,
    memory: Memory = "high",
    image_encoding: ImageEncoding = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
    side_by_side: SideBySide = False,
    resume: Resume = False,
    watch: Watch = False,
    metadata: Metadata = True,
) -> None:
    """Find the objects of pictures, repaint each, put them back."""
    from afterdetail.prompts import styles

    turns = stages_of(stages, options)
    for turn in turns:
        styles.find(turn.style_preset)
    manner = Manner(as_json, side_by_side, metadata, dry_run)
    watcher = Watcher.of(inputs, out, image_encoding) if watch else None
    tasks = () if watcher else plan(inputs, out, image_encoding)
    if resume:
        tasks = without_done(tasks)
    if not tasks and not watcher:
        typer.echo("nothing to do: every output is there")
        return
    with quiet_libraries():
        from afterdetail.pipeline import Detailer

        with Detailer(models, device=device, memory=memory) as detailer:
            if watcher:
                watch_folders(watcher, detailer, turns, manner)
                return
            failed = detail_all(detailer, tasks, turns, manner)
    if failed:
        raise typer.Exit(SOME_FAILED)
