"""Names the top-level folders under `headgate.` and compiles the Cython extensions.

The folders conf/, masterd/, shm/ and worker/ are installed as headgate.conf, headgate.masterd,
headgate.shm and headgate.worker, so that nothing as common as `conf` lands in site-packages.
"""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

parts = find_packages(include=["masterd*", "worker*", "shm*", "conf*"])
extensions = [
    Extension(f"headgate.{path[:-4].replace('/', '.')}", [path], libraries=["rt", "pthread"])
    for path in sorted(glob("shm/**/*.pyx", recursive=True))
]

setup(
    packages=[f"headgate.{part}" for part in parts],
    package_dir={f"headgate.{part}": part.replace(".", "/") for part in parts},
    package_data={"": ["py.typed", "*.pyi", "*.txt"]},
    ext_modules=cythonize(extensions, language_level=3),
)
