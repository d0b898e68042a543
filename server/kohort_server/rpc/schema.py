"""The services and messages that are spoken over gRPC, and to Prometheus, as data.

One table serves three purposes: decoding, encoding, and the descriptors that reflection tells.
A line of a message is: number, type, name; `*` before a type says repeated, `map` that it is a map
from strings to the type.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message; `kind` is a scalar's name, or the full name of a message or an enum."""

    number: int
    kind: str
    name: str
    repeated: bool
    mapped: bool


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service: its messages' names and which side streams."""

    name: str
    request: str
    response: str
    client_streams: bool = False
    server_streams: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """A .proto file: its package, messages by name, enums, and services."""

    name: str
    package: str
    messages: dict[str, tuple[Field, ...]]
    services: dict[str, tuple[Method, ...]]
    enums: dict[str, tuple[str, ...]]


SCALARS = frozenset(
    {"bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64"}
)

INFERENCE = """
ServerLiveRequest
ServerLiveResponse
  1 bool live
ServerReadyRequest
ServerReadyResponse
  1 bool ready
ModelReadyRequest
  1 string name
  2 string version
ModelReadyResponse
  1 bool ready
ServerMetadataRequest
ServerMetadataResponse
  1 string name
  2 string version
  3 *string extensions
ModelMetadataRequest
  1 string name
  2 string version
ModelMetadataResponse
  1 string name
  2 *string versions
  3 string platform
  4 *ModelMetadataResponse.TensorMetadata inputs
  5 *ModelMetadataResponse.TensorMetadata outputs
ModelMetadataResponse.TensorMetadata
  1 string name
  2 string datatype
  3 *int64 shape
InferParameter
  1 bool bool_param
  2 int64 int64_param
  3 string string_param
  4 double double_param
  5 uint64 uint64_param
InferTensorContents
  1 *bool bool_contents
  2 *int32 int_contents
  3 *int64 int64_contents
  4 *uint32 uint_contents
  5 *uint64 uint64_contents
  6 *float fp32_contents
  7 *double fp64_contents
  8 *bytes bytes_contents
ModelInferRequest
  1 string model_name
  2 string model_version
  3 string id
  4 map InferParameter parameters
  5 *ModelInferRequest.InferInputTensor inputs
  6 *ModelInferRequest.InferRequestedOutputTensor outputs
  7 *bytes raw_input_contents
ModelInferRequest.InferInputTensor
  1 string name
  2 string datatype
  3 *int64 shape
  4 map InferParameter parameters
  5 InferTensorContents contents
ModelInferRequest.InferRequestedOutputTensor
  1 string name
  2 map InferParameter parameters
ModelInferResponse
  1 string model_name
  2 string model_version
  3 string id
  4 map InferParameter parameters
  5 *ModelInferResponse.InferOutputTensor outputs
  6 *bytes raw_output_contents
ModelInferResponse.InferOutputTensor
  1 string name
  2 string datatype
  3 *int64 shape
  4 map InferParameter parameters
  5 InferTensorContents contents
ModelStreamInferResponse
  1 string error_message
  2 ModelInferResponse infer_response
ModelConfigRequest
  1 string name
  2 string version
ModelConfigResponse
  1 ModelConfig config
ModelConfig
  1 string name
  2 string platform
  4 int32 max_batch_size
  5 *ModelInput input
  6 *ModelOutput output
  11 ModelDynamicBatching dynamic_batching
  17 string backend
ModelInput
  1 string name
  2 DataType data_type
  4 *int64 dims
ModelOutput
  1 string name
  2 DataType data_type
  3 *int64 dims
ModelDynamicBatching
  1 *int32 preferred_batch_size
  2 uint64 max_queue_delay_microseconds
ModelStatisticsRequest
  1 string name
  2 string version
ModelStatisticsResponse
  1 *ModelStatistics model_stats
ModelStatistics
  1 string name
  2 string version
  3 uint64 last_inference
  4 uint64 inference_count
  5 uint64 execution_count
  6 InferStatistics inference_stats
  7 *InferBatchStatistics batch_stats
InferStatistics
  1 StatisticDuration success
  2 StatisticDuration fail
  3 StatisticDuration queue
  4 StatisticDuration compute_input
  5 StatisticDuration compute_infer
  6 StatisticDuration compute_output
InferBatchStatistics
  1 uint64 batch_size
  2 StatisticDuration compute_input
  3 StatisticDuration compute_infer
  4 StatisticDuration compute_output
StatisticDuration
  1 uint64 count
  2 uint64 ns
RepositoryIndexRequest
  1 string repository_name
  2 bool ready
RepositoryIndexResponse
  1 *RepositoryIndexResponse.ModelIndex models
RepositoryIndexResponse.ModelIndex
  1 string name
  2 string version
  3 string state
  4 string reason
ModelRepositoryParameter
  1 bool bool_param
  2 int64 int64_param
  3 string string_param
  4 bytes bytes_param
RepositoryModelLoadRequest
  1 string repository_name
  2 string model_name
  3 map ModelRepositoryParameter parameters
RepositoryModelLoadResponse
RepositoryModelUnloadRequest
  1 string repository_name
  2 string model_name
  3 map ModelRepositoryParameter parameters
RepositoryModelUnloadResponse
"""
# In the order of their numbers, as Triton's model configuration has them.
DATA_TYPES = (
    "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 "
    "TYPE_INT32 TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16"
)

HEALTH = """
HealthCheckRequest
  1 string service
HealthCheckResponse
  1 HealthCheckResponse.ServingStatus status
"""
SERVING_STATUSES = "UNKNOWN SERVING NOT_SERVING SERVICE_UNKNOWN"

REFLECTION = """
ServerReflectionRequest
  1 string host
  3 string file_by_filename
  4 string file_containing_symbol
  5 ExtensionRequest file_containing_extension
  6 string all_extension_numbers_of_type
  7 string list_services
ExtensionRequest
  1 string containing_type
  2 int32 extension_number
ServerReflectionResponse
  1 string valid_host
  2 ServerReflectionRequest original_request
  4 FileDescriptorResponse file_descriptor_response
  5 ExtensionNumberResponse all_extension_numbers_response
  6 ListServiceResponse list_services_response
  7 ErrorResponse error_response
FileDescriptorResponse
  1 *bytes file_descriptor_proto
ExtensionNumberResponse
  1 string base_type_name
  2 *int32 extension_number
ListServiceResponse
  1 *ServiceResponse service
ServiceResponse
  1 string name
ErrorResponse
  1 int32 error_code
  2 string error_message
"""

# Of Prometheus's metrics.proto, what is written; its sint32 and sint64 are unsigned here, and zigzagged.
METRICS = """
LabelPair
  1 string name
  2 string value
Gauge
  1 double value
Counter
  1 double value
Histogram
  1 uint64 sample_count
  2 double sample_sum
  3 *Bucket bucket
  5 uint32 schema
  6 double zero_threshold
  7 uint64 zero_count
  12 *BucketSpan positive_span
  13 *uint64 positive_delta
Bucket
  1 uint64 cumulative_count
  2 double upper_bound
BucketSpan
  1 uint32 offset
  2 uint32 length
Metric
  1 *LabelPair label
  2 Gauge gauge
  3 Counter counter
  7 Histogram histogram
MetricFamily
  1 string name
  2 string help
  3 MetricType type
  4 *Metric metric
"""
METRIC_TYPES = "COUNTER GAUGE SUMMARY UNTYPED HISTOGRAM"

# Of descriptor.proto, what describing the above takes.
DESCRIPTOR = """
FileDescriptorProto
  1 string name
  2 string package
  4 *DescriptorProto message_type
  5 *EnumDescriptorProto enum_type
  6 *ServiceDescriptorProto service
  12 string syntax
DescriptorProto
  1 string name
  2 *FieldDescriptorProto field
  3 *DescriptorProto nested_type
  4 *EnumDescriptorProto enum_type
  7 MessageOptions options
MessageOptions
  7 bool map_entry
FieldDescriptorProto
  1 string name
  3 int32 number
  4 int32 label
  5 int32 type
  6 string type_name
EnumDescriptorProto
  1 string name
  2 *EnumValueDescriptorProto value
EnumValueDescriptorProto
  1 string name
  2 int32 number
ServiceDescriptorProto
  1 string name
  2 *MethodDescriptorProto method
MethodDescriptorProto
  1 string name
  2 string input_type
  3 string output_type
  5 bool client_streaming
  6 bool server_streaming
"""


def parse(
    name: str,
    package: str,
    messages: str,
    services: dict[str, tuple[Method, ...]],
    enums: dict[str, str],
) -> File:
    """A file from the text of its messages; types without a dot before them are of its package."""
    parsed: dict[str, tuple[Field, ...]] = {}
    message = ""
    for line in messages.split("\n"):
        words = line.split()
        if len(words) == 1:
            message = words[0]
            parsed[message] = ()
        elif words:
            kind = words[-2].lstrip("*")
            full = kind if kind in SCALARS else f"{package}.{kind}"
            field = Field(int(words[0]), full, words[-1], "*" in words[-2], words[1] == "map")
            parsed[message] += (field,)
    split = {name: tuple(values.split()) for name, values in enums.items()}
    return File(name, package, parsed, services, split)


def plain(*names: str) -> tuple[Method, ...]:
    """Methods with one request and one response, named after them."""
    return tuple(Method(name, f"{name}Request", f"{name}Response") for name in names)


def reflection(version: str) -> File:
    """The reflection service in one of its versions, which differ in their names alone."""
    info = Method(
        "ServerReflectionInfo", "ServerReflectionRequest", "ServerReflectionResponse", True, True
    )
    package = f"grpc.reflection.{version}"
    return parse(
        f"{package.replace('.', '/')}/reflection.proto",
        package,
        REFLECTION,
        {"ServerReflection": (info,)},
        {},
    )


FILES = (
    parse(
        "inference.proto",
        "inference",
        INFERENCE,
        {
            "GRPCInferenceService": (
                *plain("ServerLive", "ServerReady", "ModelReady", "ServerMetadata"),
                *plain("ModelMetadata", "ModelInfer", "ModelConfig", "ModelStatistics"),
                *plain("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
                Method(
                    "ModelStreamInfer", "ModelInferRequest", "ModelStreamInferResponse", True, True
                ),
            )
        },
        {"DataType": DATA_TYPES},
    ),
    parse(
        "grpc/health/v1/health.proto",
        "grpc.health.v1",
        HEALTH,
        {
            "Health": (
                Method("Check", "HealthCheckRequest", "HealthCheckResponse"),
                Method("Watch", "HealthCheckRequest", "HealthCheckResponse", server_streams=True),
            )
        },
        {"HealthCheckResponse.ServingStatus": SERVING_STATUSES},
    ),
    reflection("v1"),
    reflection("v1alpha"),
)
DESCRIPTORS = parse("google/protobuf/descriptor.proto", "google.protobuf", DESCRIPTOR, {}, {})
PROMETHEUS = parse(
    "io/prometheus/client/metrics.proto",
    "io.prometheus.client",
    METRICS,
    {},
    {"MetricType": METRIC_TYPES},
)
EVERYTHING = (*FILES, DESCRIPTORS, PROMETHEUS)


@cache
def message(full_name: str) -> tuple[Field, ...]:
    """The fields of a message by its full name; raises `KeyError`."""
    for file in EVERYTHING:
        package = f"{file.package}."
        if full_name.startswith(package) and full_name[len(package) :] in file.messages:
            return file.messages[full_name[len(package) :]]
    raise KeyError(full_name)


@cache
def enum_values(full_name: str) -> tuple[str, ...] | None:
    """The names of an enum's values by number, or None for what is no enum."""
    for file in EVERYTHING:
        package = f"{file.package}."
        if full_name.startswith(package) and full_name[len(package) :] in file.enums:
            return file.enums[full_name[len(package) :]]
    return None
