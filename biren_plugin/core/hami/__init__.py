"""HAMi's annotations as values, and what a device plugin decides from them."""
