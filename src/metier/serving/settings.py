"""Settings of the server: where it listens and how much it takes on."""

from __future__ import annotations

from pydantic import Field

from metier.config import Settings

__all__ = ["ServingSettings"]


class ServingSettings(Settings):
    """`serving:` of the project file."""

    host: str = "127.0.0.1"
    """Address to listen on; only this machine by default. Put a proxy with TLS before any other."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    rows: int = Field(default=8, ge=1, le=256)
    """Answers that are generated at the same time."""
    context: int = Field(default=2048, ge=16)
    """Tokens of question and answer together at most. Memory for rows x context tokens is set aside."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Tokens of an answer at most; also the length where a request asks for none."""
    max_queue: int = Field(default=64, ge=0)
    """Requests that may wait for a row, or for labels; the next one is told to come back later (429)."""
    max_body_bytes: int = Field(default=262_144, ge=1024)
    """Size of a request's body at most."""
    max_messages: int = Field(default=64, ge=1)
    """Messages of a conversation, or texts of a request for labels, at most."""
    read_timeout: float = Field(default=10.0, gt=0)
    """Seconds that a client may take to send the head of a request, and again its body."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds that an answer may take, waiting and sending included."""
    grace: float = Field(default=15.0, ge=0)
    """Seconds that running answers get to finish when the server is stopped; then they are cut off and recorded as such."""
    hold_back: int = Field(default=128, ge=32)
    """Characters of an answer that may be held back at most while they could still turn out to belong to an identifier."""
    connections: int = Field(default=1024, ge=1)
    """Open connections at most; further ones are refused (503)."""
