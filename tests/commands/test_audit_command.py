"""run_eval.py --audit on a folder of one's own: what it leaves, what it leaves out, and each mistake's sentence."""

import json
import shutil

import pytest
from mask_images import save_backbone
from photo_folder import save_model, save_photos
from PIL import Image
from tiny_onnx import save_saliency

import run_eval
from hf_robustvit.commands.start import COMMANDS
from hf_robustvit.errors import UserError
from hf_robustvit.reporting.audit import gain_sentence


CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    save_model(root / "model", CLASSES)
    save_photos(root / "pets", CLASSES, count=3)
    return root


def run_audit(root, output_dir, *flags, dataset="pets"):
    arguments = ("--audit", "--model", root / "model", "--dataset", root / dataset, "--output_dir", output_dir)
    arguments = [str(flag) for flag in (*arguments, "--num_workers", 0, *flags)]
    run_eval.main(*COMMANDS["eval"].parse(arguments))
    return json.loads((output_dir / "audit.json").read_text())


def test_leaves_one_page_and_one_json_and_a_second_start_runs_no_model(root, tmp_path, capsys, monkeypatch):
    found = run_audit(root, tmp_path)
    printed = capsys.readouterr().out
    assert found["verdict"] == "unclear" and "These 9 photos, fewer than 30, cannot tell" in found["sentence"]
    assert (found["dataset"], found["num_photos"], found["left_out"]) == ("pets", 9, [])
    assert found["sentence"] in printed and found["gain"] in printed
    assert f"{found['figures']['object_alone']['value']:.2f}" in printed
    page = (tmp_path / "audit.html").read_text()
    assert "These photos cannot tell." in page and found["gain"] in page and 'src="http' not in page
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr("torch.nn.Module.__call__", lambda *_, **__: pytest.fail("the model was run"))
    assert run_audit(root, tmp_path) == found and capsys.readouterr().out == printed
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_what_cannot_be_used_is_left_out_by_name(root, tmp_path):
    shutil.copytree(root / "pets", tmp_path / "pets")
    kept = [f"{name}/{number}.png" for name in CLASSES for number in range(3)][1:]
    judged = "image,kept\n" + "".join(f"{name},1\n" for name in kept) + "ant/0.png,0\n"
    (tmp_path / "pets" / "masks.csv").write_text(judged)
    (tmp_path / "pets" / "masks" / "bee" / "1.png").unlink()
    (tmp_path / "pets" / "images" / "cow" / "2.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="1 of 7 photos cannot be used: 1 image cannot be read"):
        run_audit(root, tmp_path / "out", dataset=tmp_path / "pets")
    found = run_audit(root, tmp_path / "out", "--skip_unreadable", "true", dataset=tmp_path / "pets")
    assert found["left_out"] == ["cow/2.png"] and found["num_photos"] == 6
    assert found["without_mask"] == ["ant/0.png", "bee/1.png"]
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "2 without a mask, or whose mask masks.csv rejects: ant/0.png, bee/1.png<" in page
    assert "1 whose image cannot be read, or whose mask is broken, empty, implausible or rejected: cow/2.png<" in page


def test_where_no_photo_is_left_skipping_is_not_advised(root, tmp_path, caplog):
    shutil.copytree(root / "pets", tmp_path / "pets")
    for mask in (tmp_path / "pets" / "masks").rglob("*.png"):
        Image.new("L", (40, 40)).save(mask)
    for flags in ([], ["--skip_unreadable", "true"]):
        with pytest.raises(UserError, match="9 of 9 photos .*: 9 masks have no foreground .* None is left") as error:
            run_audit(root, tmp_path / "out", *flags, dataset=tmp_path / "pets")
        assert "--skip_unreadable" not in str(error.value)
    assert "Left out" not in caplog.text


def test_one_class_is_refused_before_anything_runs(root, tmp_path, monkeypatch):
    save_photos(tmp_path / "ants", ("ant",), count=3)
    save_photos(tmp_path / "broken", ("ant", "bee"), count=2)
    for mask in (tmp_path / "broken" / "masks" / "bee").iterdir():
        Image.new("L", (40, 40)).save(mask)  # leaves one class
    monkeypatch.setattr("torch.nn.Module.__call__", lambda *_, **__: pytest.fail("a model was run"))
    for name, flags in (("ants", []), ("ants", ["--masks", "tokencut"]), ("broken", [])):
        with pytest.raises(UserError, match=f"all photos of {name} that can be used are of one class"):
            run_audit(root, tmp_path / "out", *flags, dataset=tmp_path / name)


def test_masks_of_another_folder_and_made_on_the_spot(root, tmp_path):
    shutil.copytree(root / "pets" / "images", tmp_path / "bare" / "images")
    with pytest.raises(UserError, match="--audit needs masks, and .*bare has no folder 'masks'"):
        run_audit(root, tmp_path / "out", dataset=tmp_path / "bare")
    own = run_audit(root, tmp_path / "own")
    other = run_audit(root, tmp_path / "other", "--masks", root / "pets" / "masks", dataset=tmp_path / "bare")
    assert other["figures"] == own["figures"]
    flags = ["--backbone", save_backbone(tmp_path / "backbone"), "--image_size", 160, "--sigma_spatial", 8]
    flags += ["--min_area", 0.01, "--max_area", 1, "--max_components", 100, "--min_agreement", 0, "--min_eigen_gap", 0]
    made = run_audit(root, tmp_path / "made", "--masks", "tokencut", *flags, dataset=tmp_path / "bare")
    assert made["num_photos"] + len(made["left_out"]) == 9
    assert len(list((tmp_path / "made" / "audit" / "masks" / "masks").rglob("*.png"))) >= made["num_photos"] > 3
    save_saliency(tmp_path / "network.onnx")
    flags = ["--masks", "saliency", "--saliency_model", tmp_path / "network.onnx", "--max_area", 1, "--max_unsure", 1]
    made = run_audit(root, tmp_path / "salient", *flags, "--min_area", 0, dataset=tmp_path / "bare")
    assert made["num_photos"] + len(made["left_out"]) == 9


def test_what_does_not_go_with_an_audit_is_refused(root, tmp_path):
    with pytest.raises(UserError, match="--baseline has no use with --audit"):
        run_audit(root, tmp_path, "--baseline", root / "model")
    with pytest.raises(UserError, match="--faithfulness has no use with --audit"):
        run_audit(root, tmp_path, "--faithfulness")
    with pytest.raises(UserError, match="--audit takes one folder of photos, or one data set .* found cutouts"):
        run_audit(root, tmp_path, "--dataset", "cutouts")
    for flags in (
        ["--tau", 0.3],
        ["--masks", "text", "--tau", 0.3],
        ["--masks", root / "pets" / "masks", "--tau", 0.3],
    ):
        with pytest.raises(UserError, match="--tau is not used by --masks .*: leave it out, or pass"):
            run_audit(root, tmp_path, *flags)
    with pytest.raises(UserError, match="--min_area is not used by --masks annotated: .*--masks tokencut or text or"):
        run_audit(root, tmp_path, "--min_area", 0.1)
    with pytest.raises(UserError, match="--masks tokencut is for a folder of photos"):
        run_audit(root, tmp_path, "--dataset", "cutouts-segmentation", "--masks", "tokencut")
    flags = ["--model", root / "model", "--dataset", root / "pets", "--output_dir", tmp_path, "--masks", root]
    with pytest.raises(UserError, match="--masks is for --audit"):
        run_eval.main(*COMMANDS["eval"].parse(list(map(str, flags))))


@pytest.mark.parametrize(
    "bounds, word", [([1.0, 3.0], "something"), ([-1.0, 3.0], "little"), ([-3.0, -1.0], "nothing")]
)
def test_what_fine_tuning_could_gain_goes_by_the_oracles_interval(bounds, word):
    differences = {
        "other_backgrounds": {"difference": -41.6, "interval95": [-45.8, -37.4]},
        "oracle_headroom": {"difference": sum(bounds) / 2, "interval95": bounds},
    }
    sentence = gain_sentence({"differences": differences})
    assert "at most the 41.6 points of top-1 [37.4, 45.8]" in sentence
    assert f"on photos like these, {word}: " in sentence and f"{sum(bounds) / 2:+.1f} points" in sentence
