from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.privacy.dates import shift


@pytest.mark.parametrize(
    ("text", "days", "expected"),
    [
        ("2022-03-01", 10, "2022-03-11"),
        ("2022/3/1", -1, "2022/2/28"),
        ("2022.12.31", 1, "2023.01.01"),
        ("20220301", 30, "20220331"),
        ("2022年3月1日", 40, "2022年4月10日"),
        ("2022年03月01日", 3, "2022年03月04日"),
        ("2022年3月", 31, "2022年4月"),
        ("3月1日", -1, "2月28日"),
        ("5月1号", 2, "5月3号"),
        ("二〇二二年三月一日", 30, "二〇二二年三月三十一日"),
        ("二〇二二年十一月二十日", 1, "二〇二二年十一月二十一日"),
        ("March 1, 2022", 1, "March 2, 2022"),
        ("Dec 31, 2022", 1, "Jan 1, 2023"),
        ("March 1st, 2022", 1, "March 2nd, 2022"),
        ("5 Mar 2022", -5, "28 Feb 2022"),
        ("03/01/2022", 1, "03/02/2022"),
        ("3/1/2022", -1, "2/28/2022"),
        ("March 31", 1, "April 1"),
    ],
)
def test_the_writing_is_kept(text: str, days: int, expected: str) -> None:
    assert shift(text, days) == expected


@pytest.mark.parametrize("text", ["2022-13-01", "2022-02-30", "yesterday", "", "Foo 3, 2022", "9999-12-31"])
def test_what_is_no_date_is_said_to_be_none(text: str) -> None:
    assert shift(text, 1) is None


@given(st.dates(date(1900, 1, 1), date(2090, 1, 1)), st.dates(date(1900, 1, 1), date(2090, 1, 1)), st.integers(-365, 365))
def test_intervals_are_kept(one: date, other: date, days: int) -> None:
    moved = [date.fromisoformat(shift(day.isoformat(), days) or "") for day in (one, other)]
    assert moved[1] - moved[0] == other - one
    assert moved[0] == one + timedelta(days=days)
