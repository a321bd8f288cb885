"""The demo as a Hugging Face Space; its variables MODEL, BASELINE and EXAMPLES are told in README.md."""

import os

from hf_robustvit.commands.app import DemoArguments, launch
from hf_robustvit.commands.settings import exit_on_user_error


with exit_on_user_error():
    names = ("MODEL", "BASELINE", "EXAMPLES")
    launch(DemoArguments(**{name.lower(): os.environ.get(name) for name in names}))
