"""Check digits and ranges of the general identifiers. Each takes the matched text (width folded) and says whether it can be one."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from datetime import date

__all__ = [
    "USCC_ALPHABET",
    "VALIDATORS",
    "ipv4",
    "iso7064_mod11_2",
    "luhn",
    "luhn_digit",
    "nanp_phone",
    "payment_card",
    "resident_id",
    "resident_id_15",
    "resident_id_digit",
    "us_ssn",
    "uscc",
    "uscc_digit",
    "vehicle_number",
]

USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""The 31 characters of GB 32100-2015, table 1 (no I, O, S, V, Z)."""

_VIN_VALUES = {
    **{str(digit): digit for digit in range(10)},
    **dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9], strict=True)),
}
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def _digits(text: str) -> str:
    return "".join(char for char in text if char in "0123456789")


def resident_id_digit(body: str) -> str:
    """Return the check character for 17 digits: ISO 7064 MOD 11-2, as GB 11643-1999 applies it."""
    total = sum(int(digit) * pow(2, 17 - index, 11) for index, digit in enumerate(body))
    return "10X98765432"[total % 11]


def iso7064_mod11_2(text: str) -> bool:
    """Return whether the last character is the ISO 7064 MOD 11-2 check of the 17 digits before it."""
    return len(text) == 18 and text[:17].isdecimal() and resident_id_digit(text[:17]) == text[17].upper()


def _is_date(year: str, month: str, day: str) -> bool:
    try:
        return int(year) >= 1850 and bool(date(int(year), int(month), int(day)))
    except ValueError:
        return False


def resident_id(text: str) -> bool:
    """Return whether 18 characters are a resident id of GB 11643-1999: check character, a real date of birth, a region not beginning with 0.

    The county is not looked up: codes were withdrawn and given anew, and residence permits of Hong Kong, Macau and Taiwan (81, 82, 83) and
    of foreigners (9) have regions that no list of counties holds.
    """
    return text[:1] != "0" and iso7064_mod11_2(text) and _is_date(text[6:10], text[10:12], text[12:14])


def resident_id_15(text: str) -> bool:
    """Return whether 15 digits can be a resident id of the first generation (GB 11643-1989: no check digit, year of two digits)."""
    return len(text) == 15 and text.isdecimal() and text[0] != "0" and _is_date("19" + text[6:8], text[8:10], text[10:12])


def luhn_digit(body: str) -> str:
    """Return the check digit of ISO/IEC 7812-1 annex B for a string of digits."""
    total = 0
    for index, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def luhn(text: str) -> bool:
    """Return whether the digits of `text` end in their Luhn check digit."""
    digits = _digits(text)
    return len(digits) > 1 and luhn_digit(digits[:-1]) == digits[-1]


def payment_card(text: str) -> bool:
    """Return whether `text` can be a payment card: 13 to 19 digits, Luhn, an industry digit that cards have (ISO/IEC 7812-1: 2 to 6, 8, 9).

    Numbers beginning 9999 (national use, country code 999 is nobody's) are the surrogates of this project.
    """
    digits = _digits(text)
    return 13 <= len(digits) <= 19 and digits[0] in "2345689" and digits[:4] != "9999" and len(set(digits)) > 1 and luhn(digits)


def us_ssn(text: str) -> bool:
    """Return whether nine digits can be a US social security number: area not 000, 666 or 9xx, group not 00, serial not 0000 (SSA, POMS RM 10201.035)."""
    digits = _digits(text)
    return len(digits) == 9 and digits[:3] not in {"000", "666"} and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def nanp_phone(text: str) -> bool:
    """Return whether `text` can be a number of the North American plan: area and exchange [2-9]xx, not N11; area 555 is nobody's (NANPA)."""
    digits = _digits(text)
    if len(digits) == 11 and digits[0] == "1":
        digits = digits[1:]
    if len(digits) != 10:
        return False
    area, exchange = digits[:3], digits[3:6]
    return all(part[0] in "23456789" and part[1:] != "11" for part in (area, exchange)) and area != "555"


def uscc_digit(body: str) -> str:
    """Return the check character of GB 32100-2015 for 17 characters: weights 3^i mod 31."""
    total = sum(USCC_ALPHABET.index(char) * pow(3, index, 31) for index, char in enumerate(body))
    return USCC_ALPHABET[-total % 31]


def uscc(text: str) -> bool:
    """Return whether 18 characters are a unified social credit code (GB 32100-2015); no authority has the code 0."""
    text = text.upper()
    return len(text) == 18 and text[0] != "0" and all(char in USCC_ALPHABET for char in text) and uscc_digit(text[:17]) == text[17]


def ipv4(text: str) -> bool:
    """Return whether `text` is an IPv4 address that can point at somebody: not loopback, unspecified or reserved for documentation (RFC 5737)."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    documentation = any(address in ipaddress.IPv4Network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"))
    return not (address.is_loopback or address.is_unspecified or documentation)


def vehicle_number(text: str) -> bool:
    """Return whether 17 characters are a vehicle identification number with a right check character (GB 16735-2019, ISO 3779)."""
    text = text.upper()
    if len(text) != 17 or any(char not in _VIN_VALUES for char in text):
        return False
    total = sum(_VIN_VALUES[char] * weight for char, weight in zip(text, _VIN_WEIGHTS, strict=True))
    return "0123456789X"[total % 11] == text[8]


VALIDATORS: Mapping[str, Callable[[str], bool]] = {
    "ipv4": ipv4,
    "nanp_phone": nanp_phone,
    "payment_card": payment_card,
    "resident_id": resident_id,
    "resident_id_15": resident_id_15,
    "us_ssn": us_ssn,
    "uscc": uscc,
    "vehicle_number": vehicle_number,
}
"""The functions that ``data/identifiers.yaml`` names."""
