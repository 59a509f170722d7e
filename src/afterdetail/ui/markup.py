"""Small pieces of HTML: what is going on, and before beside after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Line:
    """One object's job: ``step`` of ``steps`` is done, (0, 0) while it waits."""

    name: str
    step: int = 0
    steps: int = 0
    end: str = ""
    """What became of it; empty while it is at work."""


def said(text: str) -> str:
    """A line that screen readers read when it changes."""
    return f'<p class="status" role="status">{escape(text)}</p>'


def complaint(text: str) -> str:
    """The same for what went wrong."""
    return f'<p class="status error" role="alert">{escape(text)}</p>'


def progress(heading: str, lines: Sequence[Line]) -> str:
    """A bar for each object."""
    return said(heading) + f'<ul class="jobs">{"".join(map(_line, lines))}</ul>'


def _line(line: Line) -> str:
    state = line.end or (f"step {line.step} of {line.steps}" if line.steps else "waiting")
    done = line.steps if line.end and line.steps else line.step
    name = escape(line.name)
    bar = f'<progress max="{max(1, line.steps)}" value="{done}" aria-label="{name}"></progress>'
    return f"<li><span>{name}</span>{bar}<span>{escape(state)}</span></li>"


MOVED = "this.closest('.compare').style.setProperty('--at', this.value + '%')"
DRAGGED = (
    "if (event.buttons) { const box = this.getBoundingClientRect(), slider = this.nextSibling; "
    "slider.value = 100 * (event.clientX - box.left) / box.width; slider.oninput(); }"
)


def compare(before: str, after: str) -> str:
    """Two pictures of one size, one on the other, with a slider between them that arrow keys move,
    and a finger or a mouse on the picture, too.

    Args:
        before, after: addresses of pictures.
    """
    still = 'draggable="false"'
    return (
        '<figure class="compare">'
        f'<div class="frame" onpointerdown="{DRAGGED}" onpointermove="{DRAGGED}">'
        f'<img class="before" src="{escape(before)}" alt="The picture before" {still}>'
        f'<img class="after" src="{escape(after)}" alt="The picture after" {still}></div>'
        '<input type="range" min="0" max="100" value="50" step="1" '
        f'aria-label="How much of the picture before is shown" oninput="{MOVED}">'
        '<div class="sides"><span>before</span><span>after</span></div></figure>'
    )
