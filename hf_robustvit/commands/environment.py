"""What a bug report needs to say about the machine and what is installed there."""

import platform
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from packaging.requirements import Requirement

from hf_robustvit import __version__


def environment() -> str:
    """The versions of Python, of this package and of all that it can use, and the accelerators; one a line."""
    lines = {"hf-robustvit": __version__, "Python": platform.python_version(), "platform": platform.platform()}
    for name in dict.fromkeys(Requirement(line).name for line in requires("hf-robustvit")):
        try:
            lines[name] = version(name)
        except PackageNotFoundError:
            lines[name] = "not installed"
    count = torch.cuda.device_count()
    names = [torch.cuda.get_device_name(index) for index in range(count)]
    lines["CUDA"] = f"{torch.version.cuda}, {', '.join(names)}" if count else "no GPU"
    lines["threads"] = str(torch.get_num_threads())
    return "\n".join(f"{name}: {value}" for name, value in lines.items())
