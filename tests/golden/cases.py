"""The golden cases: small comparisons that between them use everything that suture offers.

Each case is a function of an empty folder, into which it writes what it found: comparisons as
`Comparison.save` does, other results as JSON. They use public names alone, so that they outlive any change
inside suture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

import suture
from suture import indices, sources
from tests.golden.differences import FLOAT32, FLOAT64, Differences
from tests.golden.networks import batches, classes, images, masked_labels, network, texts

CASES: dict[str, Callable[[Path], None]] = {}
"""Every case by name."""
ALLOWED: dict[str, float] = {}
"""How far numbers of a case may be apart, where that is not `FLOAT32`."""
UNSTORED: set[str] = set()
"""Cases whose numbers differ between processors: compared on one machine only (``make.py --exact``)."""
FEW = suture.OOD("mahalanobis", most=100)
"""Out-of-distribution scores that are tried on few auxiliary examples."""
BRIEF = suture.TaskRecipe(epochs=2, batch_size=32, lr=1e-2)


def case(
    allowed: float = FLOAT32, stored: bool = True
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register a case under its function's name."""

    def register(function: Callable[[Path], None]) -> Callable[[Path], None]:
        CASES[function.__name__], ALLOWED[function.__name__] = function, allowed
        if not stored:
            UNSTORED.add(function.__name__)
        return function

    return register


def compare(*networks: Any, **options: Any) -> suture.Comparison:
    """Compare on the CPU, by direct matching alone and without scores unless told otherwise."""
    return suture.compare(
        *networks, **{"device": "cpu", "methods": ["dm"], "indices": (), "ood": None} | options
    )


def plain(value: Any) -> Any:
    """Bring a result to what JSON holds, numbers as they are."""
    if isinstance(value, pd.DataFrame):
        return {str(c): plain(value[c].tolist()) for c in value.columns}
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Enum):
        return value.value
    return value.item() if isinstance(value, np.generic) else value


def write(path: Path, values: Any) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(values), indent=1) + "\n", encoding="utf-8")


# -- comparisons


@case()
def digits_self(out: Path) -> None:
    """Stitch a network to itself with every default, and ask the result for all that it tells."""
    result = suture.compare(
        network("digits0"),
        data=images(96),
        test=images(64, "test"),
        device="cpu",
        sites=["layer2.1", "layer3.1"],
        tlm=replace(BRIEF, epochs=3),
    )
    result.save(out / "result")
    cells = [(a, b) for a in result.sources for b in result.targets]
    tested = (
        "dm.accuracy",
        "dm.relative_accuracy",
        "dm.kl",
        "dm.agreement",
        "tlm.accuracy",
        "dm.residual_batches",
    )
    write(
        out / "told.json",
        {
            "repr": repr(result),
            "measures": result.measures,
            "verdict": result.verdict(),
            "statistics": result.statistics(),
            "marks": result.marks("tlm.accuracy"),
            "cells": {f"{m}.{w}": result.cells(m, w) for m in ("dm", "tlm") for w in ("word", "reason")},
            "matrix": {m: result.matrix(m) for m in result.measures},
            "difference": {m: result.difference(cells[1], cells[2], m) for m in tested
                           if m in result.measures},
            "methods": result.difference(cells[1], cells[1], "dm.accuracy", "tlm.accuracy"),
        },
    )


@case()
def digits_seeds(out: Path) -> None:
    """Compare two trainings: intervals, float64 products, a mixed objective, early stopping."""
    recipe = replace(
        BRIEF,
        epochs=4,
        objective="mixed",
        temperature=2.0,
        mix=0.3,
        init="dm",
        patience=1,
        held_out=0.25,
        schedule="cosine",
        optimizer="adamw",
    )
    thresholds = suture.Thresholds(works=0.6)
    suture.compare(
        network("digits0"),
        network("digits1"),
        data=images(128),
        test=images(64, "test"),
        device="cpu",
        sites=["layer1.0", "layer3.1"],
        target_sites=["layer2.1", "layer3.0"],
        tlm=recipe,
        jackknife=10,
        precision="float64",
        names=("first", "second"),
        batch_size=48,
        seed=3,
        ood=suture.OOD(("relative", "mahalanobis"), thresholds=thresholds, most=200),
    ).save(out / "result")


@case()
def patches_and_maps(out: Path) -> None:
    """Stitch tokens to maps, maps to tokens, vectors to both, by every rule for prefix tokens."""
    tokens, maps, vectors = network("vit"), network("small0"), network("vectors")
    blocks, data, test = ["block1", "block2"], images(48), images(32, "test")
    layers = ["vit.layers.0", "vit.layers.1"]
    rules = {
        "vit_small": (tokens, maps, layers, blocks, ("drop",)),
        "small_vit": (maps, tokens, blocks, layers, ("drop",)),
        "vit_vit": (tokens, None, layers, None, ("map", "drop")),
        "vectors_vit": (vectors, tokens, ["first", "second"], layers, ("drop",)),
        "vit_vectors": (tokens, vectors, layers, ["first"], ("drop",)),
    }
    for name, (source, target, here, there, prefixes) in rules.items():
        for prefix in prefixes:
            rule = suture.AlignmentRule("nearest" if prefix == "drop" else "bilinear", "before", prefix)
            compare(
                source,
                target,
                data=data,
                test=test,
                sites=here,
                target_sites=there,
                alignment=rule,
                methods=["dm"],
                tlm=BRIEF,
                indices=["cka", "r2", "cka@pool"],
            ).save(out / f"{name}_{prefix}")


@case()
def text_encoder(out: Path) -> None:
    """Compare a text encoder with attention masks, by every kind of score."""
    fit, test = texts(48, 1), texts(32, 2)
    energy = suture.EnergyRecipe(epochs=1, tune_epochs=1, batch_size=32)
    detectors = ("mahalanobis", "neighbours", "two_sample", "tail_energy", "energy")
    compare(
        network("bert"),
        data=batches(fit, classes(fit)),
        test=batches(test, classes(test)),
        methods=["dm", "tlm"],
        family="ridge:0.1",
        tlm=BRIEF,
        ood=suture.OOD(detectors, energy=energy, most=64),
        jackknife=5,
        indices=["default", "rows", "cka@pool", "cka_rbf@pool"],
        sample=40,
    ).save(out / "result")


@case()
def masked_words(out: Path) -> None:
    """Compare a masked language model on the tokens that are labelled, to itself and without a task."""
    fit, test = texts(48, 3), texts(32, 4)
    data, tests = batches(fit, masked_labels(fit)), batches(test, masked_labels(test))
    model = network("masked")
    compare(
        model,
        data=data,
        test=tests,
        methods=["dm", "tlm"],
        tlm=replace(BRIEF, objective="soft"),
        family="ridge:0.1",
        ood=FEW,
    ).save(out / "tokens")
    compare(model, data=data, test=tests, task="none", family="ridge:0.1", ood=FEW).save(out / "none")


@case()
def next_words(out: Path) -> None:
    """Compare a causal language model on a share of its tokens."""
    data, test = batches(texts(64, 5)), batches(texts(32, 6))
    compare(
        network("gpt"),
        data=data,
        test=test,
        methods=["dm", "tlm"],
        tlm=BRIEF,
        token_rate=0.6,
        seed=2,
        indices=["default", "r2_folds", "rsa_spearman", "cka@pool"],
        sample=30,
        task="next_token",
        ood=FEW,
    ).save(out / "result")


def total_overlap(pair: Any) -> float:
    """Give an index of the user's, from moments."""
    return float((pair.moments.sxy**2).sum() / (pair.moments.sxx.trace() * pair.moments.syy.trace()))


def first_columns(x: np.ndarray, y: np.ndarray) -> float:
    """Give an index of the user's, from rows."""
    return float(np.corrcoef(x[:, 0], y[:, 0])[0, 1])


@case()
def every_index(out: Path) -> None:
    """Compute every index by every alignment, with intervals, arguments and functions of the user's."""
    own = [indices.own(total_overlap, low=0.0, high=2.0), indices.own(first_columns, "first_pair")]
    wanted = [
        "all",
        "all@pool",
        "all@flatten",
        "all@paper",
        "svcca:0.9",
        "shape:0.25",
        "r2_ridge:1",
        "gulp:0.1",
        "cka_rbf:0.5",
        "jaccard:3",
        "rank_similarity:4@pool",
        "second_order_cosine:5",
        *own,
    ]
    compare(
        network("small0"),
        network("small1"),
        data=images(120),
        target_sites=["block2"],
        methods=(),
        indices=wanted,
        jackknife=10,
        sample=70,
        seed=1,
    ).save(out / "result")


@case()
def as_in_the_paper(out: Path) -> None:
    """Compare by the paper's preset, with fewer epochs."""
    preset = suture.paper(seed=4)
    write(out / "preset.json", preset | {"family": str(preset["family"])})
    recipe = replace(preset["tlm"], epochs=3, batch_size=64)
    compare(
        network("small0"),
        network("digits0"),
        data=images(150),
        test=images(64, "test"),
        methods=["dm", "tlm"],
        sites=["block1", "block2"],
        target_sites=["layer1.0", "layer2.0"],
        indices=["default", "all@paper"],
        **preset | {"tlm": recipe},
    ).save(out / "result")


def brightness(x: torch.Tensor) -> torch.Tensor:
    """Score a batch of representations by their mean."""
    return x.flatten(1).mean(1)


@case()
def every_detector(out: Path) -> None:
    """Score by every detector, on data that are made and on data that are given; keep the trained ones."""
    names = (
        "mahalanobis",
        "relative",
        "neighbours",
        "tail_energy",
        "two_sample",
        "energy",
    )
    energy = suture.EnergyRecipe(epochs=1, tune_epochs=2, batch_size=32, seed=5)
    common: dict[str, Any] = {"data": images(80), "test": images(48, "test")}
    source, target = network("small1"), network("small0")
    results = []
    with TemporaryDirectory() as store:
        for _ in range(2):
            ood = suture.OOD(names, own={"brightness": brightness}, energy=energy, store=store, most=64)
            results.append(compare(source, target, ood=ood, **common))
            results[-1].save(out / f"made_{len(results)}")
    write(out / "kept.json", {"the same from the store": _same(out / "made_1", out / "made_2")})
    _remove(out / "made_2")
    noise = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ood = suture.OOD(
        ("neighbours", "energy"),
        energy=replace(energy, body="resnet_small", crop=1),
        auxiliary=noise[:48],
        unseen=noise[48:].square(),
    )
    compare(source, target, ood=ood, examples=64, **common).save(out / "given")
    compare(
        network("vectors"),
        sites=["first", "second"],
        family="ridge:0.1",
        ood=suture.OOD(("energy", "relative"), energy=energy, most=64),
        **common,
    ).save(out / "vectors")


@case()
def every_family(out: Path) -> None:
    """Fit every family in closed form, and by gradient where it can be."""
    matched = ("ridge:cv", "permutation", "identity")
    both = (
        "full",
        "ridge:0.1",
        "rank:3",
        "orthogonal",
        "orthogonal:noscale",
        "orthogonal:noshift",
        "orthogonal:noscale,noshift",
        "diagonal",
        "sparse:0.05",
    )
    for family in (*matched, *both):
        given = suture.Family.parse(family)
        folder = family.replace(":", "_").replace(",", "_")
        compare(
            network("small0"),
            network("small1"),
            data=images(64),
            test=images(32, "test"),
            family=given,
            methods=["dm"] if family in matched else ["dm", "tlm"],
            tlm=replace(BRIEF, epochs=1),
            ood=FEW if family in ("rank:3", "ridge:cv") else None,
        ).save(out / folder)


@case()
def options(out: Path) -> None:
    """Try the options that no other case has."""
    data, test, small = images(96), images(48, "test"), network("small0")
    common: dict[str, Any] = {"data": data, "test": test, "indices": ["cka", "r2"]}
    compare(
        small,
        relu=True,
        methods=["dm", "tlm"],
        tlm=replace(BRIEF, init="identity"),
        ood=FEW,
        **common,
    ).save(out / "relu")
    compare(
        network("skipping"), sites="block*", target_sites=["block1", "block2"], allow_bypass=True, **common
    ).save(out / "bypass")
    compare(
        small,
        network("small1"),
        data=data,
        sites="block*",
        target_sites=lambda path, _: path == "block2",
        methods="tlm",
        tlm=replace(BRIEF, objective="match", optimizer="sgd", schedule="onecycle", crop=1),
    ).save(out / "matched")
    compare(
        small,
        alignment=suture.AlignmentRule("nearest", "after"),
        methods=["dm", "tlm"],
        examples=40,
        tlm=replace(BRIEF, init="dm", patience=1),
        **common,
    ).save(out / "nearest")
    _odd_data(out)


def _odd_data(out: Path) -> None:
    """Compare on fewer rows than channels, and on inputs that do not vary."""
    compare(
        network("digits1"),
        network("small0"),
        data=images(12),
        test=images(48, "test"),
        sites=["layer2.0", "layer3.1"],
        target_sites=["block1"],
        indices="default",
    ).save(out / "few")
    flat = (torch.full((16, 1, 8, 8), 0.5), torch.arange(16) % 10)
    both = ["first", "second"]
    compare(network("vectors"), data=flat, test=flat, sites=both, indices="default").save(out / "constant")


@case()
def two_preparations(out: Path) -> None:
    """Give the networks different inputs of the same examples."""
    (x, y), (u, v) = images(96), images(48, "test")
    a, b = network("small0"), network("small1")
    large = [t.repeat_interleave(2, 2).repeat_interleave(2, 3) for t in (x, u)]
    paired = [
        suture.Paired((s, labels), (t, labels)) for s, t, labels in ((x, large[0], y), (u, large[1], v))
    ]
    common: dict[str, Any] = {
        "methods": ["dm", "tlm"],
        "tlm": BRIEF,
        "indices": ["cka", "cka@pool"],
        "ood": FEW,
        "batch_size": 32,
    }
    compare(a, b, data=paired[0], test=paired[1], **common).save(out / "paired")
    norm = suture.ImagePreprocessing(mean=(0.3,), std=(0.4,))
    larger = suture.ImagePreprocessing(size=(12, 12), mean=(0.5,), std=(0.5,), interpolation="bicubic")
    with TemporaryDirectory() as folder:
        arrays = {"x_train": x, "y_train": y, "x_test": u, "y_test": v}
        kept = {
            k: (t * 255).round().byte()[:, 0].numpy() if k[0] == "x" else t.numpy() for k, t in arrays.items()
        }
        np.savez(Path(folder) / "digits.npz", **kept)
        pair = sources.open_pair(str(Path(folder) / "digits.npz"), train_size=80, test_size=40, seed=1)
        train, test = (suture.Prepared(examples, norm, larger) for examples in pair)
        compare(a, b, data=train, test=test, **common).save(out / "prepared")


@case()
def resumed(out: Path) -> None:
    """Stop after each stage and go on from what was kept."""
    common: dict[str, Any] = {
        "data": images(64),
        "test": images(32, "test"),
        "methods": ["dm", "tlm"],
        "ood": FEW,
        "indices": ["cka", "r2"],
        "tlm": BRIEF,
        "seed": 6,
    }
    a, b = network("small0"), network("small1")
    compare(a, b, **common).save(out / "whole")
    same = {}
    for stage in ("moments", "dm", "tlm"):
        kept, again = out / f"after_{stage}", out / f"resumed_{stage}"

        def stop(result: suture.Comparison, stage: str = stage, kept: Path = kept) -> None:
            if result.meta["stages"][-1] == stage:
                result.save(kept)
                raise InterruptedError

        try:
            compare(a, b, on_stage=stop, **common)
        except suture.SutureError:
            compare(a, b, previous=suture.load(kept), **common).save(again)
        same[stage] = _same(out / "whole", again, FLOAT64)  # a Fréchet distance may have other last digits
        _remove(again)
    write(out / "same.json", same)


@case(stored=False)
def half_precision(out: Path) -> None:
    """Run the forwards and the training in half precision, whose rounding depends on the processor."""
    common: dict[str, Any] = {
        "data": images(64),
        "test": images(32, "test"),
        "indices": ["cka"],
        "methods": ["dm", "tlm"],
    }
    compare(network("small0"), forward="bf16", tlm=BRIEF, **common).save(out / "forward")
    compare(network("small0"), tlm=replace(BRIEF, precision="bf16"), **common).save(out / "training")


# -- other results--


@case()
def stitched(out: Path) -> None:
    """Fit single stitching layers, save them, load them, and run the stitched networks."""
    small, digits, tokens = network("small0"), network("digits0"), network("vit")
    data, (x, y) = images(96), images(40, "test")
    fits: dict[str, tuple[Any, ...]] = {
        "dm": (small, "block2", digits, "layer2.0", {}),
        "tlm": (digits, "layer1.0", small, "block1", {"method": "tlm", "tlm": BRIEF, "family": "rank:4"}),
        "tokens": (
            small,
            "block1",
            tokens,
            "vit.layers.0",
            {"method": "tlm", "tlm": BRIEF, "alignment": suture.AlignmentRule(prefix="drop")},
        ),
        "ridge": (
            small,
            "block1",
            small,
            "block2",
            {"family": "ridge:cv", "examples": 50, "relu": True, "precision": "float64", "seed": 3},
        ),
    }
    for name, (source, here, target, there, how) in fits.items():
        made = suture.stitch(source, here, target, there, data, device="cpu", **how)
        made.save(out / f"{name}.safetensors")
        again = suture.load_stitched(out / f"{name}.safetensors", source, target)
        logits, other = (n(x) for n in (made, again))
        logits, other = (t if isinstance(t, torch.Tensor) else t["logits"] for t in (logits, other))
        write(
            out / f"{name}.json",
            {
                "accuracy": made.accuracy((x, y)),
                "loaded": bool(torch.equal(logits, other)),
                "fit": made.fit,
                "sites": [str(s) for s in made.sites],
                "logits": logits.detach()[:8],
                "trained": [n for n, p in made.named_parameters() if p.requires_grad],
            },
        )


@case()
def text_stitched(out: Path) -> None:
    """Fit a stitching layer between texts."""
    fit, test = texts(64, 7), texts(24, 8)
    model = network("gpt")
    made = suture.stitch(
        model,
        "transformer.h.0",
        model,
        "transformer.h.1",
        batches(fit),
        device="cpu",
        task="next_token",
        token_rate=0.7,
    )
    made.save(out / "layer.safetensors")
    again = suture.load_stitched(out / "layer.safetensors", model, model)
    write(
        out / "told.json", {"accuracy": made.accuracy(batches(test)), "loaded": again.accuracy(batches(test))}
    )


@case()
def found_sites(out: Path) -> None:
    """Find sites, capture what they output, run the rest of the network; a dry run."""
    x, y = images(24)
    text = batches(texts(6, 9))[0]
    found_by_name = {}
    for name, inputs, sites in (
        ("digits0", x, None),
        ("digits0", x, "layer*.0"),
        ("small0", x, ["block2", "head"]),
        ("skipping", x, ["block1", "block2"]),
        ("vit", x, None),
        ("vectors", x, ["first", "second"]),
        ("bert", text, None),
        ("gpt", text, None),
    ):
        model = network(name)
        infos = suture.find_sites(model, inputs, sites)
        values = suture.capture(model, inputs, [str(i.site) for i in infos])
        found_by_name[f"{name}, {sites}"] = [
            {
                "site": str(i.site),
                "shape": str(i.shape),
                "bypass": [str(b) for b in i.bypass],
                "final": i.final,
                "of": list(values[str(i.site)].shape),
                "values": values[str(i.site)].detach().flatten()[:12],
            }
            for i in infos
        ]
    write(out / "sites.json", found_by_name)
    _tail_and_dry_run(out, x, y)


def _tail_and_dry_run(out: Path, x: torch.Tensor, y: torch.Tensor) -> None:
    """Run the rest of a network, and try a comparison on a few examples."""
    small = network("small0")
    behind = suture.run_tail(small, x, "block1", suture.capture(small, x, ["block1"])["block1"].flip(0))
    dry = suture.dry_run(
        small,
        network("digits0"),
        data=(x, y),
        test=images(12, "test"),
        device="cpu",
        methods=["dm", "tlm"],
        target_sites=["layer1.0"],
        indices=["default", "cka@flatten"],
        jackknife=5,
    )
    write(out / "tail.json", behind.detach())
    write(
        out / "dry.json",
        {
            "names": dry.names,
            "examples": dry.examples,
            "state": dry.state,
            "micro_batch": dry.micro_batch,
            "stages": list(dry.seconds),
            "sites": [[str(i.site) for i in s] for s in (dry.source, dry.target)],
        },
    )


def matrices(n: int, p: int, q: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make two related matrices with the same rows, with uneven columns and a mean."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, 3))
    x = shared @ rng.standard_normal((3, p)) + rng.standard_normal((n, p)) + 2
    y = np.maximum(shared @ rng.standard_normal((3, q)) + rng.standard_normal((n, q)), 0) * np.arange(
        1, q + 1
    )
    return x, y


@case(FLOAT64)
def of_matrices(out: Path) -> None:
    """Compute indices of matrices in memory."""
    x, y = matrices(120, 7, 9)
    wanted = [
        "all",
        "svcca:0.9",
        "shape:0.25",
        "cka_rbf:0.5",
        "jaccard:3",
        total_overlap,
        indices.own(first_columns, "first_pair", larger_is_more_similar=False),
    ]
    write(out / "all.json", indices.of_matrices(x, y, wanted, jackknife=20, sample=90, seed=1))
    write(out / "default.json", indices.of_matrices(torch.from_numpy(x).float(), y))
    write(out / "few.json", indices.of_matrices(x[:8], y[:8], "all"))
    write(out / "dead.json", indices.of_matrices(x * (np.arange(7) > 1), y * (np.arange(9) != 4), "all"))
    write(out / "constant.json", indices.of_matrices(x * 0 + 1, y, "all"))
    write(
        out / "logits.json",
        {
            "labels": indices.of_logits(x, x[::-1] + y[:, :7], np.arange(120) % 7),
            "none": indices.of_logits(x, y[:, :7]),
        },
    )
    streaming = indices.Streaming(["default", "rsa_kendall", "r2_folds"], jackknife=5, sample=50, seed=2)
    for start in range(0, 120, 50):
        streaming.update(x[start : start + 50], y[start : start + 50])
    write(out / "streaming.json", streaming.values())


@case(FLOAT64)
def of_files(out: Path) -> None:
    """Compute indices of arrays in files and folders, and of saved moments that are merged."""
    x, y = matrices(200, 5, 6, seed=1)
    with TemporaryDirectory() as scratch:
        here = Path(scratch)
        for side, array in (("x", x), ("y", y)):
            np.save(here / f"{side}.npy", array)
            np.savez(here / f"{side}.npz", array.astype(np.float32))
            (here / side).mkdir()
            for k in range(2):
                np.save(here / side / f"{k}.npy", array[100 * k : 100 * k + 100])
        write(
            out / "npy.json",
            suture.compare_arrays(here / "x.npy", here / "y.npy", "all", jackknife=10, sample=60),
        )
        write(out / "npz.json", suture.compare_arrays(here / "x.npz", here / "y.npz"))
        write(out / "folder.json", suture.compare_arrays(here / "x", here / "y", ["moments", "jaccard:5"]))
    files = [out / f"{k}.safetensors" for k in range(2)]
    for k, file in enumerate(files):
        suture.compare_arrays(
            x[100 * k : 100 * k + 100], y[100 * k : 100 * k + 100], "moments", jackknife=5, save=file
        )
    write(out / "merged.json", suture.merged_moments(files, "default", intervals=True))
    write(out / "one.json", suture.merged_moments(files[:1], ["cka", "opd", "svcca:0.9"]))


# -- helpers


def _same(one: Path, other: Path, allowed: float = 0.0) -> bool:
    return not Differences(allowed=allowed).folders(one, other).problems


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
