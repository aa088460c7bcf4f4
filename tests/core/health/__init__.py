"""Tests of `core/health`."""
