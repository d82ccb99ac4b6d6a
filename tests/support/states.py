"""What a network must look like after anything was done to it: as before."""

from __future__ import annotations

import torch
from torch import nn


def state_of(network: nn.Module) -> dict[str, object]:
    return {
        "weights": [(k, v.clone()) for k, v in network.state_dict().items()],
        "modes": [m.training for m in network.modules()],
        "flags": [p.requires_grad for p in network.parameters()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()],
        "own": [sorted(m.__dict__) for m in network.modules()],
        "grads": [p.grad is None for p in network.parameters()],
    }


def same_state(a, b) -> bool:
    weights = all(k == j and torch.equal(v, w)
                  for (k, v), (j, w) in zip(a["weights"], b["weights"], strict=True))
    return weights and all(a[k] == b[k] for k in a if k != "weights")
