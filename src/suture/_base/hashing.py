"""Names for networks by what they hold."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def fingerprint_network(network: nn.Module) -> str:
    """16 hex digits that name the weights and buffers of a network.

    The start of the SHA-256 over name, dtype, shape and bytes of each tensor of the state dict, sorted by
    name. It does not depend on the device, on the memory layout, on train or eval mode or on the order in
    which modules were made; it changes with a single weight. Code is not covered: two networks that hold
    the same tensors and compute differently share a fingerprint. Extra state that is no tensor is left out.
    """
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            # Bytes and not numbers: bfloat16 has no NumPy type, and -0.0 is not 0.0 here.
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
