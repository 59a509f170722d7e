"""``afterdetail models``: which models and styles there are, where they lie, how to get them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from afterdetail.cli.options import AsJson
from afterdetail.errors import AfterdetailError, ModelUnavailable

if TYPE_CHECKING:
    from afterdetail.models.catalogue import Catalogue, ModelSpec

models = typer.Typer(help="Which models and styles there are, and how to get them.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `afterdetail models list` has it.")]
CatalogueFile = Annotated[
    str | None,
    typer.Option(
        "--models",
        metavar="NAMES|FILE",
        help="A catalogue of your own (.toml).",
        show_default="everything built in",
    ),
]


@models.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@models.command("list")
def list_models(catalogue: CatalogueFile = None, as_json: AsJson = False) -> None:
    """List the models of the catalogue, and which of them are on this machine."""
    rows = [_Row(spec, _place(spec)) for spec in _load(catalogue).models]
    if as_json:
        typer.echo(json.dumps([row.as_json() for row in rows]))
        return
    table = Table("name", "kind", "base", "here", "licence", box=None, pad_edge=False)
    if any(row.spec.trigger_words for row in rows):
        table.add_column("trigger words")
    for row in rows:
        table.add_row(*row.as_text())
    Console().print(table)


@models.command()
def path(name: Name, catalogue: CatalogueFile = None) -> None:
    """Print where a model lies; an error if it is not on this machine."""
    from afterdetail.models.store import locate

    typer.echo(str(locate(_load(catalogue).find(None, name))))


@models.command()
def pull(name: Name, catalogue: CatalogueFile = None) -> None:
    """Download a model from the hub, unless it is there; print where it lies."""
    from afterdetail.models import store

    typer.echo(str(store.pull(_load(catalogue).find(None, name))))


OwnCatalogue = Annotated[
    Path,
    typer.Option("--models", metavar="FILE", help="A catalogue of your own (.toml)."),
]


@models.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file.")],
    catalogue: OwnCatalogue = Path("models.toml"),
    name: Annotated[
        str | None,
        typer.Option(help="How requests name it.", show_default="the name of the file"),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy it beside the catalogue; else it stays there.")
    ] = False,
) -> None:
    """Put a checkpoint, LoRA or embedding into a catalogue of your own."""
    from afterdetail.models import own

    spec = own.add(catalogue, file, name=name, copy=copy)
    words = f"; trigger words: {', '.join(spec.trigger_words)}" if spec.trigger_words else ""
    typer.echo(f"{spec.name}: {spec.base} {spec.kind}, in {catalogue}{words}")


@models.command()
def remove(name: Name, catalogue: OwnCatalogue = Path("models.toml")) -> None:
    """Take a model out of a catalogue of your own; a copy made by add is deleted."""
    from afterdetail.models import own

    typer.echo(f"removed {own.remove(catalogue, name).name} from {catalogue}")


@models.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Which; none: all but what is built in and was never pulled.",
        ),
    ] = None,
    catalogue: CatalogueFile = None,
) -> None:
    """Look whether models are there, whole, and what the catalogue says; compare checksums."""
    from afterdetail.models.check import check as check_model
    from afterdetail.models.check import was_never_pulled

    known = _load(catalogue)
    wanted = [known.find(None, name) for name in names or ()]
    wrong = 0
    for spec in wanted or [spec for spec in known.models if not was_never_pulled(spec)]:
        try:
            check_model(spec)
            typer.echo(f"{spec.name}: ok")
        except AfterdetailError as error:
            wrong += 1
            typer.echo(f"{spec.name}: {error}")
    if wrong:
        raise typer.Exit(1)


@models.command()
def styles(as_json: AsJson = False) -> None:
    """List the style presets; as JSON, with their wording."""
    from afterdetail.prompts.styles import find, names

    if as_json:
        found = [find(name) for name in names()]
        rows = [{"name": s.name, "prompt": s.prompt, "negative_prompt": s.negative} for s in found]
        typer.echo(json.dumps(rows, ensure_ascii=False))
    else:
        typer.echo("\n".join(names()))


@dataclass(frozen=True, slots=True)
class _Row:
    """A model, and where it is on this machine, if it is."""

    spec: ModelSpec
    place: Path | None

    def as_text(self) -> tuple[str, ...]:
        spec, here = self.spec, "yes" if self.place else "no"
        words = [", ".join(spec.trigger_words)] if spec.trigger_words else []
        return (spec.name, spec.kind, spec.base or "", here, spec.licence, *words)

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.spec.name,
            "kind": self.spec.kind,
            "base": self.spec.base,
            "present": self.place is not None,
            "path": str(self.place) if self.place else None,
            "licence": self.spec.licence,
            "trigger_words": list(self.spec.trigger_words),
        }


def _place(spec: ModelSpec) -> Path | None:
    from afterdetail.models.store import locate

    try:
        return locate(spec)
    except ModelUnavailable:
        return None


def _load(catalogue: str | None) -> Catalogue:
    from afterdetail.models.catalogue import built_in, load_catalogue

    return load_catalogue(catalogue) if catalogue else built_in()
