from hypothesis import given
from hypothesis import strategies as st

from metier.packs.views import goes_on, joined, plain_view, read_as_digits


def test_width_dashes_and_spaces_are_folded_and_invisible_characters_left_out() -> None:
    view = plain_view("电话１３８\u200b–1234\u30005678")
    assert view.plain == "电话138-1234 5678"
    start = view.plain.index("138")
    assert view.original(start, len(view.plain)) == (2, 16)


def test_text_without_anything_unusual_is_the_view() -> None:
    assert plain_view("plain 123").places is None
    assert plain_view("中文123").plain == "中文123"


@given(st.text(alphabet="a1中１\u200b\ufeff—\u3000 \n", max_size=40))
def test_every_place_of_a_view_shows_the_character_at_its_offset(text: str) -> None:
    view = plain_view(text)
    for place, char in enumerate(view.plain):
        start, end = view.original(place, place + 1)
        assert end == start + 1
        assert plain_view(text[start]).plain == char


def test_a_break_inside_a_value_is_taken_out_with_its_hyphen() -> None:
    (stretch,) = joined("编号1101-\n  0519完")
    assert stretch.plain == "编号11010519完"
    assert stretch.places[stretch.plain.index("0519")] == 10


def test_breaks_between_sentences_are_no_joints() -> None:
    assert list(joined("甲。\n乙1")) == []
    assert list(joined("no number here\nnor here")) == []


def test_letters_are_read_as_digits_where_digits_prevail() -> None:
    assert [stretch.plain for stretch in read_as_digits("手机l38OO13S678")] == ["手机13800135678"]
    assert list(read_as_digits("vitamin B12 and the OS 5S")) == []
    assert list(read_as_digits("SOLID Oil 1")) == []


def test_a_whole_value_goes_on_only_into_something_of_a_number() -> None:
    def after(text: str) -> bool:
        return goes_on(text, text.index("\n"), text.index("\n") + 1, ended=True)

    assert after("MRN 1234\n567 was")
    assert not after("MRN 1234\nwas seen")
    assert not after("MRN 1234\n2. next")
    assert not after("MRN 1234\n45 years old")


def test_a_word_before_a_mail_address_on_the_next_line_is_not_taken_into_it() -> None:
    def before(text: str) -> bool:
        return goes_on(text, text.index("\n"), text.index("\n") + 1, ended=False)

    assert not before("write to\nli@mail.cn")
    assert before("write to xiaom\ning@mail.cn")
