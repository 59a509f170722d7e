"""Metadata of every kind of file in, of both kinds out; read back by Pillow, and by ourselves."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from afterdetail.images import Encoding, decode, encode
from afterdetail.images.metadata import PARAMETERS, Metadata, read_metadata, write_metadata

PICTURE = Image.fromarray(np.full((20, 30, 3), 90, np.uint8))


def exif() -> Image.Exif:
    made = Image.Exif()
    made[ExifTags.Base.Make] = "Canon"
    made[ExifTags.Base.Orientation] = 6
    made.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return made


def saved(form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    PICTURE.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_bare_file_has_none(form: str) -> None:
    assert read_metadata(saved(form)) == Metadata()


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_none_changes_no_byte(encoding: Encoding) -> None:
    data = encode(decode(saved("PNG")), encoding)
    assert write_metadata(data, encoding, Metadata()) == data


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_exif_comes_through_without_orientation(form: str, encoding: Encoding) -> None:
    given = saved(form, exif=exif())
    data = write_metadata(encode(decode(given), encoding), encoding, read_metadata(given))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        found = image.getexif()
    assert found[ExifTags.Base.Make] == "Canon"
    assert ExifTags.Base.Orientation not in found
    assert found.get_ifd(ExifTags.IFD.GPSInfo) == {1: "N"}
    assert np.array_equal(decode(data).rgb.shape, (30, 20, 3))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("text", ["a cat\nSteps: 3", "猫, ünï"])
def test_texts_come_through_a_png(text: str, packed: bool) -> None:
    info = PngInfo()
    info.add_text("Title", text, zip=packed)
    metadata = read_metadata(saved("PNG", pnginfo=info))
    data = write_metadata(encode(decode(saved("PNG")), "png"), "png", metadata)
    assert read_metadata(data).texts == {"Title": text}


@pytest.mark.parametrize("text", ["a cat\nSteps: 3", "猫, ünï"])
def test_parameters_and_ours_come_through_a_jpeg(text: str) -> None:
    texts = {PARAMETERS: text, "afterdetail": '{"a": "ü"}'}
    data = encode(decode(saved("PNG")), "jpeg")
    data = write_metadata(data, "jpeg", Metadata(texts={**texts, "Title": "no place for it"}))
    assert read_metadata(data).texts == texts


def test_what_is_too_long_for_a_jpeg_is_left_out() -> None:
    data = encode(decode(saved("PNG")), "jpeg")
    assert write_metadata(data, "jpeg", Metadata(texts={PARAMETERS: "x" * 70_000})) == data


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_is_none() -> None:
    assert read_metadata(saved("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\xff\0\x01")).texts == {}
