"""Names, numbers and chances in words."""

import pytest

from serve.pages import label, lower_first, rounded_to, times


@pytest.mark.parametrize(
    ("value", "half_width", "told"),
    [
        (72.31, 9.01, "72"),
        (72.31, 1.2, "72.3"),
        (1234.5, 120, "1,230"),
        (0.01234, 0.001, "0.0123"),
        (-0.2, 9, "0"),
        (5.0, 0, "5"),
    ],
)
def test_number_is_as_exact_as_its_interval(value, half_width, told):
    assert rounded_to(value, half_width) == told


def test_level_of_an_interval_is_told_without_percent():
    assert [times(level) for level in (0.9, 0.95, 0.8, 0.995)] == [
        "9 times in 10",
        "19 times in 20",
        "4 times in 5",
        "199 times in 200",
    ]


def test_names_become_words():
    assert [label(name) for name in ("floor_area", "CO2_level", "_")] == [
        "Floor area",
        "CO2 level",
        "_",
    ]
    assert [lower_first(text) for text in ("Floor area", "CO2 level")] == [
        "floor area",
        "CO2 level",
    ]
