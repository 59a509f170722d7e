"""Where the weights of a catalogue entry lie on this machine, and how they get there.

Hub files live in the hub client's own cache (``HF_HOME``), shared with every other tool of the
machine. It goes on after a cut connection and moves files into place when they are whole; a later
run fetches the rest. (A file that was under way when the process ended, its newer versions fetch
from the start.)
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath

from afterdetail.errors import AfterdetailError, ModelUnavailable, WeightsError
from afterdetail.models.catalogue import ModelSpec, Source

PACKAGE = Path(__file__).parents[1]
MODEL_INDEX = "model_index.json"
UNUSED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
"""Components of a diffusers folder that repainting does without."""
WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(?P<fp16>\.fp16)?(-\d{5}-of-\d{5})?\.safetensors"
    r"|(diffusion_pytorch_model|model)\.safetensors\.index(?P<fp16_index>\.fp16)?\.json"
)
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_COMPARED = 256
"""Files whose checksum is known to be right, in this process and state."""


def locate(spec: ModelSpec) -> Path:
    """The file or folder of a model on this machine. Never uses the network.

    Raises:
        ModelUnavailable: it is not here; the message says where it was looked for and what to do.
    """
    source = spec.source
    if source.hub is not None:
        return _in_cache(spec) or _missing_from_cache(spec)
    path = PACKAGE / source.package if source.package is not None else Path(source.path or "")
    if path.exists():
        return path
    todo = "reinstall afterdetail" if source.package else "put it there or mend the catalogue"
    raise _unavailable(spec, f"the weights of {spec.name} are missing: no {path}; {todo}")


def pull(spec: ModelSpec, *, progress: bool = True) -> Path:
    """Get a model from the hub into the cache, unless it is there; only the files needed.

    Args:
        spec: a model from anywhere; one that is no hub model is only looked up.
        progress: show the hub client's progress bars.

    Raises:
        ModelUnavailable: no network, no such repository or file, no leave to read it.
        WeightsError: the disk is full, or the checksum is wrong; a wrong file is removed again.
    """
    if spec.source.hub is None:
        path = locate(spec)
        verify(spec, path)
        return path
    if spec.vae is not None:
        pull(spec.vae, progress=progress)
    with _progress_bars(progress):
        wrong = _fetch(spec)
        if wrong:  # what was in the cache may have been damaged since: once more
            wrong = _fetch(spec)
    if wrong:
        raise WeightsError(
            f"{spec.source.hub} sent a wrong {wrong[0].name}: its sha256 is not the one expected; "
            f"it was removed; mend the catalogue, or {remedy(spec)}"
        )
    return locate(spec)


def _fetch(spec: ModelSpec) -> list[Path]:
    """Download what is not there yet; files whose checksum is wrong are removed and returned."""
    try:
        files = _download(spec)
    except AfterdetailError:
        raise
    except Exception as error:  # the client's errors changed their bases from version to version
        raise _pull_failed(spec, error) from error
    wrong = [file for file in files if not _is_right(spec, file)]
    for file in wrong:
        file.resolve().unlink()
        file.unlink(missing_ok=True)
    return wrong


def obtain(spec: ModelSpec) -> None:
    """Download a model of the hub, unless it is here. Raises as :func:`pull`."""
    if spec.vae is not None:
        obtain(spec.vae)
    if spec.source.hub is not None and _in_cache(spec) is None:
        pull(spec)


def verify(spec: ModelSpec, path: Path) -> None:
    """Compare a file with the catalogue's checksum, if there is one.

    Raises:
        WeightsError: they differ.
    """
    if spec.sha256 is None or not path.is_file():
        return
    found = file_sha256(path)
    if found != spec.sha256:
        raise WeightsError(
            f"{path} is not the {spec.name} of the catalogue: sha256 {found[:12]}..., expected "
            f"{spec.sha256[:12]}...; {remedy(spec)}"
        )


def verify_once(spec: ModelSpec, path: Path) -> None:
    """:func:`verify`, once for each state of a file; one that is wrong is compared each time."""
    state = path.stat()
    _verify(spec, path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=MOST_COMPARED)
def _verify(spec: ModelSpec, path: Path, _size: int, _changed: int) -> None:
    verify(spec, path)


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _in_cache(spec: ModelSpec) -> Path | None:
    """A hub model in the cache; None unless every file of it is there."""
    source = spec.source
    if source.file is not None:
        return _cached(source, source.file)
    index = _cached(source, MODEL_INDEX)
    return index.parent if index is not None and _is_whole(index, spec) else None


def _cached(source: Source, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(str(source.hub), file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def _is_whole(index: Path, spec: ModelSpec) -> bool:
    """Whether a diffusers folder has all its components; weights come last, so they tell."""
    folders = [index.parent / name for name in _components(index, spec)]
    return all(
        folder.is_dir() and (not (folder / "config.json").exists() or has_weights(folder))
        for folder in folders
    )


def has_weights(folder: Path) -> bool:
    """Whether a network's folder has safetensors, and every shard that an index names."""
    files = [file.name for file in folder.iterdir() if WEIGHTS.fullmatch(file.name)]
    wanted = {shard for name in files if name.endswith(".json") for shard in _shards(folder / name)}
    return bool(files) and wanted <= set(files)


def _shards(index: Path) -> set[str]:
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())


def _components(index: Path, spec: ModelSpec) -> list[str]:
    """The sub-folders of a diffusers folder that are used: ``"unet": ["diffusers", "..."]``."""
    unused = UNUSED | {"vae"} if spec.vae else UNUSED
    entries = json.loads(index.read_text(encoding="utf-8"))
    return [
        name
        for name, value in entries.items()
        if isinstance(value, list) and None not in value and name not in unused
    ]


def needed_files(names: Iterable[str], components: Iterable[str]) -> list[str]:
    """Of a repository's files, those that repainting loads: settings first, then weights.

    Settings and vocabularies (``.json``, ``.txt``) and safetensors of the given components; of two
    precisions the fp16 one. Never a pickle, a single-file checkpoint or another framework's file.
    """
    settings, weights = [MODEL_INDEX], []
    files = sorted(names)
    for component in components:
        inside = [name for name in files if PurePosixPath(name).parent.as_posix() == component]
        weights += weights_of(inside)
        settings += [
            name
            for name in inside
            if name.endswith((".json", ".txt")) and ".safetensors.index" not in name
        ]
    return settings + weights


def weights_of(files: Iterable[str]) -> list[str]:
    """Of the files of one network, its safetensors and their index; of two precisions fp16."""
    found = {name: WEIGHTS.fullmatch(PurePosixPath(name).name) for name in files}
    matches = {name: match for name, match in found.items() if match}
    half = [name for name, match in matches.items() if match["fp16"] or match["fp16_index"]]
    return half or list(matches)


def _download(spec: ModelSpec) -> list[Path]:
    """Fetch what is needed of a hub source; the weights files, wherever the cache has them."""
    from huggingface_hub import HfApi, hf_hub_download

    source = spec.source
    hub, revision = str(source.hub), source.revision
    if source.file is not None:
        return [Path(hf_hub_download(hub, source.file, revision=revision))]
    index = Path(hf_hub_download(hub, MODEL_INDEX, revision=revision))
    names = HfApi().list_repo_files(hub, revision=revision)
    components = _components(index, spec)
    _check_served(spec, names, components)
    needed = needed_files(names, components)
    return [Path(hf_hub_download(hub, name, revision=revision)) for name in needed]


@contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _is_right(spec: ModelSpec, file: Path) -> bool:
    """Compare with the catalogue's checksum; without one, with the hub's own."""
    if spec.source.file and spec.sha256:
        return file_sha256(file) == spec.sha256
    return is_as_announced(file)


def is_as_announced(file: Path) -> bool:
    """Compare a file of the cache with the hub's checksum; others are right.

    The cache keeps a large file under the sha256 that the hub announced, and links to it.
    """
    announced = file.resolve().name
    return not SHA256.fullmatch(announced) or file_sha256(file) == announced


def _missing_from_cache(spec: ModelSpec) -> Path:
    from huggingface_hub import constants

    raise _unavailable(
        spec,
        f"{spec.name} is not on this machine: no {_what(spec)} in {constants.HF_HUB_CACHE}; "
        f"{remedy(spec)}",
    )


def _what(spec: ModelSpec) -> str:
    source = spec.source
    return f"{source.file} of {source.hub}" if source.file else str(source.hub)


def remedy(spec: ModelSpec) -> str:
    if spec.source.hub is not None:
        return f"get it with: afterdetail models pull {spec.name}"
    return "reinstall afterdetail" if spec.source.package else "replace it or mend the catalogue"


def _unavailable(spec: ModelSpec, message: str) -> ModelUnavailable:
    return ModelUnavailable(
        message, field=spec.kind.field, public=f"{spec.name} is not on this server"
    )


def is_disk_full(error: OSError) -> bool:
    """Whether there is no room: on the disk, in a quota, or for one file of this size."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _pull_failed(spec: ModelSpec, error: Exception) -> AfterdetailError:
    """The hub client's many errors in one line that says what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    head = f"cannot pull {spec.name} ({_what(spec)})"
    again = f"run again: afterdetail models pull {spec.name}"
    if isinstance(error, OSError) and is_disk_full(error):
        return WeightsError(
            f"{head}: the disk is full; free some of {constants.HF_HUB_CACHE}, {again}"
        )
    if constants.HF_HUB_OFFLINE:
        return _unavailable(spec, f"{head}: HF_HUB_OFFLINE is set; unset it and {again}")
    if isinstance(error, GatedRepoError):
        return _unavailable(spec, f"{head}: accept its licence on the hub, log in, {again}")
    missing = (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError)
    if isinstance(error, missing) and not isinstance(error, LocalEntryNotFoundError):
        return _unavailable(spec, f"{head}: the hub has no such file; mend the catalogue")
    return _unavailable(
        spec, f"{head}: the hub cannot be reached ({_why(error)}); {again}, what is whole is kept"
    )


def _why(error: Exception) -> str:
    """The name of what went wrong first; the client wraps it."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return type(error).__name__


def _check_served(spec: ModelSpec, names: Iterable[str], components: Iterable[str]) -> None:
    """Before anything large is fetched. Raises ModelUnavailable."""
    files = {PurePosixPath(name) for name in names}
    for component in components:
        inside = {file.name for file in files if file.parent.as_posix() == component}
        if not inside or ("config.json" in inside and not any(map(WEIGHTS.fullmatch, inside))):
            raise _unavailable(
                spec,
                f"cannot pull {spec.name} ({_what(spec)}): the repository has no "
                f"{'.safetensors weights' if inside else 'files'} of {component} (pickles are "
                "never read, they can run code); mend the catalogue: another repository or "
                "revision, or a folder of your own",
            )
