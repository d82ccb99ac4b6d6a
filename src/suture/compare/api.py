"""The public calls from networks and data to a `Comparison`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from typing import Any, Literal

import torch
from torch import nn

from suture._base import Progress, SutureError
from suture.compare.estimate import DryRun, estimate_run
from suture.compare.preparation import start_run
from suture.compare.run import Run
from suture.compare.settings import METHODS, Settings
from suture.compare.stages import list_stages
from suture.indices import Named
from suture.networks import SiteSpec
from suture.ood import DEFAULT_OOD, OOD
from suture.representations import DEFAULT_RULE, AlignmentRule
from suture.results import Comparison
from suture.stitching import FULL, Family, TaskName, TaskRecipe


def compare(source: nn.Module, target: nn.Module | None = None, data: Any = None, test: Any = None, *,
            sites: SiteSpec = None, target_sites: SiteSpec = None,
            methods: Sequence[str] = METHODS, indices: Iterable[Named] | Named = "default",
            jackknife: int = 0, sample: int = 2000,
            tlm: TaskRecipe | None = None, precision: Literal["float32", "float64"] = "float32",
            family: Family | str = FULL, alignment: AlignmentRule = DEFAULT_RULE,
            relu: bool = False, ood: OOD | Iterable[str] | str | None = DEFAULT_OOD,
            allow_bypass: bool = False, names: tuple[str, str] | None = None,
            device: str | torch.device = "auto",
            examples: int | None = None, task: TaskName = "auto", token_rate: float = 1.0,
            forward: Literal["float32", "bf16", "fp16"] = "float32", batch_size: int = 256,
            seed: int = 0, progress: Progress | None = None,
            on_stage: Callable[[Comparison], object] | None = None,
            previous: Comparison | None = None) -> Comparison:
    """Compare two networks layer by layer.

    One pass over `data` gives the moments of all cells, and from them every index and every direct-matching
    layer. Task loss matching trains on `data`. Stitched networks are evaluated on `test`. Each stitched
    representation also gets a distance from the target network's native one (`Comparison.cells`).

    Args:
        source: the network that gives the fronts. It is not changed: a private frozen copy runs, in eval
            mode.
        target: the network that gives the tails. None: stitch `source` to itself.
        data: examples for stitching layers and indices: a DataLoader or re-iterable of (inputs, labels), a
            Dataset, tensors (inputs, labels), or `Paired` loaders if the networks need different inputs.
        test: examples for the evaluation of stitched networks. None: `data` again, with a note in the result.
        sites: sites of the source, and of the target unless given: names, globs, or a function of (path,
            module). Default: the repeated blocks in order of execution.
        target_sites: sites of the target, if they differ.
        methods: ways of stitching: "dm" (direct matching), "tlm" (task loss matching). ``()``: indices only.
        indices: structural indices: names (docs/indices.md) such as "cka", "svcca:0.9" or "cka@flatten",
            groups such as "default", "all" or "moments@pool", entries, or your own functions
            (`suture.indices.own`). A name without ``@`` uses the matrices that the stitching layer maps.
            ``()``: none.
        jackknife: blocks of examples for 95 % intervals of the indices from moments, a multiple of 5. The
            memory of the sums grows with it. Default 0: no intervals; 20 is a good number.
        sample: examples kept for the indices of rows, drawn with `seed`. Default 2000.
        tlm: recipe of task loss matching. Default: `TaskRecipe` with `seed`, which is the paper's without its
            augmentation.
        family: of the stitching layers' affine maps, such as "full" (default), "orthogonal", "ridge:cv" or
            "rank:8" (docs/families.md). Cells whose widths do not allow it are missing, with the reason.
        alignment: the rule for matching positions: resize, its order, and prefix tokens.
        relu: end each stitching layer with a ReLU, for targets whose own representations come from one.
            Direct matching is fitted without it and evaluated with it.
        ood: settings of out-of-distribution scores: an `OOD`, or only names of detectors. Default:
            Mahalanobis distances, tested on auxiliary data that are made from `data`. None: no scores and no
            verdicts of cells.
        precision: of the products in the moments. float64 costs three times as much (see `PairMoments`).
        allow_bypass: accept sites that another path of the network bypasses (see `SitedNetwork`).
        names: of the two networks in tables. Default: their classes.
        device: "auto" (cuda, else mps, else cpu) or a torch device.
        examples: number of first examples of `data` that make the moments, and so indices and direct matching
            (100 in the paper). Task loss matching uses all examples. Default: all.
        task: of the target network's output; stitched networks are scored and trained on it. "classification"
            (logits (N, classes)), "next_token" (causal language models), "tokens" (masked language models,
            token classification: labels (N, T)), or "none" (hidden states: direct matching without a task).
            "auto" (default) finds it in the dry run (`suture.stitching.task_inference.resolve_task`).
        token_rate: share of the unpadded tokens that make the moments, and so indices and direct matching.
            They are drawn with `seed`, the same at every site; under ``@pool`` the mean is over the drawn
            tokens. All other measures use all tokens. Default 1.
        forward: precision of the networks' forward passes (autocast). "bf16" is twice as fast on GPUs that
            support it, and less precise. Representations, moments, layers and scores are always in float32 or
            more.
        batch_size: for data that are no loader.
        seed: of initialisations, data order and bootstraps.
        progress: called as ``progress(stage, done, total)``.
        on_stage: called with the result so far after each stage, for example to save it.
        previous: an earlier, perhaps partial result of exactly the same comparison. Its finished stages are
            not run again.

    Returns:
        The `Comparison`: table, matrices, plots, verdict, report.

    Raises:
        SutureError: bad input. One line says what was expected, what was given and what to write instead.
    """
    run = _start_run(source, target, data, test, sites=sites, target_sites=target_sites,
                     allow_bypass=allow_bypass,
                     names=names, batch_size=batch_size, methods=methods, indices=indices,
                   jackknife=jackknife, sample=sample, tlm=tlm, precision=precision,
                   seed=seed, device=device, progress=progress, family=family, alignment=alignment,
                     examples=examples, relu=relu, ood=ood, task=task, token_rate=token_rate, forward=forward)
    if previous is not None:
        run.take_over(previous)
    result = None
    for stage, work in list_stages(run):
        if stage not in run.done:
            work()
            run.done.append(stage)
            result = run.make_result()
            if on_stage:
                on_stage(result)
    return run.make_result() if result is None else result


def dry_run(*networks_and_data: Any, **options: Any) -> DryRun:
    """Return sites, shapes, memory of the sums and estimated time of `compare` with the same arguments.

    One micro-batch passes every stage twice. `on_stage` and `previous` are ignored.

    Raises:
        SutureError: bad input, as by `compare`.
    """
    given = signature(compare).bind(*networks_and_data, **options)
    given.apply_defaults()
    return estimate_run(_start_run(**{k: v for k, v in given.arguments.items()
                                      if k not in ("on_stage", "previous")}))


def _start_run(source: nn.Module, target: nn.Module | None, data: Any, test: Any, *, sites: SiteSpec,
               target_sites: SiteSpec, allow_bypass: bool, names: tuple[str, str] | None, batch_size: int,
               ood: OOD | Iterable[str] | str | None, **planned: Any) -> Run:
    plan = Settings.of(held_out=test is not None, ood=_make_ood(ood), **planned)
    if names is not None and len(names) != 2:
        raise SutureError(f"expected two names, of source and target, got {len(names)}")
    return start_run(source, target, data, test, plan, sites=sites, target_sites=target_sites,
                     allow_bypass=allow_bypass, names=names, batch_size=batch_size)


def _make_ood(ood: OOD | Iterable[str] | str | None) -> OOD | None:
    if ood is not None and not isinstance(ood, OOD | str | Iterable):
        raise SutureError(f"expected ood as an OOD, names of detectors or None, got {ood!r}; write "
                          "ood=None for none")
    return ood if ood is None or isinstance(ood, OOD) else OOD(ood)


def paper(seed: int = 0) -> dict[str, Any]:
    """Return the arguments of `compare` and `suture.stitch` that make every cell as in the paper.

    >>> suture.compare(network, data=train, test=test, **suture.paper())

    The paper is Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299). The map is a bilinear resize to the
    target's size, then a full affine map (one for all tokens). Direct matching uses the first 100 examples of
    `data`, which should not be augmented. Task loss matching uses `TaskRecipe.paper`. Functional DM is
    ``dm.accuracy``, structural DM is ``dm.residual_batches``.

    Two errors of the published code are not repeated. Its float32 pseudo-inverse drops more directions the
    more rows there are. Its residual belongs to another map than the installed one.

    The paper's detectors are not included, because they take hours. To add them, write
    ``ood=suture.OOD(("energy",), energy=suture.EnergyRecipe.paper(), auxiliary=random_images,
    store="detectors")``.

    Args:
        seed: of initialisations, the order of the data and the augmentation.
    """
    return {"family": FULL, "alignment": AlignmentRule(resize="bilinear", order="before", prefix="auto"),
            "examples": 100, "tlm": TaskRecipe.paper(seed), "seed": seed}
