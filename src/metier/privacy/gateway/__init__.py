"""A gateway to a model outside: prompts leave without personal identifiers, answers come back with them."""

from metier.privacy.gateway.conversation import Conversation, redact
from metier.privacy.gateway.restore import Restorer

__all__ = ["Conversation", "Restorer", "redact"]
