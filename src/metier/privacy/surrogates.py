"""Generators of surrogates: each makes, from a stream of keyed random numbers, a value of the same kind that is nobody's."""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from metier.config import load_yaml
from metier.packs.matching import fold_width
from metier.privacy.validators import USCC_ALPHABET, luhn_digit, resident_id_digit, uscc_digit

__all__ = ["GENERATORS", "Draw", "normalise", "shape", "words"]

_HAN = regex.compile(r"\p{Han}")
_WIDE_ZERO = 0xFF10
_EARLIEST_BIRTH = "1937"


@lru_cache(maxsize=1)
def words() -> Mapping[str, Any]:
    """Return the material of ``data/words.yaml``: surnames, invented places and roads, numerals."""
    value: Mapping[str, Any] = load_yaml(Path(__file__).parent / "data" / "words.yaml").value
    return value


class Draw:
    """Deterministic draws for one value: HMAC-SHA256 (RFC 2104) of the project's key seeds the stream, so equal values draw equally."""

    def __init__(self, key: bytes, *parts: str) -> None:
        self.key = key
        self.random = random.Random(hmac.digest(key, "\0".join(parts).encode(), hashlib.sha256))

    def one(self, items: Sequence[str]) -> str:
        """Return one of `items`."""
        return items[self.random.randrange(len(items))]

    def digits(self, count: int) -> str:
        """Return `count` digits."""
        return "".join(str(self.random.randrange(10)) for _ in range(count))

    def sub(self, *parts: str) -> Draw:
        """Return the draws of a part, the same for this part in every value of the project."""
        return Draw(self.key, *parts)


def normalise(value: str) -> str:
    """Return the form under which two writings of a value are one: folded width and capitals, no separators."""
    return "".join(char for char in fold_width(value).casefold() if char.isalnum())


def _fill(value: str, digits: str) -> str:
    """Write `digits` in place of the digits of `value`, from the right, keeping its separators and width."""
    rest = list(digits)
    out = []
    for char in reversed(value):
        if not char.isdigit() or not rest:
            out.append(char)
            continue
        digit = rest.pop()
        out.append(chr(_WIDE_ZERO + int(digit)) if ord(char) >= _WIDE_ZERO else digit)
    return "".join(reversed(out))


def shape(draw: Draw, value: str) -> str:
    """Return a value with other digits and letters in the same places; separators stay and a first digit other than 0 stays so."""
    out = []
    first = True
    for char in value:
        if char.isdigit():
            digit = str(draw.random.randrange(1 if first and char not in "0\uff10" else 0, 10))
            out.append(chr(_WIDE_ZERO + int(digit)) if ord(char) >= _WIDE_ZERO else digit)
            first = False
        elif char.isascii() and char.isalpha():
            letter = draw.one("ABCDEFGHJKLMNPQRTUWXY")
            out.append(letter if char.isupper() else letter.lower())
        elif _HAN.match(char):
            out.append(draw.one(words()["han"]))
        elif char.isalpha():
            out.append(draw.one("abcdefghjkmnpqrtuwxy") if char.islower() else draw.one("ABCDEFGHJKLMNPQRTUWXY"))
        else:
            out.append(char)
    return "".join(out)


def person_name(draw: Draw, value: str) -> str:
    """Return a name in the same script: equal surnames become equal surnames, equal Latin parts equal parts.

    A Chinese name keeps its length and whether its surname has one character or two. A common English given name becomes
    another one of the same sex; every other Latin part is invented.
    """
    if _HAN.search(value):
        compound = value[:2] in words()["compound_surnames"] and len(value) > 2
        surname = value[:2] if compound else value[:1]
        pool = [item for item in (words()["compound_surnames"] if compound else words()["surnames"]) if item != surname]
        given = "".join(draw.one(words()["given"]) if _HAN.match(char) else char for char in value[len(surname) :])
        return draw.sub("surname", surname).one(pool) + given
    return str(regex.sub(r"\p{Lu}\p{Ll}*|\p{Ll}+|\p{L}+", lambda part: _latin_part(draw, part.group()), value))


def _latin_part(draw: Draw, part: str) -> str:
    own = draw.sub("part", part.casefold())
    if len(part) == 1:
        return own.one([letter for letter in "ABCDEFGHJKLMNPRSTW" if letter != part.upper()])
    material = words()
    known = next((material[sex] for sex in ("given_female", "given_male") if part.capitalize() in material[sex]), None)
    name: str
    if known is not None:
        name = own.one([item for item in known if item != part.capitalize()])
    else:
        name = own.one(material["syllables_first"]) + own.one(material["syllables_middle"]) + own.one(material["syllables_last"])
    return name.upper() if part.isupper() else name if part[0].isupper() else name.lower()


def phone(draw: Draw, value: str) -> str:
    """Return a number of the same length and writing that no operator assigns.

    Mainland mobiles begin 12 (mobile numbers are 13 to 19: MIIT numbering plan), North American ones have the area 555.
    """
    digits = "".join(char for char in value if char.isdigit())
    if len(digits) >= 11 and digits[-11] == "1" and digits[-10] in "3456789":
        return _fill(value, digits[:-11] + "12" + draw.digits(9))
    if len(digits) in (10, 11) and digits[-10] in "23456789":
        return _fill(value, digits[:-10] + "555" + draw.digits(7))
    return shape(draw, value)


def resident_id(draw: Draw, value: str) -> str:
    """Return a resident id with a right check character in the region 00, which GB/T 2260 never assigns; year of birth and sex stay.

    A year of birth before 1937 becomes 1937: it may say that somebody is over 89 (45 CFR 164.514(b)(2)(i)(C)).
    """
    compact = "".join(char for char in value if char.isalnum())
    month, day = draw.random.randrange(1, 13), draw.random.randrange(1, 29)
    if len(compact) != 18:
        return _fill(value, "00" + draw.digits(4) + compact[6:8] + f"{month:02}{day:02}" + draw.digits(3)) if len(compact) == 15 else shape(draw, value)
    # A scanner may have read a letter for a digit: such a sex is drawn, such a year of birth becomes the earliest one.
    sex = (draw.random.randrange(5) * 2 + (int(compact[16]) if compact[16].isdecimal() else draw.random.randrange(10)) % 2) % 10
    born = max(compact[6:10], _EARLIEST_BIRTH) if compact[6:10].isdecimal() else _EARLIEST_BIRTH
    body = "00" + draw.digits(4) + born + f"{month:02}{day:02}" + draw.digits(2) + str(sex)
    rest = list(body + resident_id_digit(body))
    return "".join(rest.pop(0) if char.isalnum() else char for char in value)


def email(draw: Draw, value: str) -> str:
    """Return an address of the same shape at example.com or example.cn (RFC 2606 and CNNIC keep them free)."""
    local, _, domain = value.rpartition("@")
    return f"{shape(draw, local)}@example.{'cn' if domain.casefold().endswith('cn') else 'com'}"


def url(draw: Draw, value: str) -> str:
    """Return an address at example.com (RFC 2606) with a path of its own."""
    head = "www." if value.casefold().startswith("www.") else value.partition("://")[0] + "://"
    return f"{head}example.com/{draw.digits(8)}"


def ip_address(draw: Draw, value: str) -> str:
    """Return an address of the networks that are kept for documentation (RFC 5737; RFC 3849 for version 6)."""
    if ":" in value:
        return f"2001:db8:{draw.random.randrange(1, 0xFFFF):x}::{draw.random.randrange(1, 0xFFFF):x}"
    return f"{draw.one(['192.0.2', '198.51.100', '203.0.113'])}.{draw.random.randrange(1, 255)}" if value else value


def card(draw: Draw, value: str) -> str:
    """Return a card number with a right check digit and the prefix 9999: national use of a country code that is nobody's (ISO/IEC 7812-1)."""
    count = sum(char.isdigit() for char in value)
    body = "9999" + draw.digits(count - 5)
    return _fill(value, body + luhn_digit(body))


def ssn(draw: Draw, value: str) -> str:
    """Return a number in the area 000, which is never assigned (SSA, POMS RM 10201.035)."""
    return _fill(value, "000" + draw.digits(6))


def nino(draw: Draw, value: str) -> str:
    """Return a National Insurance number with the prefix ZZ, which is never used (HMRC, NIM39110), written as `value` is."""
    return "".join(_put(char, made) for char, made in _beside(value, iter("ZZ" + draw.digits(6) + draw.one("ABCD"))))


def _beside(value: str, made: Iterator[str]) -> Iterator[tuple[str, str]]:
    for char in value:
        yield char, next(made, char) if char.isalnum() else char


def _put(char: str, made: str) -> str:
    """Return a letter or digit of ASCII in the case and width of another one."""
    if not char.isalnum():
        return char
    cased = made if not char.isalpha() or char.isupper() else made.lower()
    return chr(ord(cased) + _WIDE_ZERO - ord("0")) if ord(char) >= _WIDE_ZERO else cased


def uscc(draw: Draw, value: str) -> str:
    """Return a unified social credit code with a right check character and the authority 0, which GB 32100-2015 does not have."""
    body = "00" + draw.digits(6) + "".join(draw.one(USCC_ALPHABET) for _ in range(9))
    return body + uscc_digit(body) if value else value


def plate(draw: Draw, value: str) -> str:
    """Return a number plate with the same province and another letter and number; the letter I is never issued (GA 36-2018)."""
    return value[:1] + "I" + shape(draw, value[2:])


def address(draw: Draw, value: str) -> str:
    """Return an address of invented places with a house number."""
    material, number = words(), str(draw.random.randrange(1, 999))
    if not _HAN.search(value):
        return f"{number} {draw.one(material['streets'])} {draw.one(material['street_types'])}"
    mark = material["address"]
    place = draw.one(material["cities"]) + mark["city"] + draw.one(material["districts"]) + mark["district"]
    return f"{place}{draw.one(material['roads'])}{mark['road']}{number}{mark['number']}"


def age(draw: Draw, value: str) -> str:
    """Return 90: ages above 89 are one class (45 CFR 164.514(b)(2)(i)(C))."""
    if not any(char.isdecimal() for char in value):
        return "90"
    return _fill(value, "90".rjust(sum(char.isdigit() for char in value), "0")).replace("090", "90") if draw.key else value


def organisation(draw: Draw, value: str) -> str:
    """Return an organisation of the same kind: the end of its name stays (Ltd, University), all before it is invented."""
    material = words()
    if _HAN.search(value):
        end = next((end for end in material["organisation_ends"]["zh"] if value.endswith(end)), "")
        return draw.one(material["organisation_starts"]) + draw.one(material["organisation_starts"]) + end
    parts = value.split()
    end = parts[-1] if len(parts) > 1 and parts[-1].rstrip(",") in material["organisation_ends"]["en"] else ""
    name = draw.one(material["syllables_first"]) + draw.one(material["syllables_middle"]) + draw.one(material["syllables_last"])
    return f"{name} {end}".rstrip()


def mac_address(draw: Draw, value: str) -> str:
    """Return a hardware address that is locally administered (second bit of the first octet, IEEE 802): no maker was given it."""
    rest = ("".join(draw.one("0123456789abcdef") if char.isalnum() else char for char in value))[2:]
    made = "02" + rest
    return made.upper() if value.upper() == value else made


def vehicle_number(draw: Draw, value: str) -> str:
    """Return a vehicle number of the region 0, which ISO 3780 gives to nobody; its check digit is as good as any."""
    return "0" + shape(draw, value[1:]).upper()


def iban(draw: Draw, value: str) -> str:
    """Return an account number of the country XX, which ISO 3166-1 leaves to users and no register of IBANs holds."""
    return "XX" + shape(draw, value[2:])


def postcode(draw: Draw, value: str) -> str:
    """Return a postal code in the zone 000, which neither the USPS nor China Post uses."""
    return _fill(value, "000" + draw.digits(max(0, sum(char.isdigit() for char in value) - 3)))


@dataclass(frozen=True, slots=True)
class Generator:
    """A function that makes surrogates, and whether two values may share one."""

    make: Callable[[Draw, str], str]
    shared: bool = False


GENERATORS: Mapping[str, Generator] = {
    "address": Generator(address),
    "age": Generator(age, shared=True),
    "card": Generator(card),
    "email": Generator(email),
    "iban": Generator(iban),
    "ip_address": Generator(ip_address),
    "mac_address": Generator(mac_address),
    "nino": Generator(nino),
    "organisation": Generator(organisation),
    "person_name": Generator(person_name),
    "phone": Generator(phone),
    "plate": Generator(plate),
    "postcode": Generator(postcode),
    "resident_id": Generator(resident_id),
    "shape": Generator(shape),
    "ssn": Generator(ssn),
    "url": Generator(url),
    "uscc": Generator(uscc),
    "vehicle_number": Generator(vehicle_number),
}
"""Generators by the name that an identifier gives under ``surrogate``; dates are shifted by metier.privacy.dates instead."""
