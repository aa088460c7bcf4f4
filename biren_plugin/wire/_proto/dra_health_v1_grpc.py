import purerpc
import biren_plugin.wire._proto.dra_health_v1_pb2 as biren_plugin_dot_wire_dot__proto_dot_dra_health_v1__pb2


class DRAResourceHealthServicer(purerpc.Servicer):
    async def NodeWatchResources(self, input_message):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "v1.DRAResourceHealth"
        )
        service_obj.add_method(
            "NodeWatchResources",
            self.NodeWatchResources,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                biren_plugin_dot_wire_dot__proto_dot_dra_health_v1__pb2.NodeWatchResourcesRequest,
                biren_plugin_dot_wire_dot__proto_dot_dra_health_v1__pb2.NodeWatchResourcesResponse,
            )
        )
        return service_obj


class DRAResourceHealthStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "v1.DRAResourceHealth",
            channel
        )
        self.NodeWatchResources = self._client.get_method_stub(
            "NodeWatchResources",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_STREAM,
                biren_plugin_dot_wire_dot__proto_dot_dra_health_v1__pb2.NodeWatchResourcesRequest,
                biren_plugin_dot_wire_dot__proto_dot_dra_health_v1__pb2.NodeWatchResourcesResponse,
            )
        )