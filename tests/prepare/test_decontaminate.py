"""What a model is tested with does not stand in what it learns from."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_of_prepare import chat, row
from metier.prepare.decontaminate import DecontaminateSettings, Reference, contaminated, decontaminate
from metier.prepare.dedup import Records

ZH = "某公司与某供应商签订了为期三年的原料采购合同，约定每月交货两次，逾期交货应当按日支付违约金。现供应商连续两个月未能交货，公司能否解除合同并要求赔偿损失？"
EN = "A tenant who paid two months of rent in advance wants to leave the flat early because the heating has not worked since the first week of December."
FILLER = "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少白日依山尽黄河入海流欲穷千里目更上一层楼"


def noise(seed, count=80):
    rng = random.Random(seed)
    return "".join(rng.choice(FILLER) for _ in range(count))


def words(seed, count=40):
    rng = random.Random(seed)
    return " ".join("".join(rng.choice("abcdefgh") for _ in range(5)) for _ in range(count))


def reasons(records, texts, **values):
    return contaminated(Records(records), [Reference("bar-exam", texts)], DecontaminateSettings(**values))


@pytest.mark.parametrize(("item", "other"), [(ZH, noise(1)), (EN, words(1))])
def test_an_item_is_found_whole_as_a_part_nearly_and_inside_a_long_text(item, other):
    records = [
        row(1, text=item),
        row(2, text=other),
        chat(3, item, "可以。" * 30),
        row(4, text=item[:20] + "～" + item[20:].replace("，", "、").replace(",", ";")),
        row(5, text=other + item + other),
        row(6, text=item[:-12] + "，请问？"),
    ]
    found = reasons(records, [item, "是", "yes"])
    assert sorted(found) == [0, 2, 3, 4, 5]
    assert found[0] == found[2] == found[3] == "exact:bar-exam"
    assert found[4] == "ngram:bar-exam"
    assert found[5].startswith("near:0.")


def test_a_short_answer_that_is_an_item_is_no_contamination_but_a_short_row_is():
    records = [chat(1, noise(3), "可以解除"), row(2, text="可以解除！"), row(3, label="可以解除", text=noise(4))]
    assert reasons(records, ["可以解除"]) == {1: "exact:bar-exam"}


@pytest.mark.parametrize(("item", "part"), [(ZH, ZH[5:37]), (EN, " ".join(EN.split()[2:16]))])
def test_boilerplate_of_many_rows_is_no_evidence(item, part):
    few = [row(number, text=f"{noise(number)} {words(number)} {part} {words(number + 99)}") for number in range(4)]
    assert len(reasons(few, [item], common=4)) == 4
    found = decontaminate(Records(few), [Reference("t", [item])], DecontaminateSettings(common=3))
    assert found.reasons == {}
    assert found.boilerplate > 0


def test_thirteen_words_are_the_border_and_case_and_punctuation_do_not_count():
    item = words(5)
    inside = [f"{words(6)} {' '.join(item.upper().split()[3 : 3 + count])}, {words(7)}" for count in (12, 13)]
    assert list(reasons([row(number, text=text) for number, text in enumerate(inside)], [item])) == [1]


def test_the_reason_names_the_closest_reference_and_counts_are_by_rule():
    near = ZH.replace("三年", "五年")
    found = decontaminate(
        Records([row(1, text=near), row(2, text=EN), row(3, text=noise(9))]),
        [Reference("a", [ZH.replace("原料", "设备").replace("公司", "工厂")]), Reference("b", [ZH, EN]), Reference("empty", ["", "  "])],
        DecontaminateSettings(),
    )
    assert found.reasons[0].endswith("to b")
    assert found.reasons[1] == "exact:b"
    assert found.counts == {"a": {}, "b": {"exact": 1, "near": 1}, "empty": {}}
    assert found.items == {"a": 1, "b": 2, "empty": 0}


def test_nothing_is_looked_for_when_switched_off_or_without_references():
    assert reasons([row(1, text=ZH)], [ZH], enabled=False) == {}
    assert contaminated(Records([row(1, text=ZH)]), [], DecontaminateSettings()) == {}
    assert contaminated(Records([]), [Reference("x", [ZH])], DecontaminateSettings()) == {}


def test_odd_texts_pass():
    odd = [row(1, text=""), row(2, text="。。！？"), row(3, text="مرحبا بالعالم"), row(4, text="👍" * 30), row(5, text="\x00"), row(6, text="短")]
    assert reasons(odd, [ZH, "。。", "👎" * 30]) == {}


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 3))
def test_the_order_of_rows_does_not_matter(order, common):
    texts = [ZH, ZH + noise(1), EN, noise(2) + ZH[:40], noise(3), words(4) + " " + EN]
    plain = reasons([row(number, text=text) for number, text in enumerate(texts)], [ZH, EN], common=common)
    shuffled = reasons([row(number, text=texts[number]) for number in order], [ZH, EN], common=common)
    assert {order[place]: reason for place, reason in shuffled.items()} == plain
