"""Networks and data from their specs, as a command line or a study names them."""

from suture.specs.data import ReadingOptions as ReadingOptions
from suture.specs.data import as_image_sets as as_image_sets
from suture.specs.data import call_user_function as call_user_function
from suture.specs.data import load_data as load_data
from suture.specs.data import load_inputs as load_inputs
from suture.specs.data import runs_code as runs_code
from suture.specs.network_spec import LoadedNetwork as LoadedNetwork
from suture.specs.networks import build_network as build_network
from suture.specs.networks import find_sizes as find_sizes
from suture.specs.networks import imports_code as imports_code
from suture.specs.prepared_data import prepare_data as prepare_data
