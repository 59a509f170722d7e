"""``python -m benchmarks [NAME...]``: take the figures, write them to ``benchmarks/results``.

A benchmark is a module of this package with a function ``report() -> str`` that returns its page
in Markdown. Without names all of them run. One that has a ``main`` of its own compares with
libraries in other environments, which it is told as arguments: here its page is only printed, so
that a table with those columns is not lost.
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent


def run(name: str) -> None:
    module = import_module(f"benchmarks.{name}")
    if not hasattr(module, "report"):
        return
    page = module.report()
    if not hasattr(module, "main"):
        (HERE / "results" / f"{name}.md").write_text(page, encoding="utf-8")
    print(page, flush=True)


def main(names: list[str]) -> None:
    known = sorted(module.name for module in pkgutil.iter_modules([str(HERE)]))
    for name in names or known:
        if name != "__main__":
            run(name)


if __name__ == "__main__":
    main(sys.argv[1:])
