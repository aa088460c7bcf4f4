"""Which cards a pod gets: how close cards are, and the best choice among them."""
