"""From class folders and a file of overrides to what is looked for."""

import pytest

from hf_robustvit.errors import UserError
from hf_robustvit.masks.prompts import Prompts, class_name, read_overrides


@pytest.mark.parametrize(
    "folder, name",
    [
        ("golden_retriever", "golden retriever"),
        ("n02099601", "golden retriever"),
        ("n02085620-Chihuahua", "Chihuahua"),
        ("n01440764_tench", "tench"),
        ("n00007846_person", "person"),  # ImageNet-21k's
        ("001.Black_footed_Albatross", "Black footed Albatross"),
        ("tench, Tinca tinca", "tench"),
        ("St._Bernard", "St Bernard"),
        ("t-shirt", "t-shirt"),
        ("n02012849", "crane"),
    ],
)
def test_a_folder_has_a_readable_name(folder, name):
    assert class_name(folder) == name


@pytest.mark.parametrize("folder", ["017", "n00007846", "_"])
def test_a_folder_without_a_name(folder):
    with pytest.raises(UserError, match=f"class folder '{folder}' says no name .* `'{folder}': its name`"):
        class_name(folder)


def overrides(tmp_path, text):
    file = tmp_path / "prompts.yaml"
    file.write_text(text, encoding="utf-8")
    return read_overrides(file)


def test_a_file_gives_names_parts_and_weights(tmp_path, caplog):
    text = "cat: tabby cat\ndog: [head of a dog, paws]\nsloth: {branch: -1, sloth. : 1}\nelk: moose\n'*': animal\n"
    prompts = Prompts(["cat/1.jpg", "dog/1.jpg", "sloth/1.jpg", "owl/1.jpg"], overrides(tmp_path, text))
    assert prompts.of("cat/7.jpg") == {"tabby cat": 1}
    assert prompts.of("dog/1.jpg") == {"head of a dog": 1, "paws": 1}
    assert list(prompts.of("sloth/1.jpg").items()) == [("sloth", 1), ("branch", -1)]
    assert prompts.of("owl/1.jpg") == {"animal": 1}
    assert "no class folder is called 'elk'" in caplog.text


def test_images_without_folders_need_one_name_for_all(tmp_path):
    with pytest.raises(UserError, match="the images are in no class folders.* pass --prompts FILE with the line"):
        Prompts(["1.jpg"], {})
    assert Prompts(["1.jpg"], overrides(tmp_path, "'*': dog")).of("1.jpg") == {"dog": 1}


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("- cat", "needs lines `class folder: its name`, found list"),
        ("", "found NoneType"),
        ("cat: [1", "cannot be read"),
        ("cat: tabby\ndog: [1\n", r"cannot be read as YAML \(line 3: expected .*\): correct it there or above\.$"),
        ("cat: tabby\ndog: hound\ncat: lion", "has 2 lines for 'cat': keep one of them"),
        ("cat: {tail: .inf}", "the entry of 'cat' is"),
        (f"cat: {{tail: 1{'0' * 400}}}", "the entry of 'cat' is"),
        ("[" * 2000 + "]" * 2000, r"cannot be read as YAML \(maximum recursion"),
        ("a: &a [x]\nb: *a", r"cannot be read as YAML \(line 2: write the value itself"),
        ("1: cat", "the class folder 1 is not read as text: put it in quotes"),
        ("cat: 3", "the entry of 'cat' is 3; give a name, a list of names, or names with weights"),
        ("cat: ''", "the entry of 'cat' is"),
        ("cat: {tail: much}", "the entry of 'cat' is"),
        ("cat: {tail: 0.2, head: 0.2, dog: -1}", "the weights of 'cat' sum to less than 0.5, so nothing could be"),
    ],
)
def test_entries_of_another_form(tmp_path, text, sentence):
    with pytest.raises(UserError, match=f"--prompts .*prompts.yaml.*{sentence}"):
        overrides(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="--prompts .*none.yaml cannot be read"):
        read_overrides(tmp_path / "none.yaml")


def test_another_class_is_half_way_round():
    prompts = Prompts([f"{name}/1.jpg" for name in ("ant", "bee", "cat", "dog")], {})
    assert [prompts.another(f"{name}/1.jpg") for name in ("ant", "bee", "cat", "dog")] == ["cat", "dog", "ant", "bee"]
    assert Prompts(["ant/1.jpg"], {}).another("ant/1.jpg") is None
