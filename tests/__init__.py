"""Tests, by the room that they test; what they share is in `support`."""
