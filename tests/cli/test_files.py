"""Where pictures are read from and written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from afterdetail.cli.files import (
    Task,
    beside,
    check_writable,
    encoding_of,
    plan,
    without_done,
    write,
)
from afterdetail.errors import InvalidInput
from afterdetail.images import Encoding


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three pictures, one thing that is none, and a folder with another."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "c.webp", "notes.txt", "deeper/d.png"):
        (folder / name).touch()
    return folder


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no pictures in"):
        plan([tmp_path], tmp_path / "out", None)


@pytest.mark.parametrize(
    ("out", "encoding", "expected"),
    [
        ("x.png", None, "png"),
        ("x.PNG", None, "png"),
        ("x.jpg", None, "jpeg"),
        ("x.jpeg", None, "jpeg"),
        ("x.png", "jpeg", "jpeg"),
        ("x", "png", "png"),
    ],
)
def test_the_extension_decides_unless_an_encoding_is_given(
    tmp_path: Path, out: str, encoding: Encoding | None, expected: Encoding
) -> None:
    source, output = tmp_path / "a.webp", tmp_path / out
    assert plan([source], output, encoding) == (Task(source, output, expected),)


@pytest.mark.parametrize("name", ["x.webp", "x.gif", "x", ".png"])
def test_other_extensions_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(InvalidInput, match="give --image-encoding"):
        encoding_of(Path(name))


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        (None, ["a.png", "b.JPG", "c.png"]),
        ("png", ["a.png", "b.png", "c.png"]),
        ("jpeg", ["a.jpg", "b.JPG", "c.jpg"]),
    ],
)
def test_a_folder_stands_for_its_pictures_in_order(
    photos: Path, tmp_path: Path, encoding: Encoding | None, names: list[str]
) -> None:
    out = tmp_path / "new" / "out"
    tasks = plan([photos], out, encoding)
    assert [task.source.name for task in tasks] == ["a.png", "b.JPG", "c.webp"]
    assert [task.output for task in tasks] == [out / name for name in names]
    assert out.is_dir()


def test_one_picture_into_a_folder_that_is_there_keeps_its_name(
    photos: Path, tmp_path: Path
) -> None:
    (task,) = plan([photos / "a.png"], tmp_path, None)
    assert task.output == tmp_path / "a.png"


def test_several_pictures_need_a_folder(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="several pictures need a folder"):
        plan([photos / "a.png", photos / "b.JPG"], tmp_path / "out.png", None)


def test_a_picture_does_not_overwrite_itself(photos: Path) -> None:
    with pytest.raises(InvalidInput, match="would overwrite itself"):
        plan([photos / "a.png"], photos / "deeper" / ".." / "a.png", None)


def test_two_pictures_are_not_written_to_one_file(photos: Path, tmp_path: Path) -> None:
    (photos / "c.png").touch()
    with pytest.raises(InvalidInput, match="would both be written to"):
        plan([photos], tmp_path / "out", None)


@pytest.mark.parametrize("out", ["notes.txt/x.png", "nowhere/x.png"])
def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(
    photos: Path, out: str
) -> None:
    with pytest.raises(InvalidInput, match="cannot write"):
        plan([photos / "a.png"], photos / out, None)


def test_a_file_cannot_become_the_output_folder(photos: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot write"):
        plan([photos], photos / "notes.txt", None)


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_the_file_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(b"old and longer")
    write(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "x.png"
    target.mkdir()  # a folder cannot be replaced by a file
    with pytest.raises(InvalidInput, match="cannot write"):
        write(target, b"new")
    assert list(tmp_path.iterdir()) == [target]


def test_a_pattern_stands_for_the_pictures_that_match(photos: Path, tmp_path: Path) -> None:
    tasks = plan([photos / "*.png"], tmp_path / "out", None)
    assert [task.source for task in tasks] == sorted(photos.glob("*.png"))
    assert plan([photos.parent / "**" / "a.png"], tmp_path / "out", None)[0].source.name == "a.png"


def test_a_pattern_without_pictures_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no pictures in"):
        plan([photos / "z*.png"], tmp_path / "out", None)


def test_a_name_with_brackets_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a[1].png"
    file.touch()
    (task,) = plan([file], tmp_path / "out.png", None)
    assert task.source == file


def test_what_is_done_is_left_out(photos: Path, tmp_path: Path) -> None:
    tasks = plan([photos], tmp_path, None)
    assert without_done(tasks) == tasks
    tasks[0].output.touch()
    assert without_done(tasks) == tasks[1:]


@pytest.mark.parametrize(
    ("output", "expected"),
    [("x.png", "x.before-after.png"), ("a.b.jpg", "a.b.before-after.jpg")],
)
def test_both_sides_lie_beside_the_output(output: str, expected: str) -> None:
    assert beside(Task(Path("in.png"), Path(output), "png")).name == expected
