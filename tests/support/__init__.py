"""Helpers for tests: hosts, cards, states, documents and real tools."""
