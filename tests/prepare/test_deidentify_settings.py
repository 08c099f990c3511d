from pathlib import Path

import pytest

from metier.config import load_yaml, parse
from metier.errors import ConfigError
from metier.packs import load
from metier.prepare.deidentify import deidentify, identifier_rules
from metier.prepare.settings import PrepareSettings
from metier.privacy.settings import DeidentifySettings, policy_of, with_policy
from metier.records import Record

KEY = bytes(range(32))
TEXT = "患者姓名：张伟，95岁，出生日期：1980-01-02，入院日期：2022-03-01，电话13812345678"


def said(settings: DeidentifySettings, text: str = TEXT) -> str:
    record, _, _ = deidentify(Record("r", text, language="zh", subject="s"), settings, identifier_rules(load("medical"), settings), KEY)
    return record.text


def test_the_settings_decide_what_stands_in_a_record() -> None:
    assert "出生日期：1980，入院日期：2022，" in said(DeidentifySettings())
    assert "入院日期：2022，" not in said(DeidentifySettings(dates="shift"))
    assert "出生日期：1980，" in said(DeidentifySettings(policy="pipl")) and "入院日期：2022，" not in said(DeidentifySettings(policy="pipl"))
    masked = said(DeidentifySettings(replace="mask"))
    assert "姓名：[PERSON]，90+岁，出生日期：1980，" in masked and masked.endswith("电话[PHONE_NUMBER]")
    assert said(DeidentifySettings(enabled=False)) == TEXT


def test_the_second_search_can_be_given_up() -> None:
    text = "银行卡流水共计623456元"
    with pytest.raises(Exception, match="second search"):
        said(DeidentifySettings(), text)
    assert said(DeidentifySettings(sweep=False), text) == text


def test_a_policy_file_of_the_project_becomes_part_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "house.yaml").write_text("policy: house\ndefault: {action: mask, clause: '4.1'}\n", encoding="utf-8")
    settings = with_policy(DeidentifySettings(policy="house.yaml"), tmp_path)
    assert policy_of(settings).policy == "house"
    assert said(settings).startswith("患者姓名：[PERSON]，[AGE_OVER_89]岁，出生日期：[DATE_OF_BIRTH]，")
    with pytest.raises(ConfigError, match="no such file"):
        with_policy(DeidentifySettings(policy="other.yaml"), tmp_path)


def test_a_policy_may_stand_in_the_project_file_itself(tmp_path: Path) -> None:
    file = tmp_path / "metier.yaml"
    file.write_text("deidentify: {policy: {policy: house, default: {action: hash, clause: x}}, dates: year}\n", encoding="utf-8")
    settings = parse(load_yaml(file), PrepareSettings).deidentify
    assert "[PHONE_NUMBER:" in said(settings)
    file.write_text("deidentify: {policy: {policy: house, defalt: {action: hash, clause: x}}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown key"):
        parse(load_yaml(file), PrepareSettings)
