"""Parses YAML so that a text is what its author wrote, and no key is dropped.

PyYAML follows YAML 1.1, in which ``no`` is false, ``012`` is ten, ``12:30`` is 750 and ``2026-01-01`` is a date. Here
only what YAML 1.2's core schema and 1.1 read alike is no text: ``null``, ``true``, ``false`` and decimal numbers.
https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tidemill.errors import SpecError

_DEEPEST = 50
_MOST_NODES = 100_000
"""Far more than a pipeline has. An alias counts each time it is used, so that neither a few aliases of aliases nor one
that contains itself can fill the memory of Airflow's DAG processor."""
_STRING = "tag:yaml.org,2002:str"
_PLAIN_SCALARS: dict[str, tuple[re.Pattern[str], str]] = {
    "tag:yaml.org,2002:null": (re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN\0"),
    "tag:yaml.org,2002:bool": (re.compile(r"^(?:true|false)$"), "tf"),
    # More than 18 digits stay a text, which the field then rejects or takes as a number.
    "tag:yaml.org,2002:int": (re.compile(r"^(?:0|-?[1-9][0-9]{0,17})$"), "-0123456789"),
    "tag:yaml.org,2002:float": (
        re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$"),
        "-0123456789",
    ),
    "tag:yaml.org,2002:merge": (re.compile(r"^<<$"), "<"),
}
"""Tag -> the plain scalars that have it, and the characters that they begin with. The first that matches counts."""


def parse_yaml(path: Path, text: str) -> object:
    """The one document of a YAML file.

    Args:
        path: the file, for messages.
        text: its content.

    Raises:
        SpecError: it is no YAML, is nested or repeated beyond all measure, or has a key twice in a mapping.
    """
    try:
        _check_depth(path, text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check_nodes(path, root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise SpecError("TM-SPEC-YAML-INVALID", value=f"{path}: {' '.join(str(error).split())}") from None


def _check_depth(path: Path, text: str) -> None:
    """Refuse what is nested too deeply before nodes are made of it, which happens by recursion in C."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise SpecError("TM-SPEC-YAML-INVALID", value=f"{path}: it is nested more than {_DEEPEST} deep")


def _check_nodes(path: Path, root: yaml.Node) -> None:
    waiting, seen = [root], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _MOST_NODES:
            raise SpecError("TM-SPEC-YAML-INVALID", value=f"{path}: it holds more than {_MOST_NODES:,} values")
        if isinstance(node, yaml.MappingNode):
            _check_keys(path, node)
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _check_keys(path: Path, node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
        line = key.start_mark.line + 1
        if key.value in lines:
            raise SpecError("TM-SPEC-KEY-DUPLICATE", value=key.value, path=path, first=lines[key.value], second=line)
        lines[key.value] = line


def _scalar(loader: Any, node: Any) -> object:
    """A scalar in the form that its tag requires; only one that was tagged by hand can be in another."""
    pattern, _ = _PLAIN_SCALARS[node.tag]
    text: str = loader.construct_scalar(node)
    if not pattern.match(text):
        raise yaml.constructor.ConstructorError(None, None, f"{text!r} is no {node.tag}", node.start_mark)
    match node.tag.rpartition(":")[2]:
        case "int":
            return int(text)
        case "float":
            return float(text)
        case "bool":
            return text == "true"
    return None


def _make_loader() -> Any:
    # The loader in C, where PyYAML was built with it, takes a sixth of the time.
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    kept = (_STRING, "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map", None)
    constructors = {tag: base.yaml_constructors[tag] for tag in kept}
    constructors |= {tag: _scalar for tag in _PLAIN_SCALARS if not tag.endswith("merge")}
    made = type("Loader", (base,), {"yaml_implicit_resolvers": {}, "yaml_constructors": constructors})
    for tag, (pattern, beginnings) in _PLAIN_SCALARS.items():
        made.add_implicit_resolver(tag, pattern, [each.strip("\0") for each in beginnings])  # type: ignore[attr-defined]
    return made


_Loader = _make_loader()
