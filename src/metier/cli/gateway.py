"""`metier gateway`: an OpenAI-compatible proxy in front of a model outside, through which no personal identifier leaves."""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated, Literal

import typer

from metier.cli.console import errors
from metier.errors import InputError, MissingExtra
from metier.privacy.gateway.proxy import Gateway, GatewaySettings

__all__ = ["gateway"]

_KEY = "METIER_GATEWAY_UPSTREAM_KEY"
_TOKEN = "METIER_GATEWAY_TOKEN"  # noqa: S105 - the name of a variable


def gateway(
    *,
    upstream: Annotated[str, typer.Option("--upstream", metavar="URL", help="The model's address, for instance https://api.example.com/v1.")],
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on.")] = 8081,
    language: Annotated[Literal["auto", "zh", "en"], typer.Option("--language", help="Language of prompts; auto: by their letters.")] = "auto",
    pack: Annotated[str | None, typer.Option("--pack", metavar="NAME", help="Look for the identifiers of this pack, too.")] = None,
) -> None:
    """Take personal identifiers out of prompts and put them back into answers. Keys come from METIER_GATEWAY_UPSTREAM_KEY and METIER_GATEWAY_TOKEN."""
    if not upstream.startswith(("https://", "http://")) or "@" in upstream:
        raise InputError("--upstream: give an address that begins with https:// (or http://), without a name or key in it")
    token = os.environ.get(_TOKEN)
    if token is None and not _local(host):
        raise InputError(f"--host {host} lets others in, and {_TOKEN} is not set\n    -> set it to a secret that clients send as bearer token")
    try:
        import uvicorn
    except ModuleNotFoundError:
        raise MissingExtra("uvicorn", "gateway", "the gateway") from None
    settings = GatewaySettings(upstream, key=os.environ.get(_KEY), token=token, language=language, pack=pack)
    app = Gateway(settings)
    errors().print(f"gateway at http://{host}:{port}/v1 to {upstream}; Ctrl-C ends it")
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)


def _local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
