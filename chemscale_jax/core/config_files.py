"""Finds and loads configs, from a checkout or from the installed package."""

import importlib.util
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from chemscale_jax.core.errors import UserError
from chemscale_jax.core.types import Config


def installed_folder() -> pathlib.Path:
    """Where the configs of the package are."""
    spec = importlib.util.find_spec("chemscale_jax.configs")
    if spec is None or spec.origin is None:
        raise UserError(
            "chemscale_jax.configs is not installed; pip install the package"
        )
    return pathlib.Path(spec.origin).parent


def list_configs() -> dict[str, str]:
    """File name -> first line of its docstring, for every config of the package."""
    return {
        path.name: (load_module(path).__doc__ or "").strip().split("\n")[0]
        for path in sorted(installed_folder().glob("*.py"))
        if path.name not in ("__init__.py", "common.py")
    }


def find(name: str) -> pathlib.Path:
    """The file that a path or a bare file name stands for.

    A path that exists is taken as it is; otherwise its last part is looked up among
    the configs of the package, so that ``configs/painn_ani1x.py`` works anywhere.
    """
    path = pathlib.Path(name)
    if path.is_file():
        return path
    packaged = installed_folder() / path.with_suffix(".py").name
    if packaged.is_file():
        return packaged
    known = ", ".join(p for p in list_configs())
    raise UserError(f"there is no config {name}; the package has {known}")


def load_module(path: pathlib.Path) -> ModuleType:
    """Runs a config file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file; give a config")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(name: str) -> Config:
    """The config of ``FILE`` or ``FILE:ARGUMENTS``."""
    file, _, arguments = name.partition(":")
    module = load_module(find(file))
    if not hasattr(module, "get_config"):
        raise UserError(f"{file} has no get_config(arg); is it a config?")
    return module.get_config(arguments)


def cell_arguments(config: str, chosen: Mapping[str, Any]) -> list[str]:
    """The command line of one cell of a config's ``sweep()``.

    Args:
        config: ``FILE`` or ``FILE:ARGUMENTS``.
        chosen: what the sweep yields: ``{"optimizer.lr": 1e-3}`` sets a field,
            ``{":width": 64}`` an argument of the config.
    """
    arguments = [f"{key[1:]}={v}" for key, v in chosen.items() if key.startswith(":")]
    file, _, given = config.partition(":")
    joined = ",".join([*([given] if given else []), *arguments])
    return [
        f"--config={file}:{joined}" if joined else f"--config={file}",
        *(f"--config.{k}={v}" for k, v in chosen.items() if not k.startswith(":")),
    ]
