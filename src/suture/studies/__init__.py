"""Studies of many networks, and of the measures themselves: controls with known answers."""

from suture.studies import controls as controls
from suture.studies.network_study.call import study as study
from suture.studies.network_study.result import Study as Study
from suture.studies.running.processes import Processes as Processes
from suture.studies.running.ray_engine import Ray as Ray
