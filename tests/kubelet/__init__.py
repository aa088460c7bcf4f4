"""A kubelet to test a device plugin against, written without the plugin's code.

It speaks through grpcio, compiles the schema itself and imports nothing of `biren_plugin`, so
that a mistake made there is not made here as well. Tests use `tests.kubelet.client`.
"""
