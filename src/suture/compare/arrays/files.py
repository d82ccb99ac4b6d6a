"""Named arrays in files and folders, opened without unpickling and, where possible, without reading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from suture._base import FilePath, checked, expect, make_unknown_error, report_errors
from suture.indices import open_array_file

_FORMS = "an .npz, .safetensors or .npy file, or a folder of .npy files"


class StoredTensor:
    """A tensor of a safetensors file, of which rows are read when they are asked for."""

    def __init__(self, file: Any, name: str) -> None:
        self._slice = file.get_slice(name)
        self.shape = tuple(self._slice.get_shape())
        self.dtype = str(self._slice.get_dtype())

    def __getitem__(self, rows: slice) -> torch.Tensor:
        found: torch.Tensor = self._slice[rows]
        return found


class ArrayFile(Mapping[str, Any]):
    """The arrays of a file or folder by name, each opened when it is asked for.

    Tensors of safetensors files and ``.npy`` files of a folder are read by rows; the arrays of an ``.npz``
    file are read whole.

    Raises:
        SutureError: no such file, or one without arrays.
    """

    @checked
    def __init__(self, path: FilePath) -> None:
        self._path = Path(path)
        with self._report():
            self._arrays = self._open()
        expect(len(self._arrays) > 0, f"arrays in {str(path)!r}", "none", f"give {_FORMS}")

    def _report(self) -> AbstractContextManager[None]:
        return report_errors(f"cannot read {str(self._path)!r}", "write it again")

    def _open(self) -> dict[str, Any]:
        path = self._path
        if path.is_dir():
            files = {p.stem: p for p in path.iterdir() if p.suffix == ".npy"}
            return {name: files[name] for name in sorted(files, key=_count_naturally)}
        expect(path.is_file() and path.suffix in (".npz", ".safetensors", ".npy"), _FORMS, f"{str(path)!r}")
        if path.suffix == ".npy":
            return {path.stem: path}
        if path.suffix == ".npz":
            self._file: Any = np.lib.npyio.NpzFile(path.open("rb"), own_fid=True)
            return dict.fromkeys(self._file.files)
        self._file = safe_open(path, "pt")
        return {name: StoredTensor(self._file, name)
                for name in sorted(self._file.keys(), key=_count_naturally)}

    def __getitem__(self, name: str) -> Any:
        if name not in self._arrays:
            raise make_unknown_error(f"array of {str(self._path)!r}", name, self._arrays)
        found = self._arrays[name]
        if isinstance(found, Path):
            return open_array_file(found)
        with self._report():
            return self._file[name] if found is None else found

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)



def _count_naturally(name: str) -> list[tuple[int, str]]:
    """Return the key by which "layer2" comes before "layer10"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
