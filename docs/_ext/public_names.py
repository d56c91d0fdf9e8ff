"""The public names of the package, each with the one place where its page is."""

import importlib
import pkgutil
from typing import Any

import sklgap

# In the order of the reference; a sub-package that is not named here comes after them.
ORDER = ["experiments", "inspection", "metrics", "objective", "regimes", "monitor", "remedies", "nets", "training"]
ORDER += ["datasets"]


def packages() -> list[str]:
    """Return ``sklgap`` and its sub-packages that have public names."""
    found = [info.name for info in pkgutil.iter_modules(sklgap.__path__) if info.ispkg]
    found.sort(key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    names = ["sklgap", *(f"sklgap.{name}" for name in found if not name.startswith("_"))]
    return [name for name in names if getattr(importlib.import_module(name), "__all__", None)]


def adapters(package: str) -> list[str]:
    """Return the public modules of a package that are imported by their own name: they need another library each."""
    modules = [f"{package}.{info.name}" for info in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    public = [name for name in modules if name not in packages() and not name.rpartition(".")[2].startswith("_")]
    return [name for name in public if getattr(importlib.import_module(name), "__all__", None)]


def public_names(package: str) -> list[str]:
    """Return the public names of one package in the order of the alphabet."""
    names = importlib.import_module(package).__all__
    return sorted((name for name in names if not name.startswith("__")), key=str.lower)


def places() -> dict[str, str]:
    """Return the package of the page of every public name: the top level where it is there, else its sub-package."""
    found: dict[str, str] = {}
    for package in packages():
        for name in public_names(package):
            first = found.setdefault(name, package)
            if first != package and value_of(first, name) is not value_of(package, name):
                raise ValueError(f"{name} is one thing in {first} and another in {package}.")
    return found


def value_of(package: str, name: str) -> Any:
    """Return what a public name stands for."""
    return getattr(importlib.import_module(package), name)
