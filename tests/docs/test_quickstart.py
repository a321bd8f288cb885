"""docs/quickstart.md: its ten commands, as they stand there, on tiny photos, tiny models and a Hub on this machine."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from loopback_hub import MAIN, TOKEN, LoopbackHub
from mask_images import photograph, save_backbone
from photo_folder import save_model
from PIL import Image


ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
COMMANDS = [textwrap.dedent(block) for block in re.findall(r"```bash\n(.*?)```", DOCUMENT, re.S)]
CLASSES = ("n01531178", "n01534433")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos, after all commands; the Hub; and what each command printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    for photos, count in (("photos", 4), ("test-photos", 3), ("snow-photos", 2)):
        for class_number, name in enumerate(CLASSES):
            (folder / photos / "images" / name).mkdir(parents=True)
            for number in range(count):
                image, _ = photograph(10 * number + class_number, size=(64, 64))
                image.save(folder / photos / "images" / name / f"{number}.jpg")
    save_model(folder / "hub/google/vit-base-patch16-224" / MAIN, [f"class {index}" for index in range(1000)])
    save_backbone(folder / "hub/facebook/dino-vitb16" / MAIN, patch_size=16, image_size=64)
    (folder / "commands.json").write_text(json.dumps(COMMANDS))
    with LoopbackHub(folder / "hub") as hub:
        environment = hub.environment(TOKEN, PYTHONPATH=str(ROOT), HF_HOME=str(folder / "cache"))
        for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
            environment.pop(name)
        command = [sys.executable, Path(__file__).parent / "forked_commands.py", "commands.json"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder, hub, [(folder / f"{number}.out").read_text() for number in range(len(COMMANDS))]


def test_there_are_ten(place):
    assert len(COMMANDS) == 10 == len(re.findall(r"^\d+\. ", DOCUMENT, re.M))


def test_the_commands_leave_what_the_document_says(place):
    folder, _, printed = place
    for name in ("masks/contact_sheet.png", "model/relevance.png", "original.png", "fine-tuned.png"):
        with Image.open(folder / "out" / name) as picture:
            assert picture.width > 100
    assert (folder / "out/results/overlays/test-photos.png").is_file()
    assert "masks accepted" in printed[0]
    rows = [line for line in printed[3].splitlines() if line.startswith("| test-photos ")]
    assert rows and all(row in printed[4] for row in rows)
    assert printed[5].count("%") == printed[6].count("%") == 5 and printed[5] != printed[6]


def test_the_hub_has_the_model_with_all_its_results(place):
    folder, hub, printed = place
    files = hub.files("you/birds")
    assert files.keys() == {
        *("README.md", "config.json", "model.safetensors", "preprocessor_config.json", "robustvit.json"),
        *("relevance.png", "results/test-photos.json", "results/snow-photos.json", "results/comparison.json"),
    }
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "google/vit-base-patch16-224" and card.data.model_name == "birds"
    assert {entry.dataset_name for entry in card.data.eval_results} == {"photos", "test-photos", "snow-photos"}
    assert 'pipeline("image-classification", model="you/birds")' in card.text
    assert "Before is google/vit-base-patch16-224, after is this model" in card.text
    assert "Masks: the folder masks" in card.text
    assert "[{'label': 'class " in printed[8]
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 50 and not [path for path in written if TOKEN.encode() in path.read_bytes()]
