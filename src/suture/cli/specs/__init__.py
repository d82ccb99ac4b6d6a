"""Networks and data from their specs on a command line."""

from suture.cli.specs.data import load_data as load_data
from suture.cli.specs.data import load_inputs as load_inputs
from suture.cli.specs.network_spec import LoadedNetwork as LoadedNetwork
from suture.cli.specs.networks import build_network as build_network
