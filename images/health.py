"""The images' health check: imports every module of secateur, and every package that it needs."""

import importlib
import pkgutil
import re
from importlib import metadata

import secateur

DEEP = ("dvc.repo", "kfp.dsl.executor_main", "mlflow.pytorch")  # what the steps open when they run


def main() -> None:
    """Import them; a package of an extra may be missing, and with it a module that is for that extra."""
    requirements = metadata.requires("secateur") or []
    names = {text: re.split(r"[^\w.-]", text)[0] for text in requirements}
    optional = {name for text, name in names.items() if "extra ==" in text}
    for module in pkgutil.walk_packages(secateur.__path__, "secateur."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in optional:
                raise
    for folder, packages in metadata.packages_distributions().items():
        if {package.lower().replace("_", "-") for package in packages} & {name for name in names.values()}:
            importlib.import_module(folder)
    for name in DEEP:
        importlib.import_module(name)


if __name__ == "__main__":
    main()
