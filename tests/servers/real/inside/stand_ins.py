"""Lets a GPU server's modules be imported on a CPU: empty modules stand in for packages that are not there.

Runs in the server's own environment. Nothing that is there is replaced, and nothing that `allow` was not told of.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from contextlib import suppress


class _Anything(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _anything(name)


def _anything(name):
    """A class that can be a base, a type, a constant or a decorator."""

    def new(cls, *arguments, **_):
        return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else object.__new__(cls)

    return _Anything(
        name,
        (),
        {
            "__new__": new,
            "__init__": lambda self, *_, **__: None,
            "__call__": lambda self, *arguments, **_: arguments[0] if arguments else None,
            "__class_getitem__": classmethod(lambda cls, _: cls),
            "__getattr__": lambda self, key: getattr(type(self), key),
        },
    )


class _Module(types.ModuleType):
    __path__ = ()
    __file__ = "stand-in"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, _anything(name))
        return self.__dict__[name]


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, prefixes):
        self._prefixes = prefixes

    def find_spec(self, name, path=None, target=None):
        if name.startswith(self._prefixes):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        pass


def allow(*prefixes: str) -> None:
    """Have empty modules stand in for packages with these names, where they are not there."""
    import transformers.utils.import_utils as checks

    for name in dir(checks):  # they are cached: what is not there stays so for transformers
        if name.startswith("is_") and name.endswith("_available"):
            with suppress(Exception):
                getattr(checks, name)()
    sys.meta_path.append(_Finder(prefixes))
