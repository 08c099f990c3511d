import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.packs.conformance import check_identifiers
from metier.privacy import VALIDATORS, general_identifiers
from metier.privacy.validators import (
    USCC_ALPHABET,
    iban,
    ipv4,
    iso7064_mod11_2,
    luhn,
    luhn_digit,
    nanp_phone,
    payment_card,
    resident_id,
    resident_id_15,
    resident_id_digit,
    us_ssn,
    uscc,
    uscc_digit,
    vehicle_number,
)


def test_every_general_identifier_treats_its_examples_as_it_says() -> None:
    assert list(check_identifiers(general_identifiers(), VALIDATORS)) == []


def test_general_identifiers_cover_the_kinds_that_every_domain_needs() -> None:
    kinds = {item.entity for item in general_identifiers()}
    assert {"PERSON", "CN_RESIDENT_ID", "PHONE_NUMBER", "EMAIL_ADDRESS", "URL", "IP_ADDRESS", "CREDIT_CARD", "US_SSN"} <= kinds
    assert {"CN_USCC", "IBAN_CODE", "PASSPORT", "CN_PERMIT", "CN_PLATE", "DATE_OF_BIRTH", "ADDRESS"} <= kinds


# GB 11643-1999 prints 11010519491231002X and 440524188001010014; 81... is a residence permit of Hong Kong, 9... one of a foreigner.
@pytest.mark.parametrize("text", ["11010519491231002X", "11010519491231002x", "440524188001010014"])
def test_resident_ids_of_the_standard_are_right(text: str) -> None:
    assert resident_id(text)


@pytest.mark.parametrize("body", ["81000019900101001", "83000019850615002", "91115619890312003"])
def test_regions_outside_the_list_of_counties_are_taken(body: str) -> None:
    assert resident_id(body + resident_id_digit(body))


@pytest.mark.parametrize("body", ["11010520230230001", "11010520231301001", "00010519491231002"])
def test_dates_that_are_none_and_region_00_are_refused(body: str) -> None:
    text = body + resident_id_digit(body)
    assert iso7064_mod11_2(text)
    assert not resident_id(text)


@given(st.text("0123456789", min_size=17, max_size=17), st.integers(0, 16), st.integers(1, 9))
def test_a_changed_digit_of_a_resident_id_is_refused(body: str, place: int, by: int) -> None:
    text = body + resident_id_digit(body)
    changed = text[:place] + str((int(text[place]) + by) % 10) + text[place + 1 :]
    assert iso7064_mod11_2(text)
    assert not iso7064_mod11_2(changed)


@given(st.text("0123456789", min_size=12, max_size=18), st.data())
def test_a_changed_digit_of_a_card_is_refused(body: str, data: st.DataObject) -> None:
    text = body + luhn_digit(body)
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + str((int(text[place]) + data.draw(st.integers(1, 9))) % 10) + text[place + 1 :]
    assert luhn(text)
    assert not luhn(changed)


@given(st.text(USCC_ALPHABET, min_size=17, max_size=17), st.integers(0, 16), st.sampled_from(USCC_ALPHABET))
def test_a_changed_character_of_a_credit_code_is_refused(body: str, place: int, other: str) -> None:
    body = "9" + body[1:]
    text = body + uscc_digit(body)
    assert uscc(text)
    if other not in (text[place], "0"):
        assert not uscc(text[:place] + other + text[place + 1 :])


def test_known_values() -> None:
    assert uscc("91350100M000100Y43")  # the example of GB 32100-2015
    assert payment_card("4111 1111 1111 1111") and payment_card("378282246310005") and payment_card("6222021234567890128")
    assert not payment_card("9999000000000000006") and not payment_card("0000000000000000") and not payment_card("4111")
    assert vehicle_number("1HGCM82633A004352") and not vehicle_number("1HGCM82633A004353") and not vehicle_number("IOQ")
    assert us_ssn("219-09-9999") and not any(map(us_ssn, ("000-12-3456", "666-12-3456", "900-12-3456", "219-00-9999", "219-09-0000")))
    assert nanp_phone("(212) 456-7890") and not any(map(nanp_phone, ("555-234-5678", "211-234-5678", "212-911-1234", "112-234-5678", "12345")))
    assert resident_id_15("110105491231002") and not resident_id_15("110105491331002")
    assert ipv4("10.2.33.4") and not any(map(ipv4, ("256.1.1.1", "127.0.0.1", "192.0.2.7", "1.2.3")))


@pytest.mark.parametrize("text", ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "FR1420041010050500013M02606"])
def test_published_ibans_are_right(text: str) -> None:
    assert iban(text)


@given(st.integers(4, 21), st.integers(1, 9))
def test_a_changed_digit_of_an_iban_is_refused(place: int, by: int) -> None:
    text = "DE89370400440532013000"
    assert not iban(text[:place] + str((int(text[place]) + by) % 10) + text[place + 1 :])


def test_an_iban_of_the_country_of_surrogates_is_none() -> None:
    code = next(f"XX{check:02d}37040044053201300" for check in range(2, 99) if int(f"37040044053201300{int('X', 36)}{int('X', 36)}{check:02d}") % 97 == 1)
    assert not iban(code)
