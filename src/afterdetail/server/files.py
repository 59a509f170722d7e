"""Where the asynchronous form keeps what is too large for a row."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import fsspec

log = logging.getLogger("afterdetail.server")


class Files:
    """Small files by name, in a folder or wherever fsspec reaches."""

    def __init__(self, place: str) -> None:
        system, self._root = fsspec.core.url_to_fs(place)
        self._system: Any = system
        self._system.makedirs(self._root, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        self._system.pipe_file(self._path(name), data)

    def read(self, name: str) -> bytes:
        return bytes(self._system.cat_file(self._path(name)))

    def find(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            log.error("%s is missing from the store", name)
            return None

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._system.rm_file(self._path(name))

    def names(self) -> list[str]:
        paths = self._system.ls(self._root, detail=False)
        return [str(path).rsplit("/", 1)[-1] for path in paths]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
