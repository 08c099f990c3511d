"""The law pack: identifiers, terms, templates, tasks, controls and guard rules of law, Chinese and English."""
