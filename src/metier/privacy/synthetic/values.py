"""Makers of invented values: right by check digit and range, drawn from a seeded stream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from metier.config import load_yaml
from metier.privacy.validators import USCC_ALPHABET, luhn_digit, resident_id_digit, us_ein, uscc_digit, vehicle_number

__all__ = ["MAKERS", "shaped", "words"]

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_NINO_UNUSED = ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
_HEX = "0123456789abcdef"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")


@lru_cache(maxsize=1)
def words() -> Mapping[str, Any]:
    """Return the word lists of ``data/words.yaml``."""
    value: Mapping[str, Any] = load_yaml(Path(__file__).parent / "data" / "words.yaml").value
    return value


def _digits(rng: Random, count: int) -> str:
    return "".join(rng.choices("0123456789", k=count))


def shaped(rng: Random, shape: str) -> str:
    """Return a value of a shape: ``#`` becomes a digit (the first one is not 0), ``@`` a letter."""
    out = []
    for place, char in enumerate(shape):
        first = place == 0 or shape[place - 1] != "#"
        out.append(str(rng.randrange(1 if first else 0, 10)) if char == "#" else rng.choice(_LETTERS) if char == "@" else char)
    return "".join(out)


def _one(rng: Random, name: str) -> str:
    return str(rng.choice(words()[name]))


def _day(rng: Random, first: int = 1930, last: int = 2024) -> date:
    return date(first, 1, 1) + timedelta(days=rng.randrange((last - first + 1) * 365))


def resident_id(rng: Random) -> str:
    """Return a resident id of GB 11643-1999."""
    body = _one(rng, "regions") + f"{rng.randrange(1, 29):02}" + f"{_day(rng):%Y%m%d}" + _digits(rng, 3)
    return body + resident_id_digit(body)


def resident_id_15(rng: Random) -> str:
    """Return a resident id of GB 11643-1989."""
    return _one(rng, "regions") + f"{rng.randrange(1, 29):02}" + f"{_day(rng, 1930, 1984):%y%m%d}" + _digits(rng, 3)


def foreigner_id(rng: Random) -> str:
    """Return a number of a foreigner's identity card of 2023."""
    body = (
        "9" + rng.choice(["11", "31", "44", "32", "33"]) + rng.choice(["124", "840", "826", "392", "410"]) + f"{_day(rng, 1950, 2004):%Y%m%d}" + _digits(rng, 3)
    )
    return body + resident_id_digit(body)


def foreigner_id_15(rng: Random) -> str:
    """Return a permanent residence number of before 2023."""
    return rng.choice(["CAN", "USA", "GBR", "JPN", "KOR", "DEU"]) + rng.choice(["1100", "3100", "4403"]) + f"{_day(rng, 1950, 1999):%y%m%d}" + _digits(rng, 2)


def uscc(rng: Random) -> str:
    """Return a unified social credit code of GB 32100-2015; 92 is a sole trader."""
    body = rng.choice(["91", "92", "12", "52"]) + _one(rng, "regions") + f"{rng.randrange(1, 29):02}" + "".join(rng.choices(USCC_ALPHABET, k=9))
    return body + uscc_digit(body)


def card(rng: Random) -> str:
    """Return the number of a payment card: UnionPay mostly, with 16 to 19 digits."""
    prefix, size = rng.choice([("62", 19), ("62", 16), ("6217", 19), ("4", 16), ("52", 16), ("9558", 19), ("37", 15), ("6011", 16)])
    body = prefix + _digits(rng, size - 1 - len(prefix))
    return body + luhn_digit(body)


def mobile(rng: Random) -> str:
    """Return a mobile number of the mainland."""
    return rng.choice(["130", "135", "138", "139", "150", "158", "166", "176", "186", "189", "199"]) + _digits(rng, 8)


def landline(rng: Random) -> str:
    """Return a landline or service number of the mainland."""
    area = rng.choice(["010", "021", "0755", "0571", "028", "0311"])
    local = rng.choice("2345678") + _digits(rng, 7)
    forms = [
        f"{area}-{local}",
        f"({area}){local}",
        f"{area}-{local}-{rng.randrange(100, 9999)}",
        f"400-{_digits(rng, 3)}-{_digits(rng, 4)}",
        f"+86-{area[1:]}-{local}",
    ]
    return rng.choice(forms)


def us_phone(rng: Random) -> str:
    """Return a number of the North American plan in one of its usual writings."""
    area, exchange, line = rng.choice(["212", "312", "415", "617", "713", "206"]), f"{rng.randrange(2, 10)}{rng.randrange(20, 100)}", _digits(rng, 4)
    exchange = exchange if not exchange.endswith("11") else "234"
    return rng.choice(
        [f"({area}) {exchange}-{line}", f"{area}-{exchange}-{line}", f"{area}.{exchange}.{line}", f"+1 {area}-{exchange}-{line}", f"1-{area}-{exchange}-{line}"]
    )


def plate(rng: Random) -> str:
    """Return a number plate; one in three is of a new energy vehicle."""
    head = _one(rng, "plates") + rng.choice("ABCDEFGHJK")
    return head + rng.choice([_digits(rng, 5), _digits(rng, 5), rng.choice("DF") + _digits(rng, 5), rng.choice(_LETTERS.replace("I", "")) + _digits(rng, 4)])


def vin(rng: Random) -> str:
    """Return a vehicle identification number of GB 16735 with its check character."""
    alphabet = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
    front, back = (
        rng.choice(["LSV", "LFV", "1HG", "WBA"]) + "".join(rng.choices(alphabet, k=5)),
        rng.choice("ABCDEFGH") + rng.choice(_LETTERS[:8]) + _digits(rng, 6),
    )
    return next(front + check + back for check in "0123456789X" if vehicle_number(front + check + back))


def us_ssn(rng: Random) -> str:
    """Return a social security number that could be given out."""
    return f"{rng.randrange(1, 666):03}-{rng.randrange(1, 100):02}-{rng.randrange(1, 10000):04}"


def uk_nino(rng: Random) -> str:
    """Return a National Insurance number that could be given out, solid or in pairs (HMRC, NIM39110)."""
    prefix = next(two for _ in range(999) if (two := rng.choice("ABCEGHJKLMNOPRSTWXYZ") + rng.choice("ABCEGHJKLMNPRSTWXYZ")) not in _NINO_UNUSED)
    joint = rng.choice(["", "", " "])
    return joint.join([prefix, *(_digits(rng, 2) for _ in range(3)), rng.choice("ABCD")])


def us_itin(rng: Random) -> str:
    """Return an individual taxpayer number."""
    return f"9{_digits(rng, 2)}-{rng.randrange(70, 89)}-{_digits(rng, 4)}"


def ein(rng: Random) -> str:
    """Return an employer identification number with a prefix in use."""
    return next(value for _ in range(99) if us_ein(value := f"{rng.randrange(10, 99)}-{_digits(rng, 7)}"))


def npi(rng: Random) -> str:
    """Return a national provider number: Luhn over 80840 and the number (45 CFR 162.406)."""
    body = "1" + _digits(rng, 8)
    return body + luhn_digit("80840" + body)


def dea(rng: Random) -> str:
    """Return a registration number of the DEA."""
    digits = [rng.randrange(10) for _ in range(6)]
    return rng.choice("ABFM") + rng.choice(_LETTERS) + "".join(map(str, digits)) + str((sum(digits[0::2]) + 2 * sum(digits[1::2])) % 10)


def mbi(rng: Random) -> str:
    """Return a number of eleven places in the form of CMS: digit, letter, either, digit, letter, either, digit, two letters, two digits."""
    letters = "ACDEFGHJKMNPQRTUVWXY"
    pools = {"1": "123456789", "0": "0123456789", "a": letters, "x": letters + "0123456789"}
    return "".join(rng.choice(pools[kind]) for kind in "1ax0ax0aa00")


def aba(rng: Random) -> str:
    """Return a US routing number with its check digit."""
    body = rng.choice(["02", "11", "12", "26", "31"]) + _digits(rng, 6)
    total = sum(int(digit) * weight for digit, weight in zip(body, (3, 7, 1, 3, 7, 1, 3, 7), strict=True))
    return body + str(-total % 10)


def iban(rng: Random) -> str:
    """Return an IBAN of Germany or of the United Kingdom (ISO 13616)."""
    country, body = rng.choice([("DE", _digits(rng, 18)), ("GB", "".join(rng.choices(_LETTERS, k=4)) + _digits(rng, 14))])
    number = int("".join(str(int(char, 36)) for char in body + country + "00"))
    return f"{country}{98 - number % 97:02}{body}"


def email(rng: Random) -> str:
    """Return a mail address."""
    local = _one(rng, "handles") + rng.choice(["", ".", "_"]) + _one(rng, "handles") + rng.choice(["", _digits(rng, 2)])
    return f"{local}@{rng.choice(words()['domains'])}"


def url(rng: Random) -> str:
    """Return a web address."""
    host = f"{rng.choice(words()['handles'])}.{rng.choice(words()['domains'])}"
    return f"{rng.choice(['https://', 'http://', 'www.'])}{host}/{rng.choice(['u', 'user', 'p'])}/{_digits(rng, 6)}"


def ipv4(rng: Random) -> str:
    """Return an IPv4 address of a private network or of a provider."""
    return f"{rng.choice([10, 36, 58, 101, 172, 192, 221])}.{rng.randrange(10, 256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def ipv6(rng: Random) -> str:
    """Return an IPv6 address."""
    return rng.choice(["2400:3200:0:1:", "240e:3b7:21:5:", "fe80::"]) + ":".join("".join(rng.choices(_HEX[1:], k=4)) for _ in range(4))


def mac(rng: Random) -> str:
    """Return the address of a network card."""
    mark = rng.choice(":-")
    return mark.join("".join(rng.choices("0123456789ABCDEF", k=2)) for _ in range(6))


def bitcoin(rng: Random) -> str:
    """Return an address of Bitcoin in Base58Check."""
    data = b"\x00" + rng.randbytes(20)
    data += hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        out = _BASE58[rest] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def coordinates(rng: Random) -> str:
    """Return a latitude and a longitude."""
    return f"{rng.uniform(20, 45):.6f}, {rng.choice([1, -1]) * rng.uniform(70, 125):.6f}"


def chinese_date(rng: Random) -> str:
    """Return a date in one of the usual Chinese writings."""
    day, numerals = _day(rng, 1940, 2024), words()["numerals"]
    forms: list[str] = words()["dates"]
    values = {"y": str(day.year), "m": str(day.month), "d": str(day.day), "mm": f"{day.month:02}", "dd": f"{day.day:02}"}
    values |= {"Y": "".join(numerals[int(digit)] for digit in str(day.year)), "M": _numeral(day.month), "D": _numeral(day.day)}
    return rng.choice(forms).format(**values)


def _numeral(number: int) -> str:
    numerals, ten = words()["numerals"], words()["ten"]
    tens, ones = divmod(number, 10)
    return str((numerals[tens] if tens > 1 else "") + (ten if tens else "") + (numerals[ones] if ones or not tens else ""))


def english_date(rng: Random) -> str:
    """Return a date in one of the usual American writings."""
    day = _day(rng, 1940, 2024)
    month = _MONTHS[day.month - 1]
    return rng.choice(
        [
            f"{month} {day.day}, {day.year}",
            f"{day.month:02}/{day.day:02}/{day.year}",
            f"{day.year}-{day.month:02}-{day.day:02}",
            f"{day.day} {month[:3]} {day.year}",
            f"{day.day:02}-{month[:3]}-{day.year}",
        ]
    )


def chinese_age(rng: Random) -> str:
    """Return an age over 89, without the word for years."""
    age = rng.randrange(91, 110)
    if rng.random() < 0.7:
        return str(age)
    numerals, material = words()["numerals"], words()
    tens, ones = divmod(age, 10)
    if age >= 100:
        return f"{numerals[1]}{material['hundred']}" + (f"{material['zero']}{numerals[ones]}" if ones else "")
    return str(numerals[tens] + material["ten"] + numerals[ones])


def age(rng: Random) -> str:
    """Return an age over 89 in digits."""
    return str(rng.randrange(91, 110))


def chinese_address(rng: Random) -> str:
    """Return an address of real divisions and invented roads and houses."""
    material = words()
    place, road, mark = rng.choice(material["places"]), rng.choice(material["roads"]), material["marks"]
    number = rng.randrange(1, 999)
    tail = rng.choice(
        [
            "",
            f"{rng.randrange(1, 30)}{mark['building']}{rng.randrange(1, 6)}{mark['unit']}{rng.randrange(101, 2505)}{mark['room']}",
            f"{rng.choice('ABCD')}{mark['block']}{rng.randrange(101, 2505)}",
        ]
    )
    return f"{place}{road}{number}{mark['number']}{tail}"


def english_address(rng: Random) -> str:
    """Return an address of the United States."""
    material = words()
    kind = rng.choice(["Street", "St", "Avenue", "Ave", "Road", "Blvd", "Lane", "Drive", "Court"])
    street = f"{rng.randrange(1, 9999)} {rng.choice(['', 'N ', 'West '])}{rng.choice(material['streets'])} {kind}"
    unit = rng.choice(["", f" Apt {rng.randrange(1, 99)}", f", Suite {rng.randrange(100, 999)}"])
    return f"{street}{unit}, {rng.choice(material['towns'])} {rng.randrange(10000, 99950):05}"


_ALL = (
    aba,
    age,
    bitcoin,
    card,
    chinese_address,
    chinese_age,
    chinese_date,
    coordinates,
    dea,
    ein,
    email,
    english_address,
    english_date,
    foreigner_id,
    foreigner_id_15,
    iban,
    ipv4,
    ipv6,
    landline,
    mac,
    mbi,
    mobile,
    npi,
    plate,
    resident_id,
    resident_id_15,
    uk_nino,
    url,
    us_itin,
    us_phone,
    us_ssn,
    uscc,
    vin,
)
MAKERS: Mapping[str, Callable[[Random], str]] = {function.__name__: function for function in _ALL}
"""Makers by the name that a set of material gives as ``=name``."""
