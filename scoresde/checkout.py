"""Finds the packages of a checkout, which lie beside this one, and gives them to code that imports their former names.

In an installed copy they lie inside this package, where Python finds them by itself.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGES = (
    "sde_lib",
    "data",
    "metrics",
    "figures",
    "models",
    "training",
    "samplers",
    "likelihood",
    "latent",
    "tasks",
    "conf",
)

FORMER = {name: f"scoresde.{name}" for name in PACKAGES} | {"run": "scoresde.cli"}
"""Names that a checkout had at its top level, and the modules that have taken their place."""


class Beside(MetaPathFinder):
    """Finds ``scoresde.NAME`` in the folder NAME of a checkout.

    Arguments:
        root: the checkout's folder.
    """

    def __init__(self, root: Path):
        self.root = root

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parent, _, name = fullname.rpartition(".")
        if parent != "scoresde" or name not in PACKAGES:
            return None
        folder = self.root / name
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


class Former(MetaPathFinder, Loader):
    """Finds ``sde_lib.base`` as the module ``scoresde.sde_lib.base`` itself, and so for each package in ``former``.

    Attributes:
        former: the former names that have been imported, such as ``sde_lib``.
        specs: the own spec of each module that is being imported by a former name.
    """

    def __init__(self) -> None:
        self.former: set[str] = set()
        self.specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, dot, rest = fullname.partition(".")
        return ModuleSpec(fullname, self) if dot and top in self.former else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        top, _, rest = spec.name.partition(".")
        module = importlib.import_module(f"{FORMER[top]}.{rest}")
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = self.specs.pop(module.__spec__.name)  # the import system has put the former name's there


FINDER = Former()


def find_beside(root: Path) -> None:
    """Makes ``import scoresde.NAME`` find the folder NAME of the checkout at ``root``.

    The finder comes before that of an editable install, which may belong to another checkout.
    """
    sys.meta_path.insert(0, Beside(root))


def former(name: str) -> None:
    """Puts ``scoresde.sde_lib`` in the place of a module that is imported as ``sde_lib``, with a DeprecationWarning.

    Each package of a checkout and ``run.py`` call it when they are imported by their former names. Otherwise Python
    would make a second copy of each class in them.

    Arguments:
        name: the former name, a key of ``FORMER``.
    """
    warnings.warn(
        f"{name} is a former name: write from scoresde.{name} import ..., or import scoresde.{name}"
        if name in PACKAGES
        else f"{name} is a former name: write from scoresde import load, run",
        DeprecationWarning,
        stacklevel=3,
    )
    FINDER.former.add(name)
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)
    sys.modules[name] = importlib.import_module(FORMER[name])
