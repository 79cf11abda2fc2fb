"""Units by UCUM: numbers that can be checked by hand, and refusals that never take long."""

import time

import pytest

from wardround.client.connectors.units import conversion
from wardround.protocol.errors import UsageError


@pytest.mark.parametrize(
    ("source", "target", "mass", "value", "expected"),
    [
        ("g/L", "g/dL", None, 120, 12),
        ("mmol/L", "mg/dL", 180.156, 5, 90.078),
        ("mg/dL", "mmol/L", 386.65, 200, 200 / 38.665),
        ("umol/L", "mg/dL", 113.12, 88.4, 88.4 * 0.011312),
        ("Cel", "[degF]", None, 37, 98.6),
        ("[lb_av]", "kg", None, 1, 0.45359237),
        ("{beats}/min", "/min", None, 70, 70),
        ("10*9/L", "10*3/uL", None, 7.5, 7.5),
        ("whatever", "whatever", None, 3, 3),
    ],
)
def test_a_value_is_converted(source: str, target: str, mass: float | None, value: float, expected: float) -> None:
    by = conversion(source, target, mass)
    assert value * by.factor + by.offset == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("source", "target"), [("mg/dL", "kg"), ("mmol/L", "mg/dL"), ("[IU]/L", "mg/L"), ("{score}", "g/L")]
)
def test_what_measures_different_things_is_refused(source: str, target: str) -> None:
    with pytest.raises(UsageError, match="cannot be converted"):
        conversion(source, target)


@pytest.mark.parametrize(
    "code", ["", "milligrams", "10*99999999999", "10*400/uL", "99999999/uL", "m" * 500, "g/(", "\x00"]
)
def test_what_is_no_unit_is_refused_at_once(code: str) -> None:
    began = time.process_time()
    with pytest.raises(UsageError, match="no UCUM unit"):
        conversion(code, "g/L")
    with pytest.raises(UsageError, match="no UCUM unit"):
        conversion("g/L", code)
    assert time.process_time() - began < 20, "some powers would be multiplied out for hours"
