import pytest

from raypruning.reporting import wording


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.869, "86.9 %"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.9996, "99.96 %"), (0.99999, "99.999 %")],
)
def test_percent_never_rounds_a_part_to_all(fraction, text):
    assert wording.percent(fraction) == text


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.012, "+1.2"), (-0.012, "−1.2"), (0.0, "0.0"), (-0.0004, "0.0"), (0.1634, "+16.3")]
)
def test_signed_points_has_a_sign_unless_it_shows_zero(fraction, text):
    assert wording.signed_points(fraction) == text


@pytest.mark.parametrize(
    ("delta", "text"), [(0.005, "0.5 points"), (0.01, "1 point"), (0.1, "10 points"), (0.0001, "0.01 points")]
)
def test_points_is_exact_and_short(delta, text):
    assert wording.points(delta) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.42, "0.4 s"), (45.3, "45 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_duration_takes_the_unit_a_person_would(seconds, text):
    assert wording.duration(seconds) == text


def test_count_adds_an_s_but_to_one():
    assert (wording.count(1, "image"), wording.count(0, "image")) == ("1 image", "0 images")
    assert wording.count(10_000, "image") == "10\N{NO-BREAK SPACE}000 images"


@pytest.mark.parametrize(("number", "text"), [(512, "512"), (61_706, "61.7 k"), (7_832_000_000, "7.83 G")])
def test_magnitude_has_three_digits(number, text):
    assert wording.magnitude(number) == text
