"""Python, `hsd` and the libraries that it needs, by its own package's description."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import requires, version

from packaging.requirements import Requirement

from hsd_cli import __version__
from hsd_cli.doctor.check import Check, Finding

PACKAGE = "hsd-cli"


def software() -> Iterator[Check]:
    """Python, `hsd`, and each required library."""
    yield Check("python", lambda: Finding("ok", f"{platform.python_version()}, {platform.platform()}"))
    yield Check("hsd", lambda: Finding("ok", __version__))
    for line in requires(PACKAGE) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield Check(requirement.name, partial(_library, requirement))


def _library(requirement: Requirement) -> Finding:
    remedy = f"run: pip install --upgrade '{requirement.name}{requirement.specifier}'"
    try:
        import_module(requirement.name.replace("-", "_"))
        found = version(requirement.name)
    except Exception as error:  # a damaged library may raise anything
        return Finding("broken", f"cannot be imported: {' '.join(str(error).split())}", remedy)
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding("broken", f"{found} is not {requirement.specifier}", remedy)
    return Finding("ok", found)
