import pytest

from raypruning.errors import SpecError
from raypruning.models.base import check_image_size, read_options


def test_options_that_are_not_given_have_their_defaults():
    assert read_options("net", {"b": 2}, {"a": "x", "b": 1}) == {"a": "x", "b": 2}


def test_an_unknown_option_is_refused_with_the_allowed_ones():
    with pytest.raises(SpecError, match=r"net has no option 'widht': its options are depth, width"):
        read_options("net", {"widht": 2}, {"width": 1, "depth": 1})


def test_a_model_without_options_says_so():
    with pytest.raises(SpecError, match="no option 'width': it has none"):
        read_options("net", {"width": 2}, {})


def test_an_integer_is_taken_for_a_float():
    value = read_options("net", {"dropout": 0}, {"dropout": 0.5})["dropout"]
    assert value == 0.0
    assert isinstance(value, float)


@pytest.mark.parametrize("value", [True, "0.5", None])
def test_an_option_of_another_type_is_refused(value):
    with pytest.raises(SpecError, match="'dropout' of the model net takes a float, got"):
        read_options("net", {"dropout": value}, {"dropout": 0.5})


def test_an_image_that_is_too_small_is_refused_with_the_smallest_size():
    check_image_size("net", 16, at_least=16)
    with pytest.raises(SpecError, match="net takes images of at least 16 px, got 15 px"):
        check_image_size("net", 15, at_least=16)
