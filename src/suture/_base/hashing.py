"""Fingerprints of networks, from the tensors that they hold."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def fingerprint_network(network: nn.Module) -> str:
    """Return 16 hex digits that identify the weights and buffers of a network.

    They are the start of a SHA-256 hash. It covers the name, dtype, shape and bytes of each tensor of the
    state dict, sorted by name. A change of a single weight changes the fingerprint. The device, the memory
    layout, train or eval mode and the order in which modules were made do not.

    Code is not covered: two networks with the same tensors share a fingerprint, even if they compute
    differently. Extra state that is not a tensor is left out.
    """
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
            # Bytes, because bfloat16 has no NumPy type, and -0.0 must differ from 0.0 here.
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
