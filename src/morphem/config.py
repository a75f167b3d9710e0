"""Settings: frozen dataclasses to and from YAML. The same classes make the command line's flags."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from morphem.errors import InputError, nearest

T = TypeVar("T")


def to_plain(settings: Any) -> dict[str, Any]:
    """A dataclass as plain YAML-able values; paths become strings, tuples lists."""
    return {f.name: _plain(getattr(settings, f.name)) for f in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def to_words(values: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """The flags that give plain values to a command, those left out that are its defaults."""
    words = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if value is None or value == defaults.get(name):
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return words


def from_plain(kind: type[T], values: dict[str, Any], where: str) -> T:
    """The dataclass `kind` from plain values, checked.

    Errors: InputError naming the unknown setting and the nearest known one, or the value of a wrong type.
    """
    import pydantic

    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown setting {key!r}.{nearest(key, known)}")
    try:
        return pydantic.TypeAdapter(kind).validate_python(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {name} = {first['input']!r} cannot be used: {first['msg'].lower()}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML; give a file that this program wrote") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no settings; expected a YAML mapping")
    return values


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write a mapping, keys in the order given."""
    import yaml

    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
