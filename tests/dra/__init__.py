"""Tests of `dra`."""
