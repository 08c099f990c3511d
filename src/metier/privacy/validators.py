"""Check digits and ranges of the general identifiers. Each takes the matched text (width folded) and says whether it can be one."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from datetime import date

__all__ = [
    "USCC_ALPHABET",
    "VALIDATORS",
    "coordinates",
    "crypto_address",
    "degrees",
    "foreigner_id_15",
    "iban",
    "ipv4",
    "ipv6",
    "iso7064_mod11_2",
    "luhn",
    "luhn_digit",
    "mostly_digits",
    "nanp_phone",
    "payment_card",
    "phone_shape",
    "plate",
    "resident_id",
    "resident_id_15",
    "resident_id_digit",
    "us_ein",
    "us_ssn",
    "uscc",
    "uscc_as_read",
    "uscc_digit",
    "vehicle_number",
]

USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""The 31 characters of GB 32100-2015, table 1 (no I, O, S, V, Z)."""

_VIN_VALUES = {
    **{str(digit): digit for digit in range(10)},
    **dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9], strict=True)),
}
_MOST_DOUBTFUL = 3
_NO_DIGITS = str.maketrans("OISB", "0158")
_NO_LETTERS_OF_USCC = str.maketrans("OISZ", "0152")
_NO_LETTERS_OF_VIN = str.maketrans("OQI", "001")
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)


def _digits(text: str) -> str:
    return "".join(char for char in text if char in "0123456789")


def _compact(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


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
    text = _compact(text)
    return text[:1] != "0" and iso7064_mod11_2(text) and _is_date(text[6:10], text[10:12], text[12:14])


def resident_id_15(text: str) -> bool:
    """Return whether 15 digits can be a resident id of the first generation (GB 11643-1989: no check digit, year of two digits)."""
    text = _compact(text)
    return len(text) == 15 and text.isdecimal() and text[0] != "0" and _is_date("19" + text[6:8], text[8:10], text[10:12])


def foreigner_id_15(text: str) -> bool:
    """Return whether 15 characters can be a permanent residence number of before 2023: country, 4 digits of the place, birth as YYMMDD, 2 more."""
    text = _compact(text)
    return len(text) == 15 and text[3:].isdecimal() and _is_date("19" + text[7:9], text[9:11], text[11:13])


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
    """Return whether `text` can be a payment card: 12 to 19 digits, Luhn, and the beginning and length that an issuer uses (ISO/IEC 7812-1).

    Numbers beginning 9999 (national use, country code 999 is nobody's) are the surrogates of this project.
    """
    digits = _digits(text)
    return 12 <= len(digits) <= 19 and digits[:4] != "9999" and len(set(digits)) > 1 and _issued(digits) and luhn(digits)


def _issued(digits: str) -> bool:
    """Return whether a card number begins as its length lets it: Visa, Mastercard, Amex, Diners, JCB, Discover, UnionPay, Maestro, older national ones."""
    count, two, four = len(digits), int(digits[:2]), int(digits[:4])
    if digits[0] == "4":
        return count in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return count == 16
    if two in (34, 37) or four in (1800, 2131):
        return count == 15
    if two in (50, 56, 57, 58, 67) and count < 16:
        return count >= 12
    if two in (36, 38, 39) or 3000 <= four <= 3059:
        return count in (14, 16, 19)
    if two == 35 or digits[0] == "6" or two in (50, 56, 57, 58):
        return 16 <= count <= 19
    return digits[0] in "89" and count in (16, 18, 19)


def us_ssn(text: str) -> bool:
    """Return whether nine digits can be a US social security number: area not 000, 666 or 9xx, group not 00, serial not 0000 (SSA, POMS RM 10201.035)."""
    digits = _digits(text)
    return len(digits) == 9 and digits[:3] not in {"000", "666"} and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def nanp_phone(text: str) -> bool:
    """Return whether `text` can be a number of the North American plan: area and exchange [2-9]xx, not N11; area 555 is nobody's (NANPA)."""
    digits = _digits(text.lower().partition("x")[0])
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


def uscc_as_read(text: str) -> bool:
    """Return whether `text` can be a unified social credit code that was written in groups or misread by a scanner.

    Letters that the code does not have are read as the digits that they look like (O as 0, I as 1, S as 5, Z as 2); up to three B may be 8.
    """
    text = _compact(text).replace("l", "1").upper().translate(_NO_LETTERS_OF_USCC)
    return len(text) == 18 and any(uscc(read) for read in _readings(text, {"B": "8"}))


def _readings(text: str, doubtful: Mapping[str, str]) -> Iterator[str]:
    """Yield the text and, where few enough characters are in doubt, each way in which they may be misread digits."""
    places = [place for place, char in enumerate(text) if char in doubtful]
    yield text
    if len(places) > _MOST_DOUBTFUL:
        return
    for choice in range(1, 1 << len(places)):
        changed = {place: doubtful[text[place]] for bit, place in enumerate(places) if choice >> bit & 1}
        yield "".join(changed.get(place, char) for place, char in enumerate(text))


def ipv4(text: str) -> bool:
    """Return whether `text` is an IPv4 address that can point at somebody: not loopback, unspecified or reserved for documentation (RFC 5737)."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    documentation = any(address in ipaddress.IPv4Network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"))
    chapter = max(address.packed) < 10  # "3.2.1.4" numbers a section
    return not (address.is_loopback or address.is_unspecified or documentation or chapter)


def ipv6(text: str) -> bool:
    """Return whether `text` is an IPv6 address that can point at somebody: not loopback, unspecified or of 2001:db8::/32 (RFC 3849)."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    hexadecimal = sum(char.isalnum() for char in text)
    return not (address.is_loopback or address.is_unspecified or address in ipaddress.IPv6Network("2001:db8::/32")) and hexadecimal >= 6


def vehicle_number(text: str) -> bool:
    """Return whether 17 characters are a vehicle identification number with a right check character (GB 16735-2019, ISO 3779).

    The letters I, O and Q, which no number has, are read as the digits that they look like.
    """
    text = _compact(text).replace("l", "1").upper().translate(_NO_LETTERS_OF_VIN)
    if len(text) != 17 or any(char not in _VIN_VALUES for char in text):
        return False
    total = sum(_VIN_VALUES[char] * weight for char, weight in zip(text, _VIN_WEIGHTS, strict=True))
    return "0123456789X"[total % 11] == text[8]


def plate(text: str) -> bool:
    """Return whether `text` can be a number plate of GA 36-2018: province, letter and five characters, six for new energy, at most two of them letters."""
    compact = _compact(text).upper()
    rest = compact[2:]
    if rest and not rest[-1].isascii():
        rest = rest[:-1] + "0"  # the last place of police, training and cross-border plates is a word
    letters = sum(char.isalpha() and char != "O" for char in rest)
    return 5 <= len(rest) <= 6 and letters <= 2


def phone_shape(text: str) -> bool:
    """Return whether what stands after a label can be a telephone number: 7 to 15 digits that are neither a date nor a span of years (ITU-T E.164)."""
    digits = _digits(text)
    years = len(digits) == 8 and digits[:2] in ("19", "20") and (digits[4:6] in ("19", "20") or _is_date(digits[:4], digits[4:6], digits[6:]))
    return 7 <= len(digits) <= 21 and not (years and "-" in text) and len(set(digits)) > 1


def mostly_digits(text: str) -> bool:
    """Return whether a labelled value is a number and no word: four digits, or as many digits as letters."""
    digits = len(_digits(text))
    letters = sum(char.isalpha() for char in text)
    return digits >= 4 or (digits >= letters and digits > 1)


_NO_EIN = {"00", "07", "08", "09", "17", "18", "19", "28", "29", "49", "69", "70", "78", "79", "89", "96", "97"}


def us_ein(text: str) -> bool:
    """Return whether nine digits can be a US employer identification number: the first two are a prefix that the IRS gives out."""
    digits = _digits(text)
    return len(digits) == 9 and digits[:2] not in _NO_EIN


_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_CONSTANTS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def crypto_address(text: str) -> bool:
    """Return whether `text` is an address of Bitcoin, Tron (Base58Check, bech32: BIP 173, 350) or Ethereum (shape alone)."""
    if text.startswith("0x"):
        return len(text) == 42
    if text.startswith("bc1"):
        return _bech32(text)
    number = 0
    for char in text:
        number = number * 58 + _BASE58.index(char)
    if number >= 1 << 200:
        return False
    data = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(data[:21]).digest()).digest()[:4] == data[21:]


def _bech32(text: str) -> bool:
    prefix, data = text[:2], [_BECH32.find(char) for char in text[3:]]
    check = 1
    for value in [*(ord(char) >> 5 for char in prefix), 0, *(ord(char) & 31 for char in prefix), *data]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, constant in enumerate(_BECH32_CONSTANTS):
            check ^= constant if top >> bit & 1 else 0
    return min(data) >= 0 and check in (1, 0x2BC830A3)


def iban(text: str) -> bool:
    """Return whether `text` is an IBAN: 15 to 34 characters whose rearranged number leaves 1 modulo 97 (ISO 13616-1, ISO 7064 MOD 97-10).

    Those of the country XX, which ISO 3166-1 leaves to users, are the surrogates of this project.
    """
    code = _compact(text).replace("l", "1").upper()
    if not 15 <= len(code) <= 34 or not code.isascii() or code.startswith("XX"):
        return False
    # where scanners misread digits: all of it is digits but the country, or the country and four letters after its check digits
    readings = {code, *(code[:2] + code[2:4].translate(_NO_DIGITS) + code[4:end] + code[end:].translate(_NO_DIGITS) for end in (4, 8))}
    return any(int("".join(str(int(char, 36)) for char in read[4:] + read[:4])) % 97 == 1 for read in readings)


def degrees(text: str) -> bool:
    """Return whether the number at the beginning of `text` is an angle of at most 180 degrees."""
    whole = "".join(char if char.isdecimal() else " " for char in text.lstrip("+-")).split()
    return bool(whole) and int(whole[0]) <= 180


def coordinates(text: str) -> bool:
    """Return whether two decimal numbers can be a latitude and a longitude, in either order; small ones are shares and rates, not a place at sea."""
    parts = [part for part in "".join(char if char.isdecimal() or char == "." else " " for char in text).split() if part != "."]
    if len(parts) != 2:
        return False
    first, second = (float(part) for part in parts)
    return min(first, second) <= 90 and 10 <= max(first, second) <= 180


VALIDATORS: Mapping[str, Callable[[str], bool]] = {
    "coordinates": coordinates,
    "crypto_address": crypto_address,
    "degrees": degrees,
    "foreigner_id_15": foreigner_id_15,
    "iban": iban,
    "ipv4": ipv4,
    "ipv6": ipv6,
    "mostly_digits": mostly_digits,
    "nanp_phone": nanp_phone,
    "payment_card": payment_card,
    "phone_shape": phone_shape,
    "plate": plate,
    "resident_id": resident_id,
    "resident_id_15": resident_id_15,
    "us_ein": us_ein,
    "us_ssn": us_ssn,
    "uscc": uscc,
    "uscc_as_read": uscc_as_read,
    "vehicle_number": vehicle_number,
}
"""The functions that the general identifiers name."""
