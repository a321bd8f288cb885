"""Every test runs offline, on one thread, and with Hugging Face caches of its own instead of the user's."""

import os
import tempfile


# Before any Hugging Face import: those libraries read the environment once. The folder lives as long as the process.
_caches = tempfile.TemporaryDirectory(prefix="hf_robustvit-tests-")
for name in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_EVALUATE_CACHE", "HF_MODULES_CACHE", "HF_XET_CACHE"):
    os.environ[name] = os.path.join(_caches.name, name.lower())
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.pop("HF_ROBUSTVIT_DATA", None)

import torch  # noqa: E402
import transformers  # noqa: E402


torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
