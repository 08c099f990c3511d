"""The finance pack: identifiers, terms, templates, tasks, controls and guard rules of finance, Chinese and English."""
