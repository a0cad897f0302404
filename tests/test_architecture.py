"""The floors of the design hold, and no modules import each other in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("runtime", "training", "export", "quantize", "benchmarks", "reslite", "tools")

Imports = dict[str, set[str]]


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("inside_functions", [False, True])
def test_no_modules_import_each_other_in_a_circle(inside_functions: bool) -> None:
    # An import inside a function may wait for a heavy library, but hides no circle.
    imports = drawn(ROOT, inside_functions)

    assert len(imports) > 100
    assert "runtime.errors" in imports["runtime.session"]
    assert ("runtime.opening" in imports["runtime"]) == inside_functions
    assert circle(imports) is None


def test_imports_for_types_alone_are_no_circle(tmp_path: Path) -> None:
    package = tmp_path / "runtime"
    package.mkdir()
    guarded = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from runtime import b\n"
    (package / "a.py").write_text(guarded)
    (package / "b.py").write_text("import runtime.a\n")
    assert circle(drawn(tmp_path, inside_functions=True)) is None

    (package / "a.py").write_text("def f():\n    from runtime.b import name\n")
    assert circle(drawn(tmp_path, inside_functions=False)) is None
    assert circle(drawn(tmp_path, inside_functions=True)) is not None

    for line in ("from runtime import b", "try:\n    import runtime.b as c\nexcept ImportError: 0"):
        (package / "a.py").write_text(line + "\n")
        found = circle(drawn(tmp_path, inside_functions=False))
        assert found is not None
        assert set(found) == {"runtime.a", "runtime.b"}


def test_every_package_tells_type_checkers_that_it_is_typed() -> None:
    missing = [name for name in PACKAGES if not (ROOT / name / "py.typed").is_file()]
    assert missing == ["tools"]  # which is not in the wheel


def drawn(root: Path, inside_functions: bool) -> Imports:
    """Return which modules of our packages each of them imports, but for type checkers alone."""
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
    }
    imports: Imports = {}
    for module, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = {one for s in _imports(tree, inside_functions) for one in _modules(s, files)}
        imports[module] = found - {module}
    return imports


def circle(imports: Imports) -> list[str] | None:
    """Return modules of which each imports the next and the last the first; None if none do."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return None


def _imports(node: ast.AST, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from _imports(ast.Module(child.orelse, []), inside_functions)
        elif inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(child, inside_functions)


def _modules(statement: ast.Import | ast.ImportFrom, known: Container[str]) -> list[str]:
    """Return the known modules that are imported: ``from a import b`` is ``a.b`` or else ``a``."""
    names = [one.name for one in statement.names]
    if isinstance(statement, ast.ImportFrom):
        assert statement.level == 0, "imports are absolute"
        inner = [f"{statement.module}.{name}" for name in names]
        names = [name if name in known else str(statement.module) for name in inner]
    return [name for name in names if name in known]
