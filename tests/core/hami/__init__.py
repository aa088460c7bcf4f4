"""Tests of core/hami."""
