"""What the scripts have in common that call a server with others' clients, in an environment of those.

Their arguments: the name of a model that maps FP32 rows of 64 to 10, the address of HTTP, and that of
gRPC where it is another. They print one line of JSON: what each call gave, or how it failed. One
process has only one of the clients, whose protocol buffers have the same names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

ROWS = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
LARGE = np.random.default_rng(1).standard_normal((3000, 64)).astype(np.float32)
BAD = np.zeros((1, 3), np.float32)

Calls = dict[str, Callable[[], Any]]
MakeCalls = Callable[[str, str], Calls]  # of an address and a model


def attempt(call: Callable[[], Any]) -> Any:
    """What a call gives, or a text that says how it failed."""
    try:
        return call()
    except Exception as error:
        return f"failed: {type(error).__name__}: {error}"


def tell(over_http: dict[str, MakeCalls], over_grpc: dict[str, MakeCalls]) -> None:
    """Call, and print."""
    model, http, *other = sys.argv[1:]
    told: dict[str, dict[str, Any]] = {}
    for groups, address in ((over_http, http), (over_grpc, other[0] if other else http)):
        for group, make in groups.items():
            told[group] = {name: attempt(call) for name, call in make(address, model).items()}
    print(json.dumps(told))
