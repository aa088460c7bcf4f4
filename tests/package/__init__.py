"""The wheel and the sdist, as they are published."""
