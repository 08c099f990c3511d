"""Which taggers a language gets, what the manifest says of them, and how they join a detector."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from metier.privacy.detect import Detector
from metier.privacy.names import NamesSettings, Remembering, read_ahead, tagger_notes, taggers_for
from metier.records import Span


def test_each_language_gets_its_taggers() -> None:
    assert [tagger.name for tagger in taggers_for("zh")] == ["names-zh", "names-latin"]
    assert [tagger.name for tagger in taggers_for("en")] == ["names-en"]
    assert [tagger.name for tagger in taggers_for(None)] == ["names-zh", "names-en"]
    assert taggers_for("de", NamesSettings(en="off", zh="off")) == ()


def test_less_than_could_be_done_is_said() -> None:
    assert tagger_notes("zh") == ()
    assert tagger_notes("zh", NamesSettings(zh="rules")) == ("names of people in Chinese text are found by rules alone: names.zh: rules",)
    assert len(tagger_notes(None, NamesSettings(zh="off", en="off"))) == 2
    assert taggers_for("zh", NamesSettings(zh="rules"))[0].name == "names-zh:rules"


def test_settings_come_back_from_json_and_refuse_what_they_do_not_know() -> None:
    settings = NamesSettings(zh="rules", entities=("PERSON", "LOCATION"))
    assert NamesSettings.model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(ValidationError):
        NamesSettings.model_validate({"zh": "jieba"})


def test_latin_names_in_chinese_text_need_a_given_and_a_family_name() -> None:
    (tagger,) = [tagger for tagger in taggers_for("zh") if tagger.name == "names-latin"]
    assert [span.text for span in tagger.tag(["主诊医生John Smith建议服用Xanax和Grace牌奶粉"])[0]] == ["John Smith"]


def test_places_and_organisations_are_found_where_they_are_asked_for() -> None:
    tagger = taggers_for("zh", NamesSettings(entities=("PERSON", "LOCATION", "ORGANIZATION")))[0]
    (spans,) = tagger.tag(["张建军在上海市为中国建设银行工作。"])
    assert [(span.text, span.type) for span in spans] == [("张建军", "PERSON"), ("上海市", "LOCATION"), ("中国建设银行", "ORGANIZATION")]


def test_a_detector_finds_a_name_of_one_text_in_every_text_of_the_record() -> None:
    made = Detector((), language="zh", validators={}, taggers=taggers_for("zh"))
    first, second = made.record(["证人罗子涵到庭。", "关于罗子涵的材料"])
    assert [span.text for span in first] == ["罗子涵"]
    assert [span.text for span in second] == ["罗子涵"]


def test_a_fresh_process_builds_the_same_taggers_from_the_settings() -> None:
    code = """
import sys
from metier.privacy.names import NamesSettings, taggers_for
settings = NamesSettings.model_validate_json(sys.argv[1])
print(*[span.text for tagger in taggers_for("zh", settings) for span in tagger.tag([sys.argv[2]])[0]])
"""
    settings = NamesSettings(zh="rules").model_dump_json()
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", code, settings, "原告张伟说"], capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout.split() == ["张伟"]


class Counting:
    """A tagger that says how many texts it was asked for."""

    name = "counting"

    def __init__(self) -> None:
        self.asked = 0

    def tag(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        self.asked += len(texts)
        return [(Span(0, len(text), "PERSON", text),) for text in texts]


def test_texts_that_were_read_ahead_are_not_read_again() -> None:
    counting = Counting()
    tagger = Remembering(counting, most=10)
    read_ahead([tagger], ["ab", "cd", "ab"])
    assert counting.asked == 2
    assert [spans[0].text for spans in tagger.tag(["cd", "ab"])] == ["cd", "ab"]
    assert counting.asked == 2
    tagger.tag(["x" * 9])
    assert tagger.tag(["ab"])[0][0].text == "ab"
    assert counting.asked == 4
