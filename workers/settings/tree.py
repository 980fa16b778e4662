"""A YAML text as plain values that remember where they stood: YAML 1.2 core schema, no duplicate keys."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from workers.settings.problems import shown
from workers.settings.variables import Variables, VariableUnusable

Path = tuple[str | int, ...]
"""The way to a value: keys and list positions from the top."""

Mark = tuple[int, int]
"""Line and column, from 1."""

_TAG = "tag:yaml.org,2002:"
_VALUES_MAX = 20_000
"""Aliases can multiply ("billion laughs"); no configuration comes near this many values."""


def _whole(text: str) -> int:
    bases = {"0o": 8, "0x": 16}
    return int(text, bases.get(text[:2], 10))


# YAML 1.2.2, section 10.3.2 (core schema): `yes`, `no`, `on`, `off` and dates are plain text.
_CORE: list[tuple[str, str, Callable[[str], Any]]] = [
    ("null", r"~|null|Null|NULL|", lambda _: None),
    ("bool", r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _whole),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", float),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", lambda text: float(text.replace(".", ""))),
]
_PATTERNS = [(_TAG + name, re.compile(rf"(?:{pattern})\Z"), convert) for name, pattern, convert in _CORE]


def core_typed(text: str) -> Any:
    """Return what a plain scalar means in the core schema: None, a bool, an int, a float or the text itself."""
    for _, pattern, convert in _PATTERNS:
        if pattern.match(text):
            try:
                return convert(text)
            except ValueError:  # CPython refuses integers of more than 4,300 digits
                return text
    return text


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's parser with the core schema's resolution instead of YAML 1.1's."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's way to replace its table


class CoreDumper(yaml.SafeDumper):
    """Writes plain only what the core schema reads back as the same value."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's way to replace its table


def _quoted_if_odd(dumper: CoreDumper, text: str) -> yaml.ScalarNode:
    """PyYAML breaks a line at U+0085 and its like and reads them back as a space; escapes are safe."""
    return dumper.represent_scalar(_TAG + "str", text, style=None if text.isprintable() else '"')


CoreDumper.add_representer(str, _quoted_if_odd)

for _tag, _pattern, _ in _PATTERNS:
    _CoreLoader.add_implicit_resolver(_tag, _pattern, None)
    CoreDumper.add_implicit_resolver(_tag, _pattern, None)


@dataclass(slots=True)
class Tree:
    """The values of one text and what is known about them.

    `values` and `keys` give the mark of each value and of each key. `texts` holds the text of values that are one
    variable and were typed again. `spoilt` are the ways to values that were reported already.
    """

    root: Any = None
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    spoilt: set[Path] = field(default_factory=set)
    secrets: set[str] = field(default_factory=set)
    problems: list[tuple[Mark, str]] = field(default_factory=list)

    def mark(self, path: Path) -> Mark:
        """Return where the value stands, or the nearest one around it that was written down."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))

    def key_mark(self, path: Path) -> Mark:
        """Return where the key stands that leads to the value."""
        return self.keys.get(path) or self.mark(path)


def read_tree(text: str, variables: Variables | None = None) -> Tree:
    """Return the values of a YAML (or JSON) text, with its variables replaced when it may have any.

    Never raises for what the text says: see `problems`.
    """
    tree = Tree()
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
        if node is not None:
            tree.root = _Builder(tree, variables).build(node, ())
    except yaml.MarkedYAMLError as exc:
        place = exc.problem_mark or exc.context_mark
        where = (place.line + 1, place.column + 1) if place else (1, 1)
        tree.problems.append((where, f"not YAML: {', '.join(filter(None, (exc.context, exc.problem)))}"))
    except yaml.reader.ReaderError as exc:
        before = text[: exc.position].rpartition("\n")
        where = (text.count("\n", 0, exc.position) + 1, len(before[2]) + 1)
        tree.problems.append((where, f"not YAML: the character U+{int(exc.character):04X} is not allowed"))
    except RecursionError:
        tree.problems.append(((1, 1), "nested too deeply"))
    except (ValueError, OverflowError):  # PyYAML lets `chr()` fail on "\UFFFFFFFF"
        tree.problems.append(((1, 1), "not YAML: an escape stands for no character"))
    return tree


class _Builder:
    """Turns composed nodes into values, remembering marks."""

    def __init__(self, tree: Tree, variables: Variables | None) -> None:
        self._tree = tree
        self._variables = variables
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self._tree.values.setdefault(path, _mark(node))
        self._count += 1
        if self._count > _VALUES_MAX or id(node) in self._open:
            return self._spoil(node, path, "an alias (`*name`) that contains itself, or far too many values")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._open.add(id(node))
        value = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        self._open.discard(id(node))
        return value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> Any:
        if node.tag != _TAG + "map":
            return self._spoil(node, path, f"the tag {shown(node.tag)} is not read here")
        value: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._spoil(key, path, "a key must be plain text")
                continue
            name = str(key.value)
            if not _is_unicode(name):
                self._spoil(key, path, "half a surrogate pair is no character")
                continue
            if name in value:
                first = self._tree.keys[*path, name]
                self._tree.problems.append((_mark(key), f"duplicate key {shown(name)}, first in line {first[0]}"))
                continue
            self._tree.keys[*path, name] = _mark(key)
            value[name] = self.build(child, (*path, name))
        return value

    def _sequence(self, node: yaml.Node, path: Path) -> Any:
        if node.tag != _TAG + "seq":
            return self._spoil(node, path, f"the tag {shown(node.tag)} is not read here")
        return [self.build(child, (*path, place)) for place, child in enumerate(node.value)]

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text = str(node.value)
        if node.tag == _TAG + "str":
            return self._text(node, text, path)
        if any(node.tag == tag and pattern.match(text) for tag, pattern, _ in _PATTERNS):
            return core_typed(text)
        return self._spoil(node, path, f"the tag {shown(node.tag)} is not read here, or does not fit its value")

    def _text(self, node: yaml.ScalarNode, text: str, path: Path) -> Any:
        if not _is_unicode(text):
            return self._spoil(node, path, "half a surrogate pair is no character")
        if self._variables is None:
            return text
        try:
            expanded = self._variables.expand(text)
        except VariableUnusable as exc:
            return self._spoil(node, path, str(exc))
        self._tree.secrets.update(expanded.secrets)
        if not expanded.whole or expanded.text == "":
            return expanded.text
        self._tree.texts[path] = expanded.text
        return core_typed(expanded.text)

    def _spoil(self, node: yaml.Node, path: Path, what: str) -> Any:
        self._tree.problems.append((_mark(node), what))
        self._tree.spoilt.add(path)
        return None  # what stands in for the value: nothing more will be said about it


def _mark(node: yaml.Node) -> Mark:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
