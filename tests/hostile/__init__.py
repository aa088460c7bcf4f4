"""The far end of a gRPC connection, frame by frame, for the tests of every kind of peer."""
