"""What the scripts of this folder share: data sets, trained networks, the command line and pages."""

from __future__ import annotations

import argparse
import io
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from suture import zoo

HERE = Path(__file__).parent


class Images(NamedTuple):
    """A data set: images that networks are trained and tested on, and those of them that are compared."""

    base: zoo.ImageSet
    test: zoo.ImageSet
    fit: zoo.ImageSet
    held_out: zoo.ImageSet


def cifar10(folder: Path, split: str, most: int) -> zoo.ImageSet:
    """Read the first images of a split, from Parquet shards whose rows hold encoded images and labels."""
    import pyarrow.parquet as parquet
    from PIL import Image

    images, labels = [], []
    for shard in sorted(folder.glob(f"{split}-*.parquet")):
        table = parquet.read_table(shard).to_pydict()
        name = "img" if "img" in table else "image"
        for entry, label in zip(table[name], table["label"], strict=True):
            if len(images) == most:
                break
            with Image.open(io.BytesIO(entry["bytes"])) as picture:
                images.append(np.asarray(picture.convert("RGB")))
            labels.append(label)
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return zoo.ImageSet(inputs, torch.tensor(labels), 10, f"cifar10-{split}")


def read_images(name: str, folder: Path | None, base_images: int, fit: int, test: int) -> Images:
    """Return the digits, or CIFAR-10 from a folder."""
    if name == "digits":
        whole = zoo.digits("train"), zoo.digits("test")
    elif folder is None:
        raise SystemExit("expected --data FOLDER with CIFAR-10 as Parquet shards")
    else:
        whole = cifar10(folder, "train", base_images), cifar10(folder, "test", 2000)
    return Images(*whole, whole[0].subset(min(fit, len(whole[0]))), whole[1].subset(test))


def load_trained(settings: Mapping[str, Any], store: Path, name: str, seed: int,
                 images: Images) -> torch.nn.Module:
    """Return the network of a seed, trained or as it was kept."""
    place = store / f"{name}-{seed}.safetensors"
    if not place.exists():
        network, report = zoo.train_network(settings["network"], seed, settings["base"],
                                            None if name == "digits" else (images.base, images.test))
        store.mkdir(exist_ok=True)
        zoo.save_weights(network, place, {"accuracy": f"{report.accuracy:.3f}"})
    network = zoo.build(settings["network"])
    accuracy = zoo.load_weights(network, place)["accuracy"]
    print(f"{name}, seed {seed}: {settings['network']} reaches {accuracy}", flush=True)
    return network


def fill(place: Path, parts: list[str], script: str) -> None:
    """Put tables between the markers of a page, with the machine that made them."""
    before, after = place.read_text().split("<!-- tables -->")[0], place.read_text().split("<!-- end -->")[1]
    machine = (f"Made by `docs/{script}` on {platform.machine()}, {os.cpu_count()} cores, torch "
               f"{torch.__version__}.")
    place.write_text(before + "<!-- tables -->\n\n" + "\n".join([*parts, machine, ""])
                     + "\n<!-- end -->" + after)


def main(about: str | None, settings: Mapping[str, Mapping[str, Any]],
         run: Callable[[str, list[int], Images], None], page: Callable[[], None]) -> None:
    """Run one data set, or write the page, as the command line says."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "page"])
    parser.add_argument("name", nargs="?", choices=list(settings))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--base-images", type=int, help="training images of the base networks")
    args = parser.parse_args()
    if args.what == "page":
        page()
    elif args.name is None:
        parser.error(f"expected a data set to run: {' or '.join(settings)}")
    else:
        s = settings[args.name]
        base_images = args.base_images or s.get("base_images", 5000)
        run(args.name, args.seeds, read_images(args.name, args.data, base_images, s["fit"], s["test"]))
