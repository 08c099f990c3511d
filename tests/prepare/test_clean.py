"""Cleaning: encoding repair, remains of HTML, boilerplate, script and width, and what none of them may change."""

import re
import time

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_of_prepare import chat, row
from metier.errors import InputError
from metier.prepare.clean import CleanSettings, RepeatedSettings, clean, repeated_lines, tidy
from metier.prepare.clean.boilerplate import listed_lines
from metier.prepare.clean.encoding import repair_encoding
from metier.prepare.compare import critical
from metier.records import Record, Source

ALL = CleanSettings()
HALF = CleanSettings(width="half")
SOUND = "高血压患者每日口服氨氯地平5毫克，血压控制在140/90毫米汞柱以下。"


@pytest.mark.parametrize(
    "text",
    [
        SOUND,
        "Il est né à Orléans — déjà vu; Müller, Ångström, naïve, São Paulo",
        "±0.5 ℃, 10² /L, ½ tablet, 5 µg, ×10⁹/L, ≥3 °C, α-羟基",
        "原告王××××诉被告李××，ÀÉÎÕÜ",
        "痫痉痰疸痂癜癔胰脐臌舄",
        "溴吡斯的明、卡马西平、脘腹痞满、哕逆、癥瘕",
        "“引号”——破折号……·间隔号",
    ],
)
def test_sound_text_is_not_repaired(text):
    assert repair_encoding(text) == text


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (SOUND.encode().decode("latin-1"), SOUND),
        ("37Â°C, â€œstableâ€\x9d", "37°C, “stable”"),
        ("cafÃ© 10 mg", "café 10 mg"),
        ("每日5 mg，Menière cafÃ©", "每日5 mg，Menière café"),
        ("高血压".encode("gb2312").decode("latin-1") + " 140/90", "高血压 140/90"),
        ("高血压糖尿病".encode().decode("gb18030"), "高血压糖尿病"),
    ],
)
def test_text_decoded_with_the_wrong_encoding_is_turned_back(wrong, right):
    assert repair_encoding(wrong) == right
    assert tidy(wrong, ALL) == right


def test_text_that_lost_bytes_is_left_as_it_is():
    lost = "高血压病".encode().decode("gb18030", errors="replace")
    assert "\ufffd" in lost or repair_encoding(lost) == "高血压病"
    assert repair_encoding("鐨勬�") == "鐨勬�"


@settings(deadline=None)
@given(st.text(alphabet="的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所", min_size=2))
def test_every_loss_free_wrong_decoding_comes_back_and_right_ones_stay(text):
    assert repair_encoding(text) == text
    assert repair_encoding(text.encode("gb2312").decode("latin-1")) in (text, text.encode("gb2312").decode("latin-1"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<p>高血压</p><p>糖尿病</p>", "高血压\n\n糖尿病"),
        ("a<br/>b<BR>c", "a\nb\nc"),
        ("10<sup>2</sup> and H<sub>2</sub>O, x<sup>th</sup>", "10² and H₂O, x^(th)"),
        ("<td>5</td><td>3</td>", "5 3"),
        ("<b>5</b> mg &lt; 10&nbsp;mg &amp; 1&frac12;", "5 mg < 10 mg & 1½"),
        ("&amp;lt;5", "<5"),
        ("BP <140/90, p<0.05, 5<x<9, a<b and c>d", "BP <140/90, p<0.05, 5<x<9, a<b and c>d"),
        ("血压<140，<5岁，《<民法典>》", "血压<140，<5岁，《<民法典>》"),
        ("Johnson & Johnson <JNJ.N> AT&T; <omitted>", "Johnson & Johnson <JNJ.N> AT&T; <omitted>"),
        ('x <a href="http://a.b/c?d=1&e=2">link</a> y', "x link y"),
        ("if a<b>c then", "if a<b>c then"),
        ("a<script>var x = '<b>';</script>b<!-- <p> -->c<style>p{}</style>", "abc"),
        ("an <!-- open comment", "an <!-- open comment"),
        ("<![CDATA[5 < 6]]>", "5 < 6"),
        ("&notanentity; &#38; &#x4E2D;", "&notanentity; & 中"),
        ("<b\u200br>", "<br>".replace("<br>", "")),
    ],
)
def test_markup_goes_and_comparisons_stay(before, after):
    assert tidy(before, ALL) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("血压１２０／８０，体温３６．５℃", "血压120/80，体温36.5℃"),
        ("ＢＭＩ：２４．５％，８：３０", "BMI：24.5%，8:30"),
        ("（５ｍｇ，ｐｏ）", "（5mg，po）"),
        ("10² ５² ½ ① ㎎ Ⅱ", "10² ５² ½ ① ㎎ Ⅱ"),
        ("你好，世界！", "你好，世界！"),
    ],
)
def test_half_width_never_changes_a_value(before, after):
    assert tidy(before, HALF) == after
    assert critical(before.replace("５²", "")) == critical(after.replace("５²", ""))


@settings(deadline=None)
@given(st.text(alphabet="0123456789０１２３４５６７８９．／％²³½①㎎ｍｇ，。-<>≤±不无", max_size=40))
def test_no_setting_changes_numbers_or_negations(text):
    for chosen in (ALL, HALF):
        assert critical(tidy(text, chosen)) == critical(text)


@settings(deadline=None)
@given(st.text(alphabet="<>/&;abpsuptdrbrli=\"' \n!-0123ltgamx#第页共高血压", max_size=80))
def test_cleaning_is_idempotent_on_what_looks_like_markup(text):
    once = tidy(text, HALF)
    assert tidy(once, HALF) == once


def test_scripts_are_converted_on_demand_only():
    text = "高血壓患者，乾燥綜合徵，10²，５ｍｇ"
    assert tidy(text, ALL) == text
    assert tidy(text, CleanSettings(script="simplified")) == "高血压患者，干燥综合征，10²，５ｍｇ"
    assert tidy("干燥综合征", CleanSettings(script="traditional")) == "乾燥綜合徵"
    assert tidy(tidy(text, CleanSettings(script="simplified")), CleanSettings(script="simplified")) == "高血压患者，干燥综合征，10²，５ｍｇ"


@pytest.mark.parametrize("entry", listed_lines(), ids=lambda entry: entry["name"])
def test_listed_lines_match_their_examples_and_leave_the_near_misses(entry):
    compiled = regex.compile(entry["pattern"], regex.IGNORECASE)
    assert all(compiled.fullmatch(line) for line in entry["match"])
    assert not any(compiled.fullmatch(line) for line in entry["reject"])


def test_boilerplate_lines_leave_and_a_text_of_nothing_else_stays():
    text = "高血压怎么办？\n分享到：微信\n多休息。\nPage 3 of 10"
    record, notes = clean(row(1, text=text), ALL)
    assert record.text == "高血压怎么办？\n多休息。"
    assert notes == ("clean:boilerplate=2",)
    assert tidy("返回顶部", ALL) == "返回顶部"
    assert tidy(text, CleanSettings(boilerplate=False)) == text
    assert tidy("a\n-- 8< --\nb", CleanSettings(boilerplate_lines=("-- 8< --",))) == "a\nb"


def test_lines_that_a_source_repeats_leave_unless_they_carry_a_number_or_a_negation():
    settings = CleanSettings(repeated=RepeatedSettings(share=0.5, minimum=10))
    footer, finding, dose = "某某社区诊疗平台，用心服务", "否认药物过敏史，无手术史", "口服5毫克"
    records = [row(number, text=f"第{number}号病例的经过\n{finding}\n{dose}\n{footer}") for number in range(20)]
    other = Record(id="x", text=f"另一来源\n{footer}", source=Source("b.jsonl", "2" * 64, "line 1", "internal"))
    found = repeated_lines([*records, other], settings)
    cleaned, notes = clean(records[3], settings, found)
    assert cleaned.text == f"第3号病例的经过\n{finding}\n{dose}"
    assert notes == ("clean:boilerplate=1",)
    assert clean(other, settings, found) == (other, ())
    assert clean(records[3], CleanSettings()) == (records[3], ())
    with pytest.raises(InputError, match="were not counted"):
        clean(records[3], settings)


def test_every_change_is_noted_by_its_kind():
    record = chat(1, "<b>头痛</b>\u200b怎么办？\r\n", "37Â°C  不用担心")
    cleaned, notes = clean(record, ALL)
    assert [message.content for message in cleaned.messages] == ["头痛怎么办？", "37°C 不用担心"]
    assert notes == ("clean:blanks", "clean:html", "clean:invisible", "clean:mojibake", "clean:unicode")


@pytest.mark.parametrize("text", ["", "。。。！？", "😀👍🏽", "שלום עולם \u202eabc", "\x00\x00高\x00", "\u200b", "&;<>", "\ud800"])
def test_odd_text_is_cleaned_without_an_error(text):
    once = tidy(text, HALF)
    assert tidy(once, HALF) == once
    assert "\x00" not in once


@pytest.mark.parametrize(
    "bomb",
    [
        "<!--" * 300_000,
        "<a " * 400_000,
        "&" * 1_000_000,
        "<script>" * 150_000,
        "<td " + "a=b " * 300_000,
        "Ã" * 1_000_000,
        "高血压。" * 2_500_000,
        "<" * 10**6,
        " \n" * 10**6,
    ],
)
def test_a_long_text_made_to_hurt_takes_seconds_at_most(bomb):
    started = time.perf_counter()
    tidy(bomb, HALF)
    assert time.perf_counter() - started < 20


def test_a_pattern_that_never_ends_is_stopped_and_a_bad_one_refused():
    with pytest.raises(InputError, match="did not finish"):
        tidy("a" * 60 + "b\nc", CleanSettings(boilerplate_lines=(r"(a|aa|a*)*(b|a)*c",)))
    with pytest.raises(ValueError, match=re.escape("the pattern '(' is not valid")):
        CleanSettings(boilerplate_lines=("(",))
