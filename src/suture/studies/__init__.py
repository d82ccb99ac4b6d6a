"""Studies of many networks, and of the measures themselves: controls with known answers."""

from suture.studies import controls as controls
from suture.studies.following.finished_pair import FinishedPair as FinishedPair
from suture.studies.following.mlflow import MLflow as MLflow
from suture.studies.following.wandb import WandB as WandB
from suture.studies.measure_tests.call import validate as validate
from suture.studies.measure_tests.measures import MeasuredCell as MeasuredCell
from suture.studies.measure_tests.measures import of_cell as of_cell
from suture.studies.measure_tests.record import TestOutcome as TestOutcome
from suture.studies.measure_tests.record import tabulate_outcomes as tabulate_outcomes
from suture.studies.measure_tests.validation import Validation as Validation
from suture.studies.network_study.call import study as study
from suture.studies.network_study.report import StudyReportOptions as StudyReportOptions
from suture.studies.network_study.report import describe_failures as describe_failures
from suture.studies.network_study.report import describe_study as describe_study
from suture.studies.network_study.report import write_study_report as write_study_report
from suture.studies.network_study.result import Study as Study
from suture.studies.running.processes import Processes as Processes
from suture.studies.running.ray_engine import Ray as Ray
from suture.studies.spec.commands import find_standing as find_standing
from suture.studies.spec.commands import list_garbage as list_garbage
from suture.studies.spec.commands import plan_file as plan_file
from suture.studies.spec.commands import remove_garbage as remove_garbage
from suture.studies.spec.commands import run_file as run_file
from suture.studies.spec.study_file import StudyFile as StudyFile
