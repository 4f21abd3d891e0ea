"""`py_module FILE;`: a Python file of the user's that adds to the configuration language.

Such a file is a module like headgate's own: what it declares at its top level (configuration classes, `@command` and
`@block` functions, VARIABLES, PREFIXES) may be used by the lines behind it. It is run anew each time the
configuration is read, by the master, so with the master's privileges; an exception in it is an error of the
configuration.
"""

import importlib.util
import os
import sys
import traceback
from types import ModuleType

from headgate.conf.directive import Call, Ctx, command
from headgate.conf.modules import Registry


@command("py_module", Ctx.MAIN, "1")
def py_module(call: Call) -> None:
    """Run the file, and take in what it declares."""
    config = call.scope.config
    if config.events is not None or config.http is not None:
        raise call.error("is specified too late")
    path = call.path(call.args[0])
    module = load(call, path)
    registry = call.scope.registry
    for known in _names(module):
        if known in registry.commands:
            raise call.error_at(f'"{path}" declares the directive "{known}", which is known already')
    registry.add(module)


def load(call: Call, path: str) -> ModuleType:
    """Run a user's Python file, anew for every configuration that names it. Raises ConfError with what went wrong."""
    try:
        return _run(path)
    except OSError as error:
        raise call.error_at(f'open() "{error.filename or path}" failed ({error.errno}: {error.strerror})') from None
    except (Exception, SystemExit) as error:  # sys.exit() in a file must not end the server
        raise call.error_at(f'"{path}" failed: {what(error, path)}') from None


def _run(path: str) -> ModuleType:
    """The file as a module of its own name; the one of the last configuration goes on under its locations."""
    name = "headgate_user_" + os.path.basename(path).removesuffix(".py")
    spec = importlib.util.spec_from_loader(name, None, origin=path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = path
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    sys.modules[name] = module  # dataclasses and typing look their module up by name
    exec(code, vars(module))
    return module


def what(error: BaseException, path: str = "") -> str:
    """`NameError: name 'x' is not defined (line 3)`, with the line of this file that it comes from."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == path else lines[-1] if lines else None
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")


def _names(module: ModuleType) -> set[str]:
    """The directives that it declares."""
    own = Registry()
    own.add(module)
    return set(own.commands)
