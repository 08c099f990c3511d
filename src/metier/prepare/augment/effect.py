"""What augmentation did to a set: size, kinds, turns and lexical diversity before and after."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from metier.records import Record

__all__ = ["describe", "effect", "moving_type_token_ratio"]

_TOKEN = re.compile("[\u3400-\u9fff]|[A-Za-z]+(?:'[A-Za-z]+)?|[0-9]+(?:[.,/][0-9]+)*")


def moving_type_token_ratio(tokens: Iterable[str], window: int = 50) -> float:
    """Return MATTR: the mean share of different tokens in every window of `window` tokens (Covington and McFall, J Quant Linguist 17, 2010).

    A text shorter than the window gives its plain ratio, an empty one 0.
    """
    held: deque[str] = deque()
    counts: Counter[str] = Counter()
    total, windows = 0.0, 0
    for token in tokens:
        held.append(token)
        counts[token] += 1
        if len(held) > window:
            gone = held.popleft()
            counts[gone] -= 1
            if not counts[gone]:
                del counts[gone]
        if len(held) == window:
            total += len(counts) / window
            windows += 1
    if windows:
        return total / windows
    return len(counts) / len(held) if held else 0.0


def describe(records: Iterable[Record]) -> dict[str, Any]:
    """Return records, tasks, kinds, mean turns and diversity (distinct-1 and -2: Li et al., NAACL 2016; MATTR) of a set.

    Tokens are Han letters one by one, Latin words and numbers. Distinct-n falls as a set grows; MATTR does not depend on its size.
    """
    tasks: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    turns = size = tokens_seen = pairs_seen = 0
    single: set[str] = set()
    pairs: set[tuple[str, str]] = set()
    ratios = 0.0
    for record in records:
        size += 1
        tasks[record.task or "none"] += 1
        kinds[str(record.metadata.get("augment", "original"))] += 1
        turns += sum(message.role == "user" for message in record.messages)
        tokens = [token.lower() for text in (record.text, *(message.content for message in record.messages)) for token in _TOKEN.findall(text)]
        single.update(tokens)
        pairs.update(pairwise(tokens))
        tokens_seen += len(tokens)
        pairs_seen += max(0, len(tokens) - 1)
        ratios += moving_type_token_ratio(tokens)
    return {
        "records": size,
        "tasks": dict(sorted(tasks.items())),
        "kinds": dict(sorted(kinds.items())),
        "mean_turns": round(turns / size, 3) if size else 0.0,
        "distinct_1": round(len(single) / tokens_seen, 5) if tokens_seen else 0.0,
        "distinct_2": round(len(pairs) / pairs_seen, 5) if pairs_seen else 0.0,
        "mattr": round(ratios / size, 4) if size else 0.0,
    }


def effect(before: Iterable[Record], after: Iterable[Record]) -> dict[str, Any]:
    """Return both descriptions: of the records before, and of all records after."""
    return {"before": describe(before), "after": describe(after)}
