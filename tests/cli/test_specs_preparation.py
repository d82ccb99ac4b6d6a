"""What a command gives to each network of the data."""

from __future__ import annotations

import pytest
from torch import Tensor

from suture import Prepared, SutureError, zoo
from suture.cli.specs.network_spec import LoadedNetwork
from suture.cli.specs.preparation import adjust_preprocessing, make_example_inputs, prepare_data
from suture.data import ImagePreprocessing
from tests.support import tiny
from tests.support.tiny import rgb


class Spelled:
    """A preprocessing that a network brings."""

    def __call__(self, raw: Tensor) -> Tensor:
        return raw


def test_data_of_the_users_own_code_are_not_prepared_unless_told() -> None:
    own, mine = (tiny.images(), tiny.labels()), zoo.digits("test")
    assert prepare_data(own, Spelled(), Spelled()) is own
    assert isinstance(prepare_data(own, Spelled(), Spelled(), always=True), Prepared)
    assert isinstance(prepare_data(mine, None, None), Prepared)


def test_a_length_is_for_networks_with_a_tokenizer() -> None:
    how = ImagePreprocessing()
    assert adjust_preprocessing(how) is how
    assert adjust_preprocessing(how, "raw") is None
    assert adjust_preprocessing(how, "size=3") == ImagePreprocessing(size=(3, 3))
    for options in ({"length": 8}, {"mask_rate": 0.1}):
        with pytest.raises(SutureError, match="tokenizer"):
            adjust_preprocessing(how, **options)


def test_example_inputs_are_what_the_network_asks_for() -> None:
    of = LoadedNetwork(rgb(), None, "mine:net")
    assert make_example_inputs(of, None, ImagePreprocessing(size=(5, 6), channels=1)).shape == (4, 1, 5, 6)
    assert make_example_inputs(of, None, ImagePreprocessing(size=(5, 6))).shape == (4, 3, 5, 6)
    assert make_example_inputs(of, (tiny.images(9), tiny.labels(9)), None).shape == (4, 2, 8, 8)
