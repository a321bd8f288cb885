"""Pushing to the Hub, a local server that answers as it does: what arrives, what fails, and how it is repeated."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants
from huggingface_hub.repocard_data import model_index_to_eval_results
from loopback_hub import MAIN, TOKEN, LoopbackHub
from model_card_pattern import MODEL_CARD_PATTERN
from photo_folder import finetune, save_model, save_photos
from transformers import pipeline

from hf_robustvit import hub as hub_module
from hf_robustvit.__main__ import main as tools
from hf_robustvit.errors import UserError
from hf_robustvit.hub import HubRepository


ROOT = Path(__file__).parent.parent
MODEL_FILES = {
    *("README.md", "config.json", "model.safetensors", "preprocessor_config.json", "relevance.png", "robustvit.json"),
}


def run(hub, folder, *command) -> subprocess.CompletedProcess:
    environment = hub.environment(TOKEN, PYTHONPATH=str(ROOT), HF_HOME=str(folder / "cache"))
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        environment.pop(name)
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A model of the Hub, fine-tuned and pushed, and then evaluated from there; the Hub stumbles twice."""
    folder = tmp_path_factory.mktemp("work")
    base = save_model(folder / "hub/acme/tiny-vit" / MAIN, ("ant", "bee", "cow", "doe", "elk", "fox"))
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\nA tiny ViT.\n")
    save_photos(folder / "photos")
    with LoopbackHub(folder / "hub") as hub:
        hub.failures = {"POST /api/models/you/bugs/commit": [500, "break"]}
        common = ("--model", "acme/tiny-vit", "--dataset", "photos", "--output_dir", "out", "--use_cpu")
        trained = run(
            *(hub, folder, ROOT / "run_finetune.py", *common, "--num_classes", 2, "--samples_per_class", 2),
            *("--max_steps", 2, "--push_to_hub", "--hub_model_id", "you/bugs", "--hub_token", TOKEN),
        )
        assert trained.returncode == 0, trained.stderr
        first = hub.files("you/bugs")
        flags = ("--model", "you/bugs", "--baseline", "acme/tiny-vit", "--push_to_hub", "--dataset", "photos")
        evaluated = run(hub, folder, ROOT / "run_eval.py", *flags, "--output_dir", "eval", "--num_workers", 0)
        assert evaluated.returncode == 0, evaluated.stderr
        assert not any(hub.failures.values())
    return folder, first, hub.files("you/bugs"), trained, evaluated, hub


def test_what_is_pushed_is_the_model_its_card_and_its_maps_and_no_more(pushed):
    folder, first, *_ = pushed
    assert first.keys() == MODEL_FILES
    assert all(content == (folder / "out" / name).read_bytes() for name, content in first.items())
    left = {path.name for path in (folder / "out").iterdir()}
    assert "training_args.bin" in left and "checkpoint-2" in left  # so there was something to leave out


def test_large_files_go_one_way_and_small_ones_the_other(pushed):
    hub = pushed[-1]
    assert len(list((hub.root / "lfs").iterdir())) == 2  # the weights and the picture
    assert sum(request.startswith("PUT /lfs/") for request in hub.requests) == 2


def test_the_card_matches_from_the_first_character_to_the_last(pushed):
    card = pushed[1]["README.md"].decode()
    assert MODEL_CARD_PATTERN.fullmatch(card), card


def test_the_pushed_model_is_a_plain_model(pushed, tmp_path):
    folder, first, *_ = pushed
    for name, content in first.items():
        (tmp_path / name).write_bytes(content)
    answer = pipeline("image-classification", model=str(tmp_path))(str(folder / "photos/images/ant/0.png"))
    assert answer[0]["score"] > answer[-1]["score"] and answer[0]["label"] in (
        "ant",
        "bee",
        "cow",
        "doe",
        "elk",
        "fox",
    )


def test_the_token_is_in_no_file_and_no_log(pushed):
    folder, _, final, trained, evaluated, _ = pushed
    written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(written) > 30
    assert not [path for path, content in written.items() if TOKEN.encode() in content]
    assert not any(TOKEN in done.stdout + done.stderr for done in (trained, evaluated))


def test_requests_are_not_logged(pushed):
    *_, trained, evaluated, _ = pushed
    assert not any("HTTP Request" in done.stdout + done.stderr for done in (trained, evaluated))


def test_an_evaluation_adds_to_the_card_and_its_metadata(pushed):
    folder, first, final, *_ = pushed
    assert final.keys() == MODEL_FILES | {"results/photos.json", "results/comparison.json"}
    assert all(final[name] == first[name] for name in MODEL_FILES - {"README.md"})
    before, after = ModelCard(first["README.md"].decode()), ModelCard(final["README.md"].decode())
    head, _, rest = before.text.partition("<!-- hf_robustvit: benchmarks -->")
    assert after.text.startswith(head) and after.text.endswith(rest.partition("end of benchmarks -->")[2])

    result = json.loads((folder / "eval/photos.json").read_text())
    assert json.loads(final["results/photos.json"]) == result
    name, entries = model_index_to_eval_results(after.data.to_dict()["model-index"])
    assert name == "bugs" and before.data.eval_results[0] in entries
    values = {entry.metric_name: entry.metric_value for entry in entries if entry.dataset_split == "test"}
    assert values == {
        "Top-1 accuracy over all classes of the model (%)": round(result["top1"], 2),
        "Top-5 accuracy over all classes of the model (%)": round(result["top5"], 2),
        "Top-1 accuracy among the benchmark's classes (%)": round(result["top1_subset"], 2),
        "Top-5 accuracy among the benchmark's classes (%)": round(result["top5_subset"], 2),
    }
    for item in json.loads((folder / "eval/comparison.json").read_text())["differences"]:
        if item["classes"] == "all":
            low, high = item["interval95"]
            cells = [item["n"], f"{item['before']:.2f}", f"{item['after']:.2f}", f"{item['difference']:+.2f}"]
            interval = f"[{low:.2f}, {high:.2f}]".replace("-0.00", "0.00")
            row = ["photos", item["figure"], "all", *map(str, cells), interval]
            assert re.search(r" +\| +".join(map(re.escape, row)), after.text), row


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that this process can reach, at once when it tries again, with a token from the environment."""
    with LoopbackHub(tmp_path / "hub") as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hub_module, "WAITS", (0, 0))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running


@pytest.fixture
def folder(tmp_path):
    """A finished model's folder, with what does not belong on the Hub."""
    folder = save_model(tmp_path / "out model")
    for name in ("README.md", "robustvit.json", "relevance.png", "results/photos.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    for name in ("checkpoint-2/model.safetensors", "checkpoint-2/config.json", "tokencut/masks/a.png", ".env"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text("secret")
    for name in ("training_args.bin", "optimizer.pt", "trainer_state.json", "runs.png"):
        (folder / name).write_text("secret")
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_push_tool_pushes_a_folder(hub, folder, capsys):
    tools(["push", str(folder), "you/bugs"])
    assert hub.files("you/bugs").keys() == MODEL_FILES | {"results/photos.json"}
    assert "is pushed to you/bugs" in capsys.readouterr().out


def test_results_for_the_hubs_leaderboards_are_pushed(hub, folder):
    for name in (".eval_results/cutouts-a.yaml", ".eval_results/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("[]")
    HubRepository("you/bugs").push(folder, "Model")
    assert hub.files("you/bugs").keys() == MODEL_FILES | {"results/photos.json", ".eval_results/cutouts-a.yaml"}


def test_a_name_without_user_is_ones_own(hub, folder):
    HubRepository("bugs").push(folder, "Model")
    assert hub.files("you/bugs").keys() > {"README.md"}


@pytest.mark.parametrize("failures", [[500], ["break"], [503, "break"]])
@pytest.mark.parametrize("where", ["POST /api/repos/create", "POST /api/validate-yaml", "/commit/main"])
def test_a_hub_that_stumbles_is_asked_again(hub, folder, where, failures):
    hub.failures = {where: list(failures)}
    HubRepository("you/bugs").push(folder, "Model")
    assert hub.files("you/bugs").keys() == MODEL_FILES | {"results/photos.json"}
    assert hub.failures == {where: []}


@pytest.mark.parametrize(
    ("where", "failures", "reason"),
    [
        ("/commit/main", [500] * 3, "'you/bugs': .*500"),
        ("/commit/main", ["break"] * 3, "the Hub cannot be reached, or the connection broke (.*)"),
        ("/commit/main", [401], "the Hub rejected your token (401): log in with `hf auth login`, or set HF_TOKEN"),
        ("/commit/main", [403], "the token may not write there (403): give a name of your own, or a token with"),
        ("/preupload/", [404], "there is no such repository or revision main (404)"),
    ],
)
def test_a_push_that_fails_says_why_and_the_command_that_repeats_it(hub, folder, where, failures, reason):
    hub.failures = {where: list(failures)}
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        HubRepository("you/bugs").push(folder, "Model")
    message = str(caught.value)
    assert re.search(re.escape(reason).replace(r"\.\*", ".*"), message), message
    assert "\n" not in message and TOKEN not in message
    assert message.startswith(f"All files are whole in {folder}, but they were not pushed to 'you/bugs': ")
    assert contents(folder) == before

    command = shlex.split(message.rpartition("Push them again with: ")[2])
    assert command[:3] == [sys.orig_argv[0], "-m", "hf_robustvit"]
    tools(command[3:])  # the Hub is well again
    assert hub.files("you/bugs").keys() == MODEL_FILES | {"results/photos.json"}


def test_the_command_keeps_branch_and_privacy():
    repository = HubRepository("you/bugs", token=TOKEN, private=True, revision="v2")
    assert repository.push_command("out").endswith(" push out you/bugs --revision v2 --private")
    assert TOKEN not in repr(repository)


def test_a_wrong_token_and_a_wrong_name_stop_before_training(hub, tmp_path, monkeypatch):
    photos, model = save_photos(tmp_path / "photos"), save_model(tmp_path / "model")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    monkeypatch.setattr("hf_robustvit.commands.finetune.train", lambda *_: pytest.fail("it was trained"))
    flags = ("--model", model, "--dataset", photos, "--output_dir", tmp_path / "out", "--push_to_hub")
    with pytest.raises(
        UserError, match=r"Nothing can be pushed to 'you/bugs': the Hub rejected your token .*hf auth login"
    ):
        finetune(monkeypatch, *flags, "--hub_model_id", "you/bugs")
    with pytest.raises(UserError, match=r"'you/\.\.bugs': this is not a valid name for a repository"):
        finetune(monkeypatch, *flags, "--hub_model_id", "you/..bugs")
    with pytest.raises(UserError, match="--hub_strategy is every_save, but the model is pushed once"):
        finetune(monkeypatch, *flags, "--hub_strategy", "every_save")


def test_a_hub_that_is_forbidden_or_gone(folder, hub, monkeypatch):
    hub.server.server_close()
    with pytest.raises(UserError, match="the Hub cannot be reached, or the connection broke"):
        HubRepository("you/bugs").push(folder, "Model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids asking the Hub"):
        HubRepository("you/bugs").push(folder, "Model")


def test_a_folder_without_a_card_is_not_pushed(tmp_path):
    with pytest.raises(UserError, match="has no README.md, so no fine-tuning run wrote it: name"):
        HubRepository("you/bugs").push(tmp_path, "Model")


def test_training_whose_push_fails_leaves_everything(hub, tmp_path, monkeypatch):
    photos, model = save_photos(tmp_path / "photos"), save_model(tmp_path / "model")
    hub.failures = {"/commit/main": [401]}
    out = tmp_path / "out"
    with pytest.raises(UserError, match=f"All files are whole in {out}, .* push {out} you/bugs$"):
        finetune(
            *(monkeypatch, "--model", model, "--dataset", photos, "--output_dir", out),
            *("--push_to_hub", "--hub_model_id", "you/bugs", "--hub_token", TOKEN, "--num_classes", 2),
        )
    assert {path.name for path in out.iterdir()} >= MODEL_FILES
    assert pipeline("image-classification", model=str(out))(str(photos / "images/ant/0.png"))
    tools(["push", str(out), "you/bugs"])
    assert hub.files("you/bugs").keys() == MODEL_FILES
