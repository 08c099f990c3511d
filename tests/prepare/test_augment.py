"""Augmentation: variants point to their parent, answers keep numbers and negations, and what is written by a model is filtered."""

import dataclasses
import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_of_prepare import chat
from endpoint import endpoint
from metier import packs
from metier.errors import InputError, ModelError
from metier.packs.conformance import check
from metier.prepare.augment import KIND, AugmentSettings, FilterSettings, Means, Shares, augment, effect, moving_type_token_ratio, refused, similarity
from metier.prepare.augment.noise import format_noise, swapped, typo
from metier.prepare.augment.phrases import homophones, phrases
from metier.prepare.compare import critical
from metier.prepare.standardize import compile_lexicon
from metier.prepare.writers import EndpointSettings, EndpointWriter, LocalWriter, Written
from metier.records import Drop, Message
from metier.testing import ScriptedModel, ScriptedWriter

EVERY = AugmentSettings(enabled=True, shares=Shares(**dict.fromkeys(Shares.model_fields, 1.0)))
PLAIN = AugmentSettings(enabled=True, shares=Shares(**{**dict.fromkeys(Shares.model_fields, 1.0), "written": 0.0, "translated": 0.0}))
PACK = packs.load("medical")


def corpus():
    zh = [
        chat(
            n,
            f"高血压{n}年，血压14{n % 10}/90，怎么办？",
            f"每日口服{n}毫克，不要停药。定期复查血压。注意休息。",
            language="zh",
            subject=f"s{n}",
            group=f"g{n % 7}",
        )
        for n in range(30)
    ]
    en = [
        chat(n, f"What are the symptoms of heart attack number {n}?", f"Take {n} mg daily. Do not stop. See somebody soon.", language="en", task="qa")
        for n in range(30, 60)
    ]
    return zh + en


GENERAL = [chat(1000 + n, f"小明有{n}个苹果，吃了几个？", "三个。", language="zh", domain="general") for n in range(10)]
MEANS = Means(phrases=PACK.phrases, terms=PACK.lexicon, lexicon=compile_lexicon([PACK.lexicon]), general=GENERAL)


def learnt(record):
    return [message.content for message in record.messages if message.learn]


def test_variants_point_to_their_parent_and_stay_with_it():
    records = corpus()
    parents = {record.id: record for record in [*records, *GENERAL]}
    made = list(augment(records, PLAIN, MEANS))
    kinds = Counter(record.metadata[KIND] for record in made)
    assert set(kinds) == {"synonym", "template", "colloquial", "typo", "format", "opening", "follow_up", "negative", "refusal"}
    assert len({record.id for record in made} | set(parents)) == len(made) + len(parents)
    for record in made:
        (parent,) = (parents[name] for name in record.parents)
        assert (record.group, record.subject, record.language, record.source, record.time) == (
            parent.group, parent.subject, parent.language, parent.source, parent.time,
        )  # fmt: skip
        roles = [message.role for message in record.messages if message.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_the_answer_that_is_learnt_keeps_its_numbers_and_negations():
    parents = {record.id: record for record in corpus()}
    for record in augment(corpus(), PLAIN, MEANS):
        if record.metadata[KIND] == "refusal":
            continue
        parent = parents[record.parents[0]]
        answer = parent.messages[-1].content
        if record.metadata[KIND] in ("opening", "follow_up", "negative"):
            assert critical(record.messages[-1].content) == critical(answer)
        else:
            assert record.messages[-1] == parent.messages[-1]
        for text in learnt(record):
            assert set(critical(text)) <= set(critical(answer))


def test_no_phrase_that_is_learnt_holds_a_number_or_a_turning_word():
    own = [phrase for name in ("medical", "finance", "law") for phrase in packs.load(name).phrases]
    for language, more in (("zh", ()), ("en", ()), ("zh", own), ("en", own)):
        words = phrases(language, more)
        assert [text for use in ("openings", "sorry") for text in words[use] if critical(text)] == []


def test_the_wrong_answer_is_not_learnt_and_the_right_one_is():
    made = [record for record in augment(corpus(), PLAIN, MEANS) if record.metadata[KIND] == "negative"]
    parents = {record.id: record for record in corpus()}
    assert made
    for record in made:
        answer = parents[record.parents[0]].messages[-1].content
        wrong, complaint, right = record.messages[-3:]
        assert (wrong.role, wrong.learn, complaint.role, right.learn) == ("assistant", False, "user", True)
        assert wrong.content != answer and right.content.endswith(answer)
        assert (record.task, record.metadata["rejected"]) == ("correction", wrong.content)


def test_the_same_seed_gives_the_same_whatever_the_order_and_another_seed_another():
    def ids(records, seed=0):
        settings = PLAIN.model_copy(update={"seed": seed, "shares": Shares()})
        return {record.id for record in augment(records, settings, MEANS)}

    records = corpus()
    shuffled = random.Random(3).sample(records, len(records))
    assert ids(records) == ids(shuffled)
    assert ids(records) != ids(records, seed=1)


def test_only_training_records_are_taken():
    records = corpus()
    splits = {record.id: ("train" if number % 2 else "test") for number, record in enumerate(records)}
    settings = PLAIN.model_copy(update={"shares": Shares(refusal=0)})
    made = list(augment(records, settings, MEANS, splits=splits))
    assert made
    assert {splits[record.parents[0]] for record in made} == {"train"}


@settings(deadline=None)
@given(st.text(alphabet="高血压怎么办请问医生头痛感冒发烧", min_size=4, max_size=40), st.integers(0, 99))
def test_typing_errors_keep_numbers_and_change_letters_of_one_sound(text, seed):
    text = f"{text}140/90不"
    changed = typo(text, "zh", random.Random(seed))
    assert critical(changed) == critical(text)
    assert len(changed) == len(text)
    for one, other in zip(text, changed, strict=True):
        assert one == other or other in homophones()[one]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["please", "headache", "not", "without", "140/90", "fever", "I", "take", "medicine"]), min_size=1, max_size=12), st.integers(0, 99)
)
def test_english_typing_errors_keep_numbers_and_negations(words, seed):
    text = " ".join(words)
    assert critical(typo(text, "en", random.Random(seed))) == critical(text)


def test_format_noise_is_what_people_type():
    made = {format_noise("血压140/90，怎么办？", "zh", random.Random(seed)) for seed in range(40)}
    assert made == {"血压14090，怎么办？", "血压140/90怎么办", "血压１４０/９０，怎么办？"}
    assert {format_noise("What now?", "en", random.Random(seed)) for seed in range(20)} == {"What now", "what now?"}
    assert format_noise("好", "zh", random.Random(0)) == "好"


def test_swapping_respects_words_and_meaning():
    groups = [["want to", "wanna"], ["有", "没有"]]
    assert swapped("I want to go", groups, random.Random(0)) == "I wanna go"
    assert swapped("unwant together", groups, random.Random(0)) == "unwant together"
    assert swapped("我有病", groups, random.Random(0)) == "我有病"


@pytest.mark.parametrize(
    ("variant", "language", "reason"),
    [
        ("血压160，请问应该怎么处理呢？", "zh", "numbers_changed"),
        ("血压140，怎么办", "zh", "same_as_parent"),
        ("", "zh", "empty"),
        ("！！", "zh", "empty"),
        ("Blood pressure 140, what now?", "zh", "other_language"),
        ("140", None, "too_short:0.30<0.4"),
        ("血压140，怎么办？" * 4, "zh", "numbers_changed"),
        ("公园里的花朵真是漂亮极了140", "zh", "too_far"),
        ("血压140，应该怎么办？", "zh", None),
    ],
)
def test_what_a_model_wrote_is_filtered(variant, language, reason):
    said = refused("血压140，怎么办？", variant, FilterSettings(), language=language)
    assert said == reason or (reason is not None and said is not None and said.startswith(reason))
    assert refused("血压140，怎么办？", "血压140，应该怎么办？", FilterSettings(), language="zh", identifies=lambda text: True) == "identifier"


def test_written_variants_keep_the_answer_and_name_their_writer():
    records = corpus()[:6]
    texts = iter(["高血压{}年，血压14{}/90，请问该怎么处理呢？", "乱写"] * 3)

    def write(prompt):
        found = re.search(r"高血压(\d+)年，血压14(\d)", prompt[-1].content)
        return next(texts).format(*found.groups())

    writer = ScriptedWriter(write)
    settings = AugmentSettings(enabled=True, shares=Shares(**{**dict.fromkeys(Shares.model_fields, 0.0), "written": 1.0}))
    made = list(augment(records, settings, dataclasses.replace(MEANS, writer=writer)))
    kept = [record for record in made if not isinstance(record, Drop)]
    dropped = [drop for drop in made if isinstance(drop, Drop)]
    assert (len(kept), len(dropped)) == (3, 3)
    assert {drop.reason for drop in dropped} == {"numbers_changed"}
    assert json.loads(dropped[0].content)["messages"][0]["content"] == "乱写"
    for record in kept:
        assert record.messages[1] == next(one for one in records if one.id == record.parents[0]).messages[1]
        assert record.metadata["writer"]["name"] == "scripted" and len(record.metadata["writer"]["prompt"]) == 64
    assert all("高血压" in prompt[-1].content for prompt in writer.prompts)


def test_back_translation_asks_twice():
    asked = []

    def write(prompt):
        asked.append(prompt[-1].content)
        return "Blood pressure 140, what to do?" if "英文：" in prompt[-1].content.splitlines()[-1] else "血压140，应该怎么办呢？"

    record = chat(1, "血压140，怎么办？", "休息。", language="zh")
    settings = AugmentSettings(enabled=True, shares=Shares(**{**dict.fromkeys(Shares.model_fields, 0.0), "translated": 1.0}))
    (made,) = augment([record], settings, Means(writer=ScriptedWriter(write)))
    assert made.messages[0].content == "血压140，应该怎么办呢？"
    assert len(asked) == 2 and "Blood pressure 140" in asked[1]


def test_writing_without_a_writer_is_an_error():
    with pytest.raises(InputError, match="no writer"):
        list(augment(corpus(), EVERY, MEANS))


def test_the_local_model_is_a_writer():
    writer = LocalWriter(ScriptedModel(lambda prompt: prompt[0].content[::-1]), name="base", digest="1" * 64)
    assert writer.write([[Message("user", "abc")]], maximum_tokens=9, temperature=0.0, seed=0) == [Written("cba")]
    (cut,) = writer.write([[Message("user", "abcdefghij")]], maximum_tokens=9, temperature=0.0, seed=0)
    assert not cut.whole
    assert not writer.leaves


def test_an_endpoint_is_a_writer(monkeypatch):
    monkeypatch.setenv("WRITER_KEY", "secret")
    with endpoint(lambda asked: asked + "!") as (url, seen, raw):
        writer = EndpointWriter(EndpointSettings(url=url, model="m", key_variable="WRITER_KEY", parallel=2), deidentified=True)
        raw.append((503, b""))
        assert writer.write([[Message("user", str(n))] for n in range(5)], maximum_tokens=7, temperature=0.5, seed=3) == [Written(f"{n}!") for n in range(5)]
        raw.append((200, json.dumps({"choices": [{"message": {"content": "cut of"}, "finish_reason": "length"}]}).encode()))
        assert writer.write([[Message("user", "6")]], maximum_tokens=7, temperature=0.5, seed=3) == [Written("cut of", whole=False)]
    assert {key for key, _ in seen} == {"Bearer secret"}
    assert seen[-1][1] | {"messages": []} == {"model": "m", "messages": [], "max_tokens": 7, "temperature": 0.5, "seed": 3}
    assert writer.leaves and "secret" not in repr(vars(writer))


def test_what_is_wrong_with_an_endpoint_is_said_without_the_text(monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    with endpoint(str) as (url, _, raw):
        with pytest.raises(InputError, match="de-identified"):
            EndpointWriter(EndpointSettings(url=url, model="m"), deidentified=False)
        with pytest.raises(InputError, match="NO_KEY is not set"):
            EndpointWriter(EndpointSettings(url=url, model="m", key_variable="NO_KEY"), deidentified=True)
        writer = EndpointWriter(EndpointSettings(url=url, model="m", tries=1), deidentified=True)
        for answer, said in (((401, b""), "HTTP 401"), ((200, b"<html>"), "another form")):
            raw.append(answer)
            with pytest.raises(ModelError, match=said) as caught:
                writer.write([[Message("user", "private words")]], maximum_tokens=7, temperature=0.5, seed=3)
            assert "private words" not in str(caught.value)


def test_the_effect_is_measured_before_and_after():
    records = corpus()
    made = list(augment(records, PLAIN, MEANS))
    report = effect(records, [*records, *made])
    assert report["before"]["records"] == 60 and report["after"]["records"] == 60 + len(made)
    assert report["before"]["kinds"] == {"original": 60}
    assert report["after"]["mean_turns"] > report["before"]["mean_turns"] == 1.0
    assert report["after"]["tasks"]["correction"] == report["after"]["kinds"]["negative"]


def test_measures_of_diversity_are_what_their_formulas_say():
    assert moving_type_token_ratio(["a", "b", "a", "b", "a", "b"], window=2) == 1.0
    assert moving_type_token_ratio(["a", "a", "a", "a"], window=2) == 0.5
    assert moving_type_token_ratio(["a", "b", "a"], window=3) == pytest.approx(2 / 3)
    assert moving_type_token_ratio([], window=3) == 0.0
    assert similarity("night", "nacht") == 0.25
    assert similarity("高血压", "高血压") == 1.0
    report = effect([chat(1, "a b", "a b", language="en")], [])["before"]
    assert (report["distinct_1"], report["distinct_2"]) == (0.5, round(2 / 3, 5))


@pytest.mark.parametrize("text", ["", "。。。", "😀", "שלום", "\x00", "5"])
def test_odd_questions_make_no_error(text):
    for record in augment([chat(1, text, "好。", language="zh"), chat(2, "问", "答", language=None)], PLAIN, MEANS):
        assert all(message.content.strip() or message.content == text for message in record.messages)


@pytest.mark.parametrize("name", ["medical", "finance", "law"])
def test_the_phrases_of_the_packs_conform(name):
    pack = packs.load(name)
    assert check(pack) == []
    assert {(phrase.use, phrase.language) for phrase in pack.phrases} >= {
        (use, language) for use in ("refusal", "greeting", "opening") for language in ("zh", "en")
    }
