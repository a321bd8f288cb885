"""The demo as a Hugging Face Space; its variables MODEL and BASELINE name the models (README.md)."""

import os

from hf_robustvit.commands.app import DemoArguments, launch
from hf_robustvit.commands.settings import exit_on_user_error


with exit_on_user_error():
    launch(DemoArguments(model=os.environ.get("MODEL"), baseline=os.environ.get("BASELINE")))
