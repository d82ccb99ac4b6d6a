"""Preparation of networks: device, private frozen copies, folded batch norms, size of the micro-batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from suture._base import (
    ExampleList,
    SutureError,
    convert_examples,
    convert_tensors,
    count_examples,
    expect,
    list_tensors,
    report_errors,
    show_value,
    summarise_error,
)
from suture.data import advise_graph
from suture.networks.arguments import apply, list_arguments, takes_any_name
from suture.networks.calls import (
    Call,
    dequantise,
    disable_gradients,
    extract_tensors,
    freeze,
    intercept_calls,
    record,
    walk,
)
from suture.networks.copying import copy_network
from suture.networks.wrappers.unwrapping import open_network

CPU_BUDGET = 13 * 2**20
GPU_BUDGET = 2 * 2**30
"""Bytes allowed for a micro-batch's largest activation; a CPU's should fit the cache (benchmarks/grid.py)."""
_SHOWN = 4
"""Number of shapes that a message names."""
_ALONE = 2, 4
"""Numbers of first examples that a network must run on alone."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Find the device called `name`: "auto" means cuda, else mps, else cpu.

    Raises:
        SutureError: an unknown device, or one that is not there.
    """
    have = {"cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
            "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    expect(isinstance(name, str | torch.device), "a device auto, cpu, cuda or mps", show_value(name))
    if name == "auto":
        return torch.device(next(d for d in ("cuda", "mps", "cpu") if have[d]))
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError, TypeError) as e:
        raise SutureError(f"expected a device auto, cpu, cuda or mps, got {name!r}") from e
    expect(device.type in have, "a device auto, cpu, cuda or mps", repr(str(name)), "use auto or cpu")
    if (device.index or 0) >= have[device.type]:
        raise SutureError(f"device {str(name)!r} is not available on this machine; use auto or cpu")
    return device


def prepare(network: nn.Module, inputs: Any, device: torch.device, name: str) -> nn.Module:
    """Make a private copy of a network on the device, frozen and in eval mode.

    The copy is in channels last if its output stays the same. The user's network is not changed.

    Args:
        inputs: a batch on `device`; the outputs for its first examples are compared.
        name: name of the network in error messages.

    Raises:
        SutureError: no eager module, float64 weights, or a network that cannot be copied or run.
    """
    network = open_network(network, name)
    double = next((k for k, p in network.named_parameters() if p.dtype == torch.float64), None)
    expect(double is None, f"the {name} in float32 (or half)", f"float64 in {double!r}",
           "pass network.float(), data in float32")
    # A module may hold locks, open files or tensors with a history.
    with report_errors(f"the {name} network cannot be copied",
                       "keep only parameters, buffers and plain values on it, for suture's private copy"):
        mine = copy_network(network, device).eval().requires_grad_(False)
    whole, inputs = inputs, take_first(inputs)
    shapes = [str(tuple(t.shape)) for t in list_tensors(inputs)]
    listed = ", ".join(shapes[:_SHOWN]) + ", ..." * (len(shapes) > _SHOWN)
    with disable_gradients(), report_failure(f"the {name} network fails on inputs of shape {listed}", mine,
                                             whole, name, _advise_inputs(mine, inputs, name)):
        with _refuse_calls(network, mine, name):
            before = apply(mine, inputs)
        _check_equal_to_original(network, inputs, before, name)
    if not any(p.ndim == 4 for p in mine.parameters()):
        return mine
    _try_channels_last(mine, inputs, before)
    return mine


def _try_channels_last(network: nn.Module, inputs: Any, output: Any) -> None:
    """Bring the tensors of a private copy into channels last, where its output stays the same."""
    places: list[tuple[Any, str, Tensor]]
    places = [(of, name, t) for m in network.modules() for of in (m._parameters, m._buffers)
              for name, t in of.items() if t is not None]
    data = [t.data for _, _, t in places]
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    same = False
    # A ``.view`` on a map that is in channels last is an error.
    with disable_gradients(), suppress(RuntimeError):
        same = are_equal_outputs(output, apply(network, inputs))
    if not same:
        for (of, name, t), before in zip(places, data, strict=True):
            of[name] = t
            t.data = before


@contextmanager
def report_failure(what: str, network: nn.Module, whole: Any, name: str, instead: str = "") -> Iterator[None]:
    """Report any error of a network on the first examples of a batch in one line.

    A network that runs on the `whole` batch only, such as one of a graph, does not treat each example alone.
    """
    try:
        yield
    except SutureError:
        raise
    except Exception as e:
        if _runs(network, whole) and not all(_runs(network, take_first(whole, n)) for n in _ALONE):
            advice = advise_graph(whole) or "; give a network that treats each example alone"
            raise SutureError(f"the {name} runs on a whole batch of {count_examples(whole)}, but not on some "
                              f"of its examples alone{advice}") from e
        raise SutureError(f"{what}: {type(e).__name__}: {summarise_error(e)}"
                          f"{'; ' + instead if instead else ''}") from e


def _runs(network: nn.Module, inputs: Any) -> bool:
    try:
        with disable_gradients(), freeze(network):
            apply(network, inputs)
    except Exception:
        return False
    return True


def _refuse_calls(network: nn.Module, mine: nn.Module, name: str) -> AbstractContextManager[None]:
    """Refuse calls of the original's modules while its copy runs: they have another mode and gradients."""
    shared = set(mine.modules())  # a class may share parts with its copies

    def refuse(module: nn.Module, args: tuple[Any, ...], run: Callable[[], Any]) -> Any:
        path = next(p for p, m in network.named_modules() if m is module)
        raise SutureError(f"a hook or function of the {name} calls module {path!r} of the original, not of "
                          "suture's copy; use the module that the hook is given")

    return intercept_calls([m for m in network.modules() if m not in shared], refuse)


def _check_equal_to_original(network: nn.Module, inputs: Any, output: Any, name: str) -> None:
    """Check that a network with hooks gives the output of its copy.

    A hook that acts where a module `is` a certain one does nothing in a copy.
    """
    if not _has_hooks(*network.modules()):
        return
    place = next((p.device for p in network.parameters()), torch.device("cpu"))
    given = convert_tensors(inputs, lambda t: t.to(place))
    with freeze(network):
        own = apply(network, given)
        # A random network is none of a hook's; the search for sites refuses it.
        if are_equal_outputs(own, output) or not are_equal_outputs(own, apply(network, given)):
            return
    raise SutureError(f"a hook changes the {name}, but not suture's copy of it; register the hook on the "
                      "module that it changes, without comparing modules")


def _has_hooks(*modules: nn.Module) -> bool:
    """Return True if a forward hook runs in a call of one of the modules."""
    everywhere = nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks
    return any(everywhere) or any(m._forward_hooks or m._forward_pre_hooks for m in modules)


def _advise_inputs(network: nn.Module, inputs: Any, name: str) -> str:
    is_bytes = any(t.dtype == torch.uint8 and t.ndim > 2 for t in list_tensors(inputs))
    if is_bytes and any(p.is_floating_point() for p in network.parameters()):
        return (f"the inputs are bytes (uint8): write --{name}-input mean=...,std=..., or "
                "Prepared(data, ImagePreprocessing(...))")
    several = isinstance(inputs, tuple | list) and not isinstance(inputs, ExampleList) and len(inputs) > 1
    if several and len(inputs) > len(list_arguments(network)) > 0:
        return (f"a list of {len(inputs)} tensors is {len(inputs)} arguments; for one argument yield "
                "((images,), labels)")
    named = list_arguments(network)
    odd = [k for k in inputs if k not in named] if isinstance(inputs, Mapping) else []
    if odd and named and not takes_any_name(network):
        return (f"{odd[0]!r} is no argument of its forward ({', '.join(named[:3])}); name the parts like "
                "those, or yield (inputs, labels)")
    types, own = ({t.dtype for t in of if t.is_floating_point()}
                  for of in (list_tensors(inputs), network.parameters()))
    if len(types) == len(own) == 1 and types != own:
        return f"its weights are {_name_type(*own)}, the inputs {_name_type(*types)}; convert the inputs"
    return "give it the data it was made for"


def _name_type(of: torch.dtype) -> str:
    return str(of).removeprefix("torch.")


def take_first(inputs: Any, n: int = 4) -> Any:
    """Return the first `n` examples of a batch of inputs."""
    size = count_examples(inputs)
    return convert_examples(inputs, size, lambda part: part[:n])


def fold_batch_norms(network: nn.Module, inputs: Any, unchanged: Collection[str] = ()) -> int:
    """Fold batch norms into the convolutions before them, and return the number of folded ones.

    Each saves one pass over memory. A pair is folded if both modules are called once. Scale and shift move
    into the convolution, and the batch norm returns its input. Module paths and calls stay the same.
    Everything is undone if the output of the network or of another module changes by more than rounding.

    Args:
        network: a private copy (`prepare`) in float32; it is changed.
        inputs: a few examples.
        unchanged: paths of modules whose outputs must not change.
    """
    if not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
        return 0
    with freeze(network), disable_gradients():
        whole = record(network, inputs)
        before = list(walk(whole))
        pairs = _find_foldable(before, unchanged)
        undo = [_fold_pair(conv.module, norm.module) for conv, norm in pairs]
        changed = {id(conv.output) for conv, _ in pairs}
        again = record(network, inputs)
        after = {c.id: c for c in walk(again)}
        same = are_equal_outputs(whole.output, again.output) and all(
            are_equal_outputs(c.output, after[c.id].output) for c in before if id(c.output) not in changed)
        for back in () if same else undo:
            back()
    return len(pairs) if same else 0


def are_equal_outputs(one: Any, other: Any) -> bool:
    """Return True where the tensors in two outputs are equal up to rounding of float32."""
    a, b = ([*map(dequantise, extract_tensors(o))] for o in (one, other))
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x, y.to(x.device), rtol=1e-3, atol=1e-4, equal_nan=True)
        for x, y in zip(a, b, strict=True))


def _find_foldable(calls: Sequence[Call], unchanged: Collection[str]) -> list[tuple[Call, Call]]:
    """Find the (convolution, batch norm) pairs that can be folded without a change of `unchanged` modules."""
    times = Counter(c.path for c in calls)
    kept = {id(t) for c in calls if c.path in unchanged for t in extract_tensors(c.output)}
    # A weight that a parametrization or a hook computes is no parameter of the convolution.
    made = {id(c.output): c for c in calls if isinstance(c.module, _CONVOLUTIONS) and times[c.path] == 1
            and id(c.output) not in kept and "weight" in c.module._parameters
            and c.module.weight.dtype == torch.float32 and not _has_hooks(c.module)}
    norms = (c for c in calls if isinstance(c.module, nn.modules.batchnorm._BatchNorm) and times[c.path] == 1
             and c.module.running_mean is not None and "forward" not in c.module.__dict__ and c.args
             and not _has_hooks(c.module))
    return [(made.pop(id(c.args[0])), c) for c in norms if id(c.args[0]) in made]


def _fold_pair(conv: Any, norm: Any) -> Callable[[], None]:
    """Fold a batch norm into a convolution, and return a function that undoes it."""
    weight, bias = conv.weight, conv.bias
    conv.weight, conv.bias = fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps,
                                                  norm.weight, norm.bias)
    norm.__dict__["forward"] = _return_input

    def back() -> None:
        conv.weight, conv.bias = weight, bias
        del norm.__dict__["forward"]

    return back


def _return_input(x: Tensor) -> Tensor:
    return x


def choose_micro_batch(peak: int, device: torch.device) -> int:
    """Choose the number of examples in a pass, from the bytes `peak` of one example's largest activation."""
    return max(1, (GPU_BUDGET if device.type == "cuda" else CPU_BUDGET) // peak)
