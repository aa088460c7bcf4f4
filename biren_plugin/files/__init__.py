"""Files that the daemon owns on the node: the CDI file and the node's labels."""
