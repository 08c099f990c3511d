"""The example pack: beekeeping."""
