"""Controls made from a network's architecture: other weights, or a site that is turned."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import InstanceOf
from torch import Tensor, nn

from suture._base import (
    Count,
    Progress,
    Real,
    Seed,
    SutureError,
    checked,
    display_progress,
    expect,
    name_callback,
    seed_torch,
)
from suture.data import Batches, read_inputs
from suture.networks import (
    Network,
    Recipe,
    SitedNetwork,
    SiteName,
    copy_network,
    open_network,
    train,
)
from suture.numbers import qr
from suture.representations import Shape


@checked
def random_weights(network: Network, seed: Seed = 0) -> nn.Module:
    """Return a copy of a network with random weights.

    Modules that can reset their parameters do so, as new ones would. The values of all other parameters, such
    as a class token, are permuted.

    Args:
        network: any eager module; it is not changed.
        seed: seed of the weights.
    """
    made = copy_network(open_network(network, "network"))
    generator = torch.Generator().manual_seed(seed)
    with seed_torch(seed), torch.no_grad():
        reset = [m for m in made.modules() if callable(getattr(m, "reset_parameters", None))]
        for module in reset:
            module.reset_parameters()  # type: ignore[operator]
        known = {id(p) for m in reset for p in m.parameters(recurse=False)}
        for parameter in made.parameters():
            if id(parameter) not in known:
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return made.eval()


@checked
def random_labels(network: Network, data: Any, recipe: Annotated[Recipe, InstanceOf[Recipe]] | None = None, *,
                  seed: Seed = 0, progress: Progress | bool | None = None) -> nn.Module:
    """Return a copy of a network, trained from random weights on labels that say nothing.

    The labels of the data are permuted once, so that it can only learn them by heart.

    Args:
        network: a classifier of one tensor (N, ...); it is not changed.
        data: labelled examples in any form of `suture.compare`; all of them are held in memory.
        recipe: of the training. Default: 30 epochs of Adam at 1e-3.
        seed: seed of weights, labels and training.
        progress: called as ``progress("train", epoch, epochs)``. Default: a bar on a terminal and in a
            notebook; False for none.

    Raises:
        SutureError: data without labels, or inputs of several tensors.
    """
    inputs, labels = _join(Batches(data))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    made = random_weights(network, seed)
    with display_progress(name_callback("progress")(progress)) as shown:
        train(made, inputs, labels[order], replace(recipe or Recipe(epochs=30), seed=seed), progress=shown)
    return made.eval()


def _join(batches: Batches) -> tuple[Tensor, Tensor]:
    xs, ys = [], []
    for batch in batches:
        if not isinstance(batch.target, Tensor) or batch.labels is None or batch.labels.ndim != 1:
            raise SutureError("expected one tensor of inputs and labels (N,) to train on random labels, got "
                              "other data; give (inputs, labels)")
        xs.append(batch.target)
        ys.append(batch.labels)
    return torch.cat(xs), torch.cat(ys)


class Turn:
    """A forward hook that rotates the channels of what a module returns."""

    def __init__(self, shape: Shape, turn: Tensor) -> None:
        self.shape, self.turn = shape, turn

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        axis = 1 if self.shape.channels_first else -1
        turned: Tensor = (output.movedim(axis, -1) @ self.turn.to(output)).movedim(-1, axis)
        return turned


@checked
def rotated(network: Network, inputs: Any, site: SiteName, angle: Real | None = None, *,
            seed: Seed = 0) -> nn.Module:
    """Return a copy of a network whose representation at one site is rotated in its channels.

    Use it as a source: direct matching undoes the map exactly. What comes after the site is of no use.

    Args:
        network: any eager module; it is not changed.
        inputs: a batch of its inputs.
        site: the site; its module must return one tensor.
        angle: in degrees, of all planes of the rotation. Default: a random orthogonal map.
        seed: seed of the map.

    Raises:
        SutureError: a bad site.
    """
    found = open_network(network, "network")
    sited = SitedNetwork(found, read_inputs(inputs, None), [site], allow_bypass=True)
    name, shape = sited.sites[0], sited.shapes[0]
    expect(name.call == 0 and name.slot is None, "a module that is called once and returns one tensor",
           str(name))
    made = copy_network(found)
    made.get_submodule(name.path).register_forward_hook(Turn(shape, draw_rotation(shape.width, angle, seed)))
    return made.eval()


def draw_rotation(width: Count, angle: float | None, seed: int) -> Tensor:
    """Draw an orthogonal map (width, width): of one angle in all planes, or random where it is None.

    An odd width leaves one direction as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    basis = qr(torch.randn(width, width, generator=generator, dtype=torch.float64))[0]
    if angle is None:
        turn: Tensor = basis
        return turn.float()
    radians = torch.deg2rad(torch.tensor(angle, dtype=torch.float64))
    plane = torch.eye(width, dtype=torch.float64)
    for k in range(0, width - 1, 2):
        plane[k, k] = plane[k + 1, k + 1] = radians.cos()
        plane[k, k + 1], plane[k + 1, k] = -radians.sin(), radians.sin()
    turn = basis @ plane @ basis.T
    return turn.float()


