"""Images of every mode against Pillow, and what is no image."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from suture.data.sources import decoding
from tests.support.pictures import encoded

RGB = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEEP = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3276
ALPHA = np.dstack([RGB, 255 - GREY])


def paletted() -> Image.Image:
    made = Image.fromarray(GREY // 64).convert("L")
    made.putpalette([9, 8, 7, 100, 0, 0, 0, 100, 0, 0, 0, 100])
    return made


MODES: dict[str, tuple[Callable[[], Image.Image], str, np.ndarray[Any, Any]]] = {
    "L": (lambda: Image.fromarray(GREY), "PNG", GREY[..., None]),
    "RGB": (lambda: Image.fromarray(RGB), "PNG", RGB),
    "RGBA": (lambda: Image.fromarray(ALPHA), "PNG", RGB),
    "LA": (lambda: Image.fromarray(np.dstack([GREY, GREY]), "LA"), "PNG", GREY[..., None]),
    "1": (lambda: Image.fromarray(GREY > 99), "PNG", np.where(GREY > 99, 255, 0)[..., None]),
    "P": (paletted, "PNG", np.array([[9, 8, 7], [100, 0, 0], [0, 100, 0], [0, 0, 100]])[GREY // 64]),
    "I;16": (lambda: Image.fromarray(DEEP), "PNG", np.round(DEEP / 257)[..., None]),
    "I": (lambda: Image.fromarray(DEEP.astype(np.int32)), "TIFF", np.round(DEEP / 257)[..., None]),
    "CMYK": (lambda: Image.fromarray(RGB).convert("CMYK"), "TIFF", RGB),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["bytes", "path", "image"])
def test_modes_of_images(mode: str, way: str, tmp_path: Path) -> None:
    make, ending, expected = MODES[mode]
    out = io.BytesIO()
    make().save(out, ending)
    (tmp_path / "image").write_bytes(out.getvalue())
    stored = {"bytes": out.getvalue(), "path": str(tmp_path / "image"), "image": Image.open(out)}[way]
    found = decoding.decode_image(stored)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_a_palette_with_transparency_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    out = io.BytesIO()
    paletted().save(out, "PNG", transparency=bytes([0, 100, 200, 255]))
    expected = MODES["P"][2]
    assert np.array_equal(decoding.decode_image(out.getvalue()).permute(1, 2, 0).numpy(), expected)
    assert not recwarn.list


def test_the_first_frame_and_no_rotation() -> None:
    out = io.BytesIO()
    Image.fromarray(GREY).save(out, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    assert torch.equal(decoding.decode_image(out.getvalue())[0], torch.from_numpy(GREY))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.fromarray(RGB).save(turned, "PNG", exif=exif)
    assert decoding.decode_image(turned.getvalue()).shape == (3, 4, 5)


@pytest.mark.parametrize(("stored", "why"), [
    (b"no image", "is no image that Pillow knows"), (encoded(RGB)[:-30], "runcated"),
    (encoded(RGB, "JPEG")[:300], "runcated"), (None, "is missing"),
    ({"bytes": None, "path": None}, "is missing"),
    ("no/such/file.png", "No such file")])
def test_what_is_no_image(stored: Any, why: str) -> None:
    found = decoding.decode(stored, "images")
    assert isinstance(found, decoding.BadExample)
    assert why in found.reason


def test_floating_point_images_have_no_range() -> None:
    out = io.BytesIO()
    Image.fromarray(np.ones((3, 3), np.float32)).save(out, "TIFF")
    with pytest.raises(ValueError, match="floating point"):
        decoding.decode_image(out.getvalue())
