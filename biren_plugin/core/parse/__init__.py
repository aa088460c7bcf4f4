"""Text and numbers from the host and the management library, turned into the model's words."""
