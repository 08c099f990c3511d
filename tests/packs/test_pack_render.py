import pytest

from metier.errors import PackError
from metier.packs.render import render


def test_fields_are_filled_and_text_is_left_as_it_is() -> None:
    assert render("分诊：{{ complaint }}\n", {"complaint": "胸痛 <2 h & 出汗"}) == "分诊：胸痛 <2 h & 出汗\n"


def test_json_is_written_without_escapes() -> None:
    assert render('{"建议": {{ advice | tojson }}}', {"advice": '多喝"水"<1L>'}) == '{"建议": "多喝\\"水\\"<1L>"}'


def test_a_missing_field_is_named_with_those_that_are_there() -> None:
    with pytest.raises(PackError, match=r"'b' is undefined[\s\S]*fields that are there: a"):
        render("{{ a }}{{ b }}", {"a": 1})


@pytest.mark.parametrize("template", ["{{ ''.__class__.__mro__ }}", "{{ items.append(1) }}", "{{ 1 // 0 }}", "{{ items['x'] + 1 }}", "{% for %}", "{{ q"])
def test_what_cannot_or_may_not_be_done_is_a_fault(template: str) -> None:
    with pytest.raises(PackError, match="the template"):
        render(template, {"items": [1]})
