"""Tests of `daemon`."""
