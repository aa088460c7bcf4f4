"""Tests of `core/placement`."""
