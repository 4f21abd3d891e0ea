"""The layout's promises: sans-IO files import no I/O, files with directives are listed, the worker's map is true."""

import ast
import re
from pathlib import Path

import pytest
from headgate.conf.modules import MODULES

ROOT = Path(__file__).resolve().parents[2]
SANS_IO = [
    "conf/lexer.py",
    "conf/parser.py",
    "worker/http/reader.py",
    "worker/http/chunked.py",
    "worker/http/uri.py",
    "worker/proxy/reader.py",
    "worker/resolver/wire.py",
    "worker/tls/names.py",
]
IO_MODULES = {"asyncio", "socket", "uvloop", "select", "selectors"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("name", SANS_IO)
def test_wire_formats_import_no_io(name: str) -> None:
    imported = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert not imported & IO_MODULES


def declares(path: Path) -> bool:
    """Whether a file adds to the configuration language at its top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id in ("VARIABLES", "PREFIXES") for t in node.targets
        ):
            return True
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id in ("VARIABLES", "PREFIXES"):
            return True
        if isinstance(node, ast.FunctionDef) and any(
            isinstance(d, ast.Call) and isinstance(d.func, ast.Name) and d.func.id in ("block", "command")
            for d in node.decorator_list
        ):
            return True
        if isinstance(node, ast.ClassDef) and any(k.arg == "level" for k in node.keywords):
            shared = any(
                isinstance(c, ast.Call)
                and isinstance(c.func, ast.Name)
                and c.func.id == "directive"
                and c.args
                and isinstance(c.args[0], ast.Constant)
                and str(c.args[0].value).startswith("_")
                for c in ast.walk(node)
            )
            if not shared:  # a base class: its directives come with the protocol that gives them a prefix
                return True
    return False


def test_every_file_with_directives_is_in_the_list_of_modules() -> None:
    listed = set(MODULES)
    missing = [
        name
        for path in sources("worker", "conf")
        if declares(path)
        and (name := "headgate." + ".".join(path.relative_to(ROOT).with_suffix("").parts)) not in listed
    ]
    assert missing == []


def test_the_list_of_modules_names_files_that_exist() -> None:
    for name in MODULES:
        assert (ROOT / (name.removeprefix("headgate.").replace(".", "/") + ".py")).is_file(), name


def test_the_map_in_the_workers_docstring_is_true() -> None:
    text = ast.get_docstring(ast.parse((ROOT / "worker/__init__.py").read_text())) or ""
    folder, named = "", set()
    for indent, name in re.findall(r"^( +)([\w/]+(?:\.pyx?\b|/$))", text, re.MULTILINE):
        if name.endswith("/"):
            folder = name
        else:
            named.add((folder if len(indent) > 4 else "") + name)
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / "worker" / name).is_file()] == []
