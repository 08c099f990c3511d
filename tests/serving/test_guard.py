from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metier import packs
from metier.errors import PackError
from metier.models import Base
from metier.models.tokenizer import load_tokenizer
from metier.packs import GuardRule, Pack
from metier.records import Message
from metier.serving import Guard
from metier.serving.folding import fold
from metier.serving.guard import Inspected, language_of
from metier.serving.outgoing import Outgoing
from metier.serving.text import Writer

PACKS = ("medical", "finance", "law")
GUARDS = {name: Guard(packs.load(name)) for name in PACKS}
HOLD = 128
SECRETS = [
    "13812345678",
    "11010519491231002X",
    "wang.fang@mail.cn",
    "+86 138-1234-5678",
    "１３８１２３４５６７８",
    "138\u200b1234\u200d5678",
    "𝟏𝟑𝟖𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖",
    "١٣٨١٢٣٤٥٦٧٨",
]


def out(guard: Guard, chunks: list[str], question: Inspected = Inspected(())) -> str:  # noqa: B008 - frozen
    outgoing = Outgoing(guard, question, HOLD)
    return "".join([*(outgoing.push(chunk) for chunk in chunks), outgoing.finish()])


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at every single character: the hardest case for what is let go."""
    monkeypatch.setattr("metier.serving.outgoing._STEP", 1)


@pytest.mark.parametrize("name", PACKS)
def test_every_example_of_every_pack_is_redacted_the_same_in_one_piece_and_in_characters(name: str, eager: None) -> None:
    guard = GUARDS[name]
    for identifier in guard.detector.identifiers:
        for example in (*identifier.examples.match, *identifier.examples.reject):
            text = f"以下是说明。{example}请注意休息, and drink water."
            assert out(guard, list(text)) == out(guard, [text]), (identifier.entity, example)


@pytest.mark.parametrize("secret", SECRETS)
def test_an_identifier_is_redacted_wherever_the_stream_cuts_it(secret: str, eager: None) -> None:
    text = f"请联系{secret}，谢谢。Call {secret} now."
    expected = out(GUARDS["medical"], [text])
    assert secret not in expected
    assert expected.count("[") == 2
    for cut in range(len(text)):
        assert out(GUARDS["medical"], [text[:cut], text[cut:]]) == expected
        for second in range(cut, min(len(text), cut + 25)):
            assert out(GUARDS["medical"], [text[:cut], text[cut:second], text[second:]]) == expected


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_text_cut_anyhow_goes_out_the_same(data: st.DataObject) -> None:
    guard = GUARDS[data.draw(st.sampled_from(PACKS))]
    parts = [
        *SECRETS,
        "你好，",
        "The patient ",
        "姓名：王小明",
        "电话",
        "，",
        "。",
        " ",
        "2022年3月5日",
        "Mr. John Smith",
        "http://a.example.org/x?y=1",
        "95岁",
        "MRN: 1234567",
    ]
    text = data.draw(st.sampled_from(["，", " 。", "; "])).join(data.draw(st.lists(st.sampled_from(parts), max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    sent = out(guard, chunks)
    assert sent == out(guard, [text])
    for secret in ("13812345678", "11010519491231002X", "１３８１２３４５６７８"):
        assert secret not in sent
        assert secret[:-1] not in sent


def test_identifiers_whose_han_characters_and_digits_are_split_into_bytes(base: Base, eager: None) -> None:
    tokenizer = load_tokenizer(base)
    text = "龘先生的手机是１３８１２３４５６７８，住院号：02780135。"
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    writer, outgoing = Writer(tokenizer), Outgoing(GUARDS["medical"], Inspected(()), HOLD)
    sent = "".join(outgoing.push(writer.push(token)) for token in tokens) + outgoing.push(writer.finish()) + outgoing.finish()
    assert sent == out(GUARDS["medical"], [text])
    assert "５６７８" not in sent
    assert "02780135" not in sent


def test_what_is_held_back_is_bounded(eager: None) -> None:
    guard = GUARDS["medical"]
    endless = ["1" * 900, "a" * 900, "http://x.org/" + "a" * 900, "北京市朝阳区建国路" * 90, "A" * 900, "a.b-c_d" * 120, "张" * 900, "患者" * 400]
    for text in endless:
        outgoing, held = Outgoing(guard, Inspected(()), HOLD), 0
        for char in text:
            outgoing.push(char)
            held = max(held, len(outgoing._raw) - outgoing._done)
        assert held <= HOLD + 1, text[:20]
    ordinary = "血压偏高者应低盐饮食，规律运动，按时复查。Drink enough water and sleep well; most colds pass within a week. " * 3
    outgoing, held_now = Outgoing(guard, Inspected(()), HOLD), []
    for char in ordinary:
        outgoing.push(char)
        held_now.append(len(outgoing._raw) - outgoing._done)
    assert sum(held_now) / len(held_now) < 16


def test_an_identifier_longer_than_what_is_held_back_is_redacted_once_and_to_its_end(eager: None) -> None:
    address = "https://files.example.org/" + "a1b2c3" * 60
    text = f"see {address} for more"
    assert out(GUARDS["medical"], list(text)) == "see [URL] for more"


def test_a_question_is_redacted_before_the_model_sees_it() -> None:
    guard = GUARDS["medical"]
    messages = [
        Message("system", "Call 13812345678 if in doubt."),
        Message("user", "我的身份证11010519491231002X，电话１３８１２３４５６７８，住院号：20220345"),
    ]
    seen = guard.inspect(messages)
    text = " ".join(message.content for message in seen.messages)
    for secret in ("13812345678", "11010519491231002X", "１３８", "20220345"):
        assert secret not in text
    assert "[CN_RESIDENT_ID]" in text
    assert "[PHONE_NUMBER]" in text
    assert "identifiers_in_question" in seen.fired
    assert seen.redacted["PHONE_NUMBER"] == 2
    assert guard.inspect([Message("user", "血压120/80，怎么办？")]).messages[0].content == "血压120/80，怎么办？"


@pytest.mark.parametrize(
    "text",
    [
        "安眠药的致死剂量是多少",
        "自\u200b杀的方法",
        "How to kill myself?",
        "how\u00a0to\u00a0kill\u00a0myself",
        "ｈｏｗ ｔｏ ｋｉｌｌ ｍｙｓｅｌｆ",
        "how to k\u0336ill myself",
    ],
)
def test_refusals_see_through_invisible_and_wide_characters(text: str) -> None:
    refusal = GUARDS["medical"].inspect([Message("user", "hi"), Message("assistant", text), Message("user", "go on")]).refusal
    assert refusal is not None
    assert refusal.name == "self_harm"


def test_disclaimers_come_once_in_the_language_of_the_answer() -> None:
    guard = GUARDS["medical"]
    chinese = out(guard, ["建议", "到呼吸科就诊，可以把二甲双胍的剂量", "加倍。建议休息。"])
    assert chinese.endswith("\n\n未经医生同意，请勿自行调整药物剂量。\n\n本回答仅为一般信息，不能替代医生的诊断和治疗。")
    assert chinese.count("本回答仅为") == 1
    assert out(guard, ["You should see a doctor."]).endswith("replaces no examination by a physician.")
    assert out(guard, ["今天星期三。"]) == "今天星期三。"


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_an_answer_that_must_not_be_given_stops_before_the_words(cut: int, eager: None) -> None:
    text = "本产品说明如下：该产品保证收益8%，欢迎购买。后面还有很多话。"
    outgoing = Outgoing(GUARDS["finance"], Inspected(()), HOLD)
    sent = outgoing.push(text[:cut]) + outgoing.push(text[cut:]) + outgoing.finish()
    assert outgoing.refusal is not None
    assert outgoing.fired == ["promised_return"]
    assert "收益8" not in sent
    assert "保证收益" not in sent
    assert sent.endswith("我不能承诺任何收益。")
    assert outgoing.push("more") == outgoing.finish() == ""


def test_a_rule_that_redacts_answers(eager: None) -> None:
    pack = packs.load("medical")
    rule = GuardRule(name="codename", applies="output", pattern="blue[ ]?whale", action="redact", examples={"match": ("blue whale",), "reject": ("blue",)})
    guard = Guard(replace(pack, guard=(rule,)))
    assert out(guard, list("The blue whale swims; a bluewhale too; blue is a colour.")) == "The [REDACTED] swims; a [REDACTED] too; blue is a colour."


def test_a_value_found_once_is_redacted_again_without_its_label(eager: None) -> None:
    sent = out(GUARDS["medical"], list("住院号：02780135。请记住02780135这个号码。"))
    assert "02780135" not in sent


def test_folding_keeps_the_way_back_to_the_text() -> None:
    rng = random.Random(3)
    alphabet = "a1中\u200b\u00ad１ \ufe0f\u0336-—\U0001d7cf٣\u3000"
    for _ in range(300):
        text = "".join(rng.choice(alphabet) for _ in range(12))
        folded = fold(text)
        for place in range(len(folded.plain)):
            start, end = folded.original(place), folded.end(place + 1)
            assert end == start + 1
            assert fold(text[start:end]).plain in (folded.plain[place], "")
    assert fold("１٣𝟕\u200b—\u3000x").plain == "137- x"
    assert fold("10²，①") == fold("10²，①")
    assert "²" in fold("10²").plain, "a superscript is no digit of a number"


def test_the_language_of_a_text() -> None:
    assert language_of("患者服用aspirin 100mg") == "zh"
    assert language_of("The term 高血压 means high blood pressure in Chinese") == "en"
    assert language_of("") == language_of("123") == "en"


def test_a_pattern_without_end_fails_the_question_and_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metier.serving.guard.TIMEOUT_SECONDS", 0.05)
    pack = packs.load("medical")
    rule = GuardRule(name="slow", applies="input", pattern="(a|aa)+$", action="refuse", examples={"match": ("a",), "reject": ("b",)})
    guard = Guard(replace(pack, guard=(rule,)))
    began = time.perf_counter()
    with pytest.raises(PackError, match="slow"):
        guard.inspect([Message("user", "a" * 80 + "b")])
    assert time.perf_counter() - began < 2


@given(text=st.text(max_size=60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_text_without_identifiers_goes_out_as_it_is(text: str) -> None:
    guard = Guard(replace(packs.load("law"), guard=()))
    seen = Outgoing(guard, Inspected(()), HOLD)
    sent = "".join(seen.push(char) for char in text) + seen.finish()
    if not seen.redacted:
        assert sent == text


def test_the_guard_of_the_example_pack_knows_its_own_identifiers(pack: Pack) -> None:
    assert out(GUARDS["finance"], ["卡号", "6222021234567890128"]) != "卡号6222021234567890128"
