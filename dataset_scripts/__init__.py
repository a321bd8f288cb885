"""The builders of `hf_robustvit.builders` under the name they have in a checkout: `dataset_scripts.imagenet_s` is
`hf_robustvit.builders.imagenet_s`.

The files here are the scripts that pair, check and convert a data set.
"""

import importlib
import pkgutil
import sys

from hf_robustvit import builders
from hf_robustvit.builders import *  # noqa: F403


for module in pkgutil.iter_modules(builders.__path__):
    sys.modules[f"{__name__}.{module.name}"] = importlib.import_module(f"{builders.__name__}.{module.name}")
