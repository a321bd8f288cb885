"""The demo as a Hugging Face Space; its variables MODEL and BASELINE name the models (README.md)."""

import os

from hf_robustvit.command_line import exit_on_user_error
from hf_robustvit.demo import DemoArguments, launch


with exit_on_user_error():
    launch(DemoArguments(model=os.environ.get("MODEL"), baseline=os.environ.get("BASELINE")))
