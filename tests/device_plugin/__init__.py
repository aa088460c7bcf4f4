"""Tests of `device_plugin`."""
