"""Due work is arithmetic on a grid; the sensor's answers to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from liq_pipeline.defs.live.due import floor_to, poll_slot, seconds_to_next_slot

MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - made aware
STEPS = st.sampled_from([10, 15, 60, 300])


@given(MOMENTS, STEPS)
def test_the_grid_point_is_the_last_at_or_before_the_moment(moment: datetime, step: int) -> None:
    point = floor_to(moment, step)
    assert point <= moment < point + timedelta(seconds=step)
    assert int(point.timestamp()) % step == 0
    assert point.microsecond == 0


@given(MOMENTS)
def test_a_polling_round_begins_before_its_grid_point(moment: datetime) -> None:
    slot = poll_slot(moment, 10, 4.5)
    pause = seconds_to_next_slot(moment, 10, 4.5)
    assert 0 < pause <= 10
    begins = moment + timedelta(seconds=pause + 0.001)
    assert poll_slot(begins, 10, 4.5) == slot + 1
    to_point = 10 - begins.timestamp() % 10
    assert 4.4 < to_point <= 4.5
