"""Who may see what: bearer tokens and permissions as the API server judges them, remembered briefly."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from kohort.contract import GROUP, PLURAL
from kohort.kube import ApiError, Calls

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
LONGEST_TOKEN = 7000  # of a header line of 8190 bytes
# A person whose rights were taken away sees on for no longer than this.
TOKEN_SECONDS, ALLOWED_SECONDS, DENIED_SECONDS = 60.0, 30.0, 5.0
MOST_REMEMBERED = 1024
# Whoever sends one made-up token after the other must not flood the API server.
REVIEWS_PER_SECOND, REVIEWS_AT_ONCE = 20.0, 60.0

T = TypeVar("T")
Clock = Callable[[], float]


class Refused(Exception):
    """Nothing is shown; ``status`` is that of HTTP, the message says what to do."""

    def __init__(self, status: int, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Wish(NamedTuple):
    """Something that a person wants to see; an empty namespace is all of them."""

    verb: str
    namespace: str
    name: str = ""
    group: str = GROUP
    resource: str = PLURAL

    def words(self) -> str:
        """``list modeldeployments in namespace shop``."""
        where = f"in namespace {self.namespace}" if self.namespace else "in all namespaces"
        return f"{self.verb} {self.resource} {where}"


class Gate(Protocol):
    """Decides about requests."""

    async def user(self, token: str) -> str:
        """Who it is.

        Raises:
            Refused: the token is none, or nobody can tell just now.
        """

    async def allows(self, token: str, wish: Wish) -> bool:
        """Whether the person with this token may see this.

        Raises:
            Refused: as :meth:`user`.
        """


class User(msgspec.Struct, frozen=True):
    """A person as the API server knows them."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = {}


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: User = User()


class _TokenReview(msgspec.Struct):
    status: _TokenStatus = msgspec.field(default_factory=_TokenStatus)


class _AccessStatus(msgspec.Struct):
    allowed: bool = False


class _AccessReview(msgspec.Struct):
    status: _AccessStatus = msgspec.field(default_factory=_AccessStatus)


class Memory(Generic[T]):
    """Values by key, each for a while; the oldest go when there are too many."""

    def __init__(self, clock: Clock, most: int = MOST_REMEMBERED) -> None:
        self._clock = clock
        self._most = most
        self._values: OrderedDict[object, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: object) -> T | None:
        """A value that is not too old yet."""
        until, value = self._values.get(key, (0.0, None))
        return value if self._clock() < until else None

    def put(self, key: object, value: T, seconds: float) -> None:
        """Remembers a value for so long."""
        self._values[key] = (self._clock() + seconds, value)
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)


class Budget:
    """How much may be asked: so much at once, and so much per second after that."""

    def __init__(self, clock: Clock, rate: float, most: float) -> None:
        self._clock, self._rate, self._most = clock, rate, most
        self._left, self._at = most, clock()

    def take(self) -> bool:
        """Whether one more question may be asked now; it counts as asked then."""
        now = self._clock()
        self._left = min(self._most, self._left + self._rate * (now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class ClusterGate:
    """Asks the API server: TokenReview for who it is, SubjectAccessReview for what they may see."""

    def __init__(self, kube: Calls, clock: Clock | None = None) -> None:
        self._kube = kube
        clock = clock or asyncio.get_running_loop().time
        self._users: Memory[User] = Memory(clock)
        self._rights: Memory[bool] = Memory(clock)
        self._budget = Budget(clock, REVIEWS_PER_SECOND, REVIEWS_AT_ONCE)

    async def user(self, token: str) -> str:
        """The person's name."""
        return (await self._user(token)).username

    async def allows(self, token: str, wish: Wish) -> bool:
        """What the API server says of the person and the wish, not longer than 30 s ago."""
        user = await self._user(token)
        key = (_digest(token), wish)
        known = self._rights.get(key)
        if known is not None:
            return known
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.username,
                "uid": user.uid,
                "groups": user.groups,
                "extra": user.extra,
                "resourceAttributes": {
                    "group": wish.group,
                    "resource": wish.resource,
                    "verb": wish.verb,
                    "namespace": wish.namespace,
                    "name": wish.name,
                },
            },
        }
        answer = msgspec.json.decode(await self._review(ACCESS_REVIEWS, review), type=_AccessReview)
        allowed = answer.status.allowed
        self._rights.put(key, allowed, ALLOWED_SECONDS if allowed else DENIED_SECONDS)
        return allowed

    async def _user(self, token: str) -> User:
        if not token:
            raise Refused(401, "Send the header Authorization: Bearer TOKEN.")
        if len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable():
            raise Refused(401, "This is no bearer token.")
        key = _digest(token)
        if known := self._users.get(key):
            return known
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        answer = msgspec.json.decode(await self._review(TOKEN_REVIEWS, review), type=_TokenReview)
        if not answer.status.authenticated:
            raise Refused(401, "The cluster does not accept this token: it may have expired.")
        self._users.put(key, answer.status.user, TOKEN_SECONDS)
        return answer.status.user

    async def _review(self, path: str, review: Any) -> bytes:
        if not self._budget.take():
            raise Refused(429, "Too many people sign in at once: try again in a moment.", 1)
        try:
            return await self._kube.call("POST", path, body=review)
        except ApiError as error:
            if error.status == 403:
                # The message would tell a stranger about the operator's own account.
                message = (
                    "The operator may not ask who you are: install the chart with view.enabled."
                )
                raise Refused(503, message, 30) from error
            raise Refused(
                503, "The API server does not answer: try again in a moment.", 2
            ) from error


def _digest(token: str) -> bytes:
    """What a token is remembered by."""
    return hashlib.sha256(token.encode()).digest()
