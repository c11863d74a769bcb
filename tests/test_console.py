"""Durations as they are printed."""

from resnetlab.console import age, duration


def test_durations_by_hand() -> None:
    assert (duration(93784), duration(59.6), duration(None)) == ("26:03:04", "0:01:00", "?")
    assert [age(seconds) for seconds in (59, 150, 7200, 200_000)] == ["59s", "2m", "2h", "2d"]
