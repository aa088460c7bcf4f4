"""Tests of `core/dra`."""
