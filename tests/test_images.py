"""Odd files are built here, byte by byte where Pillow would not write them."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from afterdetail.errors import InvalidInput
from afterdetail.images import decode, encode, from_any, to_pil
from afterdetail.types import RGB, Gray, Picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gradient(height: int = 24, width: int = 32) -> RGB:
    """Smooth enough that JPEG keeps it, and different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 2], axis=2).astype(np.uint8)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels: npt.NDArray[Any], colour: int, depth: int, *extra: bytes) -> bytes:
    """A PNG of any colour type and depth, which Pillow would not write."""
    height, width = pixels.shape[:2]
    pixels = pixels.astype(f">u{depth // 8}")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
            *extra,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def flat_png(width: int, height: int) -> bytes:
    """A PNG of one-bit zeros: kilobytes for any number of pixels."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def with_bad_crc() -> bytes:
    data = bytearray(saved(Image.fromarray(gradient()), "PNG"))
    end_of_pixels = data.rindex(b"IEND") - 5
    data[end_of_pixels] ^= 1
    return bytes(data)


def code_of(data: bytes, **options: int) -> str:
    with pytest.raises(InvalidInput) as caught:
        decode(data, **options)
    message = str(caught.value)
    assert "\n" not in message and caught.value.field == "init_image"
    return caught.value.code


IMAGE = Image.fromarray(gradient())
GRAY = gradient()[..., 2]
PNG, JPEG = saved(IMAGE, "PNG"), saved(IMAGE, "JPEG", quality=95)
WEBP = saved(IMAGE, "WEBP", lossless=True)
LARGE = flat_png(12_000, 12_000)
ZEROS = zlib.compress(bytes(40_000_000), 9)
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [ImageOps.invert(IMAGE)]}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "image_empty", id="nothing"),
        pytest.param(b"hello", "image_unsupported", id="text"),
        pytest.param(saved(IMAGE, "GIF"), "image_unsupported", id="gif"),
        pytest.param(saved(IMAGE, "BMP"), "image_unsupported", id="bmp"),
        pytest.param(saved(IMAGE, "TIFF"), "image_unsupported", id="tiff"),
        pytest.param(saved(IMAGE, "EPS"), "image_unsupported", id="eps"),
        pytest.param(saved(IMAGE, "AVIF"), "image_unsupported", id="avif"),
        pytest.param(b"8BPS\0\1" + bytes(40), "image_unsupported", id="psd"),
        pytest.param(b"<svg xmlns='...'/>", "image_unsupported", id="svg"),
        pytest.param(b"SIMPLE  =   T" + bytes(80), "image_unsupported", id="fits"),
        pytest.param(b"RIFF\0\0\0\0WAVEfmt ", "image_unsupported", id="wave in riff"),
        pytest.param(PNG[:-40], "image_corrupt", id="png cut short"),
        pytest.param(PNG[:20], "image_corrupt", id="png cut in its header"),
        pytest.param(with_bad_crc(), "image_corrupt", id="png with a bad checksum"),
        pytest.param(png(GRAY, 3, 8), "image_corrupt", id="palette png without a palette"),
        pytest.param(JPEG[:-200], "image_corrupt", id="jpeg cut short"),
        pytest.param(JPEG[:4], "image_corrupt", id="jpeg cut in its header"),
        pytest.param(WEBP[:-20], "image_corrupt", id="webp cut short"),
        pytest.param(WEBP[:14], "image_corrupt", id="webp cut in its header"),
        pytest.param(flat_png(1, 1), "image_dimensions", id="one pixel"),
        pytest.param(flat_png(1, 20000), "image_dimensions", id="a line"),
        pytest.param(flat_png(16, 513), "image_dimensions", id="too long for its width"),
        pytest.param(LARGE, "image_too_large", id="144 megapixels"),
        pytest.param(saved(IMAGE, "PNG", **FRAMES), "image_animated", id="animated png"),
        pytest.param(saved(IMAGE, "WEBP", **FRAMES), "image_animated", id="animated webp"),
    ],
)
def test_what_is_refused(data: bytes, code: str) -> None:
    assert code_of(data) == code


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow may not even open a file."""

    def opened(*_: object) -> None:
        raise AssertionError("a decoder was opened")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.__init__", opened)


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "EPS", "AVIF"])
def test_no_other_decoder_is_opened(form: str) -> None:
    assert code_of(saved(IMAGE, form)) == "image_unsupported"


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(LARGE, id="pixels"),
        pytest.param(WEBP[:12] + b"VP8X\x0a\0\0\0" + bytes(4) + b"\xff\x3f\0" * 2, id="webp"),
        pytest.param(png(gradient(), 2, 8, chunk(b"zTXt", b"k\0\0" + ZEROS)), id="text"),
        pytest.param(png(gradient(), 2, 8, chunk(b"iTXt", b"k\0\1\0\0\0" + ZEROS)), id="utf-8"),
        pytest.param(png(gradient(), 2, 8, chunk(b"iCCP", b"k\0\0" + ZEROS)), id="profile"),
        pytest.param(PNG[:33] + chunk(b"teXt", b"") * 20_001, id="chunks"),
        pytest.param(JPEG[:2] + b"\xff\xfe\0\2" * 20_001 + JPEG[2:], id="segments"),
        pytest.param(JPEG[:-2] + b"\xff\xda\0\2" * 200 + JPEG[-2:], id="scans"),
    ],
)
def test_a_bomb_is_refused_before_it_grows(data: bytes) -> None:
    tracemalloc.start()
    try:
        assert code_of(data) == "image_too_large"
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_the_pixel_limit_is_the_callers(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(IMAGE, form)
    assert decode(data, max_pixels=32 * 24).size == (32, 24)

    monkeypatch.delattr("PIL.ImageFile.ImageFile.load")
    assert code_of(data, max_pixels=32 * 24 - 1) == "image_too_large"


def test_metadata_of_ordinary_size_is_no_bomb() -> None:
    text = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"steps: 20 " * 200_000))
    broken = chunk(b"zTXt", b"parameters\0\0not zlib")
    assert_same(decode(png(gradient(), 2, 8, text, broken)).rgb, gradient())


def test_a_video_behind_a_jpeg_is_not_read_for_segments() -> None:
    assert decode(JPEG + b"\xff\xda\0\2" * 200).size == (32, 24)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([PNG, JPEG, WEBP, saved(IMAGE, "JPEG", progressive=True)]),
    st.lists(st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=4)), max_size=4),
    st.integers(0, 80),
)
def test_damage_is_refused_or_survived(
    data: bytes, edits: list[tuple[int, bytes]], cut: int
) -> None:
    damaged = bytearray(data[: len(data) - cut])
    for place, value in edits:
        damaged[place : place + len(value)] = value
    with contextlib.suppress(InvalidInput):
        decode(bytes(damaged))


def assert_same(rgb: RGB, expected: npt.NDArray[Any], within: int = 0) -> None:
    assert rgb.dtype == np.uint8 and rgb.shape == expected.shape and rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - expected.astype(int)).max() <= within


DEEP = (gradient().astype(np.uint16) * 257 + 100).clip(0, 65535)
OPAQUE = np.full((24, 32, 1), 65535)
THREE_GRAYS = np.repeat(GRAY[..., np.newaxis], 3, axis=2)
COLOURS = IMAGE.quantize(8)


@pytest.mark.parametrize(
    ("data", "expected", "within"),
    [
        pytest.param(PNG, gradient(), 0, id="png"),
        pytest.param(WEBP, gradient(), 0, id="webp"),
        pytest.param(JPEG, gradient(), 12, id="jpeg"),
        pytest.param(
            saved(IMAGE, "JPEG", quality=95, progressive=True),
            gradient(),
            12,
            id="progressive jpeg",
        ),
        pytest.param(
            saved(IMAGE.convert("CMYK"), "JPEG", quality=95), gradient(), 12, id="cmyk jpeg"
        ),
        pytest.param(
            saved(Image.fromarray(GRAY), "JPEG", quality=95), THREE_GRAYS, 4, id="grey jpeg"
        ),
        pytest.param(saved(IMAGE, "MPO", **FRAMES), gradient(), 20, id="first of a phone's two"),
        pytest.param(saved(Image.fromarray(GRAY), "PNG"), THREE_GRAYS, 0, id="grey"),
        pytest.param(
            saved(Image.fromarray(GRAY > 40), "PNG"),
            np.where(THREE_GRAYS > 40, 255, 0),
            0,
            id="one bit",
        ),
        pytest.param(saved(COLOURS, "PNG"), np.asarray(COLOURS.convert("RGB")), 0, id="palette"),
        pytest.param(png(DEEP, 2, 16), gradient(), 1, id="16 bit"),
        pytest.param(png(DEEP[..., 2], 0, 16), THREE_GRAYS, 0, id="16 bit grey"),
        pytest.param(png(np.dstack([DEEP, OPAQUE]), 6, 16), gradient(), 1, id="16 bit alpha"),
    ],
)
def test_colours_come_out_right(data: bytes, expected: npt.NDArray[Any], within: int) -> None:
    assert_same(decode(data).rgb, expected, within)


def test_16_bits_are_scaled_to_the_nearest_and_not_clipped() -> None:
    values = np.arange(0, 65536, 64).reshape(32, 32)
    expected = np.repeat(np.round(values / 257)[..., np.newaxis], 3, axis=2)
    assert_same(decode(png(values, 0, 16)).rgb, expected)


HALF = np.repeat(np.where(np.arange(32) < 16, 40, 255).astype(np.uint8)[np.newaxis], 24, axis=0)
ROWS = np.repeat(np.arange(24, dtype=np.uint8)[:, np.newaxis], 32, axis=1)
KEYED = np.where(ROWS == 3, 0, 255)
WITH_ALPHA = Image.fromarray(np.dstack([gradient(), HALF]))


@pytest.mark.parametrize(
    ("data", "alpha"),
    [
        pytest.param(PNG, None, id="none"),
        pytest.param(WEBP, None, id="lossless webp without"),
        pytest.param(saved(WITH_ALPHA, "PNG"), HALF, id="rgba"),
        pytest.param(saved(WITH_ALPHA, "WEBP", lossless=True), HALF, id="webp"),
        pytest.param(saved(WITH_ALPHA.convert("LA"), "PNG"), HALF, id="la"),
        pytest.param(png(np.dstack([DEEP[..., :1], HALF * 257.0]), 4, 16), HALF, id="16 bit la"),
        pytest.param(png(np.dstack([DEEP, HALF * 257.0]), 6, 16), HALF, id="16 bit rgba"),
        pytest.param(
            saved(COLOURS, "PNG", transparency=bytes([0, 128])),
            np.array([0, 128, *[255] * 254])[np.asarray(COLOURS)],
            id="palette",
        ),
        pytest.param(png(ROWS, 0, 8, chunk(b"tRNS", b"\0\3")), KEYED, id="grey key"),
        pytest.param(
            png(np.repeat(ROWS[..., np.newaxis], 3, 2), 2, 8, chunk(b"tRNS", b"\0\3" * 3)),
            KEYED,
            id="colour key",
        ),
        pytest.param(
            png(ROWS * 257.0, 0, 16, chunk(b"tRNS", b"\3\3")),
            KEYED,
            id="16 bit grey key",
        ),
        pytest.param(
            png(
                np.repeat(ROWS[..., np.newaxis] * 257.0, 3, 2),
                2,
                16,
                chunk(b"tRNS", b"\3\3" * 3),
            ),
            KEYED,
            id="16 bit colour key",
        ),
    ],
)
def test_alpha_is_kept(data: bytes, alpha: npt.NDArray[Any] | None) -> None:
    found = decode(data).alpha
    if alpha is None:
        assert found is None
    else:
        assert found is not None
        assert_same(found, alpha)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    data = saved(WITH_ALPHA if form != "JPEG" else IMAGE, form, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    picture = decode(data)
    assert_same(picture.rgb, np.asarray(upright.convert("RGB")))
    if picture.alpha is not None:
        assert_same(picture.alpha, np.asarray(upright.getchannel("A")))


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\xff", b"Exif\0\0garbage here"])
def test_broken_exif_is_passed_over(exif: bytes) -> None:
    assert decode(saved(IMAGE, "JPEG", exif=exif)).size == (32, 24)


def icc(kind: bytes, space: bytes, connection: bytes, tag: bytes, content: bytes) -> bytes:
    """A colour profile of one table (ICC.1:2001-04)."""
    white = (0xF6D6, 0x10000, 0xD32D)
    head = struct.pack(
        ">4xI4s4s4s12x4s28xIII48x", 2 << 24, kind, space, connection, b"acsp", *white
    )
    body = head + struct.pack(">I4sII", 1, tag, 144, len(content)) + content
    return struct.pack(">I", len(body) + 4) + body


def ink_profile() -> bytes:
    """CMYK: black ink is black; of the others, each takes a third of the lightness."""
    inks = itertools.product((0, 1), repeat=4)
    lab = b"".join(bytes([(1 - k) * 85 * (3 - c - m - y), 128, 128]) for c, m, y, k in inks)
    matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 16)
    same = bytes(range(256))
    table = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 2) + matrix + same * 4 + lab + same * 3
    return icc(b"prtr", b"CMYK", b"Lab ", b"A2B0", table)


INKS = ink_profile()
LINEAR_GRAY = icc(b"mntr", b"GRAY", b"XYZ ", b"kTRC", struct.pack(">4s4xI", b"curv", 0))
NO_PROFILE = icc(b"mntr", b"GRAY", b"XYZ ", b"kTRC", b"nonsense")
CYAN = Image.new("CMYK", (32, 24), (255, 0, 0, 0))
BLACK = Image.new("CMYK", (32, 24), (0, 0, 0, 255))
MIDDLE = Image.new("L", (32, 24), 128)
MIDDLE_ALPHA = Image.new("LA", (32, 24), (128, 77))


@pytest.mark.parametrize(
    ("image", "form", "profile", "colour", "kept"),
    [
        pytest.param(IMAGE, "PNG", None, (0, 0, 0), False, id="none"),
        pytest.param(IMAGE, "PNG", SRGB, (0, 0, 0), True, id="rgb in png"),
        pytest.param(IMAGE, "JPEG", SRGB, (0, 0, 0), True, id="rgb in jpeg"),
        pytest.param(IMAGE, "WEBP", SRGB, (0, 0, 0), True, id="rgb in webp"),
        pytest.param(MIDDLE, "PNG", SRGB, (128, 128, 128), True, id="grey under rgb"),
        pytest.param(MIDDLE, "PNG", LINEAR_GRAY, (188, 188, 188), False, id="grey"),
        pytest.param(MIDDLE_ALPHA, "PNG", LINEAR_GRAY, (188, 188, 188), False, id="grey and alpha"),
        pytest.param(MIDDLE, "PNG", NO_PROFILE, (128, 128, 128), False, id="broken"),
        pytest.param(IMAGE, "PNG", LINEAR_GRAY, (0, 0, 0), False, id="rgb under grey"),
        pytest.param(CYAN, "JPEG", INKS, (162, 162, 162), False, id="cyan ink"),
        pytest.param(BLACK, "JPEG", INKS, (0, 0, 0), False, id="black ink"),
        pytest.param(CYAN, "JPEG", SRGB, (0, 255, 255), True, id="ink under rgb"),
    ],
)
def test_a_profile_is_kept_or_applied(
    image: Image.Image, form: str, profile: bytes | None, colour: tuple[int, ...], kept: bool
) -> None:
    picture = decode(saved(image, form, icc_profile=profile))
    assert_same(picture.rgb[0, 0], np.array(colour), within=8)
    assert picture.icc_profile == (profile if kept else None)


@pytest.mark.parametrize("icc_profile", [None, SRGB])
@pytest.mark.parametrize("alpha", [None, HALF])
def test_png_brings_everything_back(alpha: Gray | None, icc_profile: bytes | None) -> None:
    data = encode(Picture(gradient(), alpha, icc_profile), "png")
    Image.open(io.BytesIO(data)).verify()
    picture = decode(data)
    assert_same(picture.rgb, gradient())
    assert picture.icc_profile == icc_profile
    assert (picture.alpha is None) == (alpha is None)
    if picture.alpha is not None:
        assert_same(picture.alpha, HALF)


def test_jpeg_keeps_fine_colours_and_the_profile(photo: Callable[[str], RGB]) -> None:
    rgb = photo("skimage_astronaut.png")
    data = encode(Picture(rgb, None, SRGB), "jpeg")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG" and image.info["icc_profile"] == SRGB
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
    assert np.abs(decode(data).rgb.astype(int) - rgb).mean() < 2


def test_jpeg_has_no_longer_side_than_it_can_have() -> None:
    with pytest.raises(InvalidInput, match="png"):
        encode(Picture(np.zeros((70_000, 16, 3), np.uint8)), "jpeg")


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I", "I;16"]
)
def test_an_image_of_any_mode_is_a_picture(mode: str) -> None:
    picture = from_any(Image.new(mode, (32, 24), 0))
    assert picture.size == (32, 24)
    assert (picture.alpha is not None) == (mode in {"LA", "PA", "RGBA", "RGBa"})


def test_an_images_exif_is_applied(photos: Path) -> None:
    path = photos / "derived_exif6.jpg"
    with Image.open(path) as image:
        assert image.size == (600, 512)
        assert_same(from_any(image).rgb, from_any(path).rgb)
    assert from_any(str(path)).size == (512, 600)


@pytest.mark.parametrize(
    ("array", "alpha"),
    [
        pytest.param(gradient(), None, id="rgb"),
        pytest.param(gradient()[::-1, ::-1], None, id="a view"),
        pytest.param(np.dstack([gradient(), HALF]), HALF, id="rgba"),
        pytest.param(GRAY, None, id="grey"),
    ],
)
def test_an_array_is_a_picture(array: npt.NDArray[np.uint8], alpha: Gray | None) -> None:
    picture = from_any(array)
    assert_same(picture.rgb, array[..., :3] if array.ndim == 3 else THREE_GRAYS)
    assert (picture.alpha is None) == (alpha is None)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        pytest.param(None, "image_type", id="nothing"),
        pytest.param(b"bytes", "image_type", id="bytes"),
        pytest.param(gradient().astype(float), "image_type", id="floats"),
        pytest.param(gradient()[..., :2], "image_type", id="two channels"),
        pytest.param(np.zeros((), np.uint8), "image_type", id="one number"),
        pytest.param(np.zeros((0, 0, 3), np.uint8), "image_dimensions", id="an empty array"),
        pytest.param(Image.new("RGB", (0, 0)), "image_dimensions", id="an empty image"),
        pytest.param(Image.new("F", (32, 24)), "image_type", id="float image"),
        pytest.param("no/such/file.png", "image_missing", id="no file"),
        pytest.param(Path(__file__).parent, "image_missing", id="a folder"),
        pytest.param(Path(__file__), "image_unsupported", id="no picture"),
    ],
)
def test_what_is_no_picture_is_refused(given: Any, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_any(given)
    assert caught.value.code == code
    assert "tests" not in caught.value.public and "no/such" not in caught.value.public


@pytest.mark.parametrize("alpha", [None, HALF])
def test_a_picture_is_a_pil_image(alpha: Gray | None) -> None:
    image = to_pil(Picture(gradient(), alpha, SRGB))
    assert image.mode == ("RGB" if alpha is None else "RGBA")
    assert image.info["icc_profile"] == SRGB
    assert_same(from_any(image).rgb, gradient())
