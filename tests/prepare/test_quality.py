"""Quality by form, relevance, instruction and safety: what is found, what it costs, and that every verdict says why."""

import json

import numpy as np
import pytest

from corpus_of_prepare import chat, row
from metier.errors import ConfigError
from metier.packs.spec import Examples, GuardRule, QualityRule
from metier.prepare.quality import (
    DIMENSIONS,
    Dimension,
    LexicalEncoder,
    Means,
    QualitySettings,
    Relevance,
    Summary,
    assess,
    exchange,
    form,
    form_rules,
    judge_form,
    screen,
    screened,
    write_report,
)
from metier.prepare.quality.instruction import follows
from metier.prepare.quality.measures import measure, repeated_share
from metier.prepare.quality.safety import safety
from metier.prepare.quality.scoring import assessed, weighted
from metier.records import Drop, Message
from metier.shards import _read

ON = QualitySettings()
ZH = "蜜蜂在冬天聚成一团取暖，靠秋天储存的蜂蜜过冬，养蜂人此时不应打开蜂箱。"
EN = "In winter the bees form a cluster to keep warm, and they live on the honey that was stored in the autumn."


def rules(text, language):
    return {found.rule for found in judge_form(text, language)}


@pytest.mark.parametrize(("text", "language"), [(ZH, "zh"), (EN, "en"), ("肝病科", None), (f"{ZH}\n{EN}", "zh")])
def test_good_text_breaks_no_rule(text, language):
    assert rules(text, language) <= {"short_zh", "short_en"}


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (ZH[:-1] + "，靠秋天储存的", "zh", "unfinished"),
        (EN[:-1] + " and the", "en", "unfinished"),
        ("建议多喝水多休息。" * 9, "zh", "mostly_repeated"),
        ("Drink water and rest a lot. " * 9, "en", "mostly_repeated"),
        ("问题分析：蜂群失王。意见建议：介绍新王。", "zh", "template_phrases"),
        ("锟斤拷锟斤拷烫烫烫，蜂群", "zh", "mojibake"),
        ("The caf\u00c3\u00a9 isn\u00e2\u20ac\u2122t open", "en", "mojibake"),
        ("蜂\ufffd\ufffd群", "zh", "replaced_characters"),
        ("<p>蜂群失王</p>&nbsp;请介绍新王。", "zh", "markup"),
        ("详情请加微信bee12345咨询，热线400-800-1234，优惠多多。", "zh", "contacts"),
        ("详情请加微信bee12345咨询，热线400-800-1234，优惠多多。", "zh", "advertising"),
        ("谢谢医生！", "zh", "placeholder"),
        ("Thanks.", "en", "placeholder"),
        ("……！！？？", "zh", "placeholder"),
        ("蜜蜂在冬天聚成一团取暖靠秋天储存的蜂蜜过冬" * 4, "zh", "unpunctuated"),
        ("w x y z q r t k l m n p a b c d", "en", "word_length_low"),
        (
            "Hive bees swarm queen drone comb wax honey pollen nectar flower garden tree river stone bridge house window door roof wall floor lamp chair ivy",
            "en",
            "stop_words",
        ),
        ("- one\n- two\n- three\n- four\n- five", "en", "list_only"),
        ("同一行。\n同一行。\n同一行。\n另一行。", "zh", "duplicate_lines"),
        ("%%% ### @@@ ^^^ ||| ~~~ &&& 12 34", "en", "few_letters"),
    ],
)
def test_a_rule_finds_what_it_is_for(text, language, expected):
    assert expected in rules(text, language)


def test_english_rules_never_meet_chinese_text_nor_the_other_way_round():
    own = {language: {rule.name for rule in form_rules() if language in rule.languages} for language in ("zh", "en")}
    assert own["zh"]
    assert own["en"]
    for text in (ZH, ZH * 3, "无", "w x y z " * 9):
        assert not rules(text, "zh") & own["en"]
        assert not rules(text, "en") & own["zh"]


def test_every_rule_explains_itself_with_its_value_and_limit():
    (found,) = [item for item in judge_form("好的蜂蜜", "zh") if item.rule == "short_zh"]
    assert (found.dimension, found.cost, found.value, found.why) == ("information", 0.4, 4, "4 characters, least 12")


def test_a_rule_file_with_faults_says_all_of_them(tmp_path):
    path = tmp_path / "rules.yaml"
    lines = ["{name: a, measure: nosuch, below: 1, dimension: fluency, cost: 1, says: x}", "{name: b, measure: words, dimension: fluency, cost: 1, says: x}"]
    path.write_text("rules:\n" + "".join(f"  - {line}\n" for line in lines), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"there is no measure nosuch[\s\S]*either below or above"):
        form_rules(path)


@pytest.mark.parametrize(("text", "share"), [("abcdefgh" * 4, 0.75), ("abcdefghij", 0.0), ("ab" * 50, 0.98), (EN, 0.0)])
def test_repeats_are_measured_exactly(text, share):
    assert repeated_share(text, 8) == pytest.approx(share, abs=0.01)


def test_measures_survive_whatever_text_there_is():
    for text in ("", "\x00", "\u202eabc", "😀" * 50, "\n\n\n", "a" * 100_000, "。" * 30, "\ud800"):
        for language in ("zh", "en", None, "und"):
            assert all(value >= 0 for value in measure(text, language).values())


def test_question_and_answer_are_found_in_every_form_of_a_record():
    both = exchange(chat(1, "问", "答"))
    assert (both.question, both.answer, both.last, both.paired) == ("问", "答", "答", True)
    columns = exchange(row(1, metadata={"q": "问", "a": "答"}), question="q", answer="a")
    assert (columns.question, columns.answer, columns.prompt) == ("问", "答", (Message("user", "问"),))
    assert not exchange(row(1, text="只有文本")).paired
    turns = (Message("user", "一"), Message("assistant", "二"), Message("user", "三"), Message("assistant", "四", True))
    assert exchange(row(1, messages=turns)).question == "一\n三"
    assert exchange(row(1, messages=turns)).answer == "四"


@pytest.mark.parametrize(
    ("question", "answer", "value", "missed"),
    [
        ("列出三种蜂产品", "1. 蜂蜜\n2. 蜂蜡\n3. 蜂胶", 1.0, ()),
        ("列出三种蜂产品", "1. 蜂蜜\n2. 蜂蜡", 0.0, ("items 3",)),
        ("List two bee products.", "- honey\n- wax", 1.0, ()),
        ("请用不超过10个字回答：蜂王吃什么？", "蜂王一生都吃蜂王浆，工蜂只在幼虫期吃三天。", 0.0, ("most_characters 10",)),
        ("Answer in at most 5 words: what do bees eat?", "Nectar and pollen.", 1.0, ()),
        ("以JSON格式输出蜂群数量", '{"蜂群": 3}', 1.0, ()),
        ("以JSON格式输出蜂群数量", "蜂群有3个", 0.0, ("json",)),
        ("Please answer in English: 蜂王吃什么？", "It eats royal jelly all its life.", 1.0, ()),
        ("蜜蜂为什么在冬天聚成一团呢？", "They keep each other warm in the winter.", 0.2, ("language of the question",)),
        ("蜂王吃什么？", "蜂王吃什么", 0.0, ("more than the question itself",)),
        ("Answer yes or no: is honey sweet?", "Yes, it is.", 1.0, ()),
        ("蜂王吃什么？", "蜂王浆。", 1.0, ()),
    ],
)
def test_what_a_question_asks_of_the_form_is_checked(question, answer, value, missed):
    found = follows(question, answer)
    assert (found.value, found.missed) == (value, missed)


def guard(name, applies, action, pattern, **text):
    return GuardRule(name=name, applies=applies, action=action, pattern=pattern, text=text, examples=Examples(match=("x",), reject=("y",)))


GUARD = (
    guard("poison", "output", "refuse", "毒药|poison", en="I cannot help."),
    guard("harm", "input", "refuse", "怎么下毒|how to poison", zh="我不能提供这方面的信息。"),
    guard("advice", "output", "disclaim", "建议|should", zh="仅供参考。"),
    guard("phone", "input", "redact", "1[3-9][0-9]{9}"),
)


@pytest.mark.parametrize(
    ("question", "answer", "value", "why"),
    [
        ("蜂王吃什么？", "蜂王浆。", 1.0, ()),
        ("蜂王吃什么？", "可以喂毒药。", 0.0, ("rule poison would refuse it",)),
        ("怎么下毒？", "放进水里。", 0.0, ("rule harm would refuse it",)),
        ("怎么下毒？", "我不能提供这方面的信息。", 1.0, ()),
        ("蜂王吃什么？", "建议喂糖水。", 1.0, ("rule advice would add its sentence",)),
        ("蜂王吃什么？", "建议喂糖水。仅供参考。", 1.0, ()),
        ("我的电话13812345678", "好的。", 1.0, ("the question is one that rule phone redacts",)),
    ],
)
def test_safety_is_what_the_guard_would_do(question, answer, value, why):
    found = safety(question, answer, "zh", GUARD)
    assert (found.value, found.why) == (value, why)


TOPICS = ["蜂王", "工蜂", "雄蜂", "蜂蜡", "花粉", "蜂胶", "蜂箱", "巢脾", "越冬", "分蜂", "蜂螨", "糖水", "隔板", "蜂刺", "蜂毒", "荆条"]
WORDS = ["queen", "worker", "drone", "wax", "pollen", "propolis", "hive", "comb", "winter", "swarm", "mite", "syrup", "divider", "sting", "venom", "clover"]


def pairs(language="zh"):
    if language == "zh":
        return [(f"请问{topic}有什么作用，应该怎么管理？", f"{topic}对蜂群很重要，管理{topic}时动作要轻，注意观察变化并做好记录。") for topic in TOPICS]
    return [
        (f"What is the {word} for and how is it managed?", f"The {word} matters to the colony; handle the {word} gently, watch for change and keep records.")
        for word in WORDS
    ]


@pytest.mark.parametrize("language", ["zh", "en"])
def test_relevance_compares_a_pair_with_random_ones(language):
    own = pairs(language)
    relevance = Relevance(LexicalEncoder(text for pair in own for text in pair), own)
    right = relevance.relate(own)
    wrong = relevance.relate([(question, own[(place + 5) % len(own)][1]) for place, (question, _) in enumerate(own)])
    assert all(found.above == 1.0 for found in right)
    assert np.mean([found.above for found in wrong]) < 0.6
    assert max(found.above for found in wrong) < 1.0
    assert right[0].pairs == 2 * (len(own) - 1)


def test_relevance_says_nothing_without_words_or_others_to_compare_with():
    own = pairs()
    relevance = Relevance(LexicalEncoder(text for pair in own for text in pair), own)
    assert relevance.relate([("？！", "……")]) == [None]
    few = Relevance(LexicalEncoder(["甲", "乙"]), own[:3])
    assert not few.usable
    assert few.relate(own[:2]) == [None, None]
    same = Relevance(LexicalEncoder(["甲", "乙"]), [(question, "好的。") for question, _ in own])
    assert same.relate([(own[0][0], "好的。")]) == [None]


def test_vectors_do_not_depend_on_the_process_or_the_batch():
    own = [text for pair in pairs() for text in pair]
    encoder = LexicalEncoder(own)
    assert np.array_equal(encoder.encode(own)[3], encoder.encode(own[3:4])[0])
    assert LexicalEncoder(own[::-1]).encode(["蜂王"]).tolist() == encoder.encode(["蜂王"]).tolist()
    assert np.count_nonzero(encoder.encode(["蜂王"])) == 3


def measured(**values):
    return {name: Dimension(values.get(name), "test", () if name in values else ("nothing there",)) for name in DIMENSIONS}


def test_weights_of_what_was_not_measured_go_to_the_rest():
    assert weighted(measured(facts=1.0, relevance=0.5), {"facts": 0.3, "relevance": 0.3, "format": 0.4}) == (pytest.approx(0.75), pytest.approx(0.6))
    assert weighted(measured(), {"facts": 1.0}) == (None, 0.0)
    found = assessed("r", "zh", measured(fluency=0.9, safety=1.0), paired=False, settings=ON)
    assert found.matrix == pytest.approx((0.15 * 0.9 + 0.1) / 0.25)
    assert "measured are 25% of the weights, scaled to the whole" in found.reasons
    assert "facts not measured: nothing there" in found.reasons


@pytest.mark.parametrize(
    ("values", "score", "verdict"),
    [
        ({"relevance": 1.0, "information": 1.0, "format": 1.0, "facts": 1.0, "safety": 1.0}, 1.0, "use"),
        ({"relevance": 0.8, "information": 0.8, "format": 0.8, "facts": 0.8, "safety": 1.0}, 0.8, "review"),
        ({"relevance": 0.6, "information": 0.6, "format": 0.6, "facts": 0.6, "safety": 1.0}, 0.6, "review"),
        ({"relevance": 0.5, "information": 0.6, "format": 0.6, "facts": 0.6, "safety": 1.0}, 0.57, "drop"),
        ({"relevance": 0.0, "information": 1.0, "format": 1.0, "facts": 1.0, "safety": 1.0}, 0.0, "drop"),
        ({"relevance": 1.0, "information": 1.0, "format": 1.0, "facts": 1.0, "safety": 0.0}, 0.0, "drop"),
    ],
)
def test_the_dialogue_score_and_its_verdict(values, score, verdict):
    found = assessed("r", "zh", measured(**values), paired=True, settings=ON)
    assert (found.score, found.verdict) == (pytest.approx(score), verdict)
    assert found.reasons[0].startswith(f"dialogue score {score:.2f} is")


def test_nothing_measured_is_no_verdict():
    found = assessed("r", None, measured(), paired=True, settings=ON)
    assert (found.score, found.verdict) == (None, "not measured")


@pytest.mark.parametrize(
    "given",
    [
        {"matrix": {"facts": 0.5}},
        {"thresholds": {"use": 0.5, "review": 0.6}},
        {"encoder": "base"},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_be_are_refused(given):
    with pytest.raises(ValueError, match=r"add up to|review 0.6 is above|needs model|Extra inputs"):
        QualitySettings.model_validate(given)


def a_set():
    good = [chat(number, question, answer, language="zh") for number, (question, answer) in enumerate(pairs())]
    bad = [
        chat(100, "请问蜂王有什么作用？", "谢谢！", language="zh"),
        chat(101, "请问蜂蜡有什么作用？", "今天天气很好，我们一起去公园散步，看到了许多漂亮的风筝。", language="zh"),
        chat(102, "请问花粉有什么作用？", "花粉可以拌毒药喂，管理花粉时动作要轻，注意观察变化并做好记录。", language="zh"),
    ]
    return [*good, *bad, row(103, text=ZH, language="zh"), chat(104, "科室？", "养蜂科", label="养蜂科", language="zh"), row(105, metadata={"n": 1})]


def test_a_set_is_assessed_record_by_record_and_every_verdict_has_its_reason():
    found = {item.record_id: item for item in assess(a_set(), ON, Means(guard=GUARD))}
    records = a_set()
    assert len(found) == len(records)
    assert {found[record.id].verdict for record in records[:16]} == {"use"}
    thanks, weather, poison, text, label, columns = (found[record.id] for record in records[16:])
    assert thanks.dimensions["information"].value == 0
    assert weather.score == 0
    assert "irrelevant: the score is 0 whatever the rest" in weather.reasons
    assert any(reason.startswith("relevance 0.00: similarity") and "random pairs" in reason for reason in weather.reasons)
    assert (poison.score, poison.dimensions["safety"].value) == (0, 0)
    assert (text.dialogue, text.dimensions["relevance"].value) == (None, None)
    assert text.matrix == 1
    assert label.dimensions["information"].why == ("the answer is a label",)
    assert (label.dialogue, label.score, label.verdict) == (None, label.matrix, "use")
    assert columns.verdict == "not measured"


def test_the_order_of_the_records_changes_nothing():
    first = {item.record_id: item for item in assess(a_set(), ON)}
    second = {item.record_id: item for item in assess(a_set()[::-1], QualitySettings(batch=3))}
    assert {name: (item.score, item.reasons) for name, item in first.items()} == {name: (item.score, item.reasons) for name, item in second.items()}


def test_the_report_has_a_row_a_record_and_a_summary_of_the_set(tmp_path):
    facts = write_report(assess(a_set(), ON, Means(guard=GUARD)), tmp_path, ON)
    rows = list(_read(tmp_path / "quality.parquet"))
    assert [row["record_id"] for row in rows] == [record.id for record in a_set()]
    assert all(row["facts"] is None for row in rows)
    assert facts["records"] == 22
    assert sum(facts["verdicts"].values()) == 22
    assert facts["verdicts"]["not measured"] == 1
    assert facts["scores"]["facts"] == {"measured": 0, "not_measured": 22, "mean": None, "histogram": [0] * 20}
    assert sum(facts["scores"]["score"]["histogram"]) == facts["scores"]["score"]["measured"] == 21
    assert facts["means"]["relevance"]["lexical"] == 19
    assert "safety: rule poison would refuse it" in facts["findings"]
    assert not [text for question, answer in pairs() for text in (question, answer) if text in json.dumps(facts, ensure_ascii=False)]


def test_row_by_row_only_the_form_is_looked_at():
    kept = screen(chat(1, "问一下", ZH, language="zh"), ON)
    assert kept == (chat(1, "问一下", ZH, language="zh"), ())
    _, notes = screen(chat(1, "问一下", "问题分析：蜂群失王。意见建议：介绍新王。", language="zh"), ON)
    assert notes == ("quality:template_phrases",)
    assert screen(chat(1, "问", "无"), QualitySettings(enabled=False))[1] == ()


def test_rows_leave_only_where_dropping_is_on_and_the_reason_says_why():
    bad = chat(1, "蜂王吃什么？", "谢谢医生！", language="zh")
    assert not isinstance(screen(bad, ON), Drop)
    found = screen(bad, QualitySettings(drop=True))
    assert (found.step, found.reason) == ("quality", "poor_information:0.00<0.25:placeholder,short_zh,empty_turns")
    step = screened(QualitySettings(drop=True))
    assert [isinstance(item, Drop) for item in step([bad, chat(2, "蜂王吃什么？", ZH, language="zh")])] == [True, False]


def test_a_rule_of_the_pack_takes_all_information():
    rule = QualityRule(name="rumour", pattern="听说", examples=Examples(match=("听说",), reject=("x",)))
    dimensions, findings = form(chat(1, "蜂王吃什么？", f"听说{ZH}", language="zh"), ON, (rule,))
    assert dimensions["information"].value == 0
    assert findings[-1].why == "the pack's rule rumour"


def test_a_summary_counts_by_language():
    summary = Summary()
    for item in assess([chat(1, "蜂王吃什么？", ZH), chat(2, "What do bees eat?", EN)], QualitySettings(encoder="none")):
        summary.add(item)
    assert set(summary.facts(ON)["verdicts_by_language"]) == {"zh", "en"}
