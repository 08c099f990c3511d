"""Documents go the whole way: a pack's template uses a chunk's fields, and the chunks of a file can be kept in one split."""

import pytest

from corpus_of_prepare import pack, template
from metier.prepare import PrepareSettings, build
from metier.shards import SPLITS, dataset_records
from metier.sources import SourceSettings, read
from metier.store import Store

TOPICS = ["登记", "许可", "处罚", "复议", "诉讼", "监督", "备案", "公告", "听证", "送达"]


@pytest.fixture
def laws(tmp_path):
    for number, topic in enumerate(TOPICS * 2):
        articles = "\n\n".join(f"第{numeral}条 {topic}第{number}号事项之{numeral}，应当依照{topic}程序办理。" for numeral in "一二三四五")
        (tmp_path / f"{number:02d}.md").write_text(f"# {topic}办法{number}\n\n## 第一章 总则\n\n{articles}\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("group", [None, "document"])
def test_a_template_uses_title_and_article_and_files_can_stay_together(laws, group):
    values = {"read": {"chunk": {"headings": "path", "by": "article"}}, "group": group}
    settings = SourceSettings.model_validate({"path": "*.md", "licence": "internal", "language": "zh", **values})
    rules = pack(templates=(template("law", "zh", ("title", "article", "text"), "{{title}}{{article}}是什么？", "{{text}}"),))
    dataset = build(read([settings], laws), rules, PrepareSettings(), ["zh"], workspace=Store(laws / ".metier").workspace("k"))
    records = [(split, record) for split in SPLITS for record in dataset_records(dataset, split)]
    assert len(records) == 100 - sum(count for reason, count in dataset.facts["drops"].items() if "duplicate" in reason)
    first = next(record for _, record in records if record.metadata["file"] == "00.md" and record.metadata["article"] == "第一条")
    assert first.messages[0].content == "登记办法0第一条是什么？"
    assert first.messages[1].content.startswith("第一条 登记第0号")
    places: dict[str, set[str]] = {}
    for split, record in records:
        places.setdefault(record.metadata["document"], set()).add(split)
    assert group is None or {len(found) for found in places.values()} == {1}
    assert dataset.facts["register"][0]["format"] == "markdown, fields"
