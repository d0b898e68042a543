"""SEAM (to be written): one pass of deciding.

def plan(identity: Identity, spec: Spec, status: Status, world: World, now: datetime) -> Outcome

@dataclass(frozen=True)
class Identity: namespace, name, uid, generation
"""
