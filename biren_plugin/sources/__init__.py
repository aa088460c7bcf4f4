"""Loops that observe the node and post what they saw; the survey makes one inventory of it."""
