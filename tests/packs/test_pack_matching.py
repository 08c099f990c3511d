import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.errors import PackError
from metier.packs.matching import applies, compile_rule, fold_width, quality_reason, search
from metier.packs.scanning import find
from metier.packs.spec import Examples, Identifier, QualityRule

EXAMPLES = Examples(match=("x",), reject=("y",))


def spans(text: str, **values: object) -> list[tuple[int, int, str]]:
    identifier = Identifier(entity="CODE", examples=EXAMPLES, **values)
    return [(span.start, span.end, span.text) for span in find(compile_rule(identifier, {"even": lambda text: int(text) % 2 == 0}), text)]


def test_width_is_folded_and_the_text_itself_is_returned() -> None:
    assert spans("编号１２３。", pattern="[0-9]+") == [(2, 5, "１２３")]


@given(st.text())
def test_folding_keeps_the_length_and_what_is_folded_stays(text: str) -> None:
    folded = fold_width(text)
    assert len(folded) == len(text)
    assert fold_width(folded) == folded


def test_a_group_is_the_identifier_and_a_validator_refuses() -> None:
    assert spans("no. 12, no. 13", pattern=r"no\. (?P<n>[0-9]+)", group="n", validator="even") == [(4, 6, "12")]


def test_context_must_stand_within_the_window_before() -> None:
    assert spans("护照 E1", pattern="E[0-9]", context=("护照",), window=4) == [(3, 5, "E1")]
    assert spans("护照 是很久以前办的 E1", pattern="E[0-9]", context=("护照",), window=4) == []
    assert spans("E1 护照", pattern="E[0-9]", context=("护照",)) == []
    assert spans("PASSPORT E1", pattern="E[0-9]", context=("passport",)) == [(9, 11, "E1")]


def test_hints_pass_over_texts_without_them() -> None:
    assert spans("a@b", pattern="[a-z]", hints=("@",)) == [(0, 1, "a"), (2, 3, "b")]
    assert spans("ab", pattern="[a-z]", hints=("@",)) == []


def test_named_lists_stand_for_their_words() -> None:
    assert search(r"^\L<zh_surname>小明$", "欧阳小明")
    assert not search(r"^\L<zh_surname>小明$", "这小明")


@pytest.mark.parametrize("values", [{"pattern": "("}, {"pattern": "a", "group": 1}, {"pattern": "a", "validator": "odd"}])
def test_rules_that_cannot_work_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(PackError):
        spans("a", **values)


def test_quality_reasons_name_the_bound() -> None:
    assert quality_reason(QualityRule(name="too_short", minimum_characters=4, examples=EXAMPLES), " 头痛 ") == "too_short:2<4"
    assert quality_reason(QualityRule(name="too_long", maximum_characters=4, examples=EXAMPLES), "头痛三天了") == "too_long:5>4"
    assert quality_reason(QualityRule(name="ad", pattern="微信", examples=EXAMPLES), "加微信") == "ad"
    assert quality_reason(QualityRule(name="ad", pattern="微信", minimum_characters=2, examples=EXAMPLES), "头痛") is None


def test_rules_without_languages_hold_everywhere_and_unknown_text_gets_all() -> None:
    assert applies((), "zh")
    assert applies(("en",), None)
    assert not applies(("en",), "zh")
