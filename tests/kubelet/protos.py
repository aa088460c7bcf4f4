"""The wire's messages and methods, compiled from the schema at first use.

Nothing generated is kept: `load` runs protoc into a temporary folder and builds the message
classes in a descriptor pool of their own. The process-wide pool is left alone, because a second
file that defines package `v1beta1` there (the plugin's own generated module) would be an error.
"""

import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

SCHEMAS = Path(__file__).parents[2] / "schema"


class Protos:
    """The messages and services of one compiled schema.

    A message class is an attribute under its own name: `protos.AllocateRequest(...)`.
    """

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        self._package = files.file[0].package
        for file in files.file:
            self._pool.AddSerializedFile(file.SerializeToString())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            found = self._pool.FindMessageTypeByName(f"{self._package}.{name}")
        except KeyError:
            raise AttributeError(f"{self._package} has no message {name}") from None
        return message_factory.GetMessageClass(found)

    def stub(self, channel: Any, service: str) -> SimpleNamespace:
        """The callable methods of `service` over `channel`, one attribute for each."""
        stub = SimpleNamespace()
        for method in self._pool.FindServiceByName(f"{self._package}.{service}").methods:
            call = channel.unary_stream if method.server_streaming else channel.unary_unary
            multicallable = call(
                f"/{self._package}.{service}/{method.name}",
                request_serializer=_serialize,
                response_deserializer=message_factory.GetMessageClass(
                    method.output_type
                ).FromString,
            )
            setattr(stub, method.name, multicallable)
        return stub

    def handler(self, service: str, methods: Mapping[str, Callable[..., Any]]) -> Any:
        """A handler for `grpc.Server.add_generic_rpc_handlers` that serves `service`.

        `methods` holds a function (request, context) for each method name. A method left out
        answers UNIMPLEMENTED.
        """
        handlers = {}
        for method in self._pool.FindServiceByName(f"{self._package}.{service}").methods:
            if method.name not in methods:
                continue
            make = (
                grpc.unary_stream_rpc_method_handler
                if method.server_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            handlers[method.name] = make(
                methods[method.name],
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=_serialize,
            )
        return grpc.method_handlers_generic_handler(f"{self._package}.{service}", handlers)


def _serialize(message: Any) -> Any:
    return message.SerializeToString()


def load(schema: str = "deviceplugin") -> Protos:
    """Compile that schema of the project. Raises RuntimeError if protoc refuses it."""
    return load_file(SCHEMAS / f"{schema}.proto")


@functools.cache
def load_file(schema: Path) -> Protos:
    """Compile a schema, once in a process. Raises RuntimeError if protoc refuses it."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "schema.bin")
        code = protoc.main(
            ["protoc", f"-I{schema.parent}", f"--descriptor_set_out={compiled}", schema.name]
        )
        if code != 0:
            raise RuntimeError(f"protoc could not compile {schema.name} (exit code {code})")
        return Protos(descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()))
