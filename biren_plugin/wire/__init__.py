"""How bytes move: gRPC on Unix sockets, and the core's types as protobuf messages."""
