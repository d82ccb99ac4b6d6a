"""Which tensor of a network's output is scored, and what its values are."""

from __future__ import annotations

from contextlib import suppress

from torch import Tensor

from suture._base import SutureError, convert_tensors, describe_value, expect
from suture.networks import (
    OutputKind,
    Readout,
    apply,
    describe_outputs,
    disable_gradients,
    find_last_operations,
    is_unbounded,
    lies_within,
    name_tensors,
    sums_to_one,
)
from suture.representations import get_token_mask
from suture.stitching.output_evidence import Evidence
from suture.stitching.tasks import Task

_REPRESENTATIONS = ("attention", "embed", "encod", "feat", "hidden", "latent", "pool", "repr")
"""Parts of the names of outputs that are representations."""


def read_choice(given: str | int | None, evidence: Evidence) -> tuple[str | None, OutputKind | None]:
    """Return place and kind of an output as a user gives it, both None where they are to be found.

    A number that is no place counts the tensors of the output, from the end if it is negative.
    """
    if given is None:
        return None, None
    path, kind = Readout.parse(str(given))
    expect(path is not None or kind is not None, "an output's name, position or kind", repr(given),
           "leave output out, or write @logits")
    places = list(evidence.named)
    if path is None or path in places:
        return path, kind
    if path in [k.value for k in OutputKind]:
        return None, OutputKind(path)
    try:
        return places[int(path)], kind
    except (ValueError, IndexError):
        raise SutureError(f"unknown output {path!r}; write one of "
                          f"{describe_outputs(evidence.named)}") from None


def choose_output(evidence: Evidence, task: str) -> tuple[str, str]:
    """Choose the tensor that is scored: the place, and a sentence if there was a choice.

    It is the only one, or the one called "logits". Else labels and shapes decide, then the number of labels
    that the largest value meets, then names. Hidden states of tokens come before outputs (N, K) that meet no
    label. A `SutureError` lists the choices if nothing decides.
    """
    places = list(evidence.named)
    expect(bool(places), "a floating point tensor among the outputs of the network",
           describe_value(evidence.root.output), "wrap the network so that it returns one")
    called = [p for p in places if "logits" in (p.split(".")[0], p.split(".")[-1])]
    if len(places) == 1 or called:
        return (called or places)[0], ""
    of_tokens = task != "auto" and Task(task).of_tokens
    fitting = _list_fitting(evidence, of_tokens)
    labels, main = evidence.labels, _leave_out_auxiliary(evidence)[0]
    if task == Task.NONE.value:
        numbers = labels is not None and labels.is_floating_point() and len(fitting) == 1
        return (fitting if numbers else places)[0], ""
    met = (p for p in fitting if evidence.count_hits(p).beat_chance)
    if task == "auto" and _is_hidden(main, evidence) and not any(met):
        return main, ""
    path, why = _weigh(fitting, evidence) if len(fitting) > 1 else ((fitting or [main])[0], "by its shape")
    return path, f"of the outputs {describe_outputs(evidence.named)}, {path!r} is scored: {why}"


def _leave_out_auxiliary(evidence: Evidence) -> list[str]:
    places = list(evidence.named)
    return [p for p in places if "aux" not in p.lower()] or places


def _is_hidden(path: str, evidence: Evidence) -> bool:
    """Return True for tokens (N, T, D) without labels, if no output is as wide as the vocabulary."""
    aligned = evidence.labels is not None and evidence.labels.ndim == 2
    return evidence.named[path].ndim == 3 and not aligned and all(
        t.ndim != 3 or t.shape[2] != evidence.vocabulary for t in evidence.named.values())


def _list_fitting(evidence: Evidence, of_tokens: bool) -> list[str]:
    """List the outputs whose shape fits the labels; without labels, those (N, K) or of the vocabulary.

    With `of_tokens` they are (N, T, K).
    """
    main, labels = _leave_out_auxiliary(evidence), evidence.labels
    shapes = {p: evidence.named[p].shape for p in main}
    words = [p for p, s in shapes.items() if len(s) == 3 and s[2] == evidence.vocabulary]
    if words and (labels is None or labels.ndim == 2):
        return words
    if of_tokens:
        return [p for p, s in shapes.items() if len(s) == 3]
    return [p for p in main if _fits_labels(evidence.named[p], labels)]


def _fits_labels(x: Tensor, labels: Tensor | None) -> bool:
    if labels is None:
        return x.ndim == 2
    if labels.is_floating_point():
        one, other = ([n for n in t.shape[1:] if n > 1] for t in (x, labels))
        return x.ndim > 0 and one == other
    if labels.ndim > 1:
        return x.ndim in (2, 3) and x.shape[1] == labels.shape[1]
    if x.ndim == 1 or (x.ndim == 2 and x.shape[1] == 1):
        return set(labels.tolist()) <= {0, 1}
    return x.ndim == 2 and x.shape[1] > int(labels.max())


def _weigh(fitting: list[str], evidence: Evidence) -> tuple[str, str]:
    """Choose among several outputs that fit the labels, and return the reason."""
    hits = {p: evidence.count_hits(p) for p in fitting}
    best, second, *_ = sorted(fitting, key=lambda p: -hits[p].hits)
    if hits[best].beat_chance and 2 * hits[second].hits < hits[best].hits:
        return best, f"its largest value meets {hits[best].hits} of {hits[best].n} labels"
    labels = evidence.many_labels
    classes = 0 if labels is None or labels.is_floating_point() else int(labels.max()) + 1
    exact = [p for p in fitting if evidence.named[p].shape[-1] == classes]
    named = [p for p in fitting if not any(word in p.lower() for word in _REPRESENTATIONS)]
    for found, why in ((exact, f"it is as wide as the number of classes, {classes}"), (named, "by its name")):
        if len(found) == 1:
            return found[0], why
    raise SutureError("cannot tell which output is scored; write output=... with one of "
                      f"{describe_outputs({p: evidence.named[p] for p in fitting})}")


def find_kind(path: str, evidence: Evidence, single: bool) -> tuple[OutputKind, str]:
    """Find what the values of logits are, and a sentence on it if they are probabilities.

    Rows that sum to one are probabilities. So are values in [0, 1] that a sigmoid made, for each class alone.
    `single` outputs are one number for each example. A `SutureError` lists the choices for other values in
    [0, 1] that no layer without bounds made.
    """
    x = evidence.named[path]
    if not single and is_logarithmic(x):
        return OutputKind.LOG_PROBABILITIES, ""
    if not lies_within(x) or not lies_within(more := evidence.get_many(path)):
        return OutputKind.LOGITS, ""
    if not single and sums_to_one(more):
        return OutputKind.PROBABILITIES, "the output is probabilities: their logarithms are scored as logits"
    operations = find_last_operations(evidence.network, evidence.few, path)
    if operations == {"Sigmoid"}:
        return OutputKind.SIGMOID, ("the output is a probability p for each class alone: log(p / (1 - p)) is "
                                    "scored as its logit")
    if is_unbounded(operations):
        return OutputKind.LOGITS, ""
    raise SutureError(f"all values of the output lie in [0, 1]; write output='{path}@sigmoid', "
                      f"'{path}@probabilities' or '{path}@logits', or task='none'")


def has_tokens(path: str, evidence: Evidence) -> bool:
    """Return True if an output (N, T) has a number for each token: it is shorter if the inputs are."""
    x, mask = evidence.named[path], get_token_mask(evidence.tokens)
    if mask is None or x.ndim != 2 or x.shape != mask.shape or mask.shape[1] < 2:
        return False
    shorter = convert_tensors(evidence.few, lambda t: t[:, :-1] if t.shape[:2] == x.shape else t)
    with disable_gradients(), suppress(RuntimeError):
        return name_tensors(apply(evidence.network, shorter))[path].shape[1] == x.shape[1] - 1
    return False


def is_logarithmic(x: Tensor) -> bool:
    """Return True if the rows are logarithms of probabilities that sum to one."""
    return bool((x <= 0).all()) and sums_to_one(x.exp())
