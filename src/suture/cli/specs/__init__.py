"""Networks and data by what is written on a command line.

``module:function`` imports *your* code and calls the function: only give it code that you trust, as with any import.
"""

from suture.cli.specs.code import inputs as inputs
from suture.cli.specs.data import DATA as DATA
from suture.cli.specs.data import data as data
from suture.cli.specs.named import Named as Named
from suture.cli.specs.networks import NETWORK_KINDS as NETWORK_KINDS
from suture.cli.specs.networks import network as network
