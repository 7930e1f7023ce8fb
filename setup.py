"""The mapping of folders to packages, which pyproject.toml cannot say with discovery.

`worker` and `adapters` are too generic to be installed under these names: they become
`threadwell.worker` and `threadwell.adapters`. All packages are searched for, so that a new
subpackage is never missed. The front door is below `src/`: no folder at the root shadows the
installed package.
"""

from setuptools import find_packages, setup

MAPPED = {"worker": "threadwell.worker", "adapters": "threadwell.adapters"}

packages = find_packages("src")
for folder, package in MAPPED.items():
    found = find_packages(include=[folder, f"{folder}.*"])
    packages += [package + name.removeprefix(folder) for name in found]

setup(
    packages=packages,
    package_dir={"": "src", **{package: folder for folder, package in MAPPED.items()}},
)
