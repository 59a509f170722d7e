"""The ``afterdetail`` command: its parts, and what becomes of their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from afterdetail import __version__
from afterdetail.cli.again import again
from afterdetail.cli.detail import detail
from afterdetail.cli.detect import detect
from afterdetail.cli.doctor import doctor
from afterdetail.cli.models import models
from afterdetail.cli.quiet import debugging
from afterdetail.cli.serve import serve
from afterdetail.errors import AfterdetailError

INTERRUPTED = 130
USER_ERROR = 2
INTERNAL_ERROR = 70
"""``EX_SOFTWARE`` of sysexits.h."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(detail)
app.command()(again)
app.command()(detect)
app.command()(serve)
app.command()(doctor)
app.add_typer(models, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"afterdetail {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Find the faces and hands of a picture, repaint them, put them back."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done. 1: some of the pictures failed. 2: the caller's mistake. 70: ours. 130: interrupted.
    Errors are one line on stderr; ``AFTERDETAIL_DEBUG=1`` shows their tracebacks.
    """
    try:
        return app(arguments, standalone_mode=False, prog_name="afterdetail") or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except typer.TyperException as error:
        return _complain(error.format_message().rstrip(".") + _see(error), error.exit_code)
    except AfterdetailError as error:
        if debugging():
            raise
        return _complain(str(error), USER_ERROR)
    except Exception as error:
        if debugging():
            raise
        what = f"{type(error).__name__}: {error}"
        return _complain(f"internal error: {what}; AFTERDETAIL_DEBUG=1 shows where", INTERNAL_ERROR)


def _see(error: Exception) -> str:
    """Where the command that was called wrongly is explained."""
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context else ""


def _complain(message: str, code: int) -> int:
    typer.echo(f"afterdetail: {' '.join(message.split())}", err=True)
    return code
