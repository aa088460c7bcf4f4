"""Tests of `commands/doctor`."""
