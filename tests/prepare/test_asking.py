"""What a writer is asked, and what of its writing is none: texts that a real model of 270M parameters wrote stand for their kind."""

import pytest

from corpus_of_prepare import chat
from metier.models import Chat, LocalModel, load_tokenizer
from metier.prepare.asking import ask, asks, spoilt, told
from metier.prepare.augment import AugmentSettings, Shares, rewrite, to_rewrite
from metier.prepare.augment.phrases import prompt_templates
from metier.prepare.generate import GenerateSettings, Knowledge, expected, generate, passages_of
from metier.prepare.generate.check import answer_refused, covered, prompts, question_refused
from metier.prepare.writers import LocalWriter, Written
from metier.prepare.writing import WriterSettings, writer_of
from metier.records import Drop, Record
from metier.testing import ScriptedWriter, tiny_base

QUESTION = {language: prompts()["question"][language] for language in ("zh", "en")}
ANSWER = {language: prompts()["answer"][language] for language in ("zh", "en")}
SHARES = Shares(**{**dict.fromkeys(Shares.model_fields, 0.0), "written": 1.0, "translated": 1.0})
RECORDS = [
    chat(1, "用人单位辞退劳动者应该提前多久告知？", "提前三十日。", language="zh"),
    chat(2, "劳动合同何时终止？", "期满终止。", language="zh"),
    chat(3, "What are the symptoms of gout?", "Pain and swelling.", language="en"),
]


def test_a_prompt_shows_answered_examples_before_it_asks():
    for task in [*prompt_templates().values(), *(prompts()[step] for step in ("question", "answer", "follow_up"))]:
        for language in ("zh", "en"):
            values = {name: "{question} 资料 {x}" for name in task[language]["shots"][0] if name != "said"}
            messages = ask(task[language], values)
            assert [message.role for message in messages] == ["user", "assistant"] * len(task[language]["shots"]) + ["user"]
            assert messages[-1].content.count("{question} 资料 {x}") == len(values) and len(task[language]["shots"]) >= 2
            assert all(shot["said"] in told(task[language]) for shot in task[language]["shots"])


@pytest.mark.parametrize(
    ("language", "text", "reason"),
    [
        ("zh", "请写出一个同一主题的新问题，换一个角度或说法，只写问题本身。", "echo"),
        ("zh", "请你写出下列问题，只写问题本身。", "echo"),
        ("zh", "图书馆的书逾期没有归还怎么办？", "echo"),
        ("zh", "劳动合同法\nUser:\n下一个", "role_marker"),
        ("zh", "劳动者在劳动合同期限内，劳动者在劳动合同期限内，劳动者在劳动合同期限内，劳动者在劳动合同期限内，", "loop"),
        ("zh", "用人单位辞退劳动者要赔偿多少？", None),
        ("zh", "劳动者解除劳动合同的新问题有哪些？", None),
        ("en", "Write the question only.", "echo"),
        ("en", "What happens when a library book is returned late?", "echo"),
        ("en", "Can answer\ncan answer\ncan answer\ncan answer\ncan answer\ncan answer\ncan answer\ncan answer\ncan answer\ncan answer\ncan answer\n", "loop"),
        ("en", "Assistant: gout", "role_marker"),
        ("en", "How is gout treated in older people?", None),
    ],
)
def test_what_is_no_writing_is_found(language, text, reason):
    found = spoilt(Written(text), told(QUESTION[language]), ["劳动合同何时终止？", "What is gout?"])
    assert (found or "").split(":")[0] == (reason or "")
    assert spoilt(Written(text, whole=False), told(QUESTION[language]), []) == "unfinished"


def test_what_the_prompt_was_given_is_no_echo():
    material = "只根据资料回答问题是图书馆的规定，资料里没有的内容不要写。"
    assert spoilt(Written(material), told(ANSWER["zh"]), []) == "echo"
    assert spoilt(Written(material), told(ANSWER["zh"]), [material]) is None


@pytest.mark.parametrize(
    ("text", "language", "yes"),
    [
        ("劳动合同何时终止", "zh", True),
        ("已退休的人员：", "zh", False),
        ("能辞职吗", "zh", True),
        ("如何认定企业规章制度的有效性", "zh", True),
        ("劳动者应当支付违约金。", "zh", False),
        ("how is gout treated", "en", True),
        ("Gout is somehow treated", "en", False),
        ("Gout?", "en", True),
    ],
)
def test_a_question_is_told_from_a_statement(text, language, yes):
    assert asks(text, language) is yes


def test_the_first_line_is_taken_and_a_text_cut_below_it_is_whole():
    assert Written("\n 一问？ \n二问？", whole=False).first_line() == Written("一问？", whole=True)
    assert Written("一问", whole=False).first_line() == Written("一问", whole=False)
    assert Written(" \n", whole=True).first_line() == Written("")


@pytest.mark.parametrize(
    ("question", "reason"),
    [("已退休的劳动人员：", "no_question"), ("电影院是否可以打折？", "off_subject"), ("劳动合同能不能提前解除？", None)],
)
def test_a_new_question_asks_and_is_about_what_its_example_is_about(question, reason):
    assert question_refused(question, "劳动合同何时终止？", GenerateSettings(), language="zh") == reason
    follow = question_refused("电影院是否可以打折？", "劳动合同何时终止？", GenerateSettings(), language="zh", answer="持电影院的票。")
    assert follow is None


@pytest.mark.parametrize(
    ("answer", "language", "reason"),
    [
        ("依照第三十九条，用人单位可以解除劳动合同。", "zh", None),
        ("依照第八十六条，用人单位可以解除劳动合同。", "zh", "number_without_source:1"),
        ("应当提前六十日通知用人单位解除劳动合同。", "zh", "number_without_source:1"),
        ("It is the most of what they have and it is there.", "en", "support"),
    ],
)
def test_an_article_that_no_passage_has_is_a_number_without_source(answer, language, reason):
    passages = ["第三十九条 劳动者提前三十日通知用人单位，可以解除劳动合同。", "The employer may end the contract if it is broken and there is notice of it."]
    found = answer_refused(answer, "用人单位可以解除劳动合同吗？", passages, GenerateSettings(), language=language)
    assert (found or "").split("<")[0].startswith(reason or "") and (found is None) == (reason is None)


def test_a_model_is_not_asked_what_no_passage_speaks_of(tmp_path):
    knowledge = Knowledge(passages_of([Record(id="d", text="劳动合同期满的，劳动合同终止。用人单位应当提前三十日通知劳动者。")]))
    writer = ScriptedWriter(lambda prompt: "外卖骑手与平台企业之间有没有劳动合同关系？")
    example = chat(9, "外卖骑手与平台企业之间是劳动关系吗？", "看情况。", language="zh")
    (entry,) = generate([example], knowledge, writer, GenerateSettings(variants=1), folder=tmp_path)
    assert isinstance(entry, Drop) and entry.reason == "passages_off_subject:0.25<0.45"
    assert len(writer.prompts) == 1
    assert covered("劳动合同何时终止？", ["劳动合同终止"]) == pytest.approx(0.8) and covered("为什么呢", ["劳动"]) == 1.0


def test_a_base_model_without_a_template_stops_at_the_line_and_one_with_a_template_by_itself(tmp_path):
    base = tiny_base(tmp_path / "base")
    assert not Chat(load_tokenizer(base)).own_template
    writer = writer_of(WriterSettings(use="base"), base, deidentified=True)
    texts = writer.write([ask(QUESTION["en"], {"example": f"What is {n}?"}) for n in range(12)], maximum_tokens=120, temperature=2.0, seed=1)
    assert any(text.whole for text in texts) and not any("\n" in text.text for text in texts)
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    assert Chat(tokenizer).own_template


def test_a_real_model_that_writes_nonsense_gives_drops_with_reasons_and_nothing_else(tmp_path):
    base = tiny_base(tmp_path / "base")
    writer = LocalWriter(LocalModel.open(base), name="tiny", digest=base.digest, stop=("\n",))
    settings = AugmentSettings(enabled=True, shares=SHARES, maximum_tokens=24, batch=2)
    made = list(rewrite(RECORDS, settings, writer, folder=tmp_path / "kept"))
    assert len(made) == sum(map(len, to_rewrite(RECORDS, settings).values())) == 6
    assert all(isinstance(entry, Drop) and entry.reason and entry.content for entry in made)
    knowledge = Knowledge(passages_of([Record(id="d", text="劳动合同期满的，劳动合同终止。用人单位应当提前三十日通知。")]))
    asked = GenerateSettings(variants=2, maximum_tokens=24)
    entries = list(generate(RECORDS, knowledge, writer, asked, folder=tmp_path / "kept"))
    assert len(entries) == expected(RECORDS, asked) == 6
    assert all(isinstance(entry, Drop) and entry.reason.startswith(("question_", "no_", "off_")) for entry in entries)


def test_rewriting_goes_on_after_an_interruption_and_gives_the_same(tmp_path):
    settings = AugmentSettings(enabled=True, shares=SHARES, batch=1)

    def write(prompt):
        question = prompt[-1].content.splitlines()[-2].split("：" if "：" in prompt[-1].content.splitlines()[-2] else ": ", 1)[1]
        return f"请问{question}" if question.startswith(("用", "劳")) else f"Tell me: {question}"

    whole = list(rewrite(RECORDS, settings, ScriptedWriter(write)))
    calls = []

    def failing(prompt):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(prompt)
        return write(prompt)

    with pytest.raises(KeyboardInterrupt):
        list(rewrite(RECORDS, settings, ScriptedWriter(failing), folder=tmp_path))
    finished = sorted(tmp_path.glob("*.jsonl"))
    assert len(finished) == 3
    rest = ScriptedWriter(write)
    assert list(rewrite(RECORDS, settings, rest, folder=tmp_path)) == whole
    assert len(rest.prompts) == len(calls) + 2 - 3 + 1 + 2  # three translations of two steps each; the paraphrases were finished
    assert {entry.metadata["augment"] for entry in whole if isinstance(entry, Record)} >= {"written"}
