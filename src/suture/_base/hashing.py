"""The one content hash: SHA-256 over tensors with their names, types and shapes, or over canonical JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from suture._base.errors import SutureError


def hash_tensors(tensors: Iterable[tuple[str, Tensor]], beside: str = "") -> str:
    """Return the SHA-256 of named tensors, as 64 hex digits.

    It covers the text `beside`, and the name, dtype, shape and bytes of each tensor in order. The device and
    the memory layout make no difference.
    """
    digest = hashlib.sha256(beside.encode())
    for name, value in tensors:
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        # Bytes, because bfloat16 has no NumPy type, and -0.0 must differ from 0.0 here. A clone, because
        # `contiguous` keeps the stride 0 of a single expanded number, which has no view as bytes.
        plain = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def hash_parts(parts: Mapping[str, object]) -> str:
    """Return 16 hex digits of the SHA-256 of the parts that a result is made from, as canonical JSON.

    Parts are text, finite numbers, lists and mappings. 1 and 1.0 differ; tuples and lists do not.

    Raises:
        SutureError: a value that JSON does not allow, such as NaN and infinity.
    """
    try:
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SutureError("expected the parts of a key as words, finite numbers, lists and mappings, got "
                          f"{error}; write str(value) or dataclasses.asdict(value)") from error
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_network(network: nn.Module) -> str:
    """Return 16 hex digits that identify the weights and buffers of a network.

    They are the start of `hash_tensors` over the tensors of the state dict, sorted by name. A change of a
    single weight changes them; device, memory layout, and train or eval mode do not. Code is not covered: two
    networks with the same tensors share a fingerprint, even if they compute differently. Quantised weights
    are integers with their scales.
    """
    return hash_tensors(_walk_state(network))[:16]


def _walk_state(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a state dict by name, also those in what packed modules save in their place."""
    for name, value in sorted(network.state_dict().items()):
        for k, t in enumerate(value if isinstance(value, tuple | list) else (value,)):
            if isinstance(t, Tensor):
                yield from _take_apart(f"{name}.{k}" if t is not value else name, t)


def _take_apart(name: str, t: Tensor) -> Iterator[tuple[str, Tensor]]:
    if not t.is_quantized:
        yield name, t
        return
    yield name, t.int_repr()
    if t.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams):
        yield f"{name}.scales", t.q_per_channel_scales()
        yield f"{name}.zero_points", t.q_per_channel_zero_points()
    else:
        yield f"{name}.scale", torch.tensor([t.q_scale(), float(t.q_zero_point())], dtype=torch.float64)
