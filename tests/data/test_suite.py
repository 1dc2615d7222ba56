"""Suites of sets: the embedded one, one from a TOML file, and wrong files in one line."""

from __future__ import annotations

import pytest
from PIL import Image

from mimbench.data import open_dataset
from mimbench.errors import InputError


def write_folder(root):
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            for number in range(2):
                (root / split / label).mkdir(parents=True, exist_ok=True)
                colour = (9 * number, len(split), len(label) + ord(label[0]))
                Image.new("RGB", (8, 8), colour).save(root / split / label / f"{number}.png")
    return root


def test_a_file_names_sets_relative_to_itself(tmp_path):
    write_folder(tmp_path / "data" / "pets")
    file = tmp_path / "data" / "sets.toml"
    file.write_text(
        '[pets]\ndataset = "folder"\ngroup = "fine-grained"\nroot = "pets"\n\n'
        '[digits]\ndataset = "digits"\ngroup = "natural"\ntrain_limit = 30\n'
    )
    suite = open_dataset("suite", {"sets": file}, tmp_path / "cache")
    assert {name: (member.dataset.name, member.group) for name, member in suite.members.items()} == {
        "pets": ("folder", "fine-grained"),
        "digits": ("digits", "natural"),
    }
    assert len(suite.members["digits"].dataset.split("train")) == 30
    assert (suite.channels, suite.split("test").classes) == (3, ("cat", "dog"))
    file.write_text(file.read_text().replace("30", "40"))
    assert open_dataset("suite", {"sets": file}, tmp_path / "cache").fingerprint() != suite.fingerprint()


def test_the_embedded_suite_has_two_sets_of_digits(tmp_path):
    suite = open_dataset("suite", {}, tmp_path)
    assert [(name, member.group) for name, member in suite.members.items()] == [
        ("digits", "natural"),
        ("digit-crops", "structured"),
    ]
    assert suite.channels == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"sets\.toml has no sets; write a table \[NAME\] for each"),
        ("digits = 1\n", r"sets\.toml: \[digits\]: each set is a table with dataset and group"),
        ('[a]\ndataset = "digits"\n', r"\[a\]: each set is a table with dataset and group"),
        ('[a]\ndataset = "digit"\ngroup = "natural"\n', r"\[a\]: unknown dataset 'digit'; did you mean"),
        ('[a]\ndataset = "digits"\ngroup = "natural"\nlimit = 3\n', r"unknown key .*\[a\].*limit"),
        ('[a]\ndataset = "folder"\ngroup = "natural"\nroot = "none"\n', r"\[a\]: data\.root .*/none does not exist"),
        ('[a]\ndataset = "digit-scenes"\ngroup = "natural"\n', r"dataset 'digit-scenes' has no labelled images"),
        ('[a]\ndataset = "suite"\ngroup = "natural"\n', r"a suite cannot be a set of a suite"),
    ],
)
def test_wrong_files_are_one_line(text, message, tmp_path):
    file = tmp_path / "sets.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        open_dataset("suite", {"sets": file}, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_digits_are_cut_out_of_their_scenes(tmp_path):
    crops = open_dataset("digit-crops", {"train_scenes": 6, "test_scenes": 3}, tmp_path)
    train, test = crops.split("train"), crops.split("test")
    assert train.images.shape[1:] == (1, 28, 28)
    assert len(train) == len(train.labels) >= 12
    assert len(test) >= 6
    assert train.classes == tuple("0123456789")
    # Digits are bright on a dark ground, and each is in the middle of its crop.
    assert train.images[:, 0, 8:20, 8:20].float().mean() > train.images[:, 0, :4].float().mean()
