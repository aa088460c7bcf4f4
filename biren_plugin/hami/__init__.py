"""HAMi's side of a node: reports the cards to it, allocates what it promised, releases its lock."""
