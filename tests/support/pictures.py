"""Small pictures of three classes, in memory and in every kind of storage."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from suture.data import Examples

NAMES = ("ant", "bee", "cat")
Pictures = list[tuple[np.ndarray[Any, Any], int]]


def pictures(n: int = 12, seed: int = 0, size: int | None = 6) -> Pictures:
    """Images sorted by class, as a folder has them; `size` None: of many sizes."""
    rng = np.random.default_rng(seed)
    shapes = [(size, size) if size else (int(rng.integers(3, 9)), 5) for _ in range(n)]
    return [(rng.integers(0, 256, (*s, 3), dtype=np.uint8), 3 * k // n) for k, s in enumerate(shapes)]


def encoded(pixels: np.ndarray[Any, Any], ending: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, ending)
    return out.getvalue()


def as_folder(root: Path, made: Pictures, split: str = "") -> Path:
    for k, (pixels, label) in enumerate(made):
        at = root / split / NAMES[label]
        at.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(at / f"{k:03}.png")
    return root


def as_parquet(file: Path, images: Sequence[bytes | None], labels: Sequence[Any], rows: int = 4,
               named: bool = True) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    column = pa.array([None if b is None else {"bytes": b, "path": "x.png"} for b in images],
                      pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"img": column, "label": pa.array(labels)})
    if named:
        features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(NAMES)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file, row_group_size=rows)
    return file


def in_parquet(root: Path, made: Pictures, split: str = "train") -> Path:
    as_parquet(root / f"{split}-00000-of-00001.parquet", [encoded(p) for p, _ in made], [y for _, y in made])
    return root


def in_shards(root: Path, made: Pictures) -> Path:
    for k, part in enumerate((made[:5], made[5:])):
        as_parquet(root / "data" / f"train-{k:05}-of-00002.parquet", [encoded(p) for p, _ in part],
                   [y for _, y in part])
    return root


def in_npz(root: Path, made: Pictures) -> Path:
    root.mkdir(exist_ok=True)
    np.savez(root / "set.npz", x_train=np.stack([p for p, _ in made]), y_train=[y for _, y in made],
             x_test=np.zeros((1, 6, 6, 3), np.uint8), y_test=[0])
    return root / "set.npz"


def as_dataset(made: Pictures) -> Any:
    import datasets

    features = datasets.Features({"label": datasets.ClassLabel(names=list(NAMES)), "img": datasets.Image()})
    return datasets.Dataset.from_dict({"label": [y for _, y in made], "img": [
        {"bytes": encoded(p), "path": None} for p, _ in made]}, features=features)


def in_saved(root: Path, made: Pictures) -> Path:
    import datasets

    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": as_dataset(made), "test": as_dataset(made[:1])}).save_to_disk(str(root))
    return root


def in_folder(root: Path, made: Pictures) -> Path:
    as_folder(root, made[:1], "test")
    return as_folder(root, made, "train")


STORAGES: dict[str, Callable[[Path, Pictures], Any]] = {
    "folder": in_folder,
    "parquet": lambda root, made: in_parquet(in_parquet(root, made), made[:1], "test"),
    "shards": lambda root, made: in_parquet(in_shards(root, made) / "data", made[:1], "test").parent,
    "npz": in_npz,
    "saved": in_saved,
    "dataset": lambda _, made: as_dataset(made),
    "stream": lambda _, made: as_dataset(made).to_iterable_dataset(),
}


class Counted:
    """A store that counts how often each row is read."""

    def __init__(self, values: list[Any]) -> None:
        self.held, self.read = values, [0] * len(values)

    def __len__(self) -> int:
        return len(self.held)

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        for r in rows:
            self.read[r] += 1
        return [self.held[r] for r in rows]

    def describe_row(self, row: int) -> str:
        return f"value {row}"


def made_of(made: Pictures) -> Examples:
    """Encoded images in memory, without the shortcut that `MemoryStore` has."""
    labels = torch.tensor([y for _, y in made])
    return Examples(Counted([encoded(p) for p, _ in made]), "images", "made", labels, 3, NAMES)


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Bytes (C, H, W): a coarse pattern with edges, so that resizing has something to get wrong."""
    coarse = np.random.default_rng(seed).integers(0, 256, (channels, height // 4 + 1, width // 4 + 1),
                                                  dtype=np.uint8)
    return torch.from_numpy(np.kron(coarse, np.ones((1, 4, 4), np.uint8))[:, :height, :width].copy())
