"""How far each object is, heard from the thread that details, told to the one that shows it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from afterdetail.results import DetailedObject, Outcome, Progress, Settled, Step
from afterdetail.ui.markup import Line, progress

ENDS = {
    Outcome.INPAINTED: "done",
    Outcome.REFUSED: "refused by the safety checker",
    Outcome.FAILED: "failed",
    Outcome.SKIPPED: "left alone",
}


@dataclass(slots=True)
class Follower:
    """A line for each object. One thread writes, another reads; each write is one assignment."""

    lines: dict[int, Line] = field(default_factory=dict)

    def hear(self, said: Progress) -> None:
        """What the detailer says; see :data:`~afterdetail.results.Listener`."""
        match said:
            case Step(ids=ids, step=step, steps=steps):
                for number in ids:
                    self.lines[number] = replace(self.lines[number], step=step, steps=steps)
            case Settled(ids=ids, outcome=outcome):
                for number in ids:
                    self.lines[number] = replace(self.lines[number], end=ENDS[outcome])

    def shown(self) -> str:
        """The lines as HTML."""
        lines = list(self.lines.values())
        done = sum(bool(line.end) for line in lines)
        return progress(f"Repainting: {done} of {len(lines)} done.", lines)


def follow(objects: list[DetailedObject]) -> Follower:
    """A follower of the objects that are to be repainted."""
    return Follower({item.id: Line(name_of(item)) for item in objects})


def name_of(item: DetailedObject) -> str:
    """An object's id and label, as they are on the picture."""
    return f"{item.id} {item.detection.label}"
