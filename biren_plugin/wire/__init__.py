"""How bytes move: gRPC on Unix sockets, and the model's words as protobuf messages."""
