"""gRPC's own client, which has no copy of Realm's protocol: it learns the protocol from the server, by reflection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from checks import QUESTION, check, is_paris
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Details(grpc.ClientCallDetails):
    """The details of a call, with a key."""

    def __init__(self, details: Any, key: str) -> None:
        self.method, self.timeout, self.credentials = details.method, details.timeout, details.credentials
        self.metadata = [*(details.metadata or ()), ("authorization", f"Bearer {key}")]


class Keyed(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Gives each call a key."""

    def __init__(self, key: str) -> None:
        self.key = key

    def _keyed(self, proceed: Callable[..., Any], details: Any, request: Any) -> Any:
        return proceed(Details(details, self.key), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_stream = _keyed


def code(program: Callable[[], Any]) -> Callable[[], Any]:
    """A program that returns the status of its failure."""

    def run() -> Any:
        try:
            return program()
        except grpc.RpcError as error:
            return error.code()

    return run


def with_grpc(target: str, key: str, model: str) -> None:
    plain = grpc.insecure_channel(target)
    channel = grpc.intercept_channel(plain, Keyed(key))
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

    def message(name: str) -> Any:
        return GetMessageClass(pool.FindMessageTypeByName(f"realm.v1.{name}"))

    request, chunk = message("GenerateRequest"), message("Chunk")

    def generate(over: Any, name: str = model) -> str:
        call = over.unary_stream(
            "/realm.v1.Realm/Generate", request_serializer=request.SerializeToString, response_deserializer=chunk.FromString
        )
        asked = request(model=name, max_tokens=24, sampling={"temperature": 0})
        asked.conversation.messages.add(role="user", content=QUESTION)
        return "".join(part.text for part in call(asked))

    health = health_pb2_grpc.HealthStub(plain)
    state = lambda: health.Check(health_pb2.HealthCheckRequest(service="realm.v1.Realm")).status  # noqa: E731
    check("grpc health", state, lambda status: status == health_pb2.HealthCheckResponse.SERVING)
    check("grpc reflection", lambda: [m.name for m in pool.FindServiceByName("realm.v1.Realm").methods], lambda names: "Generate" in names)
    check("grpc generate", lambda: generate(channel), is_paris)
    check("grpc without a key", code(lambda: generate(plain)), lambda status: status == grpc.StatusCode.UNAUTHENTICATED)
    check("grpc, no such model", code(lambda: generate(channel, "none")), lambda status: status == grpc.StatusCode.NOT_FOUND)
    plain.close()
