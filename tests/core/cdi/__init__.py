"""Tests of `core/cdi`."""
