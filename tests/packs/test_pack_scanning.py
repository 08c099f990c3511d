import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.errors import PackError
from metier.packs.matching import backtracks, compile_rule
from metier.packs.scanning import Scanner, find
from metier.packs.spec import Examples, Identifier, Writing

EXAMPLES = Examples(match=("x",), reject=("y",))


def rule(**values: object) -> Identifier:
    return Identifier(**{"entity": "CODE", "examples": EXAMPLES, **values})


def spans(text: str, *identifiers: Identifier) -> list[tuple[str, str]]:
    rules = tuple(compile_rule(item, {"even": lambda value: int(value[-1]) % 2 == 0}) for item in identifiers)
    return [(span.type, span.text) for span in Scanner(rules).spans(text)]


LABELLED = rule(labels=("编号", "case no"), pattern="[0-9A-Z]{4,}")


@pytest.mark.parametrize(
    "text",
    [
        "编号A123。",
        "编号：A123",
        "编号是 A123",
        "编号|A123|",
        '{"case_no": "A123"}',
        "Case No. A123",
        "CASE NO:A123",
        "编号\nA123",
        "编号（旧）A123",
        "caseNo A123",
        "编号＝Ａ１２３",
    ],
)
def test_a_value_is_found_behind_its_label_however_the_two_are_joined(text: str) -> None:
    assert [value for _, value in spans(text, LABELLED)] in (["A123"], ["Ａ１２３"])


@pytest.mark.parametrize("text", ["A123", "编号不详", "suitcase no A123", "编号很长很长的说明A123"])
def test_a_value_without_its_label_is_left_alone(text: str) -> None:
    assert spans(text, LABELLED) == []


def test_of_two_labels_that_end_together_the_longer_one_names_the_value() -> None:
    assert spans("基金账号12345", rule(entity="ACCOUNT", labels=("账号",), pattern="[0-9]+"), rule(entity="FUND", labels=("基金账号",), pattern="[0-9]+")) == [
        ("FUND", "12345")
    ]


def test_the_shorter_label_is_taken_where_the_value_does_not_fit_the_longer() -> None:
    assert spans("基金账号12345", rule(entity="ACCOUNT", labels=("账号",), pattern="[0-9]+"), rule(entity="FUND", labels=("基金账号",), pattern="[A-Z]+")) == [
        ("ACCOUNT", "12345")
    ]


NUMBER = rule(pattern="(?<![0-9A-Za-z])[0-9]{3}-?[0-9]{3}(?![0-9A-Za-z])", writing=Writing(digits=(6, 6)))


@given(before=st.text(alphabet="中文，。ab \n", max_size=30), after=st.text(alphabet="中文，。 \n", max_size=30))
def test_a_number_is_found_wherever_it_stands(before: str, after: str) -> None:
    assert ("CODE", "123-456") in spans(f"{before} 123-456{after}", NUMBER)


def test_numbers_with_other_counts_of_digits_are_passed_over() -> None:
    assert spans("12345 1234567 and 654321", NUMBER) == [("CODE", "654321")]


def test_a_value_that_begins_with_a_word_of_a_list_is_found_with_it() -> None:
    plate = rule(pattern="[A-Z][0-9]{5}", writing=Writing(begins=("zh_plate",)))
    assert spans("其驾驶京A12345离开", plate) == [("CODE", "京A12345")]
    with pytest.raises(PackError, match="there is no list 'zh_plates'"):
        spans("x", rule(pattern="[A-Z]", writing=Writing(begins=("zh_plates",))))


def test_broken_and_misread_values_are_looked_for_only_where_the_rule_says_so() -> None:
    plain = rule(pattern="(?<![0-9A-Za-z])[0-9]{8}(?![0-9A-Za-z])", validator="even", writing=Writing(digits=(8, 8)))
    sure = rule(pattern=plain.pattern, validator="even", writing=Writing(digits=(8, 8), wrapped=True, lookalikes=True))
    assert spans("号1234\n5678", plain) == []
    assert spans("号1234\n5678", sure) == [("CODE", "1234\n5678")]
    assert spans("号12E45678", sure) == []
    assert spans("号l234S678", sure) == [("CODE", "l234S678")]
    assert spans("号l234S679", sure) == []


def test_columns_of_numbers_are_no_broken_number() -> None:
    unsure = rule(pattern="(?<![0-9A-Za-z])[0-9]{8}(?![0-9A-Za-z])", writing=Writing(digits=(8, 8), wrapped=True))
    assert spans("1234\n5678\n9012", unsure) == []
    assert spans("号码1234\n5678的", unsure) == [("CODE", "1234\n5678")]


@pytest.mark.parametrize(
    ("pattern", "verdict"),
    [
        ("(a+)+", True),
        ("(?:a|b?)*c", True),
        ("(?:[ -]?[0-9]){4,9}", True),
        ("(?:[ -]?[0-9]){4,9}+", False),
        ("a+b*c{2,3}", False),
        ("(?:ab){2,9}", False),
        (r"\(a+\)+", False),
    ],
)
def test_patterns_whose_ways_multiply_are_known(pattern: str, verdict: bool) -> None:
    assert backtracks(pattern) is verdict


def test_a_pattern_that_multiplies_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metier.packs.matching.TIMEOUT_SECONDS", 0.05)
    with pytest.raises(PackError, match="did not finish"):
        find(compile_rule(rule(pattern="^(?:(?:a|b|ab)*)*[cd]$"), {}), "ab" * 40 + "e")
