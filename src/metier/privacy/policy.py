"""Policies as data: what is done with each kind of identifier, and by which clause.

A policy is a YAML file. Whatever it says of an identifier is looked up from the most exact entry to the least: by the name of its
entity, by a class that its rule belongs to (`hipaa-8`), by the kind of its value (the name of its surrogate: `date`, `age`,
`address` ...), and last the default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from metier.config import Document, Settings, load_yaml, parse
from metier.errors import ConfigError, Fault, InputError, nearest
from metier.packs.spec import Identifier
from metier.privacy.surrogates import GENERATORS

__all__ = ["ACTIONS", "DATE", "Action", "Disguise", "Policy", "Treatment", "load_policy", "policies", "policy_names", "read_policy"]

Action = Literal["rule", "surrogate", "mask", "hash", "token", "generalise", "shift", "remove", "keep"]
Scale = Literal["year", "age", "zip3", "province", "city", "range"]
Disguise = Literal["surrogate", "mask", "hash", "token"]

ACTIONS: Mapping[str, str] = {
    "rule": "what the identifier's own rule says: a surrogate unless it says otherwise",
    "surrogate": "another value of the same kind, the same for the same value in the whole project, and nobody's",
    "mask": "the name of the kind in brackets, or `text`",
    "hash": "the kind and 48 bits of a keyed hash of the value",
    "token": "the kind and a token by which a vault finds the original; without a vault the token is a keyed hash",
    "generalise": "less of the value: `to` a year, an age class, three digits of a ZIP code, a province, a city or a range",
    "shift": "a date moved by as many days as all dates of its subject; other values are masked",
    "remove": "nothing stands there afterwards",
    "keep": "the value stays and is not looked for",
}
"""The actions and what each does."""

DATE = "date"
_FOLDER = Path(__file__).parent / "data" / "policies"
_DISGUISES = ("rule", "surrogate", "mask", "hash", "token")


class Treatment(Settings):
    """What is done with one kind of identifier."""

    action: Action
    """Name of the action."""
    to: Scale | None = None
    """What is left of a generalised value."""
    above: int | None = Field(default=None, ge=0)
    """Ages above this one are one class."""
    below: int | None = Field(default=None, ge=0)
    """Ages below this one are one class."""
    width: int | None = Field(default=None, ge=2)
    """Width of the classes of ages, or of ranges of numbers; none: single ages stay."""
    earliest: int | None = None
    """A year before this one is masked: it may say that somebody is very old."""
    text: str | None = Field(default=None, max_length=40)
    """What a mask reads, instead of the name of the kind."""
    clause: str = Field(min_length=1)
    """The clause that the entry rests on, or why it is so."""

    @model_validator(mode="after")
    def _fits(self) -> Treatment:
        if (self.action == "generalise") != (self.to is not None):
            raise ValueError("`to` belongs to the action generalise, which needs it")
        if self.to == "range" and self.width is None:
            raise ValueError("a range needs its `width`")
        for name, scales in (("above", ("age",)), ("below", ("age",)), ("width", ("age", "range")), ("earliest", ("year",))):
            if getattr(self, name) is not None and self.to not in scales:
                raise ValueError(f"`{name}` belongs to `to: {' or '.join(scales)}`")
        if self.text is not None and self.action != "mask":
            raise ValueError("`text` belongs to the action mask")
        return self


class Policy(Settings):
    """What is done with identifiers, entry by entry."""

    policy: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    """Name of the policy."""
    version: int = Field(default=1, ge=1)
    """Raised when an entry changes."""
    aliases: tuple[str, ...] = ()
    """Other names of it."""
    title: dict[str, str] = {}
    """Title by language, for people."""
    basis: str = ""
    """The law that it follows."""
    default: Treatment
    """What is done with an identifier that no other entry is about."""
    entities: dict[str, Treatment] = {}
    """By the name of the entity (PERSON, US_ZIP)."""
    classes: dict[str, Treatment] = {}
    """By a class that rules are marked with (hipaa-8)."""
    kinds: dict[str, Treatment] = {}
    """By the kind of the value: the name of the surrogate generator, or `date`."""

    def treatment(self, identifier: Identifier) -> Treatment:
        """Return what is done with what this identifier finds."""
        if identifier.entity in self.entities:
            return self.entities[identifier.entity]
        marked: tuple[str, ...] = getattr(identifier, "classes", ())
        for name in marked:
            if name in self.classes:
                return self.classes[name]
        return self.kinds.get(identifier.surrogate, self.default)

    def keeps(self, identifier: Identifier) -> bool:
        """Return whether what this identifier finds stays, so that it need not be looked for."""
        return self.treatment(identifier).action == "keep"

    def disguised(self, disguise: Disguise | None) -> Policy:
        """Return the policy with one way to disguise values (surrogate, mask, hash or token) in place of all of these; the rest stays."""
        return self if disguise is None else self._mapped(lambda old: old.action in _DISGUISES, {"action": disguise, "text": None})

    def dated(self, dates: Literal["year", "shift"] | None) -> Policy:
        """Return the policy with dates cut to the year, or moved per subject, in place of what it says of them."""
        if dates is None:
            return self
        new: dict[str, Any] = {"action": "shift", "to": None, "earliest": None} if dates == "shift" else {"action": "generalise", "to": "year"}
        return self._mapped(lambda old: old.action == "shift" or old.to == "year", new)

    def _mapped(self, wanted: Any, new: Mapping[str, Any]) -> Policy:
        def changed(old: Treatment) -> Treatment:
            return old.model_copy(update=dict(new)) if wanted(old) else old

        tables = {name: {key: changed(old) for key, old in getattr(self, name).items()} for name in ("entities", "classes", "kinds")}
        return self.model_copy(update={"default": changed(self.default), **tables})


def read_policy(path: Path) -> Policy:
    """Read a policy of the user's own. Raises ConfigError with every fault of the file."""
    document = load_yaml(path)
    faults = list(_cross(document))
    try:
        made = parse(document, Policy)
    except ConfigError as error:
        raise ConfigError([*error.faults, *faults]) from None
    if faults:
        raise ConfigError(faults)
    return made


def _cross(document: Document) -> Iterator[Fault]:
    """Yield the faults that no single entry shows: kinds that do not exist, entities that are no names."""
    value = document.value if isinstance(document.value, dict) else {}
    kinds, known = value.get("kinds"), [*GENERATORS, DATE]
    for kind in kinds if isinstance(kinds, dict) else ():
        if kind not in known:
            yield document.fault(("kinds", kind), f"{kind!r} is no kind of value", nearest(kind, known))
    entities = value.get("entities")
    for entity in entities if isinstance(entities, dict) else ():
        if entity != entity.upper():
            yield document.fault(("entities", entity), "names of entities are written in capitals", f"write {entity.upper()}, or put it under `kinds`")


@lru_cache(maxsize=1)
def policies() -> Mapping[str, Policy]:
    """Return the policies that come with Metier, by name."""
    found = [read_policy(path) for path in sorted(_FOLDER.glob("*.yaml"))]
    return {item.policy: item for item in found}


def policy_names() -> list[str]:
    """Return the names and aliases of the policies that come with Metier."""
    return sorted(name for item in policies().values() for name in (item.policy, *item.aliases))


def load_policy(policy: str | Policy | Path, *, root: Path | None = None) -> Policy:
    """Return a policy by its name or alias, or from a YAML file (relative to `root`). Raises ConfigError with every fault.

    A text that ends in .yaml or .yml is a file; every other one is a name.
    """
    if isinstance(policy, Policy):
        return policy
    name = str(policy)
    if isinstance(policy, Path) or name.endswith((".yaml", ".yml")):
        return read_policy((root or Path()) / policy)
    for item in policies().values():
        if name.casefold() in (item.policy, *item.aliases):
            return item
    raise InputError(Fault(f"there is no policy {name!r}", key="policy", remedy=f"{nearest(name, policy_names())}, or name a YAML file"))
