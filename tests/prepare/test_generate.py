"""Generation: questions, passages, answers and checks, with provenance; interrupted work goes on; nothing unchecked gets through."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from corpus_of_prepare import chat, row
from metier.errors import InputError, ModelError
from metier.prepare.generate import GenerateSettings, Index, Knowledge, generate, passages_of, read_folder, report
from metier.prepare.generate.check import answer_refused, question_refused, supported
from metier.prepare.generate.retrieval import words
from metier.records import Drop, Record
from metier.testing import ScriptedWriter

DOCUMENTS = {
    "zh": ["高血压患者应当每日测量血压，口服氨氯地平5毫克，限制钠盐摄入。",
        "糖尿病患者需要控制饮食，每周运动5次，定期监测血糖。",
        "流感多由病毒引起，多休息多饮水，接种疫苗可以预防。"],
    "en": ["People with hypertension measure their pressure daily, take amlodipine 5 mg and eat less salt.",
        "People with diabetes watch their diet and measure their sugar often."],
}  # fmt: skip
EXAMPLES = [
    chat(1, "高血压怎么办？", "测量血压。", language="zh", subject="s1"),
    chat(2, "糖尿病吃什么？", "控制饮食。", language="zh", group="g2", label="饮食"),
    chat(3, "How is hypertension treated?", "With drugs.", language="en"),
]
KNOWLEDGE = Knowledge(passages_of([row(n, text=text) for n, text in enumerate([*DOCUMENTS["zh"], *DOCUMENTS["en"]])]))
SETTINGS = GenerateSettings(enabled=True, variants=2, passages=2, follow_up=1.0, batch=1)


class Script:
    """Answers as a careful model would, from the prompt alone."""

    def __init__(self):
        self.count = 0

    def __call__(self, prompt):
        text = prompt[-1].content
        zh = "资料：" in text or "问题" in text
        if text.endswith(("新问题：", "New question:")):
            self.count += 1
            subject = re.findall(r"(?:问题|Question)[：:](.+)", text)[-1]
            return (
                f"{subject.rstrip('？?')}，平时该注意些什么{'呢' * self.count}？"
                if zh
                else f"What should people know about {subject.rstrip('?').split()[-2]}{' now' * self.count}?"
            )
        if text.endswith(("下一个问题：", "Next question:")):
            answer = re.findall(r"(?:答|A)[：:](.+)", text)[-1]
            return f"{answer[:3]}患者还要留意什么？" if zh else f"How often do {answer.split()[2]} patients come?"
        passages = text.split("资料：\n" if "资料：" in text else "Passages:\n")[-1]
        return passages.splitlines()[0]


def made(folder, **values):
    settings = SETTINGS.model_copy(update=values)
    return list(generate(EXAMPLES, KNOWLEDGE, ScriptedWriter(Script()), settings, folder=folder))


def test_conversations_rest_on_passages_and_name_where_they_come_from(tmp_path):
    entries = made(tmp_path)
    kept = [entry for entry in entries if isinstance(entry, Record)]
    assert len(entries) == 6 and len(kept) == 6
    passages = {passage.id: passage for passage in KNOWLEDGE.passages}
    examples = {example.id: example for example in EXAMPLES}
    for record in kept:
        example, *used = record.parents
        assert set(used) <= set(passages) and used == record.metadata["generate"]["passages"]
        assert (record.language, record.subject) == (examples[example].language, examples[example].subject)
        assert record.group == (examples[example].group or example)
        assert record.metadata["generate"]["writer"] == "scripted" and len(record.metadata["generate"]["prompts"]) == 64
        assert supported(record.messages[1].content, [passages[name].text for name in used]) == 1.0
        assert [message.learn for message in record.messages] == [False, True] * (len(record.messages) // 2)
    assert kept[2].metadata["generate"]["intent"] == "饮食"
    assert report(entries)["turns"] == {"2": 6}
    assert report(entries)["languages"] == {"en": 2, "zh": 4}


def test_the_same_call_reads_what_is_finished_and_gives_the_same(tmp_path):
    first = made(tmp_path)
    writer = ScriptedWriter(lambda prompt: 1 / 0)
    again = list(generate(EXAMPLES, KNOWLEDGE, writer, SETTINGS, folder=tmp_path))
    assert again == first and writer.prompts == []
    assert len(list(tmp_path.iterdir())) == 3


def test_after_an_error_only_the_rest_is_written(tmp_path):
    calls = 0

    def failing(prompt):
        nonlocal calls
        calls += 1
        if calls > 8:
            raise ModelError("the endpoint is gone")
        return script(prompt)

    script = Script()
    with pytest.raises(ModelError):
        list(generate(EXAMPLES, KNOWLEDGE, ScriptedWriter(failing), SETTINGS, folder=tmp_path))
    assert len(list(tmp_path.glob("*.jsonl"))) == 1
    entries = made(tmp_path)
    assert len(entries) == 6 and len(list(tmp_path.glob("*.jsonl"))) == 3


def test_a_killed_process_loses_one_piece_at_most(tmp_path):
    code = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r}); sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
        import test_generate as t
        script = t.Script()
        def slow(prompt):
            time.sleep(0.05)
            return script(prompt)
        for _ in t.generate(t.EXAMPLES * 1, t.KNOWLEDGE, t.ScriptedWriter(slow), t.SETTINGS, folder=t.Path({str(tmp_path)!r})):
            print("done", flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ})
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    finished = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    assert 1 <= len(finished) < 3
    assert len(made(tmp_path)) == 6
    assert all(path.read_bytes() == data for path, data in finished.items())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("每日测量血压，口服氨氯地平5毫克。", None),
        ("口服氨氯地平50毫克。", "number_without_source:1"),
        ("", "empty_answer"),
        ("好", "answer_too_short"),
        ("无法回答", "unanswerable"),
        ("Measure it daily.", "answer_in_other_language"),
        ("高血压怎么办？", "answer_repeats_question"),
        ("需要每日测量血压吗？", "answer_asks"),
        ("高血压怎么办，就是要怎么办。", "support:0.00<0.35"),
        ("天气晴朗，适合到公园里散步看花。", "support:0.00<0.35"),
    ],
)
def test_an_answer_is_checked_against_its_passages(answer, reason):
    assert answer_refused(answer, "高血压怎么办？", DOCUMENTS["zh"][:1], SETTINGS, language="zh") == reason


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("平时怎样控制血压？", None),
        ("高血压怎么办", "same_as_example"),
        ("", "empty_question"),
        ("啊？", "question_too_short"),
        ("What about it?", "question_in_other_language"),
        ("高血压怎么办" * 9, "question_length:7.71"),
    ],
)
def test_a_question_is_checked_against_its_example(question, reason):
    assert question_refused(question, "高血压怎么办？", SETTINGS, language="zh") == reason
    if reason is None:
        assert question_refused(question, "高血压怎么办？", SETTINGS, language="zh", identifies=lambda text: True) == "identifier"


def test_what_is_not_good_enough_is_dropped_with_its_reason(tmp_path):
    def bad(prompt):
        asked = prompt[-1].content
        return "高血压，糖尿病，该注意什么？" if asked.endswith("新问题：") else "乱写99次" if "资料：" in asked else "A new question?"

    entries = list(generate(EXAMPLES[:2], KNOWLEDGE, ScriptedWriter(bad), SETTINGS, folder=tmp_path))
    assert {entry.reason for entry in entries if isinstance(entry, Drop)} == {"number_without_source:1"}
    assert report(entries)["records"] == 0 and sum(report(entries)["drops"].values()) == 4


def test_a_writer_that_sends_text_away_gets_none_with_identifiers(tmp_path):
    writer = ScriptedWriter(Script())
    writer.leaves = True
    with pytest.raises(InputError, match="nothing looks for identifiers"):
        list(generate(EXAMPLES, KNOWLEDGE, writer, SETTINGS, folder=tmp_path))
    entries = list(generate(EXAMPLES, KNOWLEDGE, writer, SETTINGS, folder=tmp_path, identifies=lambda text: "高血压" in text))
    assert not any("高血压" in message.content for prompt in writer.prompts for message in prompt)
    dropped = [entry for entry in entries if isinstance(entry, Drop) and entry.reason == "identifier"]
    assert dropped and {entry.content for entry in dropped} == {""}


def test_bm25_finds_what_a_question_is_about_in_both_languages():
    texts = [*DOCUMENTS["zh"], *DOCUMENTS["en"]]
    index = Index(texts)
    assert index.search("糖尿病的饮食", 1)[0][0] == 1
    assert index.search("amlodipine for hypertension", 1)[0][0] == 3
    assert index.search("流感疫苗", 5, lowest=0.0)[0][0] == 2
    assert index.search("zzz", 5) == [] and index.search("", 5) == [] and Index([]).search("a", 1) == []
    assert words("血压140/90 mmHg 高") == ["血压", "140/90", "mmhg", "高"]


def test_bm25_is_its_formula():
    index = Index(["a b", "b c c", "d"])
    # idf(c) = ln(1 + 2.5/1.5); tf = 2, length 3, mean 2: 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 1.5))
    assert index.search("c", 3) == [(1, pytest.approx(0.9808292530117262 * 2 * 2.2 / (2 + 1.2 * 1.375)))]


def test_a_folder_is_a_knowledge_base(tmp_path):
    (tmp_path / "a.md").write_text(
        "# 高血压\n\n每日测量血压，限制钠盐摄入，遵医嘱口服药物。\n\n# 糖尿病\n\n控制饮食，适量运动，定期监测血糖水平。\n", encoding="utf-8"
    )
    (tmp_path / "b.txt").write_text("x", encoding="utf-8")
    passages = list(read_folder(tmp_path, licence="internal"))
    assert [passage.text.splitlines()[0] for passage in passages] == ["# 高血压", "# 糖尿病"]
    assert passages[0].source is not None and (passages[0].source.uri, passages[0].source.licence) == ("a.md", "internal")
    (tmp_path / "c.txt").write_bytes("高血压".encode("gb18030"))
    with pytest.raises(InputError, match=r"c\.txt.*not UTF-8"):
        list(read_folder(tmp_path, licence="internal"))
    with pytest.raises(InputError, match="no such folder"):
        list(read_folder(tmp_path / "none", licence="internal"))
    with pytest.raises(InputError, match="holds no passage"):
        Knowledge([])


def test_ten_thousand_passages_are_searched_in_milliseconds():
    index = Index([f"{DOCUMENTS['zh'][n % 3]}第{n}号文件" for n in range(10_000)])
    started = time.perf_counter()
    for _ in range(20):
        index.search("高血压患者每日口服什么药", 5)
    assert (time.perf_counter() - started) / 20 < 0.5
