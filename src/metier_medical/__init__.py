"""The medical pack: identifiers, lexicon, templates, tasks, controls and guard rules of medicine, Chinese and English."""
