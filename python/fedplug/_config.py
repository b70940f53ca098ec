"""Configurations from annotations: the JSON Schema of a dataclass or of a model of pydantic, and objects of them."""
from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import io
import os
import sys
import tokenize
import typing
from typing import TYPE_CHECKING, Any

from ._errors import ConfigError

if TYPE_CHECKING:
    from typing import TypeGuard

Json = dict[str, Any]
_SIMPLE = {int: "integer", float: "number", str: "string", bool: "boolean"}
_LIMITS = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum", "multiple_of": "multipleOf",
}


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds of a field: `rate: Annotated[float, Bounds(gt=0, le=1)] = 0.1`. For a list or a text, `min_length` and
    `max_length` bound its length. Those of `annotated_types` and of pydantic's `Field` are known as well."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None


def schema(cls: type) -> Json:
    """The schema of a component's keys: of its class `Config`."""
    config = getattr(cls, "Config", None)
    if config is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if _is_pydantic(config):
        return _kebab(config.model_json_schema(mode="validation"))
    if isinstance(config, type) and dataclasses.is_dataclass(config):
        return _table(config)
    raise ConfigError(f"`{cls.__name__}.Config` is neither a dataclass nor a model of pydantic", key="class")


def make(cls: type, keys: Json) -> Any:
    """The configuration of a component from the keys of its table, which the schema accepts."""
    config = getattr(cls, "Config", None)
    if config is None:
        return None
    if not _is_pydantic(config):
        return _value(config, keys, "")
    import pydantic

    try:
        return config.model_validate(_snake(config, keys))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise ConfigError(message, key=".".join(str(part).replace("_", "-") for part in first["loc"]) or None) from None


def _is_pydantic(config: Any) -> bool:
    return hasattr(config, "model_json_schema") and hasattr(config, "model_validate")


def _table(config: type) -> Json:
    texts, hints = _comments(config), _hints(config)
    properties, required = {}, []
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        name = field.name.replace("_", "-")
        found = _type(hints[field.name], f"{config.__name__}.{field.name}")
        if field.name in texts:
            found.setdefault("description", texts[field.name])
        if field.default is not dataclasses.MISSING:
            found["default"] = _json(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found["default"] = _json(field.default_factory())
        else:
            required.append(name)
        properties[name] = found
    table: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**table, "required": required} if required else table


def _hints(config: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(config, include_extras=True)
    except NameError as error:
        raise ConfigError(f"an annotation of `{config.__name__}` cannot be read: {error}", key="class") from error


def _type(hint: Any, where: str) -> Json:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        found = _type(arguments[0], where)
        for extra in arguments[1:]:
            _annotate(found, extra)
        return found
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if hint is Any:
        return {}
    if hint is type(None):
        return {"type": "null"}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if _is_class(hint) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if _is_class(hint) and issubclass(hint, os.PathLike):
        return {"type": "string", "format": "path"}
    if _is_class(hint) and dataclasses.is_dataclass(hint):
        return _table(hint)
    if _is_union(origin):
        return {"anyOf": [_type(one, where) for one in arguments]}
    if hint in (list, tuple) or origin in (list, collections.abc.Sequence) or (origin is tuple and arguments[1:] == (...,)):
        return {"type": "array", **({"items": _type(arguments[0], where)} if arguments else {})}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_type(one, where) for one in arguments],
                "minItems": len(arguments), "maxItems": len(arguments)}
    if hint is dict or origin in (dict, collections.abc.Mapping):
        return {"type": "object", **({"additionalProperties": _type(arguments[1], where)} if arguments else {})}
    raise ConfigError(f"`{where}` has a type that no key can have: {hint}", key="class")


def _is_class(hint: Any) -> TypeGuard[type[Any]]:
    # `list[int]` is one as well for Python 3.9 and 3.10.
    return isinstance(hint, type) and typing.get_origin(hint) is None


def _is_union(origin: Any) -> bool:
    return origin is typing.Union or (sys.version_info >= (3, 10) and origin is __import__("types").UnionType)


def _annotate(found: Json, extra: Any) -> None:
    if isinstance(extra, str):
        found["description"] = extra
        return
    for name, word in _LIMITS.items():
        if getattr(extra, name, None) is not None:
            found[word] = getattr(extra, name)
    of = {"array": "Items", "object": "Properties"}.get(found.get("type", ""), "Length")
    for end in ("min", "max"):
        if getattr(extra, f"{end}_length", None) is not None:
            found[end + of] = getattr(extra, f"{end}_length")


def _json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name.replace("_", "-"): _json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [_json(one) for one in value]
    if isinstance(value, dict):
        return {name: _json(one) for name, one in value.items()}
    return value


def _comments(config: type) -> dict[str, str]:
    """The comments that begin with `#:`, before a field or after it, by the field's name."""
    try:
        source = inspect.getsource(config)
    except (OSError, TypeError):
        return {}
    texts: dict[str, str] = {}
    above: list[str] = []
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(inspect.cleandoc(source) + "\n").readline):
        if token.type == tokenize.COMMENT and token.string.startswith("#:"):
            text = token.string[2:].strip()
            if _field(line):
                texts[line[0].string] = text
            else:
                above.append(text)
        elif token.type == tokenize.NEWLINE:
            if _field(line) and above:
                texts.setdefault(line[0].string, " ".join(above))
            above, line = [], []
        elif token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT):
            line.append(token)
    return texts


def _field(line: list[tokenize.TokenInfo]) -> bool:
    return len(line) > 1 and line[0].type == tokenize.NAME and line[1].string == ":"


def _value(hint: Any, given: Any, path: str) -> Any:
    """A value that the schema accepts, as an annotation wants it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _value(arguments[0], given, path)
    if _is_class(hint) and dataclasses.is_dataclass(hint):
        hints, names = _hints(hint), {field.name.replace("_", "-"): field.name for field in dataclasses.fields(hint)}
        values = {names[key]: _value(hints[names[key]], value, f"{path}{key}.") for key, value in given.items()}
        try:
            return hint(**values)
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error), key=path.rstrip(".") or None) from None
    if hint is float and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    if _is_class(hint) and issubclass(hint, (enum.Enum, os.PathLike)):
        # `os.PathLike` itself makes no object.
        return given if inspect.isabstract(hint) else hint(given)  # type: ignore[call-arg]
    if _is_union(origin):
        fitting = [one for one in arguments if _may_be(one, given)]
        return _value(fitting[0], given, path) if fitting else given
    if origin is tuple or hint is tuple:
        of = arguments[:1] * len(given) if arguments[1:] == (...,) else arguments
        return tuple(_value(one, value, path) for one, value in zip(of, given)) if of else tuple(given)
    if origin in (list, collections.abc.Sequence) and arguments:
        return [_value(arguments[0], value, path) for value in given]
    if origin in (dict, collections.abc.Mapping) and arguments:
        return {key: _value(arguments[1], value, f"{path}{key}.") for key, value in given.items()}
    return given


def _may_be(hint: Any, given: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _may_be(arguments[0], given)
    if origin is typing.Literal:
        return given in arguments
    if _is_class(hint) and dataclasses.is_dataclass(hint):
        return isinstance(given, dict)
    if hint is float:
        return isinstance(given, (int, float)) and not isinstance(given, bool)
    if hint is int:
        return isinstance(given, int) and not isinstance(given, bool)
    if _is_class(hint) and issubclass(hint, os.PathLike):
        return isinstance(given, str)
    wanted = {list: list, tuple: list, dict: dict, collections.abc.Sequence: list, collections.abc.Mapping: dict}.get(origin or hint, origin or hint)
    return isinstance(given, wanted) if isinstance(wanted, type) else True


def _kebab(schema: Json) -> Json:
    """pydantic's schema, with hyphens in names of keys, and closed."""
    found: Json = {}
    for word, value in schema.items():
        if word == "properties":
            found[word] = {name.replace("_", "-"): _kebab(one) for name, one in value.items()}
        elif word == "$defs":
            found[word] = {name: _kebab(one) for name, one in value.items()}
        elif word == "required":
            found[word] = [name.replace("_", "-") for name in value]
        elif word in ("items", "additionalProperties") and isinstance(value, dict):
            found[word] = _kebab(value)
        elif word in ("anyOf", "oneOf", "allOf", "prefixItems"):
            found[word] = [_kebab(one) for one in value]
        elif word != "title":
            found[word] = value
    if "properties" in found:
        found.setdefault("additionalProperties", False)
    return found


def _snake(config: Any, keys: Json) -> Json:
    fields = {name.replace("_", "-"): (name, field.annotation) for name, field in config.model_fields.items()}
    found: Json = {}
    for key, value in keys.items():
        name, annotation = fields.get(key, (key, None))
        found[name] = _snake(annotation, value) if _is_pydantic(annotation) and isinstance(value, dict) else value
    return found
