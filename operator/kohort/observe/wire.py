"""The parts of Kubernetes objects that are decoded at all; everything else is skipped unread."""

from __future__ import annotations

from msgspec import Raw, Struct, field


class Wire(Struct, frozen=True, rename="camel"):
    """A node of a Kubernetes object, camelCase in JSON."""


class OwnerReference(Wire, frozen=True):
    """metav1.OwnerReference."""

    uid: str = ""


class Metadata(Wire, frozen=True):
    """metav1.ObjectMeta."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"
    generation: int = 0
    deletion_timestamp: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()

    @property
    def version(self) -> int:
        """The resource version; a later one of the same resource is greater (KEP-5504)."""
        return int(self.resource_version or 0)


class Condition(Wire, frozen=True):
    """A condition of any object."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observed_generation: int = 0


class Waiting(Wire, frozen=True):
    """A container that does not run yet."""

    reason: str = ""
    message: str = ""


class Terminated(Wire, frozen=True):
    """A container that ended."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""


class ContainerState(Wire, frozen=True):
    """What a container is doing, or did."""

    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(Wire, frozen=True):
    """One container of a pod."""

    name: str = ""
    image: str = ""
    restart_count: int = 0
    started: bool = False
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class Requirement(Wire, frozen=True):
    """What a node's label must be."""

    key: str = ""
    values: tuple[str, ...] = ()


class NodeTerm(Wire, frozen=True):
    """Requirements that a node must all meet."""

    match_expressions: tuple[Requirement, ...] = ()


class NodeTerms(Wire, frozen=True):
    """Terms of which a node must meet one."""

    node_selector_terms: tuple[NodeTerm, ...] = ()


class NodeAffinity(Wire, frozen=True):
    """Which nodes a pod may go to."""

    required: NodeTerms = field(
        default=NodeTerms(), name="requiredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(Wire, frozen=True):
    """Where a pod may go to."""

    node_affinity: NodeAffinity = NodeAffinity()


class Resources(Wire, frozen=True):
    """What a container may use; extended resources are whole numbers."""

    limits: dict[str, str | int | float] = field(default_factory=dict)


class Container(Wire, frozen=True):
    """A container of a pod's spec."""

    resources: Resources = Resources()


class ResourceClaim(Wire, frozen=True):
    """A claim of a pod on devices."""

    resource_claim_template_name: str | None = None


class PodSpec(Wire, frozen=True):
    """What of a pod's spec decides where it can run, and when it is ready."""

    affinity: Affinity = Affinity()
    containers: tuple[Container, ...] = ()
    resource_claims: tuple[ResourceClaim, ...] = ()
    readiness_gates: tuple[Raw, ...] = ()


class PodStatus(Wire, frozen=True):
    """A pod's status."""

    pod_ip: str = field(default="", name="podIP")
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class PodObject(Wire, frozen=True):
    """v1 Pod."""

    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class DeploymentSpec(Wire, frozen=True):
    """A Deployment's spec."""

    replicas: int = 1


class DeploymentStatus(Wire, frozen=True):
    """A Deployment's status."""

    conditions: tuple[Condition, ...] = ()


class DeploymentObject(Wire, frozen=True):
    """apps/v1 Deployment."""

    metadata: Metadata = Metadata()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


class RevisionObject(Wire, frozen=True):
    """apps/v1 ControllerRevision."""

    metadata: Metadata = Metadata()
    revision: int = 0


class ParentReference(Wire, frozen=True):
    """What a route is attached to, with the defaults of the Gateway API."""

    name: str = ""
    namespace: str = ""
    section_name: str = ""
    kind: str = "Gateway"


class RouteParentStatus(Wire, frozen=True):
    """What the implementation of one parent says of a route."""

    parent_ref: ParentReference = ParentReference()
    conditions: tuple[Condition, ...] = ()


class RouteStatus(Wire, frozen=True):
    """The status of an HTTPRoute or GRPCRoute."""

    parents: tuple[RouteParentStatus, ...] = ()


class OwnedObject(Wire, frozen=True):
    """A Service, HTTPRoute or GRPCRoute; a Service has no parents."""

    metadata: Metadata = Metadata()
    spec: Raw = Raw(b"{}")
    status: RouteStatus = RouteStatus()
