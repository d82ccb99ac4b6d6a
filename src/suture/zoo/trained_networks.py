"""Networks that the zoo has trained, from their files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from suture._base import FilePath, SutureError, checked, expect
from suture.networks import load_state
from suture.zoo.registry import build
from suture.zoo.weights import read_metadata, read_weights

_NEEDED = {"network", "seed", "epoch", "accuracy", "classes", "channels"}


class TrainedNetworks(NamedTuple):
    """Networks in a folder: functions that load them, and what is known of each, by name."""

    networks: dict[str, Callable[[], nn.Module]]
    about: dict[str, dict[str, Any]]


@checked
def list_trained(folder: FilePath) -> TrainedNetworks:
    """Return the networks that `train_and_save` has trained into a folder.

    >>> networks, about = zoo.list_trained("trained")
    >>> suture.study(networks, train, test, about=about, pairs="consecutive")

    They are in the order of architecture, seed and epoch, named by their files. Other files are left out, and
    so is the file of a last epoch that is kept in a file of its own. Weights are read when a function is
    called, in any process.

    Returns:
        `networks` by name, and `about` them: architecture, seed, epoch and test accuracy.

    Raises:
        SutureError: no such network, or a damaged file.
    """
    folder = Path(folder)
    expect(folder.is_dir(), "a folder of trained networks", repr(str(folder)), "write suture train --out")
    found = {path: about for path in sorted(folder.glob("*.safetensors"))
             if (about := _describe(path)) is not None}
    if not found:
        raise SutureError(f"no trained network in {str(folder)!r}; write suture train zoo:resnet_digits "
                          f"--seeds 0,1 --out {folder}")
    twins = {path for path, about in found.items()
             if path.with_name(f"{path.stem}-epoch{about['epoch']}.safetensors") in found}
    order = sorted(found.keys() - twins, key=lambda p: (found[p]["architecture"], found[p]["seed"],
                                                        found[p]["epoch"], p.name))
    return TrainedNetworks({p.stem: partial(load_trained, str(p.absolute())) for p in order},
                           {p.stem: found[p] for p in order})


@checked
def load_trained(path: FilePath) -> nn.Module:
    """Return the network whose weights `train_and_save` has written to a file, in eval mode."""
    file = read_weights(path)
    about = file.metadata
    if not about.keys() >= _NEEDED:
        raise SutureError(f"{str(path)!r} does not say how its network is built; write zoo.build(NAME) and "
                          "zoo.load_weights")
    network = build(about["network"], classes=int(about["classes"]), in_channels=int(about["channels"]))
    load_state(network, file.tensors, str(path))
    return network.eval()


def _describe(path: Path) -> dict[str, Any] | None:
    """Return what is known of the network in a file; None for another file."""
    about = read_metadata(path)
    if not about.keys() >= _NEEDED:
        return None
    return {"architecture": about["network"], "seed": int(about["seed"]), "epoch": int(about["epoch"]),
            "accuracy": float(about["accuracy"])}
