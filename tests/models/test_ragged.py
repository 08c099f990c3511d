"""What is handed to the kernel for sequences of any length: checked against its documented meaning, since it runs on accelerators only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from metier.models import ragged
from metier.models.attention import Packed, _by_products
from metier.models.ragged import Layout, attend_ragged

LENGTHS, BEHIND = (30, 12, 1, 25), (None, 0, 0, None)


def documented(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """What `varlen_attn` says that it does, sequence by sequence: the last query stands at the last key."""
    parts = []
    for start, end, first, last in zip(cu_seq_q, cu_seq_q[1:], cu_seq_k, cu_seq_k[1:], strict=False):
        count, seen = int(end - start), int(last - first)
        assert count <= max_q and seen <= max_k
        apart = torch.arange(seen)[None, :] - (torch.arange(count) + seen - count)[:, None]
        left, right = window_size
        mask = (apart >= -left if left >= 0 else torch.ones_like(apart, dtype=torch.bool)) & (apart <= right if right >= 0 else True)
        heads = (of.transpose(0, 1)[None] for of in (query[start:end], key[first:last], value[first:last]))
        parts.append(scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.nn.attention.varlen as varlen

    monkeypatch.setattr(varlen, "varlen_attn", documented)


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, sum(LENGTHS), 16, generator=generator) for heads in (4, 2, 2))
    return query, key, value


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 7, 40])
def test_the_kernel_gets_what_makes_it_the_products(window: int | None, causal: bool) -> None:
    behind = BEHIND if causal else (None,) * 4
    found = attend_ragged(*tensors(), Layout(LENGTHS, behind, torch.device("cpu")), scale=0.3, window=window, causal=causal)
    expected = Packed(LENGTHS, behind=behind, causal=causal).attend_by_products(*tensors(), 0.3, window)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("kernel")
def test_it_is_trusted_where_it_does_what_the_products_do_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    about: Any = (torch.device("cpu"), torch.bfloat16, 4, 2, 16)
    assert ragged.agrees(*about, reference=_by_products)
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", lambda *given, **named: documented(*given, **{**named, "window_size": (-1, 0)}))
    assert not ragged.agrees(*about, reference=_by_products), "a window that is left out is noticed"

    def missing(*given: object, **named: object) -> torch.Tensor:
        raise NotImplementedError

    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", missing)
    assert not ragged.agrees(*about, reference=_by_products)


def test_processors_and_full_precision_use_the_products() -> None:
    query, key, _ = tensors()
    assert not ragged.trusted(query.bfloat16(), key.bfloat16(), _by_products)
    assert not ragged.trusted(query, key, _by_products)
