"""The layers: each folder imports only from those below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE, BENCHMARKS = ROOT / "hsd_cli", ROOT / "benchmarks"
# From top to bottom.
LAYERS = [
    ["app", "__main__"],
    ["commands"],
    ["cluster"],
    ["chat", "batch", "doctor", "export", "serve"],
    ["bench"],
    ["ui"],
    ["batch_engine"],
    ["engine"],
    ["planner"],
    ["decoding"],
    ["drafting"],
    ["vocab"],
    ["runtime"],
    ["models"],
    ["config", "encoding", "errors", "storage", "__init__"],
]
DEPTH = {name: depth for depth, names in enumerate(LAYERS) for name in names}


def imported_modules(source: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            # `from hsd_cli import engine` names a layer, `from hsd_cli import __version__` none.
            names = {f"hsd_cli.{alias.name}" for alias in node.names if alias.name in DEPTH}
            modules |= names if node.module == "hsd_cli" else {str(node.module)}
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    return modules


def imported_layers(source: Path) -> set[str]:
    parts = [module.split(".") for module in imported_modules(source)]
    return {part[1] if len(part) > 1 else "__init__" for part in parts if part[0] == "hsd_cli"}


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(source: Path) -> None:
    layer = source.relative_to(PACKAGE).parts[0].removesuffix(".py")
    upwards = {name for name in imported_layers(source) if DEPTH[name] < DEPTH[layer]}
    assert not upwards, f"{layer} must not know {upwards}"


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_does_without_what_is_not_installed_with_it(source: Path) -> None:
    assert {"benchmarks", "tests"}.isdisjoint(module.split(".")[0] for module in imported_modules(source))


@pytest.mark.parametrize("source", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.name)
def test_benchmarks_import_what_the_bench_layer_may(source: Path) -> None:
    above = {name for name in imported_layers(source) if DEPTH[name] < DEPTH["bench"]}
    assert not above, f"benchmarks must not know {above}"
