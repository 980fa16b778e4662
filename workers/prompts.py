"""A task's prompt, compiled: a fixed system text and a Jinja template of the user's text."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import BuiltinMethodType, MethodType
from typing import Any

import orjson
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from workers.settings.problems import did_you_mean, shown

NAMES = (
    "record",
    "key",
    "headers",
    "kafka_topic",
    "kafka_partition",
    "kafka_offset",
    "kafka_timestamp_ms",
)
"""What a template sees: the decoded value, the record's key and headers, and Kafka's coordinates."""

_REASON_MAX_CHARS = 200


class PromptInvalid(ValueError):
    """A prompt's file cannot be used. `problems`: line and column (from 1, column 1 when unknown) and what is wrong."""

    def __init__(self, path: Path, problems: list[tuple[int, int, str]]) -> None:
        super().__init__("\n".join(f"{path}({line},{column}) {what}" for line, column, what in problems))
        self.path = path
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledPrompt:
    """`render` takes `NAMES` as keyword arguments. `version`: 12 hex digits of a hash over both files."""

    system: str
    render: Callable[..., str]
    version: str


def compile_prompt(system: Path, user: Path) -> CompiledPrompt:
    """Read and compile both files. The last line end of each is not part of the prompt.

    Raises:
        PromptInvalid: a file cannot be read, the template has a syntax error, or it uses a name that is not there.
    """
    system_text, user_text = _read(system), _read(user)
    digest = hashlib.sha256(system_text.encode() + b"\0" + user_text.encode())
    return CompiledPrompt(
        system=system_text.removesuffix("\n"), render=_renderer(user, user_text), version=digest.hexdigest()[:12]
    )


def explain(error: Exception) -> str:
    """Say in one line why a template failed, without any of the record's content.

    Only what names the template's own identifiers is quoted: of other exceptions the type and the line must do.
    """
    quotable = isinstance(error, UndefinedError | SecurityError)
    reason = f"{type(error).__name__}: {error}" if quotable else type(error).__name__
    line = next(reversed(list(_template_lines(error))), None)
    return (reason if line is None else f"line {line}: {reason}")[:_REASON_MAX_CHARS]


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja for prompts: sandboxed, strict, and with a record's fields before Python's methods.

    In stock Jinja `record.items` is the method of dict even if the record has a field `items`. The field first is what
    a person means, and spares an AttributeError per field: a third of the time.
    """

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except (TypeError, LookupError, AttributeError):
            # The key may come out of the record, so it is not named.
            return self.undefined(f"there is no such key or index in the {type(obj).__name__}")


def _environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined,
        finalize=_printable,
        keep_trailing_newline=False,
        autoescape=False,  # a prompt is no HTML; escaping would change what the model reads
    )
    environment.filters["tojson"] = _to_json
    del environment.filters["attr"]  # the usual way out of the sandbox (CVE-2025-27516), and no use for a prompt
    return environment


def _printable(value: Any) -> Any:
    """Refuse what a template never means to print, such as `record.items` where the record has no such field."""
    if isinstance(value, BuiltinMethodType | MethodType) and not isinstance(value, Undefined):
        raise UndefinedError(f"`{value.__name__}` is a method here, and no field")
    return value


def _to_json(value: Any) -> str:
    """Jinja's own `tojson` escapes for HTML, which a model would have to read around."""
    return orjson.dumps(value).decode()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as exc:
        raise PromptInvalid(path, [(1, 1, f"cannot be read: {exc.strerror}")]) from exc
    except UnicodeDecodeError as exc:
        raise PromptInvalid(path, [(1, 1, "is not UTF-8")]) from exc


def _renderer(path: Path, source: str) -> Callable[..., str]:
    environment = _environment()
    try:
        tree = environment.parse(source, path.name, str(path))
        if problems := [*_unknown_names(tree), *_other_templates(tree)]:
            raise PromptInvalid(path, sorted(problems))
        code = environment.compile(source, path.name, str(path))
    except TemplateSyntaxError as exc:
        raise PromptInvalid(path, [(exc.lineno, 1, exc.message or "syntax error")]) from exc
    except TemplateError as exc:
        raise PromptInvalid(path, [(1, 1, str(exc))]) from exc
    its_own = dict(environment.globals)
    template = Template.from_code(environment, code, its_own)
    root, blocks, context = template.root_render_func, template.blocks, environment.context_class

    def render(**names: Any) -> str:
        """Do what `Template.render` does, without its copies of the names: those take two fifths of the time."""
        try:
            return "".join(root(context(environment, its_own | names, path.name, blocks)))
        except Exception:  # noqa: BLE001 - whatever it is, Jinja gives it the template's lines
            environment.handle_exception()

    paths = _fields(tree)
    return render if paths is None else _strung(paths, render)


def _fields(tree: nodes.Template) -> list[str | tuple[str, ...]] | None:
    """Return the parts of a template that has texts and fields (`{{ record.text }}`) only, None for any other."""
    parts: list[str | tuple[str, ...]] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            part = node.data if isinstance(node, nodes.TemplateData) else _path(node)
            if part is None:
                return None
            parts.append(part)
    return parts


def _path(node: nodes.Node) -> tuple[str, ...] | None:
    if isinstance(node, nodes.Name):
        return (node.name,) if node.name in NAMES else None
    if not isinstance(node, nodes.Getattr):
        return None
    path = _path(node.node)
    return None if path is None else (*path, node.attr)


def _strung(parts: list[str | tuple[str, ...]], render: Callable[..., str]) -> Callable[..., str]:
    """Return what renders texts and fields as `render` does, at a fifth of its time; what is no field is left to it."""

    def strung(**names: Any) -> str:
        texts = []
        for part in parts:
            value: Any = part
            if type(part) is tuple:
                value = names
                for name in part:
                    if type(value) is not dict or name not in value:
                        return render(**names)
                    value = value[name]
            texts.append(str(value))
        return "".join(texts)

    return strung


def _unknown_names(tree: nodes.Template) -> Iterator[tuple[int, int, str]]:
    unknown = meta.find_undeclared_variables(tree) - set(NAMES)
    lines = {node.name: node.lineno for node in reversed(list(tree.find_all(nodes.Name))) if node.name in unknown}
    for name, line in lines.items():
        yield line, 1, f"a template sees no {shown(name)}{did_you_mean(name, NAMES)}"


def _other_templates(tree: nodes.Template) -> Iterator[tuple[int, int, str]]:
    for node in tree.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
        yield node.lineno, 1, "a prompt is one file: include, extends and import are not available"


def _template_lines(error: Exception) -> Iterator[int]:
    """Yield the lines of the template that the error passed; Jinja rewrites its traceback to them."""
    step = error.__traceback__
    while step is not None:
        if "__jinja_template__" in step.tb_frame.f_globals or step.tb_frame.f_code.co_name == "top-level template code":
            yield step.tb_lineno
        step = step.tb_next
