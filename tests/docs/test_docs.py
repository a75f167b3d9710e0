"""The pages tell the truth: generated ones are current, links lead somewhere, commands parse, imports point one way."""

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from morphem.cli import app

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "morphem"
MODULES = sorted(PACKAGE.rglob("*.py"))
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ARROWS = (
    {"errors"}, {"config"}, {"io"}, {"run"}, {"physics"}, {"data"}, {"models"}, {"inference"}, {"ensemble"},
    {"methods"}, {"analysis", "evaluation"}, {"cli"}, {"__main__"},
)  # fmt: skip
"""A module may import its own room and those of earlier sets."""
MACHINE_PATHS = re.compile(r"(?:/home/|/Users/|/root/|/mnt/|/scratch/|\b[A-Z]:\\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Generated pages


def test_generated_pages_are_current(generate):
    stale = [relative(path) for path, text in generate.pages().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, f"run `make docs`: {stale}"


def files_of_tree(text: str) -> list[str]:
    """The .py files of an indented tree, as paths below its first line."""
    folders: list[str] = []
    files = []
    for line in text.splitlines():
        found = re.match(r"((?:  )+)(\S+)", line)
        if not found:
            continue
        depth, name = len(found[1]) // 2, found[2]
        if name.endswith("/"):
            folders = [*folders[: depth - 1], name]
        else:
            files.append("".join(folders[: depth - 1]) + name)
    return files


def test_tree_of_the_readme_names_every_file_once():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("<!-- tree -->")[1].split("<!-- /tree -->")[0]
    assert sorted(files_of_tree(tree)) == sorted(path.relative_to(PACKAGE).as_posix() for path in MODULES)


def test_the_order_of_the_rooms_is_that_of_the_arrows(generate):
    rooms = [room for level in ARROWS for room in sorted(level) if (PACKAGE / room).is_dir()]
    assert list(generate.ROOMS) == rooms


def test_every_setting_of_every_method_has_its_row(generate):
    from morphem.methods import METHODS, load

    text = generate.methods()
    for name in METHODS:
        section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for setting in load(name).Config.__dataclass_fields__:
            (row,) = [line for line in section.splitlines() if line.startswith(f"| `--{setting.replace('_', '-')}`")]
            assert len(row.rsplit("|", 2)[1].strip()) > 10, row


# Arrows


def room_of(module: str) -> str | None:
    """`morphem.io.star` is in io; the package itself, which is its version alone, is in no room."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def level_of(room: str) -> int:
    levels = [number for number, rooms in enumerate(ARROWS) if room in rooms]
    assert levels, f"{room} has no place among the arrows: give it one here and in ARCHITECTURE.md"
    return levels[0]


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Names of this package's modules that a file imports anywhere, relative imports and import_module included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "morphem")
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            if module == "morphem":
                yield from (f"morphem.{alias.name}" for alias in node.names)
            elif module.startswith("morphem."):
                yield module
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and str(name.value).startswith("morphem."):
                yield str(name.value)


def wrong_arrows(name: str, package: str, source: str) -> list[str]:
    """What module `name` imports although it must not."""
    room = room_of(name)
    wrong = []
    for other in imported(ast.parse(source), package):
        target = room_of(other)
        if target in (None, "__version__", room):
            continue
        if room is None or level_of(target) >= level_of(room):
            wrong.append(f"{name} imports {other}")
    return wrong


def test_imports_follow_the_arrows():
    wrong = []
    for path in MODULES:
        parts = ("morphem", *path.relative_to(PACKAGE).with_suffix("").parts)
        package = ".".join(parts[:-1])
        name = package if parts[-1] == "__init__" else ".".join(parts)
        wrong += wrong_arrows(name, package, path.read_text(encoding="utf-8"))
    assert not wrong


@pytest.mark.parametrize(
    ("name", "source", "allowed"),
    [
        ("morphem.io.star", "def f():\n    from morphem.physics import ctf", False),
        ("morphem.io.star", "from ..data import particles", False),
        ("morphem.analysis.report", "import morphem.evaluation.fsc", False),
        ("morphem.io.star", "from morphem import run", False),
        ("morphem.data.dataset", "import importlib\nimportlib.import_module('morphem.models')", False),
        ("morphem", "from morphem.errors import InputError", False),
        ("morphem.data.dataset", "from morphem.physics.ctf import ctf\nfrom . import particles", True),
        ("morphem.ensemble", "from morphem import __version__\nimport morphem.models", True),
    ],
)
def test_wrong_arrows_are_found(name: str, source: str, allowed: bool):
    assert (wrong_arrows(name, name.rpartition(".")[0] or name, source) == []) is allowed


# Docstrings


def test_everything_public_says_what_it_is():
    silent = []
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body and not ast.get_docstring(tree):
            silent.append(relative(path))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                public = not node.name.startswith("_")
                if public and not ast.get_docstring(node):
                    silent.append(f"{relative(path)}: {node.name}")
    assert not silent


# Pages


@pytest.mark.parametrize("page", MARKDOWN, ids=relative)
def test_links_lead_somewhere(page: Path):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    broken = [target for target in targets if not (target.startswith("http") or leads(page, target))]
    assert not broken


def leads(page: Path, target: str) -> bool:
    """Whether a relative link names a file, and a heading of it where it has an anchor."""
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists() or (path.is_relative_to(ROOT) is False):
        return False
    return not anchor or anchor in anchors(path.read_text(encoding="utf-8"))


def anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub makes them: lower case, blanks to hyphens, the rest dropped."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_pages_of_the_project_are_found():
    names = {relative(page) for page in MARKDOWN}
    assert names >= {"README.md", "ARCHITECTURE.md", "CONVENTIONS.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/cli.md"}


@pytest.mark.parametrize("page", MARKDOWN, ids=relative)
def test_no_page_names_a_path_of_some_machine(page: Path):
    assert not MACHINE_PATHS.findall(page.read_text(encoding="utf-8"))


def commands(page: Path) -> list[str]:
    """The command lines of a page's shell blocks, continued lines joined."""
    blocks = [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind in ("sh", "bash")]
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


WRITTEN = [page for page in MARKDOWN if page.name not in ("cli.md", "methods.md")]
COMMANDS = [line for page in WRITTEN for line in commands(page) if line.startswith("morphem ")]


def parse(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str):
    parse(line)


def test_refusals_are_quoted_as_they_are_said():
    """What troubleshooting quotes, … aside, occurs in the code."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quotes = re.findall(r'^\| "(.+?)" \|', page, re.MULTILINE)
    assert len(quotes) > 10
    fragments = [(quote, part.strip()) for quote in quotes for part in quote.split("…")]
    assert [pair for pair in fragments if pair[1] not in source] == []


def test_the_readme_shows_every_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in app if not name.startswith("-") and f"morphem {name}" not in readme] == []


@pytest.mark.parametrize(
    "line", ["morphem fit vae a.star -o run --latent-dims 8", "morphem fit -o run", "morphem decode"]
)
def test_wrong_commands_do_not_parse(line: str):
    from cyclopts import CycloptsError

    with pytest.raises(CycloptsError):
        parse(line)


def test_python_examples_name_what_exists():
    """Imports of the examples resolve; attributes of `run`, an Ensemble, exist."""
    from morphem.ensemble import Ensemble

    sources = [b for page in WRITTEN for kind, b in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "python"]
    assert sources
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("morphem"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "run":
                assert hasattr(Ensemble, node.attr) or node.attr in Ensemble.__dataclass_fields__, node.attr
