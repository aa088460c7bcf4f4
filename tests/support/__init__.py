"""What tests share: hosts, cards, states, documents and real tools."""
