"""Templates of packs and projects: Jinja2 in a sandbox, over the fields of one record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from metier.errors import Fault, PackError

__all__ = ["compile_template", "render"]

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
# Jinja's own filter writes for HTML pages: it escapes <, > and everything that is not ASCII.
_ENVIRONMENT.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=1024)
def compile_template(text: str) -> Template:
    """Compile a template once. Raises PackError with the line inside the template for bad syntax."""
    try:
        return _ENVIRONMENT.from_string(text)
    except TemplateSyntaxError as fault:
        raise PackError(Fault(f"the template {_short(text)} is not valid: {fault.message}", line=fault.lineno, remedy="see Jinja's syntax")) from None


def render(template_text: str, fields: Mapping[str, Any]) -> str:
    """Return a template filled with `fields`. Raises PackError for bad syntax, a missing field or anything the sandbox forbids."""
    template = compile_template(template_text)
    try:
        return template.render(fields)
    except UndefinedError as fault:
        known = ", ".join(sorted(fields)) or "none"
        raise PackError(Fault(f"the template {_short(template_text)} cannot be filled: {fault.message}", remedy=f"fields that are there: {known}")) from None
    except SecurityError as fault:
        raise PackError(Fault(f"the template {_short(template_text)} does what templates may not: {fault.message}")) from None
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as fault:
        raise PackError(Fault(f"the template {_short(template_text)} cannot be filled: {type(fault).__name__}")) from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
