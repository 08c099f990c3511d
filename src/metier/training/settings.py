"""Settings of the `training:` section."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metier.config import Settings
from metier.models.methods import METHODS, MethodName
from metier.training.guarded import PrivacySettings
from metier.training.validation import ValidationSettings

__all__ = [
    "AdaptationSettings",
    "BatchSettings",
    "CheckpointSettings",
    "DistillationSettings",
    "JointSettings",
    "MonitorSettings",
    "ObjectiveSettings",
    "OptimizerSettings",
    "PrivacySettings",
    "ReplaySettings",
    "SelectionSettings",
    "ShareSettings",
    "StageSettings",
    "TrainingSettings",
    "ValidationSettings",
]

_FEW_EXAMPLES = 500
_RANK, _RANK_OF_FEW = 16, 8


class ShareSettings(Settings):
    """How often each group of records is seen: in proportion to its size to the power alpha (Conneau and Lample, 2019, 3.1)."""

    by: Literal["task", "domain", "language", "source"] = "task"
    """What makes a group."""
    alpha: float = Field(default=1.0, ge=0, le=1)
    """1: each record as often as every other; 0: each group as often as every other. A group's records are used up before one is repeated."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Factor on a group's share, by name; 0 leaves the group out."""


class BatchSettings(Settings):
    """How examples are gathered into steps."""

    row_tokens: int = Field(default=1024, ge=16)
    """Tokens of one packed row: several examples beside each other, without padding."""
    rows: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Packed rows of one optimiser step (gradient accumulation; the average is over tokens, not rows); auto: 1, but for one answer a text those of about 32."""
    maximum_tokens: int = Field(default=1024, ge=16)
    """Longer examples are not cut: they are left out and written to the run's drop ledger."""
    order: Literal["shuffled", "dataset"] = "shuffled"
    """`shuffled`: another order in each epoch, drawn by the seed. `dataset`: as the records stand there, for a mix with a curriculum."""
    shares: ShareSettings = ShareSettings()
    """How often each group of the records is seen; a stage may have its own."""

    @property
    def rows_of_step(self) -> int:
        """Packed rows of one optimiser step, with `auto` resolved as far as it is without looking at examples."""
        return 1 if self.rows == "auto" else self.rows


class OptimizerSettings(Settings):
    """AdamW (Loshchilov and Hutter, 2019) and its schedule."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of the adapter's matrices."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient; longer ones are shortened to it."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the gradient's running mean and of its square."""


class CheckpointSettings(Settings):
    """When the state is saved so that an interrupted run goes on exactly where it was."""

    steps: int = Field(default=100, ge=1)
    """Save after this many steps at the latest."""
    seconds: float = Field(default=30.0, gt=0)
    """Save after this many seconds at the latest."""


class DistillationSettings(Settings):
    """A larger model of the same vocabulary whose distributions are learnt beside the labels (Hinton et al. 2015, arXiv 1503.02531)."""

    teacher: str | None = None
    """The teacher: found as a base model is. None: no distillation."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """How much the teacher counts; the labels count 1 less that."""
    temperature: float = Field(default=2.0, gt=0, le=20)
    """By which both models' logits are divided: a higher one shows more of what the teacher holds for less likely."""


class ObjectiveSettings(Settings):
    """What is minimised beside the cross-entropy of the answers."""

    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the whole vocabulary (Szegedy et al. 2016, section 7)."""
    focal: float = Field(default=0.0, ge=0, le=10)
    """Exponent by which tokens that are known already count less: (1 - p)^focal (Lin et al. 2017)."""
    class_weights: dict[str, Annotated[float, Field(ge=0)]] | Literal["balanced"] = {}
    """classification, multi-label, tagging: how much each true label counts, 1 where none is given (`O` for words outside of spans); balanced:
    in inverse proportion to its frequency in the training split (King and Zeng, 2001)."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the base model's next-token distributions at the learnt tokens."""
    ewc: float = Field(default=0.0, ge=0)
    """Weight of elastic weight consolidation: moving a weight costs what general examples (see `replay`) lose by it (Kirkpatrick et al. 2017)."""
    start: float = Field(default=0.0, ge=0)
    """Weight of the squared distance of the weights from those of the base model, summed over all of them."""
    distillation: DistillationSettings = DistillationSettings()


class SelectionSettings(Settings):
    """Which records a stage takes: those that fit every key that is given."""

    task: tuple[str, ...] = ()
    """Their task, as the source or the template names it."""
    domain: tuple[str, ...] = ()
    """Their domain."""
    language: tuple[str, ...] = ()
    """Their language."""
    source: tuple[str, ...] = ()
    """Their file, by its path as the dataset shows it, or a pattern (`guidelines/*.md`)."""


class ReplaySettings(Settings):
    """General examples among those of the field, against forgetting."""

    share: float = Field(default=0.0, ge=0, lt=1)
    """Share of general examples in every pass of every stage; those records are then learnt by this share alone."""
    records: SelectionSettings = SelectionSettings(task=("replay",))
    """Which of the dataset's records are general."""
    written: int = Field(default=0, ge=0, le=1000)
    """How many general questions the base model itself answers once, before it is trained; its answers are general examples too."""
    max_new_tokens: int = Field(default=96, ge=8)
    """Tokens of such an answer at most."""


class MonitorSettings(Settings):
    """What is looked at while a training runs."""

    every: int = Field(default=10, ge=0)
    """Gradients and updates of every layer are measured every so many steps; 0: never."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Who is handed the metrics beside the run's own files. All but tensorboard can send them away from this machine."""


class StageSettings(Settings):
    """One stage of a training. What is not given here is as `training:` says."""

    name: str = Field(min_length=1, max_length=80)
    """Name in reports."""
    records: SelectionSettings = SelectionSettings()
    """Which records it learns from."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over them."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate; it rises and falls within the stage."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Dropout on the input of low-rank updates."""
    shares: ShareSettings | None = None
    """How often each group of its records is seen."""
    objectives: ObjectiveSettings | None = None
    """What is minimised beside the cross-entropy."""
    optimizer: OptimizerSettings | None = None
    """Schedule and optimiser, which starts anew with each stage."""


class JointSettings(Settings):
    """Other projects that are trained together with this one: one low-rank part that all of them train, and beside it one of each project's own."""

    projects: tuple[str, ...] = ()
    """Folders or files of the other projects, relative to this one's folder; none: this project is trained by itself."""
    rank: int = Field(default=8, ge=1)
    """Rank of each project's own part; `adaptation.rank` is that of the shared one. An expert has both."""
    alpha: float = Field(default=1.0, ge=0, le=1)
    """How often each project's examples are seen: in proportion to their number to the power alpha, as those of `stages.shares` are."""


class AdaptationSettings(Settings):
    """How large the trained part of a method is. A key that the chosen method does not read is refused."""

    rank: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Rank of the low-rank update; auto: 16 (8 below 500 examples)."""
    alpha: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Scale of the update is alpha / rank (rslora: alpha / sqrt(rank)); auto: twice the rank (Biderman et al., 2024, arXiv 2405.09673)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the input of the update."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Layers that get an update: last parts of their names, or all linear layers but the output head."""
    ranks: dict[str, int] = {}
    """lora, rslora, dora, qlora: ranks of single layers, by the last parts of their names, such as `layers.0.self_attn.q_proj: 4`."""
    allocate: Literal["even", "sensitivity"] = "even"
    """lora, rslora, dora, qlora: whether every layer gets the rank, or those more where a sample's gradients say that it does most."""
    gate: float = Field(default=0.05, ge=0)
    """gated-lora: weight of the penalty on open gates, in nats a token with all of them open."""
    layers: int = Field(default=2, ge=1)
    """partial: how many of the last layers are trained."""
    head: bool = False
    """partial: whether the output head is trained too, where it is not the input embedding."""
    size: int = Field(default=64, ge=1)
    """adapter, parallel-adapter: width of a bottleneck; p-tuning: width of the network that makes the virtual tokens."""
    tokens: int = Field(default=20, ge=1, le=512)
    """prefix, p-tuning, prompt: virtual tokens before each example."""
    joint: JointSettings = JointSettings()

    def rank_for(self, examples: int) -> int:
        """Return the rank for so many examples, with `auto` resolved: few carry less than a high rank can hold, and a smaller one forgets less."""
        return (_RANK_OF_FEW if examples < _FEW_EXAMPLES else _RANK) if self.rank == "auto" else self.rank

    def alpha_for(self, examples: int) -> float:
        """Return the strength for so many examples, with `auto` resolved."""
        return 2.0 * self.rank_for(examples) if self.alpha == "auto" else self.alpha

    def unread_by(self, method: str) -> list[str]:
        """Return the keys, as `adaptation.KEY`, that are set to something and that a method does not read."""
        unset = AdaptationSettings()
        given = [f"adaptation.{name}" for name in type(self).model_fields if getattr(self, name) != getattr(unset, name)]
        return sorted(set(given) - set(METHODS[method].reads))


class TrainingSettings(Settings):
    """The `training:` section."""

    task: Literal["generation", "classification", "multi-label", "regression", "pair", "tagging"] = "generation"
    """What is taught: to answer in words; one label, several, or a number for a text; how well two texts belong together; or typed spans."""
    method: Literal[
        "auto", "lora", "rslora", "dora", "qlora", "adalora", "gated-lora", "full", "partial", "adapter", "parallel-adapter", "prefix", "p-tuning", "prompt"
    ] = "auto"
    """How parameters are adapted; auto: lora, but encoders that labels are taught to are trained in full."""
    adaptation: AdaptationSettings = AdaptationSettings()
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the training split."""
    learning_rate: float | Literal["auto"] = "auto"
    """Highest learning rate; auto: that of the method (see the guide on training)."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Format of the frozen weights; auto: bf16 where this machine multiplies it faster. Adapter and optimiser are fp32."""
    seed: int = 0
    """Seed of the adapter's start, of the order of examples and of dropout."""
    objectives: ObjectiveSettings = ObjectiveSettings()
    batch: BatchSettings = BatchSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    validation: ValidationSettings = ValidationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    replay: ReplaySettings = ReplaySettings()
    privacy: PrivacySettings = PrivacySettings()
    monitor: MonitorSettings = MonitorSettings()
    stages: tuple[StageSettings, ...] = ()
    """Trainings one after the other on the same adapter, each with its own records, passes and rate; none: one stage with every record."""

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        """Refuse keys of another method: a setting that nothing reads would be believed."""
        if odd := self.adaptation.unread_by(self.taught_by):
            others = ", ".join(name for name, facts in METHODS.items() if odd[0] in facts.reads)
            raise ValueError(f"the method {self.taught_by!r} does not use {', '.join(odd)}\n    -> take it out, or choose a method that does: {others}")
        if self.learning_rate != "auto" and self.learning_rate <= 0:
            raise ValueError("learning_rate has to be above 0")
        given = [self.objectives, *(stage.objectives for stage in self.stages if stage.objectives is not None)]
        if self.task == "generation" and any(found.class_weights for found in given):
            raise ValueError("objectives.class_weights is for labels and spans, and answers in words have none\n    -> take it out")
        if self.task != "generation" and self.adaptation.head:
            raise ValueError(f"adaptation.head is for answers: the head of {self.task} is trained by every method\n    -> take it out")
        self.validation.check(self.task)
        if self.adaptation.allocate != "even" and self.adaptation.ranks:
            raise ValueError("adaptation.allocate works out the ranks of all layers, and adaptation.ranks gives some\n    -> take one of them out")
        self._check_stages()
        self._check_privacy()
        self._check_joint()
        for name, wanted, what in (("ewc", "moves", "move weights"), ("start", "measured", "know how far they are from their start")):
            able = [method for method, facts in METHODS.items() if getattr(facts, wanted)]
            if self.taught_by not in able and any(getattr(found, name) for found in given):
                remedy = f"use objectives.kl with {self.taught_by!r}" if self.task == "generation" else "choose one of them"
                raise ValueError(f"objectives.{name} is for methods that {what}: {', '.join(able)}\n    -> {remedy}")
        return self

    def _check_stages(self) -> None:
        names = [stage.name for stage in self.stages]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"stages: two are called {', '.join(twice)}\n    -> give each a name of its own")
        if self.stages and self.epochs != type(self).model_fields["epochs"].default:
            raise ValueError("epochs is not used where there are stages\n    -> take it out; each stage has its own")
        if self.replay.share and self.batch.order == "dataset":
            raise ValueError("replay.share is drawn at random, batch.order keeps the dataset's order\n    -> take one of them out")
        measured = [self.objectives, *(stage.objectives for stage in self.stages if stage.objectives is not None)]
        if self.replay.written and not self.replay.share and not any(found.ewc for found in measured):
            raise ValueError("replay.written is used by replay.share or objectives.ewc, and neither is set\n    -> set one of them, or take it out")
        drawn = {"batch.": self.batch.shares} | {f"stages: {stage.name}: ": stage.shares for stage in self.stages if stage.shares is not None}
        if self.batch.order == "dataset" and (first := next((place for place, found in drawn.items() if found != ShareSettings()), None)) is not None:
            raise ValueError(f"{first}shares are drawn at random, batch.order keeps the dataset's order\n    -> take one of them out")
        if self.stages and self.batch.shares != ShareSettings() and all(stage.shares is not None for stage in self.stages):
            raise ValueError("batch.shares is not used where every stage has its own\n    -> take it out")
        for stage in self.stages:
            own = None if stage.objectives is None else stage.objectives.distillation.teacher
            if own is not None and own != self.teacher:
                raise ValueError(f"stages: {stage.name}: there is one teacher, and {self.teacher!r} is named too\n    -> take one of them out")
            if stage.dropout is not None and "adaptation.dropout" not in METHODS[self.taught_by].reads:
                raise ValueError(f"stages: {stage.name}: the method {self.taught_by!r} does not use dropout\n    -> take it out")

    @property
    def teacher(self) -> str | None:
        """The model that distillation names, in the training or in a stage."""
        given = [self.objectives, *(stage.objectives for stage in self.stages if stage.objectives is not None)]
        return next((found.distillation.teacher for found in given if found.distillation.teacher), None)

    def _check_privacy(self) -> None:
        """Refuse what a private training's guarantee would not cover."""
        if said := list(self.privacy.unfit(self.task)):
            raise ValueError("\n".join(said))
        if self.privacy.epsilon is None:
            return
        taught_labels = self.task != "generation" and self.teacher is not None
        outside = {
            "objectives.class_weights": self.objectives.class_weights == "balanced" and "they would be counted in the records; state numbers",
            "objectives.distillation": taught_labels and "whose records have taught the teacher its labels is not known",
            "validation.by": self.validation.by == "score" and "what is kept would be chosen by other persons' records; take it out",
            "validation.times": self.validation.times > 0 and "what is kept would be chosen by other persons' records; set it to 0",
            "stages": bool(self.stages) and "steps have to draw from everybody alike",
            "batch.shares": self.batch.shares != ShareSettings() and "steps have to draw from everybody alike",
            "replay.share": self.replay.share > 0 and "steps have to draw from everybody alike",
            "adaptation.allocate": self.adaptation.allocate != "even" and "gradients would be looked at without noise",
            "objectives.ewc": self.objectives.ewc > 0 and "what matters would be measured on the data without noise",
            "batch.order": self.batch.order == "dataset" and "steps are drawn at random",
        }
        said = [f"{key}: {why}" for key, why in outside.items() if why]
        if said:
            raise ValueError(f"with privacy.epsilon the guarantee does not cover {'; '.join(said)}")

    def _check_joint(self) -> None:
        """Refuse what several projects cannot do together, with the nearest that they can."""
        joint = self.adaptation.joint
        if not joint.projects:
            if joint != JointSettings():
                raise ValueError("adaptation.joint has no projects to train together with\n    -> name them in adaptation.joint.projects, or take it out")
            return
        unfit = {
            "task": self.task != "generation" and "labels have heads of their own; teach them as answers (task: generation), or by themselves",
            "privacy.epsilon": self.privacy.epsilon is not None and "the guarantee is worked out for one project's persons; train it by itself",
            "validation.by": self.validation.by == "score" and "a score is one project's, and what is kept serves all of them; set it to loss",
            "stages": bool(self.stages) and "a stage chooses among one project's records; set adaptation.joint.alpha for how often each project is seen",
            "batch.order": self.batch.order == "dataset" and "one project would be taught after the other; set it to shuffled",
            "replay.written": self.replay.written > 0 and "what the base model writes is no project's; set replay.share, for general records of the datasets",
            "objectives.ewc": self.objectives.ewc > 0 and "a weight moves by another amount for each project; set objectives.kl",
            "objectives.start": self.objectives.start > 0 and "a weight moves by another amount for each project; set objectives.kl",
        }
        if said := [f"{key}: {why}" for key, why in unfit.items() if why]:
            raise ValueError(f"with adaptation.joint there is no {'; '.join(said)}")

    @property
    def taught_by(self) -> MethodName:
        """The method that answers are taught by, with `auto` resolved."""
        return "lora" if self.method == "auto" else self.method

    @property
    def peak_rate(self) -> float:
        """The highest learning rate, with `auto` resolved."""
        return METHODS[self.taught_by].learning_rate if self.learning_rate == "auto" else self.learning_rate
