"""Sites of a network: found by name, inspected in two forward passes, captured, and run on from."""

from suture.networks.sites.inspection import SiteInfo as SiteInfo
from suture.networks.sites.site import Site as Site
from suture.networks.sites.site_choice import SiteName as SiteName
from suture.networks.sites.site_choice import SiteSpec as SiteSpec
from suture.networks.sites.sited_network import SitedNetwork as SitedNetwork
from suture.networks.sites.sited_network import capture as capture
from suture.networks.sites.sited_network import find_sites as find_sites
from suture.networks.sites.sited_network import run_tail as run_tail
