import purerpc
import biren_plugin.wire._proto.podresources_pb2 as biren_plugin_dot_wire_dot__proto_dot_podresources__pb2


class PodResourcesListerServicer(purerpc.Servicer):
    async def List(self, input_message):
        raise NotImplementedError()

    async def GetAllocatableResources(self, input_message):
        raise NotImplementedError()

    @property
    def service(self) -> purerpc.Service:
        service_obj = purerpc.Service(
            "v1.PodResourcesLister"
        )
        service_obj.add_method(
            "List",
            self.List,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                biren_plugin_dot_wire_dot__proto_dot_podresources__pb2.ListPodResourcesRequest,
                biren_plugin_dot_wire_dot__proto_dot_podresources__pb2.ListPodResourcesResponse,
            )
        )
        service_obj.add_method(
            "GetAllocatableResources",
            self.GetAllocatableResources,
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                biren_plugin_dot_wire_dot__proto_dot_podresources__pb2.AllocatableResourcesRequest,
                biren_plugin_dot_wire_dot__proto_dot_podresources__pb2.AllocatableResourcesResponse,
            )
        )
        return service_obj


class PodResourcesListerStub:
    def __init__(self, channel):
        self._client = purerpc.Client(
            "v1.PodResourcesLister",
            channel
        )
        self.List = self._client.get_method_stub(
            "List",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                biren_plugin_dot_wire_dot__proto_dot_podresources__pb2.ListPodResourcesRequest,
                biren_plugin_dot_wire_dot__proto_dot_podresources__pb2.ListPodResourcesResponse,
            )
        )
        self.GetAllocatableResources = self._client.get_method_stub(
            "GetAllocatableResources",
            purerpc.RPCSignature(
                purerpc.Cardinality.UNARY_UNARY,
                biren_plugin_dot_wire_dot__proto_dot_podresources__pb2.AllocatableResourcesRequest,
                biren_plugin_dot_wire_dot__proto_dot_podresources__pb2.AllocatableResourcesResponse,
            )
        )