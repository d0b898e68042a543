"""The rules of the CRD without a cluster: the part of CEL that Kubernetes' rules are written in.

https://github.com/google/cel-spec/blob/master/doc/langdef.md; macros over an index and a value as in
Kubernetes' libraries. Values are those of JSON.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

Scope = Mapping[str, Any]
Node = Callable[[Scope], Any]
"""A part of a rule, ready to be worked out where names have values."""


class CelError(Exception):
    """A rule that cannot be read, or not be worked out for a value."""


def holds(rule: str, value: Any) -> bool:
    """Whether a rule holds with ``self`` as ``value``.

    Raises:
        CelError: the rule uses what is not known here, or does not fit the value.
    """
    try:
        return bool(parsed(rule)({"self": value}))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise CelError(f"{rule}: {error!r}") from error


_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>r?'(?:[^'\\]|\\.)*'|r?"(?:[^"\\]|\\.)*")"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<sign>\|\||&&|[=!<>]=|[-+*/%<>!?:.,()\[\]]))"""
)
# A field that is called like a word that CEL reserves, such as "namespace".
_ESCAPED = re.compile("^__([a-z]+)__$")
_WORDS = {"true": True, "false": False, "null": None}
_LEVELS: tuple[Mapping[str, Callable[[Any, Any], Any]], ...] = (
    {
        "==": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
        "in": lambda item, among: item in among,
    },
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": operator.truediv, "%": operator.mod},
)
_METHODS: Mapping[str, Callable[..., Any]] = {
    "size": len,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": lambda text, part: part in text,
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
    "replace": str.replace,
    "split": str.split,
    "lowerAscii": str.lower,
    "sum": sum,
    "min": min,
    "max": max,
}
_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "size": len,
    "double": float,
    "int": int,
    "string": str,
}
_MACROS: Mapping[str, Callable[[Sequence[Any], Iterator[Any]], Any]] = {
    "all": lambda items, found: all(found),
    "exists": lambda items, found: any(found),
    "exists_one": lambda items, found: sum(map(bool, found)) == 1,
    "existsOne": lambda items, found: sum(map(bool, found)) == 1,
    "filter": lambda items, found: [item for item, keep in zip(items, found, strict=True) if keep],
    "map": lambda items, found: list(found),
}


@dataclass
class _Reader:
    """Reads a rule from left to right; ``at`` is the next token's place, ``field`` what was read last
    of the kind ``a.b``."""

    rule: str
    tokens: list[tuple[str, str]]
    at: int = 0
    field: tuple[Node, str] | None = None

    def next_is(self, *texts: str) -> str:
        """Steps over the next token if it is one of ``texts``, and returns it; else empty."""
        kind, text = self.tokens[self.at]
        if kind not in ("sign", "name") or text not in texts:
            return ""
        self.at += 1
        return text

    def need(self, text: str) -> None:
        """Steps over ``text``, which has to be there."""
        if not self.next_is(text):
            raise CelError(f'{self.rule}: "{text}" is missing before "{self.tokens[self.at][1]}"')

    def whole(self) -> Node:
        """``either ? this : that``, or what binds closer."""
        asked = self.either()
        if not self.next_is("?"):
            return asked
        this = self.whole()
        self.need(":")
        that = self.whole()
        return lambda scope: this(scope) if asked(scope) else that(scope)

    def either(self) -> Node:
        """Parts of which one must be true."""
        parts = [self.both()]
        while self.next_is("||"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else lambda scope: any(part(scope) for part in parts)

    def both(self) -> Node:
        """Parts that must all be true."""
        parts = [self.binary(0)]
        while self.next_is("&&"):
            parts.append(self.binary(0))
        return parts[0] if len(parts) == 1 else lambda scope: all(part(scope) for part in parts)

    def binary(self, level: int) -> Node:
        """Comparisons, sums, products: each binds closer than the one before."""
        if level == len(_LEVELS):
            return self.unary()
        node = self.binary(level + 1)
        while sign := self.next_is(*_LEVELS[level]):
            node = _combined(_LEVELS[level][sign], node, self.binary(level + 1))
        return node

    def unary(self) -> Node:
        """``!this`` and ``-this``."""
        if self.next_is("!"):
            denied = self.unary()
            return lambda scope: not denied(scope)
        if self.next_is("-"):
            negated = self.unary()
            return lambda scope: -negated(scope)
        return self.member()

    def member(self) -> Node:
        """What is inside something: ``a.b``, ``a[0]``, ``a.size()``."""
        node = self.primary()
        while sign := self.next_is(".", "["):
            if sign == "[":
                node = _combined(operator.getitem, node, self.whole())
                self.need("]")
            else:
                node = self.selected(node)
        return node

    def selected(self, node: Node) -> Node:
        """What follows a dot: a field, a method or a macro."""
        name = self.name()
        if not self.next_is("("):
            field = _ESCAPED.sub(r"\1", name)
            self.field = node, field
            return lambda scope: node(scope)[field]
        if name in _MACROS:
            return self.macro(name, node)
        if name not in _METHODS:
            raise CelError(f"{self.rule}: {name}() is not known here")
        method, arguments = _METHODS[name], self.list_until(")")
        return lambda scope: method(node(scope), *(argument(scope) for argument in arguments))

    def macro(self, name: str, node: Node) -> Node:
        """``all(item, …)``, or ``all(index, item, …)``, and its relatives."""
        variables: list[str] = []
        while self.tokens[self.at][0] == "name" and self.tokens[self.at + 1][1] == ",":
            variables.append(self.name())
            self.need(",")
        body = self.whole()
        self.need(")")

        def worked_out(scope: Scope) -> Any:
            items = list(node(scope))
            bound: Iterator[tuple[Any, ...]] = (
                enumerate(items) if len(variables) == 2 else ((item,) for item in items)
            )
            found = (body({**scope, **dict(zip(variables, b, strict=True))}) for b in bound)
            return _MACROS[name](items, found)

        return worked_out

    def primary(self) -> Node:
        """A value, a name, a call, or something in brackets."""
        if self.next_is("("):
            node = self.whole()
            self.need(")")
            return node
        if self.next_is("["):
            items = self.list_until("]")
            return lambda scope: [item(scope) for item in items]
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            number = float(text) if "." in text else int(text)
            return lambda scope: number
        if kind == "text":
            value = _text(text)
            return lambda scope: value
        if kind != "name":
            raise CelError(f'{self.rule}: "{text}" is not expected here')
        if text in _WORDS:
            return lambda scope: _WORDS[text]
        if not self.next_is("("):
            return lambda scope: scope[text]
        if text == "has":
            return self.has()
        if text not in _FUNCTIONS:
            raise CelError(f"{self.rule}: {text}() is not known here")
        function, (argument,) = _FUNCTIONS[text], self.list_until(")")
        return lambda scope: function(argument(scope))

    def has(self) -> Node:
        """``has(a.b)``: whether ``a`` has a field ``b``."""
        self.member()
        self.need(")")
        if self.field is None:
            raise CelError(f"{self.rule}: has() needs a field")
        node, name = self.field
        return lambda scope: name in node(scope)

    def list_until(self, end: str) -> list[Node]:
        """Values with commas between them."""
        items: list[Node] = []
        while not self.next_is(end):
            items.append(self.whole())
            self.next_is(",")
        return items

    def name(self) -> str:
        """The next token, which has to be a name."""
        kind, text = self.tokens[self.at]
        if kind != "name":
            raise CelError(f'{self.rule}: a name is missing before "{text}"')
        self.at += 1
        return text


@cache
def parsed(rule: str) -> Node:
    """A rule that is read; ``CelError`` when it uses what is not known here."""
    tokens: list[tuple[str, str]] = []
    place = 0
    while place < len(rule.rstrip()):
        found = _TOKEN.match(rule, place)
        if found is None:
            raise CelError(f"{rule}: not understood from {rule[place:]}")
        tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
        place = found.end()
    reader = _Reader(rule, [*tokens, ("end", "the end")])
    node = reader.whole()
    if reader.tokens[reader.at][0] != "end":
        raise CelError(f'{rule}: "{reader.tokens[reader.at][1]}" is not expected here')
    return node


def _combined(function: Callable[[Any, Any], Any], left: Node, right: Node) -> Node:
    return lambda scope: function(left(scope), right(scope))


def _text(token: str) -> str:
    if token.startswith("r"):
        return token[2:-1]
    return re.sub(r"\\(.)", r"\1", token[1:-1])
