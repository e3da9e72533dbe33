#!/usr/bin/env python3
"""Set-up in one command, with nothing but Python: ``python3 dev.py demo | test | check | coverage | audit``.

Each makes the environment in ``.venv`` if it is not there or out of date. ``demo`` writes a text with the embedded
models and says how many times plain decoding that was, ``test`` runs the quick tests and ``test --all`` all of them,
``check`` runs the linter and the type checker, ``coverage`` says which lines of decoding, drafting and vocab their own
tests miss, and fails below 90 %, ``audit`` asks the network for known weaknesses of the packages.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PROGRAMS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
STAMP = ENVIRONMENT / "installed"

OPTIONS = sys.argv[2:]
SELECTED = [each for each in OPTIONS if each != "--all"] if "--all" in OPTIONS else ["-m", "not thorough", *OPTIONS]
# Of the layers that pyproject.toml names for coverage, without what takes minutes.
CORE_TESTS = [
    *("verification", "sampling", "text_stream", "losslessness", "parallel"),
    *("context", "lookup", "slrs", "drafter_faults", "reference_defects"),
    *("token_bytes", "overlap", "special_token_names", "vocab_diff"),
]
JOBS = {
    "demo": [["python", "-m", "hsd_cli.bench.demo"]],
    "test": [["python", "-m", "pytest", "-n", "logical", "--dist", "worksteal", *SELECTED]],
    "check": [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
    ],
    "coverage": [
        ["coverage", "run", "-m", "pytest", *(f"tests/test_{name}.py" for name in CORE_TESTS), "-k", "not samples"],
        ["coverage", "report"],
    ],
    "audit": [
        ["python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit"],
        ["pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip", "--strict"],
    ],
}


def install() -> None:
    """The project and its development tools at the versions that were tested; nothing if that is done already."""
    wanted = hashlib.sha256(
        b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    ).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    print("setting up .venv (PyTorch is large: this can take minutes)", file=sys.stderr)
    venv.create(ENVIRONMENT, with_pip=True)
    # Twice quiet: errors alone. pip warns of each place of an index that lacks a package, once per package.
    pip = [str(PROGRAMS / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", "constraints.txt", "--editable", ".[dev]"], cwd=ROOT, check=True)
    STAMP.write_text(wanted)


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    install()
    for program, *arguments in JOBS[sys.argv[1]]:
        status = subprocess.run([str(PROGRAMS / program), *arguments], cwd=ROOT, stdin=subprocess.DEVNULL).returncode
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"dev.py: set-up failed: {' '.join(map(str, error.cmd))}")
