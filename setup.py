"""Names the top-level folders under `headgate.` and compiles the extensions.

The folders conf/, masterd/, shm/ and worker/ are installed as headgate.conf, headgate.masterd,
headgate.shm and headgate.worker, so that nothing as common as `conf` lands in site-packages.

What is written in Cython (*.pyx) is always compiled. HOT is Python that mypyc compiles as it is, from its type hints:
by default in an installation, but not in place (development), so that what is edited is what runs. HEADGATE_COMPILE
(1 or 0) asks for the other; scripts/build does. See docs/architecture.md, "The compiled hot path".
"""

import hashlib
import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
PARTS = ("conf", "masterd", "shm", "worker")
# What every proxied request runs through.
HOT_MODULES = {
    "worker": "outbox timers",
    "worker/http": "body closing conf fields head location output phases protocol reader request server uri variables",
    "worker/upstream": "connect header keepalive next peer pipe protocol response send upstream",
    "worker/proxy": "handler protocol reader target variables",
}
HOT = [f"{folder}/{name}.py" for folder, names in HOT_MODULES.items() for name in names.split()]
MYPY = ["--namespace-packages", "--explicit-package-bases", "--ignore-missing-imports", "--follow-imports=silent"]
STAMP = ROOT / "worker" / "compiled.txt"  # what was compiled in place, for worker/compiled.py


class BuildExtensions(build_ext):
    """Knows whether to compile HOT, and gives mypyc the names that the folders have when installed."""

    def run(self) -> None:
        """Only who builds has anything compiled: pip asks for metadata several times before."""
        in_place = self.inplace or self.editable_mode
        native = [path.relative_to(ROOT) for part in PARTS for path in sorted((ROOT / part).rglob("*.pyx"))]
        extensions = cythonize(
            [Extension(module(path), [str(path)], libraries=["rt", "pthread"]) for path in native],
            language_level=3,
        )
        if in_place:
            remove_compiled()
        if os.environ.get("HEADGATE_COMPILE", "0" if in_place else "1") == "1":
            extensions += compile_hot()
            if in_place:
                hashes = ((hashlib.sha256((ROOT / path).read_bytes()).hexdigest(), path) for path in HOT)
                STAMP.write_text("".join(f"{digest} {path}\n" for digest, path in hashes))
        self.distribution.ext_modules = extensions
        self.swig_opts = None  # the one option that cannot be finalized again
        self.finalize_options()
        super().run()


def module(path: Path) -> str:
    """`shm/lock.pyx` -> `headgate.shm.lock`."""
    return ".".join(("headgate", *path.with_suffix("").parts))


def remove_compiled() -> None:
    """Back to plain Python: an extension would be imported before the .py file beside it."""
    STAMP.unlink(missing_ok=True)
    for path in (ROOT / "worker").rglob("*.so"):
        if not list(path.parent.glob(f"{path.name.split('.')[0]}.pyx")):
            path.unlink()


def compile_hot() -> list[Extension]:
    """mypyc finds `headgate.X` in a folder of links: the repository has no folder of that name."""
    from mypyc.build import mypycify

    links = Path("build/types")
    (links / "headgate").mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if not (link := links / "headgate" / part).is_symlink():
            link.symlink_to(f"../../../{part}")
    os.environ["MYPYPATH"] = str(links)
    paths = [str(links / "headgate" / path) for path in HOT]
    return mypycify([*MYPY, *paths], separate=[(paths, "headgate.worker.compiled")], target_dir="build/mypyc")


parts = find_packages(include=[f"{part}*" for part in PARTS])
setup(
    packages=[f"headgate.{part}" for part in parts],
    package_dir={f"headgate.{part}": part.replace(".", "/") for part in parts},
    package_data={"": ["py.typed", "*.pyi", "*.txt"]},
    ext_modules=[Extension("headgate", [])],  # BuildExtensions lists them
    cmdclass={"build_ext": BuildExtensions},
)
