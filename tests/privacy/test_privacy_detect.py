from collections.abc import Sequence

import pytest

from metier.privacy import VALIDATORS, Detector, detect, general_identifiers
from metier.privacy.detect import detector, occurrences
from metier.records import Span


def found(text: str, language: str | None = "zh") -> list[tuple[str, str]]:
    return [(span.type, span.text) for span in detect(text, general_identifiers(), language=language, validators=VALIDATORS)]


def test_identifiers_inside_chinese_text_without_spaces_are_found_whole() -> None:
    assert found("请发送到邮箱zhang.san@mail.cn联系或致电13812345678转李四") == [("EMAIL_ADDRESS", "zhang.san@mail.cn"), ("PHONE_NUMBER", "13812345678")]
    assert found("zhang@163.com和li@qq.com") == [("EMAIL_ADDRESS", "zhang@163.com"), ("EMAIL_ADDRESS", "li@qq.com")]
    assert found("身份证11010519491231002X卡号6222021234567890128服务器10.2.33.4停机") == [
        ("CN_RESIDENT_ID", "11010519491231002X"),
        ("CREDIT_CARD", "6222021234567890128"),
        ("IP_ADDRESS", "10.2.33.4"),
    ]


def test_full_width_writing_is_found_and_given_as_written() -> None:
    assert found("身份证号码是１１０１０５１９４９１２３１００２Ｘ，手机１３８１２３４５６７８") == [
        ("CN_RESIDENT_ID", "１１０１０５１９４９１２３１００２Ｘ"),
        ("PHONE_NUMBER", "１３８１２３４５６７８"),
    ]


def test_english_identifiers_are_found() -> None:
    text = "Mr. John Smith, SSN 219-09-9999, 42 Baker Street, Springfield, IL 62704, (212) 456-7890, born on March 3, 1980."
    assert found(text, "en") == [
        ("PERSON", "John Smith"),
        ("US_SSN", "219-09-9999"),
        ("ADDRESS", "42 Baker Street, Springfield, IL 62704"),
        ("PHONE_NUMBER", "(212) 456-7890"),
        ("DATE_OF_BIRTH", "March 3, 1980"),
    ]


@pytest.mark.parametrize("written", ["AB123456C", "AB 12 34 56 C", "JG-10-33-16-A", "ＡＢ１２３４５６Ｃ"])
def test_a_national_insurance_number_is_found_in_its_writings(written: str) -> None:
    assert found(f"His number is {written} today.", "en") == [("UK_NINO", written)]
    assert found(f"号码为{written}，已核对。") == [("UK_NINO", written)]


@pytest.mark.parametrize("prefix", ["DA", "FA", "IA", "QA", "UA", "VA", "AD", "AF", "AI", "AQ", "AU", "AV", "AO", "BG", "GB", "NK", "KN", "TN", "NT", "ZZ"])
def test_a_prefix_that_is_not_given_out_makes_no_national_insurance_number(prefix: str) -> None:
    assert found(f"Number {prefix}123456C, {prefix} 12 34 56 C.", "en") == []
    assert found("OA123456D", "en") == [("UK_NINO", "OA123456D")]
    assert found("AB123456E", "en") == []


def test_small_letters_and_a_missing_suffix_need_words_beside_them() -> None:
    assert found("National Insurance number ab 12 34 56", "en") == [("UK_NINO", "ab 12 34 56")]
    assert found("国民保险号ab123456d", "zh") == [("UK_NINO", "ab123456d")]
    assert found("part ab 12 34 56 c", "en") == []


@pytest.mark.parametrize(
    "text",
    [
        "每日2次，每次0.5 mg，共14天",
        "血压120/80，心率72",
        "订单20220301123456已发货",
        "我是高血压病人",
        "家属应仔细观察",
        "我有个亲戚阿姨",
        "Take 2 tablets 3 times a day.",
        "1 + 1 = 2",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert found(text, None) == []


def test_names_do_not_reach_into_the_next_field() -> None:
    assert found("姓名张伟性别男年龄45岁") == [("PERSON", "张伟")]
    assert found("联系人：欧阳小红，电话：62345678") == [("PERSON", "欧阳小红"), ("PHONE_NUMBER", "62345678")]


def test_offsets_point_at_the_text() -> None:
    text = "甲😀电话１３８１２３４５６７８乙"
    (span,) = detect(text, general_identifiers(), language="zh", validators=VALIDATORS)
    assert span == Span(4, 15, "PHONE_NUMBER", "１３８１２３４５６７８", 1.0, "pattern")
    assert text[span.start : span.end] == span.text


def test_a_name_found_once_is_found_in_every_text_of_the_record() -> None:
    detector = Detector(general_identifiers(), language="zh", validators=VALIDATORS)
    spans = detector.record(["姓名：王小明", "昨天王小明又来了，王小明说好多了", "无关"])
    assert [[span.text for span in text] for text in spans] == [["王小明"], ["王小明", "王小明"], []]


def test_parts_of_a_latin_name_are_found_and_longer_words_are_not() -> None:
    detector = Detector(general_identifiers(), language="en", validators=VALIDATORS)
    spans = detector.record(["Name: Jane Doe", "Doe was seen; Doeville and Janet were not. JANE DOE signed."])
    assert [span.text for span in spans[1]] == ["Doe", "JANE DOE"]


def test_overlapping_rules_leave_nothing_uncovered() -> None:
    text = "联系电话13812345678"
    spans = detect(text, general_identifiers(), language="zh", validators=VALIDATORS)
    assert [(span.start, span.end) for span in spans] == [(4, 15)]


@pytest.mark.parametrize(
    ("value", "text", "places"),
    [
        ("ab", "ab xab abx ab", [(0, 2), (11, 13)]),
        ("张三", "找张三和张三丰", [(1, 3), (4, 6)]),
        ("12", "１２ 112", [(0, 2)]),
        ("13812345678", "x13812345678y", [(1, 12)]),
    ],
)
def test_occurrences_respect_borders_of_latin_words(value: str, text: str, places: list[tuple[int, int]]) -> None:
    assert list(occurrences(value, text)) == places


class Shouting:
    """A tagger that takes every word in capitals for a name."""

    name = "shouting"

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        places = [[(place, place + len(word)) for word in text.split() if word.isupper() for place in [text.index(word)]] for text in texts]
        return [tuple(Span(start, end, "PERSON", text[start:end], 0.6, self.name) for start, end in found) for text, found in zip(texts, places, strict=True)]


def test_the_spans_of_a_tagger_join_those_of_the_rules() -> None:
    text = "call 13812345678 for WANG or MAIL x@mail.cn"
    spans = detect(text, general_identifiers(), language="zh", validators=VALIDATORS, taggers=[Shouting()])
    assert [(span.type, span.text, span.rule) for span in spans] == [
        ("PHONE_NUMBER", "13812345678", "pattern"),
        ("PERSON", "WANG", "shouting"),
        ("PERSON", "MAIL", "shouting"),
        ("EMAIL_ADDRESS", "x@mail.cn", "pattern"),
    ]


def test_what_a_tagger_finds_once_is_found_in_every_text_of_the_record() -> None:
    spans = Detector(general_identifiers(), language="en", validators=VALIDATORS, taggers=[Shouting()]).record(["seen by SMITH", "Smithson met SMITH"])
    assert [[span.text for span in found] for found in spans] == [["SMITH"], ["SMITH"]]


def test_a_detector_is_made_once_for_the_same_rules_and_taggers() -> None:
    rules, tagger = general_identifiers(), Shouting()
    first = detector(rules, language="zh", validators=VALIDATORS, taggers=(tagger,))
    assert detector(rules, language="zh", validators=VALIDATORS, taggers=(tagger,)) is first
    assert detector(rules, language="zh", validators=VALIDATORS) is not first
    assert detector(rules, language="zh", validators=VALIDATORS, taggers=(Shouting(),)) is not first
