"""What a project says of quality: what is measured, with which weights, and from which score a record stays."""

from __future__ import annotations

from typing import Literal, TypeVar

from pydantic import Field, model_validator

from metier.config import Settings

__all__ = ["DialogueWeights", "MatrixWeights", "QualitySettings", "QualityThresholds", "weights_by_name"]


WeightsType = TypeVar("WeightsType", bound=Settings)


def weights_by_name(weights: Settings) -> dict[str, float]:
    """Return the weights of a matrix by dimension."""
    return {name: getattr(weights, name) for name in type(weights).model_fields}


class MatrixWeights(Settings):
    """Weights of the five dimensions. What was not measured leaves the sum, and the rest is scaled up; the report says so."""

    facts: float = Field(default=0.3, ge=0, le=1)
    """Supported by the knowledge base."""
    relevance: float = Field(default=0.25, ge=0, le=1)
    """The answer belongs to its question."""
    fluency: float = Field(default=0.15, ge=0, le=1)
    """Whole, readable language: the form's rules, and perplexity where a model is asked."""
    instruction: float = Field(default=0.2, ge=0, le=1)
    """Does what the question asks of the form: language, number of items, length, format."""
    safety: float = Field(default=0.1, ge=0, le=1)
    """Nothing that the pack's guard would stop."""

    @model_validator(mode="after")
    def _whole(self) -> MatrixWeights:
        return _sum_to_one(self)


class DialogueWeights(Settings):
    """Weights of the score of a question with its answer."""

    relevance: float = Field(default=0.3, ge=0, le=1)
    """The answer belongs to its question."""
    information: float = Field(default=0.2, ge=0, le=1)
    """How much the answer says that the question did not."""
    format: float = Field(default=0.2, ge=0, le=1)
    """Ended sentences, no mark-up, addresses or template headings."""
    facts: float = Field(default=0.3, ge=0, le=1)
    """Supported by the knowledge base."""

    @model_validator(mode="after")
    def _whole(self) -> DialogueWeights:
        return _sum_to_one(self)


def _sum_to_one(weights: WeightsType) -> WeightsType:
    total = sum(weights_by_name(weights).values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"the weights add up to {total:g}; they have to add up to 1")
    return weights


class QualityThresholds(Settings):
    """From which value a record is used, looked at by a person, or dropped."""

    use: float = Field(default=0.8, ge=0, le=1)
    """Scores above it are used."""
    review: float = Field(default=0.6, ge=0, le=1)
    """Scores from it up to `use` are for review; lower ones are to be dropped."""
    irrelevant: float = Field(default=0.5, ge=0, le=1)
    """A question and an answer no more alike than this share of random pairs of the set score 0."""
    covered: float = Field(default=0.35, ge=0, le=1)
    """Support from which the knowledge base counts as saying anything about an answer; below, facts are not measured."""
    form: float = Field(default=0.25, ge=0, le=1)
    """With `drop` on, a source row whose fluency, format or information is below leaves before anything else is measured."""

    @model_validator(mode="after")
    def _ordered(self) -> QualityThresholds:
        if self.review > self.use:
            raise ValueError(f"review {self.review} is above use {self.use}")
        return self


class QualitySettings(Settings):
    """What is measured of each record's quality. Nothing leaves unless `drop` is on."""

    enabled: bool = True
    """Measure and report the form of every record."""
    drop: bool = False
    """Drop records whose verdict is `drop`; off, the verdicts only stand in the report."""
    model: Literal["none", "base"] = "none"
    """`base`: perplexity and relevance under the base model, which takes about as long as evaluation of the same tokens."""
    encoder: str = "lexical"
    """What tells whether an answer belongs to its question: `lexical` (shared characters and words), `base` (the base model's hidden
    states; needs `model: base`), the folder of a sentence encoder (safetensors), or `none`: with `model: base` it is then how much the
    question tells of the answer's tokens."""
    knowledge: str | None = None
    """File or folder (.txt, .md, .jsonl with `text`) that answers are checked against; left out: facts are not measured."""
    question: str = "question"
    """Column of rows that are no conversations yet."""
    answer: str = "answer"
    """Column of rows that are no conversations yet."""
    sample: int = Field(default=256, ge=16, le=4096)
    """Pairs a language that calibration draws: random pairs for relevance, the spread of perplexity."""
    batch: int = Field(default=256, ge=1)
    """Records whose model-based scores are written to disk together; an interrupted run goes on after the last of them."""
    seed: int = 0
    """Another seed draws another calibration sample."""
    matrix: MatrixWeights = MatrixWeights()
    """Weights of the five dimensions."""
    dialogue: DialogueWeights = DialogueWeights()
    """Weights of the score of a question with its answer."""
    thresholds: QualityThresholds = QualityThresholds()
    """Bounds of the verdicts."""

    @model_validator(mode="after")
    def _has_a_model(self) -> QualitySettings:
        if self.encoder == "base" and self.model != "base":
            raise ValueError("encoder: base needs model: base")
        return self
