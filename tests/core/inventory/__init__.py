"""Tests of `core/inventory`."""
