"""Images of every mode against Pillow; examples that cannot be used: counted, named, left out on demand."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import suture
from suture import SutureError
from suture.data.sources import open_source, stores
from suture.data.sources.splits import draw_balanced_order
from suture.data.sources.stores import find_decodable
from tests.support.pictures import Counted, as_folder, as_parquet, encoded, made_of, pictures

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
    found = stores.decode_image(stored)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_a_palette_with_transparency_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    out = io.BytesIO()
    paletted().save(out, "PNG", transparency=bytes([0, 100, 200, 255]))
    expected = MODES["P"][2]
    assert np.array_equal(stores.decode_image(out.getvalue()).permute(1, 2, 0).numpy(), expected)
    assert not recwarn.list


def test_the_first_frame_and_no_rotation() -> None:
    out = io.BytesIO()
    Image.fromarray(GREY).save(out, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    assert torch.equal(stores.decode_image(out.getvalue())[0], torch.from_numpy(GREY))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.fromarray(RGB).save(turned, "PNG", exif=exif)
    assert stores.decode_image(turned.getvalue()).shape == (3, 4, 5)


@pytest.mark.parametrize(("stored", "why"), [
    (b"no image", "is no image that Pillow knows"), (encoded(RGB)[:-30], "runcated"),
    (encoded(RGB, "JPEG")[:300], "runcated"), (None, "is missing"),
    ({"bytes": None, "path": None}, "is missing"),
    ("no/such/file.png", "No such file")])
def test_what_is_no_image(stored: Any, why: str) -> None:
    found = stores.decode(stored, "images")
    assert isinstance(found, stores.BadExample)
    assert why in found.reason


def test_floating_point_images_have_no_range() -> None:
    out = io.BytesIO()
    Image.fromarray(np.ones((3, 3), np.float32)).save(out, "TIFF")
    with pytest.raises(ValueError, match="floating point"):
        stores.decode_image(out.getvalue())


def spoilt_folder(root: Path) -> tuple[Path, str]:
    as_folder(root, pictures(30))
    for name in ("ant/003.png", "cat/025.png"):
        (root / name).write_bytes(b"GIF89a, but no more")
    return root, f"{root}/ant/003.png"


def spoilt_parquet(root: Path) -> tuple[Path, str]:
    images: list[bytes | None] = [encoded(p) for p, _ in pictures(30)]
    images[3], images[25] = None, b"no image"
    return (as_parquet(root / "all.parquet", images, [y for _, y in pictures(30)]),
            "all.parquet, row 3 is missing")


@pytest.mark.parametrize("make", [spoilt_folder, spoilt_parquet])
def test_bad_images_are_counted_and_named(make: Callable[[Path], tuple[Path, str]], tmp_path: Path) -> None:
    path, first = make(tmp_path / "set")
    plain = open_source(path)
    with pytest.raises(SutureError, match="2 of 24 cannot be used") as message:
        list(map(plain.take, torch.arange(len(plain)).split(8)))
    assert first in str(message.value)
    assert "\n" not in str(message.value)
    assert "skip_bad=True" in str(message.value)
    with pytest.raises(SutureError, match="2 of 24 cannot be used"):
        assert plain.fingerprint


@pytest.mark.parametrize("make", [spoilt_folder, spoilt_parquet])
@pytest.mark.parametrize("n", [None, 9])
def test_bad_images_are_left_out_everywhere(make: Callable[[Path], tuple[Path, str]], n: int | None,
                                            tmp_path: Path) -> None:
    path, first = make(tmp_path / "set")
    found = open_source(path, n=n, skip_bad=True)
    assert len(found) == (22 if n is None else n)
    assert n == 9 or f"left out of {found.name}: 2 of 24 cannot be used, the first: {first}" in found.note
    if n is not None:
        drawn = open_source(path, n=12).rows.tolist()
        assert found.rows.tolist() == [r for r in drawn if r not in (3, 25)][:n]
    raw, labels = found.take(range(len(found)))
    made = pictures(30)
    for k, row in enumerate(found.rows.tolist()):
        assert row not in (3, 25)
        assert torch.equal(raw[k], torch.from_numpy(made[row][0]).permute(2, 0, 1))
        assert int(labels[k]) == made[row][1]


def test_more_than_the_good_ones(tmp_path: Path) -> None:
    path, _ = spoilt_folder(tmp_path / "set")
    with pytest.raises(SutureError, match=r"expected 23 usable examples in set-train, got 22: 2 of 24"):
        open_source(path, n=23, skip_bad=True)


def test_draws_walk_past_bad_images() -> None:
    """Skipping gives the draw from everything, without the bad ones."""
    made = pictures(40)
    store = Counted([encoded(p) for p, _ in made])
    labels = [y for _, y in made]
    order = draw_balanced_order(np.array(labels), 0).tolist()
    for bad in order[2:5]:
        store.held[bad] = b"x"
    good, bad_ones = find_decodable(store, "images", torch.tensor(order), 10)
    assert good.tolist() == [0, 1, *range(5, 13)]
    assert bad_ones == (f"3 of 13 cannot be used, the first: value {order[2]} is no image that Pillow "
                        "knows")


def test_many_bad_images_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MOST_TRIED", 20)
    found = made_of(pictures(50))
    found.store.held[30] = b"x"
    with pytest.raises(SutureError, match="one cannot be used: value 30 is no image"):
        found.take([30])
    found.store.held[3] = b"x"
    with pytest.raises(SutureError, match="among its first 20: 1 of 20 cannot be used, the first: value 3"):
        found.take([30])


# -- more than the memory should hold ------------------------------------------------------------------------

def header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that promises so many grey pixels."""
    def chunk(name: bytes, held: bytes) -> bytes:
        return struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
            + chunk(b"IEND", b""))


@pytest.mark.parametrize(("make", "why"), [
    (lambda: header(13_000, 13_000), "has 13000x13000 pixels, more than 89 million"),
    (lambda: header(30_000, 30_000), "has more than 89 megapixels"),
    (lambda: header(2**31 - 1, 1), "has more than 89 megapixels"),
    (lambda: Image.new("L", (0, 5)), "has no pixels"),
    (lambda: header(0, 0), "is no image that Pillow knows"),
    (lambda: b"<svg></svg>", "is no image that Pillow knows"), (lambda: str(Path.cwd()), "is no file"),
])
def test_images_are_refused_by_their_header(make: Callable[[], Any], why: str,
                                            recwarn: pytest.WarningsRecorder) -> None:
    assert stores.decode(make(), "images") == stores.BadExample(why)
    assert not recwarn.list


def test_no_pixel_of_a_bomb_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    assert isinstance(stores.decode(header(13_000, 13_000), "images"), stores.BadExample)


def test_a_pipe_among_the_images_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert stores.decode(str(tmp_path / "a.png"), "images") == stores.BadExample("is no file")


def test_a_bomb_in_a_folder_is_named_and_left_out(tmp_path: Path) -> None:
    as_folder(tmp_path, pictures(6))
    (tmp_path / "ant" / "bomb.png").write_bytes(header(13_000, 13_000))
    found = [open_source(tmp_path, split=s, skip_bad=True) for s in ("train", "test")]
    assert sum(map(len, found)) == 6
    assert any("bomb.png has 13000x13000 pixels" in one.note for one in found)


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    as_folder(tmp_path / "all", pictures(6))
    whole = [len(open_source(f"{tmp_path / 'all'}", split=s)) for s in ("train", "test")]
    (tmp_path / "all" / "ant" / "again").symlink_to(tmp_path / "all")
    (tmp_path / "all" / "bee" / "me").symlink_to(tmp_path / "all" / "bee")
    for one, other in (("ant", "cat"), ("cat", "ant")):
        (tmp_path / f"more-{one}").mkdir()
        (tmp_path / f"more-{one}" / "turn").symlink_to(tmp_path / f"more-{other}")
    (tmp_path / "all" / "cat" / "more").symlink_to(tmp_path / "more-ant")
    assert [len(open_source(f"{tmp_path / 'all'}", split=s)) for s in ("train", "test")] == whole
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cat").symlink_to(tmp_path / "all" / "cat")
    assert [len(open_source(f"{tmp_path / 'other'}", split=s)) for s in ("train", "test")] == [1, 1]
    (tmp_path / "more-ant" / "a.png").write_bytes(encoded(RGB))  # once, not again at every turn
    assert sum(len(open_source(f"{tmp_path / 'all'}", split=s)) for s in ("train", "test")) == sum(whole) + 1


def test_without_pillow_no_image_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    made = encoded(RGB)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(SutureError, match="PIL"):
        stores.decode(made, "images")


def test_a_stripe_is_not_resized_to_terabytes() -> None:
    how = suture.ImagePreprocessing(size=(224, 224))
    with pytest.raises(SutureError, match=r"1x600000 would become 224x134400000 before the crop; .*squash"):
        how(torch.zeros(1, 3, 1, 600_000, dtype=torch.uint8))
    assert suture.ImagePreprocessing(size=(8, 8))(torch.zeros(1, 1, 1, 999)).shape == (1, 1, 8, 8)
