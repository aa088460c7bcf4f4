"""What `nox -s lint` checks can fail."""
