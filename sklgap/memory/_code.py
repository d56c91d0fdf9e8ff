"""The code of functions: which definitions belong to a library, and which globals a function reads."""

import builtins
import dis
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from typing import Any

# Names by which code reaches values that its text does not name.
ESCAPES = ("eval", "exec", "globals", "__import__", "compile")
ESCAPING_ATTRIBUTES = (
    *("__globals__", "f_globals", "f_locals", "_getframe", "currentframe", "import_module", "__builtins__"),
    *("__annotations__", "get_type_hints", "get_annotations", "__doc__"),
)
# The same functions, which the user may call by other names.
ESCAPING_FUNCTIONS = (
    *(eval, exec, globals, __import__, compile, sys._getframe, sys.modules, inspect.currentframe),
    *(importlib.import_module, importlib.reload),
)
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
INSTALLED = ("site-packages", "dist-packages")
# In the processes that it starts, the main program has another name.
MAIN = {"__mp_main__": "__main__"}


class Unreadable(Exception):
    """Code whose reads cannot be determined."""


def module_name(thing: Any) -> str:
    """Return the name of the module that a definition reports."""
    name = str(getattr(thing, "__module__", None))
    return MAIN.get(name, name)


def is_library(name: str) -> bool:
    """Return whether a module belongs to sklgap, Python or an installed package, and not to the user."""
    top = name.partition(".")[0]
    return top == "sklgap" or (top in sys.modules and top not in ("__main__", "__mp_main__") and _is_installed(top))


@functools.cache
def _is_installed(top: str) -> bool:
    module = sys.modules[top]
    origin = getattr(module, "__file__", None) or getattr(getattr(module, "__spec__", None), "origin", None)
    if origin in ("built-in", "frozen"):
        return True
    paths = list(getattr(module, "__path__", ())) if origin is None else [os.path.realpath(origin)]
    standard = tuple(os.path.realpath(sysconfig.get_path(kind)) + os.sep for kind in ("stdlib", "platstdlib"))
    return any(path.startswith(standard) or not set(INSTALLED).isdisjoint(path.split(os.sep)) for path in paths)


def library_name(thing: Any) -> str | None:
    """Return name and version of a definition that a library has under exactly that name; None for any other.

    ``functools.wraps`` gives the user's functions the name of a library, so the name alone proves nothing.
    """
    try:
        module = getattr(thing, "__module__", None)
        name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    except Exception:  # a user's __getattr__ may raise any exception
        return None
    if not isinstance(module, str) or not isinstance(name, str) or not is_library(module):
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}.{name} {version_of(module)}" if found is thing else None


@functools.cache
def version_of(module: str) -> str:
    """Return the version of the package to which a library module belongs."""
    top = module.partition(".")[0]
    version = getattr(sys.modules.get(top), "__version__", None)
    if version is None and top not in sys.stdlib_module_names:
        names = importlib.metadata.packages_distributions().get(top, [])
        version = " ".join(importlib.metadata.version(name) for name in sorted(names))
    return str(version)


def code_objects(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code and all code within it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from code_objects(const)


def read_by(function: types.FunctionType) -> dict[str, Any]:
    """Return by dotted name what a function and its inner functions read, apart from arguments and closure.

    A function made by a library reads that library, which is identified by its version. From a module of the user the
    function reads the attributes that the code names, or the whole module if the code passes it on.

    Raises
    ------
    Unreadable
        If code evaluates strings, or imports a module that has not been imported yet.
    """
    found: dict[str, Any] = {}
    name = str(function.__globals__.get("__name__"))
    if is_library(name) and function.__globals__ is vars(sys.modules.get(name, sys)):
        return {name: version_of(name)}
    for code in code_objects(function.__code__):
        instructions = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
        for place, instruction in enumerate(instructions):
            if instruction.opname == "IMPORT_NAME":
                found.update(_imported(function, instructions, place))
            elif instruction.opname in LOADS and instruction.argval in function.__globals__:
                value = function.__globals__[instruction.argval]
                found.update([_chain(instruction.argval, value, instructions[place + 1 :])])
            elif instruction.opname in LOADS and instruction.argval in ESCAPES:
                raise Unreadable(f"calls {instruction.argval}, which reaches values that the code does not name")
            elif instruction.opname in LOADS and instruction.argval in vars(builtins):
                value = vars(builtins)[instruction.argval]
                if not isinstance(value, type | types.BuiltinFunctionType):  # the user has put it there
                    found[instruction.argval] = value
            if instruction.argval in ESCAPING_ATTRIBUTES:
                raise Unreadable(f"uses {instruction.argval}, which reaches values that the code does not name")
            if any(found.get(str(instruction.argval)) is function for function in ESCAPING_FUNCTIONS):
                raise Unreadable(f"uses {instruction.argval}, which reaches values that the code does not name")
    return dict(sorted(found.items()))


def _chain(name: str, value: Any, following: list[dis.Instruction]) -> tuple[str, Any]:
    """Follow a module of the user to the attribute that the code reads."""
    for instruction in following:
        if not isinstance(value, types.ModuleType) or instruction.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            break
        attribute = instruction.argval
        if is_library(value.__name__):
            if (value.__name__, attribute) in (("sys", "modules"), *(("builtins", name) for name in ESCAPES)):
                raise Unreadable(f"uses {value.__name__}.{attribute}, which reaches values that the code does not name")
            break
        if attribute not in vars(value):
            break  # the module has a __getattr__, so the whole module counts
        name, value = f"{name}.{attribute}", vars(value)[attribute]
    return name, value


def _imported(function: types.FunctionType, instructions: list[dis.Instruction], place: int) -> Iterator[Any]:
    """Yield the values that an import inside a function brings, by dotted name."""
    level, names, name = (i.argval for i in instructions[place - 2 : place + 1])
    if level:
        name = importlib.util.resolve_name("." * level + name, function.__globals__.get("__package__") or "")
    if name == "builtins" or (name == "sys" and "modules" in [i.argval for i in instructions]):
        raise Unreadable(f"imports {name}, which reaches values that the code does not name")
    if is_library(name):
        yield f"import {name}", f"{name} {version_of(name)}"
        return
    module = sys.modules.get(name)
    if module is None:
        raise Unreadable(f"imports {name!r}, which is not imported yet")
    if names:
        for attribute in names:
            value = vars(module).get(attribute, sys.modules.get(f"{name}.{attribute}", module))
            yield f"import {name}.{attribute}", value
    else:  # `import a.b` brings a
        yield from ((f"import {known}", sys.modules[known]) for known in {name, name.partition(".")[0]})
