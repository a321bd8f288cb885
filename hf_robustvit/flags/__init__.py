"""What can be set: dataclasses whose fields are the flags of the commands.

They import nothing that takes long, so that --help and a mistake are answered at once.
"""

from typing import Literal


RelevanceMethod = Literal["gae", "libra", "rollout", "occlusion"]
