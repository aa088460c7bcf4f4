"""What is true: pure rules about cards, splits, health, devices and containers.

No module in here reads a file or a clock, opens a socket, or imports trio or protobuf: its inputs are
arguments, its decisions are results. Its tests need neither files nor clocks.
"""
