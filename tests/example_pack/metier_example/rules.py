"""Functions that the YAML files of the example pack name."""

from collections.abc import Mapping
from typing import Any

import regex


def hive_check(text: str) -> bool:
    """Return whether the last digit of a hive number is the sum of the others modulo 10."""
    digits = [int(char) for char in text if char.isdecimal()]
    return len(digits) > 1 and sum(digits[:-1]) % 10 == digits[-1]


def hive_count(text: str) -> int | None:
    """Return the first number of an answer, or None."""
    found = regex.search("[0-9]+", text)
    return int(found.group()) if found else None


def count_match(answer: str, fields: Mapping[str, Any]) -> float:
    """Return 1.0 if answer and target name the same number."""
    return float(hive_count(answer) == hive_count(str(fields["target"])))
