"""What a user's modules import from their own folders (`py_path`).

The folders stand behind Python's own in sys.path, so that nothing in them hides a library. What was imported from them
for the last configuration is forgotten when the next one is read: a reload brings new code, in helpers too.
"""

import importlib
import os
import sys
from types import ModuleType

_folders: list[str] = []  # those that are in sys.path because of a configuration


def renew(folders: list[str]) -> None:
    """Let modules import from these folders, and from no longer those of the configuration before."""
    for name in [name for name, module in sys.modules.items() if _is_from(module, _folders)]:
        for each in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
            del sys.modules[each]
    sys.path[:] = [entry for entry in sys.path if entry not in _folders]
    _folders[:] = [folder for folder in map(os.path.abspath, folders) if folder not in sys.path]
    sys.path += _folders
    sys.dont_write_bytecode = True  # it tells its source by size and second only: a quick change would be lost
    importlib.invalidate_caches()


def _is_from(module: ModuleType, folders: list[str]) -> bool:
    """Whether a module, or a package as a whole, lies in one of the folders."""
    file = getattr(module, "__file__", None)
    if not folders or not file or "." in module.__name__:
        return False
    folder = os.path.dirname(file)
    return (os.path.dirname(folder) if hasattr(module, "__path__") else folder) in folders
