"""Small networks and data sets by name, and the recipes that train them."""

from suture.zoo.image_sets import ImageSet as ImageSet
from suture.zoo.image_sets import digits as digits
from suture.zoo.kept_training import EpochNotKeptError as EpochNotKeptError
from suture.zoo.kept_training import list_epochs as list_epochs
from suture.zoo.kept_training import make_training_key as make_training_key
from suture.zoo.kept_training import name_epoch as name_epoch
from suture.zoo.kept_training import train_and_save as train_and_save
from suture.zoo.registry import DIGITS_RECIPE as DIGITS_RECIPE
from suture.zoo.registry import RECIPES as RECIPES
from suture.zoo.registry import Entry as Entry
from suture.zoo.registry import Report as Report
from suture.zoo.registry import build as build
from suture.zoo.registry import networks as networks
from suture.zoo.registry import train_network as train_network
from suture.zoo.trained_networks import TrainedNetworks as TrainedNetworks
from suture.zoo.trained_networks import list_trained as list_trained
from suture.zoo.trained_networks import load_trained as load_trained
from suture.zoo.weights import WeightsFile as WeightsFile
from suture.zoo.weights import fit_weights as fit_weights
from suture.zoo.weights import load_weights as load_weights
from suture.zoo.weights import read_metadata as read_metadata
from suture.zoo.weights import read_weights as read_weights
from suture.zoo.weights import save_weights as save_weights
