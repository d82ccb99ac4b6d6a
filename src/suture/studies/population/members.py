"""The networks of a study: given as they are, by a function that builds one, or by a spec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from suture import specs
from suture._base import (
    SutureError,
    expect,
    fingerprint_network,
    hash_network,
    hash_object,
    hash_parts,
    run_foreign,
    show_value,
)
from suture.studies.population.sources import NetworkSource

Given = nn.Module | str | NetworkSource | Callable[[], Any]


@dataclass(frozen=True)
class Member:
    """One network of a study, which need not be in memory.

    Attributes:
        name: in tables.
        given: a module; a function without arguments that returns one, or a pair of one and its
            preprocessing; a spec such as "zoo:resnet_digits"; or a source of networks.
        about: what the user says of it, such as its seed.
    """

    name: str
    given: Given
    about: Mapping[str, Any] = field(default_factory=dict)

    def open(self, like: Any = None) -> specs.LoadedNetwork:
        """Return the network; a function and a spec build it.

        Args:
            like: data that a spec's numbers of classes and channels come from.

        Raises:
            SutureError: it cannot be built, or is no module.
        """
        if isinstance(self.given, nn.Module):
            return specs.LoadedNetwork(self.given, None, self.name)
        if isinstance(self.given, str):
            return specs.build_network(self.given, like=like)
        if isinstance(self.given, NetworkSource):
            return self.given.build(like)
        with run_foreign(f"the function that builds {self.name!r}"):
            made = self.given()
        network, preprocessing = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        expect(isinstance(network, nn.Module), f"a torch.nn.Module from the function of {self.name!r}",
               show_value(network))
        return specs.LoadedNetwork(network, preprocessing, self.name)


    def find_stamp(self, like: Any = None) -> str | None:
        """Return a hash of all that decides the network, without building it; None if that is unknown."""
        return self.given.find_stamp(like) if isinstance(self.given, NetworkSource) else None


def hash_member(loaded: specs.LoadedNetwork) -> str:
    """Return 16 hex digits of all of a network that decides its numbers: weights, structure, code, input."""
    own = hash_network(loaded.network)
    how = loaded.preprocessing
    prepared = repr(how) if type(how).__module__.startswith("suture.") else hash_object(how).short
    return hash_parts({"weights": fingerprint_network(loaded.network), "state": own.state, "code": own.code,
                       "versions": own.versions, "preprocessing": prepared})


def list_members(networks: Any, about: Mapping[str, Mapping[str, Any]]) -> dict[str, Member]:
    """Return the networks of a study by name, in the order given.

    Raises:
        SutureError: no network, two under one name, something that is none, or words on an unknown one.
    """
    named = networks.items() if isinstance(networks, Mapping) else _name_all(networks)
    found: dict[str, Member] = {}
    for name, given in named:
        expect(isinstance(name, str) and bool(name.strip()), "names of networks as texts", show_value(name))
        expect(name not in found, "one name for each network", f"{name!r} twice",
               "give a dictionary {name: network}")
        # A class is callable, and would be built with random weights without a word.
        fit = (isinstance(given, nn.Module | str | NetworkSource)
               or (callable(given) and not isinstance(given, type)))
        expect(fit, f"a module, a function that builds one, or a spec as {name!r}", show_value(given))
        found[name] = Member(name, given, read_words(name, about.get(name, {})))
    expect(bool(found), "at least one network", "none")
    strange = next((name for name in about if name not in found), None)
    if strange is not None:
        raise SutureError(f"expected words about networks of the study, got {strange!r}; its networks are "
                          f"{', '.join(found)}")
    return found


def read_words(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a network as plain values; those of NumPy become Python's.

    Raises:
        SutureError: something else, or a word that is a column of every table.
    """
    found = {}
    for key, value in given.items():
        plain = value.item() if isinstance(value, np.generic) else value
        expect(isinstance(key, str) and (plain is None or isinstance(plain, str | bool | int | float)),
               f"texts and numbers about {name!r}", f"{key!r}: {show_value(value)}")
        expect(key != "network", f"another word than 'network' about {name!r}", show_value(value),
               "write model=, as the table has columns source_network and target_network")
        found[key] = plain
    return found


def _name_all(networks: Any) -> Iterable[tuple[str, Any]]:
    """Name a list of networks: by their specs, else by their classes with a number."""
    expect(isinstance(networks, Iterable) and not isinstance(networks, str | nn.Module),
           "several networks, as a dictionary {name: network} or a list", show_value(networks))
    listed = list(networks)
    names = [given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
             for given in listed]
    counts = {name: names.count(name) for name in names}
    for k, (name, given) in enumerate(zip(names, listed, strict=True)):
        yield name if counts[name] == 1 else f"{name} {k}", given
