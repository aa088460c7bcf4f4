"""What is true: pure rules about cards, splits, health, devices and containers.

No module in here reads a file, looks at a clock, opens a socket, or knows trio or protobuf: what
they need is an argument, what they decide is the result. Tests of them need none of it either.
"""
