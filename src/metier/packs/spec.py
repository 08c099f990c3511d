"""The contract of a domain pack: everything Metier knows about one domain, as data with examples beside every rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from metier.config import Settings

__all__ = [
    "Control",
    "Corpus",
    "CorpusFacts",
    "Examples",
    "Fetching",
    "GuardRule",
    "Identifier",
    "Metric",
    "OnDemand",
    "Pack",
    "PackFacts",
    "Parameter",
    "Phrase",
    "QualityRule",
    "SyntheticSet",
    "TaskSpec",
    "Template",
    "TemplateMessage",
    "Term",
    "Writing",
]


class Examples(Settings):
    """Text that a rule must find and text that it must leave alone; conformance runs both."""

    match: tuple[str, ...] = Field(min_length=1)
    """Each holds at least one stretch that the rule finds."""
    reject: tuple[str, ...] = Field(min_length=1)
    """Near misses: the rule finds nothing in them."""


class PackFacts(Settings):
    """`pack.yaml`: what a pack says of itself."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    """Name that a project file gives under `pack:`."""
    version: str
    """Version of the pack's data and code."""
    title: dict[str, str]
    """Title by language, for people."""
    languages: tuple[str, ...]
    """Languages that the pack's rules and templates are written for."""
    licences: dict[str, str] = {}
    """Licence of each part that is not under the pack's own."""


class Writing(Settings):
    """How values of one kind stand in text: where it is worth looking for them, and in which disfigured forms they are looked for."""

    digits: tuple[int, int] | None = None
    """Fewest and most digits of a value, at most three characters apart. The rule runs only around numbers with as many."""
    solid: bool = True
    """Whether the digits may stand together without anything between; if not, the rule passes over numbers that are written so."""
    reach: int = Field(default=6, ge=1)
    """How far a value reaches beyond the first and the last of its digits, in characters."""
    begins: tuple[str, ...] = ()
    """Names of the lists of words with which a value begins; the pattern is then that of the rest. Found as labels are, which is quick."""
    wrapped: bool = False
    """Whether a value is looked for across a line break, too."""
    lookalikes: bool = False
    """Whether letters that look like digits (O, l, I, S, B) are read as such; set it only where a check digit, a label or a context confirms."""


class Identifier(Settings):
    """One kind of personal identifier in text and how it is replaced."""

    entity: str = Field(pattern=r"^[A-Z][A-Z0-9_]*$")
    """Name of the kind, after Presidio's habit (PERSON, PHONE_NUMBER, CN_RESIDENT_ID)."""
    pattern: str
    """Regular expression. Use ASCII look-arounds: \\b and \\w take Han characters for letters."""
    group: int | str = 0
    """Group of the pattern that is the identifier; the rest is context that stays."""
    classes: tuple[str, ...] = ()
    """Classes of the regimes that the kind belongs to (`hipaa-8`, `pipl-health`, `gdpr-identifier`; see metier.privacy.classes)."""
    labels: tuple[str, ...] = ()
    """Words after which the value stands; the pattern is then that of the value alone. What may stand between them is known: `data/writing.yaml`."""
    languages: tuple[str, ...] = ()
    """Languages of the text the rule applies to; empty means every language."""
    validator: str | None = None
    """Name of a function `str -> bool` in the pack's table, for instance a check digit."""
    context: tuple[str, ...] = ()
    """Words of which one has to stand within `window` characters before the match; empty: none needed."""
    hints: tuple[str, ...] = ()
    """Literal strings of which every match holds at least one; a text without any is passed over without a search."""
    minimum_digits: int = Field(default=0, ge=0)
    """Digits that every match holds at least; a text with fewer is passed over without a search."""
    window: int = Field(default=30, ge=1)
    """How far before the match a context word may stand, in characters."""
    writing: Writing = Writing()
    score: float = Field(default=1.0, gt=0, le=1)
    """Confidence of a match of this rule."""
    replace: Literal["surrogate", "mask", "hash"] = "surrogate"
    """What stands in the text afterwards."""
    surrogate: str = "shape"
    """Name of the surrogate generator (see metier.privacy.replace); `shape` keeps letters, digits and separators."""
    examples: Examples


class SyntheticSet(Settings):
    """Material for sentences with invented identifiers, in one language; `metier.privacy.synthetic` writes them."""

    language: str
    sentences: tuple[str, ...] = Field(min_length=1)
    """Sentences with one or more slots `{KIND}`; one without holds no identifier and stands beside others."""
    labels: dict[str, tuple[str, ...]] = {}
    """Slot -> what the column or the key of such values is called."""
    kinds: dict[str, str] = {}
    """Slot -> kind of identifier, where a kind has several slots; other slots are named like their kind."""
    values: dict[str, tuple[str, ...]] = {}
    """Slot -> how values look: `#` is a digit, `@` a capital letter, `=name` a maker of `metier.privacy.synthetic`; all else stands for itself."""


class Term(Settings):
    """One concept of a lexicon: its code, its preferred term by language and its other names."""

    code: str
    """Code of the concept in its system."""
    system: str
    """Name of the coding system."""
    preferred: dict[str, str]
    """Preferred term by language."""
    variants: tuple[str, ...] = ()
    """Other names, in any language."""


class TemplateMessage(Settings):
    """One message of a template; `content` is a Jinja template over the record's fields."""

    role: Literal["system", "user", "assistant"]
    content: str
    learn: bool | None = None
    """Whether the model learns from it; by default the assistant's messages are learnt."""


class Template(Settings):
    """How a record's fields become a conversation that teaches one task in one language."""

    name: str
    task: str
    """Task that the composed records belong to; evaluation tasks select by it."""
    language: str
    needs: tuple[str, ...]
    """Fields of the record's metadata that must be there and not empty; other records are passed over."""
    messages: tuple[TemplateMessage, ...] = Field(min_length=2)
    label: str | None = None
    """Field that is the record's label, for tasks that choose among labels."""
    examples: tuple[dict[str, Any], ...] = Field(min_length=1)
    """Each `{given: {field: value}, answer: text of the last message}`; conformance renders them."""


class QualityRule(Settings):
    """A reason to drop a record: its text matches, or is shorter or longer than a bound."""

    name: str
    languages: tuple[str, ...] = ()
    pattern: str | None = None
    """Regular expression; a text in which it is found is dropped."""
    minimum_characters: int | None = Field(default=None, ge=1)
    """Texts with fewer characters are dropped."""
    maximum_characters: int | None = Field(default=None, ge=1)
    """Texts with more characters are dropped."""
    examples: Examples
    """`match` are texts that are dropped, `reject` texts that stay."""


class Phrase(Settings):
    """A sentence of the domain's own that augmented conversations use."""

    use: Literal["refusal", "greeting", "opening"]
    """`refusal`: the polite answer to a question of another field; `greeting`: begins a question; `opening`: the assistant asks to go on."""
    language: str
    text: str = Field(min_length=1)


class Metric(Settings):
    """One metric of a task, under lm-eval's key names."""

    metric: str
    higher_is_better: bool = True


class TaskSpec(Settings):
    """An evaluation task, under lm-eval's key names."""

    task: str
    dataset_path: str = "dataset"
    """`dataset`: the held-out split of the project's own dataset; otherwise a JSONL file beside the task file."""
    test_split: Literal["test", "validation"] = "test"
    records: str | None = None
    """With `dataset_path: dataset`: the task name (see Template.task) of the records to ask; default: same as `task`."""
    language: str | None = None
    """Restrict to records of this language."""
    output_type: Literal["generate_until", "multiple_choice"]
    doc_to_text: str | None = None
    """Jinja template of the prompt over the item's fields; default for the dataset: the record's own messages."""
    doc_to_target: str | None = None
    """Jinja template of the expected answer; default for the dataset: the record's learnt message."""
    doc_to_choice: tuple[str, ...] | None = None
    """The choices; default for the dataset: every label among the task's training records."""
    num_fewshot: int = Field(default=0, ge=0)
    metric_list: tuple[Metric, ...] = Field(min_length=1)
    generation_kwargs: dict[str, int | float | str | bool] = {}
    """`max_gen_toks` and the like."""
    parser: str | None = None
    """Name of a function `str -> object | None` in the pack's table; None says the answer's format is not valid."""
    metadata: dict[str, int | float | str]
    """`version` at least."""


class Control(Settings):
    """A clause of a regulation turned into a check with evidence and threshold."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the control; one of the core's (DG-01 ...) refines it."""
    clause: str
    """Clauses that it is mapped to, joined by semicolons; each begins with the name of its regime (`GDPR 6, 7; PIPL 13`)."""
    title: dict[str, str]
    check: str
    """Name of the check that decides it."""
    threshold: float | None = None
    critical: bool = False
    by: Literal["machine", "person", "both"] = "machine"


class GuardRule(Settings):
    """What is looked for in a question or an answer at serving time, and what is done."""

    name: str
    applies: Literal["input", "output"]
    languages: tuple[str, ...] = ()
    pattern: str
    action: Literal["redact", "refuse", "disclaim"]
    text: dict[str, str] = {}
    """What is said, by language: the refusal or the disclaimer."""
    examples: Examples


class CorpusFacts(Settings):
    """Whose a corpus is: where it is to be had, on what terms, and what to cite."""

    title: str
    """Name of the corpus, for people."""
    url: str = Field(pattern=r"^https://")
    """Where it is to be had."""
    licence: str
    """Its terms: an SPDX identifier or the name of its agreement."""
    citation: str
    """The publication to cite."""
    access: Literal["open", "credentialed"] = "open"
    """`credentialed`: its holder lends it only to named persons, who may not pass it on."""


class Parameter(Settings):
    """One thing that a fetch has to be told, or may be."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name that `--set NAME=VALUE` gives."""
    about: str = Field(min_length=1)
    """What it means, for people."""
    kind: Literal["text", "number", "list"] = "text"
    """`number`: an integer; `list`: several values with commas between them."""
    required: bool = False
    """Whether nothing is fetched without it."""
    default: str | None = None
    """Value where none is given, written as it would be given."""
    pattern: str | None = None
    """Regular expression that a value, or each value of a list, matches as a whole."""
    examples: Examples | None = None
    """Values that the pattern takes and near misses; conformance runs them."""


class Fetching(Settings):
    """How a corpus is fetched from those who publish it, which happens only when a user asks for it and allows it."""

    fetcher: str
    """Name of a function `(values, folder) -> paths of the files` in the pack's table. It raises OSError for a machine that does not answer."""
    hosts: tuple[str, ...] = Field(min_length=1)
    """The machines that are asked."""
    parameters: tuple[Parameter, ...] = ()
    """What the function is told."""


class Corpus(Settings):
    """A well-known corpus of the domain, read from the user's own copy: which files it has, what a row is and what its columns mean.

    What a source of the project says itself goes before what stands here.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Name that a source gives under `corpus:`."""
    about: CorpusFacts
    """Whose it is and on what terms."""
    files: str
    """Which of its files are read, as a pattern below the user's copy."""
    format: Literal["csv", "tsv", "json", "xml", "parquet", "text", "markdown", "html", "pdf", "docx", "file"]
    """Kind of its files; `file` hands the text of a whole file to `reader`."""
    element: str | None = None
    """Where the rows lie, as under `rows` of a source. XML: name of the element that is a row. JSON: the keys that lead to the rows, through every list;
    `*` stands for any key, which a row then has as `@key`."""
    reader: str | None = None
    """Name of a function `row -> rows` in the pack's table, for rows that have to be taken apart; a row that gives none is left out, into the drop ledger."""
    divide: bool = False
    """Whether the `text` of every row is cut into chunks as a document is."""
    columns: dict[str, str] = {}
    """Which column holds what, as under `columns` of a source."""
    subject: str | None = None
    """Column with the person a row is about."""
    group: str | None = None
    """Column whose rows have to stay in one split."""
    time: str | None = None
    """Column with the date of a row."""
    language: str | None = None
    """Language of the texts."""
    read: dict[str, Any] = {}
    """How files are read, as under `read` of a source (chunks, missing values)."""
    sensitive: dict[str, str] | None = None
    """Columns with personal data and their category, as under `basis.sensitive` of a source."""
    examples: tuple[dict[str, Any], ...] = ()
    """With `reader`: `{given: a row, rows: what it gives}`; conformance runs them."""
    fetch: Fetching | None = None
    """How `metier data fetch` gets a copy; without it the user gets one at `about.url`."""


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Functions of a pack that are called only when a project or a source asks for one by its name."""

    lexicons: Mapping[str, Callable[[], Iterable[Term]]] = field(default_factory=dict)
    """Large lexicons."""
    readers: Mapping[str, Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]] = field(default_factory=dict)
    """From a row of a corpus to the rows that are wanted."""
    parsers: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    """From an answer to what it says, or None where its format is not valid."""
    fetchers: Mapping[str, Callable[[Mapping[str, Any], Path], Iterable[Path]]] = field(default_factory=dict)
    """From the values of a corpus's parameters and a folder to the files that were fetched into it."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A loaded domain pack: data of its YAML files plus its tables of named functions."""

    facts: PackFacts
    folder: Path
    digest: str
    identifiers: tuple[Identifier, ...] = ()
    lexicon: tuple[Term, ...] = ()
    templates: tuple[Template, ...] = ()
    quality: tuple[QualityRule, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()
    controls: tuple[Control, ...] = ()
    guard: tuple[GuardRule, ...] = ()
    phrases: tuple[Phrase, ...] = ()
    synthetic: tuple[SyntheticSet, ...] = ()
    corpora: tuple[Corpus, ...] = ()
    validators: Mapping[str, Callable[[str], bool]] = field(default_factory=dict)
    scorers: Mapping[str, Callable[..., float]] = field(default_factory=dict)
    on_demand: OnDemand = field(default_factory=OnDemand)

    @property
    def lexicons(self) -> Mapping[str, Callable[[], Iterable[Term]]]:
        """Large lexicons by name."""
        return self.on_demand.lexicons

    @property
    def readers(self) -> Mapping[str, Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]]:
        """Readers of corpora by name."""
        return self.on_demand.readers

    @property
    def parsers(self) -> Mapping[str, Callable[[str], Any]]:
        """Parsers of answers by name."""
        return self.on_demand.parsers

    @property
    def fetchers(self) -> Mapping[str, Callable[[Mapping[str, Any], Path], Iterable[Path]]]:
        """Functions that fetch corpora, by name."""
        return self.on_demand.fetchers
