"""Linear probes of any site at any ranks: what a linear classifier reads off a representation."""

from suture.studies.probes.call import ProbeOptions as ProbeOptions
from suture.studies.probes.call import probe as probe
from suture.studies.probes.principal_components import Basis as Basis
from suture.studies.probes.recipe import ProbeRecipe as ProbeRecipe
from suture.studies.probes.result import Probes as Probes
