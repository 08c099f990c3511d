"""Which writer a project names: nobody, its own base model, or an endpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from metier import models
from metier.config import Settings
from metier.prepare.writers import EndpointSettings, EndpointWriter, LocalWriter, Writer

__all__ = ["WriterSettings", "writer_of"]


class WriterSettings(Settings):
    """Who writes where a step asks for text: variants, translations, new conversations."""

    use: Literal["none", "base", "endpoint"] = "none"
    """`base`: the project's base model, on this machine. `endpoint`: a server that speaks OpenAI's protocol; the text leaves this machine."""
    endpoint: EndpointSettings | None = None
    """The server, for `use: endpoint`."""

    @model_validator(mode="after")
    def _fits(self) -> WriterSettings:
        if (self.use == "endpoint") != (self.endpoint is not None):
            raise ValueError("an endpoint is named exactly where `use: endpoint` stands: give its url and model, or leave it out")
        return self


def writer_of(settings: WriterSettings, base: models.Base | None, *, deidentified: bool) -> Writer | None:
    """Return the writer, or None for nobody. Raises InputError for an endpoint without its key or for text that was not de-identified."""
    endpoint = settings.endpoint
    if settings.use == "endpoint" and endpoint is not None:
        return EndpointWriter(endpoint, deidentified=deidentified)
    if settings.use == "base" and base is not None:
        model = models.LocalModel.open(base, None)
        # Prompts show answers of one line. A model that came with a template ends its answers by itself and may write several lines.
        return LocalWriter(model, name=base.name, digest=base.digest, stop=() if model.chat.own_template else ("\n",))
    return None
