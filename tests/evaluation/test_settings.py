from pathlib import Path

import pytest

from metier.config import load_yaml, parse
from metier.errors import ConfigError
from metier.evaluation import EvaluationSettings


def read(tmp_path: Path, text: str) -> EvaluationSettings:
    path = tmp_path / "metier.yaml"
    path.write_text(text, encoding="utf-8")
    return parse(load_yaml(path), EvaluationSettings)


def test_every_key_has_a_default():
    settings = EvaluationSettings()
    assert settings.tasks == ("pack", "held-out", "retention")
    assert (settings.limit, settings.resamples, settings.confidence) == (200, 1000, 0.95)
    assert len(EvaluationSettings.model_fields) <= 15
    assert all(field.description for field in EvaluationSettings.model_fields.values())


def test_a_file_is_read(tmp_path: Path):
    assert read(tmp_path, "tasks: [retention]\nlimit: 20\nquestion: 河是什么？\n").question == "河是什么？"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit: 0", "limit"),
        ("tasks: []", "tasks"),
        ("confidence: 1.0", "confidence"),
        ("tasks: [pack, pack]", "twice"),
        ("resample: 10", "did you mean 'resamples'"),
    ],
)
def test_faults_name_the_key_and_the_remedy(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)
