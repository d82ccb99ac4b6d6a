"""The command `train`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from suture import specs, zoo
from suture._base import check_file, expect, make_unknown_error
from suture.cli.console import show_progress
from suture.cli.entry_point import clean, console
from suture.cli.options import RESTART, RUN, DataOption, command
from suture.networks import find_device


@command(RUN, RESTART)
def train(
    network: Annotated[str, typer.Argument(help="zoo:NAME")],
    data: DataOption = "digits",
    recipe: Annotated[str | None, typer.Option(
        help=f"One of {', '.join(zoo.RECIPES)}. Default: digits on the digits, else paper.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option(help="Default: the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Default: the recipe's.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, or bf16 on GPUs. Default: the "
                                                       "recipe's.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds separated by commas, one network for each, in the "
                                                   "folder --out.")] = None,
    keep: Annotated[str | None, typer.Option(help="Epochs separated by commas whose weights are saved as "
                                                  "well; 0 is before training.")] = None,
    out: Annotated[Path | None, typer.Option(help="Weights file, safetensors; with --seeds a folder. "
                                                  "Default: weights.safetensors, or trained.")] = None,
    **options: Any,
) -> None:
    """Train a network of the zoo and save its weights."""
    kind, _, name = network.partition(":")
    expect(kind == "zoo", "zoo:NAME", repr(network), "train your own networks with your own code")
    places = _name_weights(name, out, seeds, options["seed"])
    for place in places.values():
        check_file(place, ".safetensors")
    fit, test = specs.as_image_sets(specs.load_data(data), data)
    chosen = recipe or ("digits" if data == "digits" else "paper")
    if chosen not in zoo.RECIPES:
        raise make_unknown_error("recipe", chosen, zoo.RECIPES)
    given: dict[str, Any] = {"epochs": epochs, "lr": lr, "batch_size": batch_size,
                             "label_smoothing": label_smoothing, "precision": precision}
    used = dataclasses.replace(zoo.RECIPES[chosen], **{k: v for k, v in given.items() if v is not None})
    kept = [] if keep is None else _split_numbers("keep", keep)
    recipes = [dataclasses.replace(used, seed=seed) for seed in places]
    for (seed, place), one in zip(places.items(), recipes, strict=True):
        with show_progress() as progress:
            report = zoo.train_and_save(name, place, seed, one, (fit, test), progress, keep=kept,
                                        device=find_device(options["device"]), restart=options["restart"])[1]
        console.print(f"{report.accuracy:.1%} of {len(test)} test images right; weights: {clean(str(place))}",
                      soft_wrap=True)


def _name_weights(name: str, out: Path | None, seeds: str | None, seed: int) -> dict[int, Path]:
    """Return the file of each seed."""
    if seeds is None:
        return {seed: out or Path("weights.safetensors")}
    expect(seed == 0, "--seed or --seeds", "both", "leave out --seed")
    folder = out or Path("trained")
    expect(folder.suffix != ".safetensors", "a folder for several seeds", repr(str(folder)),
           f"write --out {folder.with_suffix('')}")
    if name not in zoo.networks:
        raise make_unknown_error("network", name, zoo.networks)
    return {k: folder / f"{name}-seed{k}.safetensors" for k in _split_numbers("seeds", seeds)}


def _split_numbers(option: str, text: str) -> list[int]:
    numbers = [n.strip() for n in text.split(",")]
    expect(all(n.isascii() and n.isdigit() for n in numbers), "whole numbers separated by commas",
           f"--{option} {text!r}", f"write --{option} 0,1,2")
    return [int(n) for n in numbers]
