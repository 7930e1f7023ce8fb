"""The mapping of folders to packages, which pyproject.toml cannot say with discovery.

`worker` and `adapters` are too generic to be installed under these names: they become
`loopless.worker` and `loopless.adapters`. They are searched, so that no new subpackage is missed.
"""

from setuptools import find_packages, setup

MAPPED = {"worker": "loopless.worker", "adapters": "loopless.adapters"}

packages = find_packages(include=["loopless", "loopless.*"])
for folder, package in MAPPED.items():
    found = find_packages(include=[folder, f"{folder}.*"])
    packages += [package + name.removeprefix(folder) for name in found]

setup(
    packages=packages,
    package_dir={"loopless": "loopless", **{package: folder for folder, package in MAPPED.items()}},
)
