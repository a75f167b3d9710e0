"""Write what is generated from the code: docs/cli.md, docs/methods.md, and the tree of files in README.md."""

import ast
import dataclasses
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any, get_type_hints

from cyclopts import Parameter

from morphem.cli import app
from morphem.methods import METHODS, load, summary

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "morphem"
ROOMS = ("io", "physics", "data", "models", "inference", "methods", "analysis", "evaluation", "cli")
"""In the order of the arrows: each may import those before it."""
TREE = re.compile(r"(<!-- tree -->\n).*?(<!-- /tree -->)", re.DOTALL)
NOTE = "<!-- Written by docs/generate.py from the code: `make docs` writes it anew, edits here are lost. -->\n"


def pages() -> dict[Path, str]:
    """Every generated file -> its text as it should be."""
    readme = ROOT / "README.md"
    text, count = TREE.subn(lambda found: f"{found[1]}{tree()}{found[2]}", readme.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"README.md: {count} places between <!-- tree --> and <!-- /tree -->, expected one")
    return {ROOT / "docs" / "cli.md": cli(), ROOT / "docs" / "methods.md": methods(), readme: text}


def cli() -> str:
    """Every command with its flags, defaults and sentences, as cyclopts writes them."""
    text = app.generate_docs().replace("# morphem\n", "# Command line\n", 1)
    return NOTE + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def methods() -> str:
    """The registered methods: what they assume, their settings, what to cite."""
    lines = [NOTE, "# Methods\n", "| method | what it is |", "|---|---|"]
    lines += [f"| [`{name}`](#{name}) | {summary(name)} |" for name in METHODS]
    return "\n".join([*lines, *(_method(name) for name in METHODS)]) + "\n"


def _method(name: str) -> str:
    module = load(name)
    lines = [f"\n## {name}\n", inspect.getdoc(module) or "", "\n| setting | default | meaning |", "|---|---|---|"]
    lines += [f"| {flags} | {default} | {sentence} |" for flags, default, sentence in _settings(module.Config)]
    lines += ["\nPlease cite:\n", "```bibtex", *module.REFERENCES.values(), "```"]
    return "\n".join(lines)


def _settings(config: type) -> list[tuple[str, str, str]]:
    """(flags, default, sentence) of every field of a settings class."""
    sentences: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        sentences |= _sentences(base)
    hints = get_type_hints(config, include_extras=True)
    rows = []
    for field in dataclasses.fields(config):
        default = "" if field.default is None else f"`{field.default}`"
        rows.append((_flags(field.name, hints[field.name]), default, sentences[field.name].replace("|", r"\|")))
    return rows


def _flags(name: str, hint: Any) -> str:
    aliases = [a for p in getattr(hint, "__metadata__", ()) if isinstance(p, Parameter) for a in p.alias or ()]
    return ", ".join(f"`{flag}`" for flag in (f"--{name.replace('_', '-')}", *aliases))


def _sentences(config: type) -> dict[str, str]:
    """Field -> the text under it, of one class's own source."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for above, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name) and isinstance(below, ast.Expr):
            assert isinstance(below.value, ast.Constant)
            found[above.target.id] = " ".join(str(below.value.value).split())
    return found


def tree() -> str:
    """The package's files, a line each: the first sentence of the file's docstring."""
    files = sorted(PACKAGE.rglob("*.py"), key=_place)
    entries: list[tuple[str, str]] = []
    for path in files:
        inner = path.relative_to(PACKAGE)
        if len(inner.parts) > 1 and inner.name == "__init__.py":
            entries.append((f"  {inner.parent}/", ""))
        entries.append(("  " * len(inner.parts) + inner.name, first_sentence(path)))
    width = max(len(name) for name, _ in entries) + 2
    return "\n".join(["```text", "src/morphem/", *(f"{n:<{width}}{s}".rstrip() for n, s in entries), "```\n"])


def _place(path: Path) -> tuple:
    """Files of the package itself first, then the rooms in the order of the arrows; `__init__.py` leads its room."""
    *folders, name = path.relative_to(PACKAGE).parts
    room = (ROOMS.index(folders[0]) if folders[0] in ROOMS else len(ROOMS)) if folders else -1
    return room, folders, name != "__init__.py", name


def first_sentence(path: Path) -> str:
    """What a file says it is."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "Makes the folder a package."
    return re.split(r"(?<=[.?!])\s", " ".join(docstring.split()), maxsplit=1)[0]


if __name__ == "__main__":
    for page, content in pages().items():
        page.write_text(content, encoding="utf-8")
        print(page.relative_to(ROOT))
