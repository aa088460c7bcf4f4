"""Tests of `core/parse`."""
