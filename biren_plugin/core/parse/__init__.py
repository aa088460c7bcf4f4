"""Text and numbers from the host and the management library, turned into values of the model."""
