"""``python -m benchmarks [NAME...]``: take the figures, write them to ``benchmarks/results``.

A benchmark is a module of this package with a function ``report() -> str`` that returns its page
in Markdown. Without names all of them run.
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    for name in names or sorted(module.name for module in pkgutil.iter_modules([str(HERE)])):
        report = (
            None
            if name == "__main__"
            else getattr(import_module(f"benchmarks.{name}"), "report", None)
        )
        if report is None:
            continue
        page = report()
        (HERE / "results" / f"{name}.md").write_text(page, encoding="utf-8")
        print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
