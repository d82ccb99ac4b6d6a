"""The types of arguments that name sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import PlainValidator
from torch import Tensor, nn

from suture._base import keep_parts, refuse
from suture.networks.sites.site import Site


def read_site(given: Any) -> Any:
    """Return the name of a site or a `Site`, and refuse anything else."""
    if not isinstance(given, str | Site):
        raise refuse("a site", "", 'write a string like "layer1.0"')
    return given


def read_sites(given: Any) -> Any:
    """Return a choice of sites, an iterable as a tuple, and refuse anything else."""
    if given is None or isinstance(given, str):
        return given
    if callable(given) and not isinstance(given, type | nn.Module):
        return given
    if isinstance(given, Iterable) and not isinstance(given, bytes | Tensor | Mapping | nn.Module):
        found = keep_parts(given)
        if all(isinstance(site, str | Site) for site in found):
            return found
    raise refuse("names of sites, or a function of (path, module)", "", 'write ["layer1.0", "layer2.0"]')


SiteName = Annotated[str | Site, PlainValidator(read_site)]
"""One site."""
SiteSpec = Annotated[str | Iterable[str | Site] | Callable[[str, nn.Module], bool] | None,
                     PlainValidator(read_sites)]
"""Choice of sites: None (the repeated blocks), a name or glob, several, or a function of (path, module)."""
