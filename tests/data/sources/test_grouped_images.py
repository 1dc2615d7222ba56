"""Images with attributes by a table: a table of any folder, Waterbirds' and CelebA's files, made up and tiny."""

from __future__ import annotations

import pytest
from PIL import Image

from helpers.refusals import refused
from mimbench.data import open_dataset
from mimbench.errors import InputError

PARTS = ("train", "validation", "test")


def picture(path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number * 5 % 255, 0, 0)).save(path)


@pytest.fixture
def table(tmp_path):
    lines = ["file,label,split,place,year"]
    for number in range(24):
        file = f"pictures/{number} a.png"
        picture(tmp_path / "any" / file, number)
        place = ("water", "land")[number // 2 % 2]
        lines.append(f"{file},{('gull', 'duck')[number % 2]},{PARTS[number % 3]},{place},{(9, 10)[number % 2]}")
    (tmp_path / "any" / "groups.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "any"


@pytest.fixture
def waterbirds(tmp_path):
    """metadata.csv as group_DRO's archive has it."""
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for number in range(36):
        file = f"{number % 2:03}.Bird/{number}.jpg"
        picture(tmp_path / "birds" / file, number)
        lines.append(f"{number},{file},{number % 2},{number // 12},{number // 2 % 2},/o/ocean/{number}.jpg")
    (tmp_path / "birds" / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "birds"


@pytest.fixture
def celeba(tmp_path):
    """The two text files of CelebA: a count, a header, and 1 or -1 per attribute."""
    root, sign = tmp_path / "celeba", (-1, 1)
    values, parts = ["18", "Bald Blond_Hair Male"], []
    for number in range(18):
        file = f"{number:06}.jpg"
        picture(root / "img_align_celeba" / file, number)
        values.append(f"{file}  -1 {sign[number % 2]:2} {sign[number // 3 % 2]:2}")
        parts.append(f"{file} {number % 3}")
    (root / "list_attr_celeba.txt").write_text("\n".join(values) + "\n")
    (root / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return root


def opened(root, tmp_path, **options):
    return open_dataset("grouped-images", {"root": root, **options}, tmp_path / "cache")


def test_a_table_becomes_parts_with_attributes(table, tmp_path):
    dataset = opened(table, tmp_path)
    assert dataset.parts == ("train", "test", "validation")
    assert dataset.classes == ("duck", "gull")
    split = dataset.split("validation")  # numbers 1, 4, 7, ...
    assert split.labels.tolist() == [0, 1] * 4
    is_water = [number // 2 % 2 == 0 for number in range(1, 24, 3)]
    assert split.attributes["place"].tolist() == [int(value) for value in is_water]
    assert split.attributes["year"].tolist() == [1, 0] * 4, "numbers are ordered as numbers"
    image, label = split[1]
    assert (image.shape, int(image[0, 0, 0]), label) == ((3, 8, 8), 20, 1)


def test_waterbirds_is_read_from_its_metadata(waterbirds, tmp_path):
    dataset = opened(waterbirds, tmp_path, layout="waterbirds")
    assert {part: len(dataset.split(part)) for part in dataset.parts} == {"train": 12, "test": 12, "validation": 12}
    train = dataset.split("train")
    assert train.labels.tolist() == [number % 2 for number in range(12)]
    assert train.attributes["place"].tolist() == [number // 2 % 2 for number in range(12)]


def test_celeba_is_read_from_its_two_files(celeba, tmp_path):
    dataset = opened(celeba, tmp_path, layout="celeba")
    test = dataset.split("test")
    numbers = range(2, 18, 3)
    assert test.labels.tolist() == [number % 2 for number in numbers]
    assert test.attributes["Male"].tolist() == [number // 3 % 2 for number in numbers]
    assert dataset.classes == ("-1", "1")
    other = opened(celeba, tmp_path, layout="celeba", label="Male", attributes=("Bald", "Blond_Hair"))
    assert sorted(other.split("test").attributes) == ["Bald", "Blond_Hair"]
    assert other.fingerprint() != dataset.fingerprint()


def test_group_robustness_runs_on_waterbirds(waterbirds, quick):
    options = (f"task.data.root={waterbirds}", "task.data.layout=waterbirds", "task.data.channels=1", "task.fits=2")
    run = ("run", "--method", "random-init", "--task", "group-robustness", "--recipe", "smoke")
    run = (*run, "--set", "task.dataset=grouped-images", *(word for option in options for word in ("--set", option)))
    done = quick(*run)
    assert done.returncode == 0, done.stderr
    refused(quick(*run, "--set", "task.data.layout=celeba"), "list_eval_partition.txt does not exist")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label,split\na.png,x,train\n", "no column of an attribute"),
        ("file,label,part,place\na.png,x,train,1\n", "no column 'split'"),
        ("file,label,split,place\na.png,x,train\n", "line 2 of groups.csv has not one value per column"),
        ("file,label,split,place\na.png,x,dev,1\n", "a split is 'dev'"),
        ("file,label,split,place\na.png,x,train,1\n", "no image of the split 'test'"),
        ("file,label,split,place\na.png,x,train,1\nb.png,x,test,1\n", "2 of the 2 images of the table do not exist"),
        ("file,label,split,place\n", "lists no images"),
        ("file,label,split,place\na.png,x,train,1\n./a.png,x,test,1\n", "lists 1 images more than once, such as a.png"),
    ],
)
def test_a_faulty_table_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "groups.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        opened(tmp_path, tmp_path)


def test_values_that_only_look_like_numbers_are_ordered_as_names(table, tmp_path):
    text = (table / "groups.csv").read_text()
    (table / "groups.csv").write_text(text.replace("gull", "²").replace("duck", "--5"))
    assert opened(table, tmp_path).classes == ("--5", "²")
    (table / "groups.csv").write_text(text.replace("gull", "-5").replace("duck", "10"))
    assert opened(table, tmp_path).classes == ("-5", "10")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("000017.jpg", r"line 19 of list_eval_partition.txt has no split: '000017.jpg'; write file and 0, 1 or 2"),
        ("000003.jpg 2", r"list_eval_partition.txt lists '000003.jpg' more than once"),
    ],
)
def test_a_faulty_list_of_parts_is_refused_in_one_line(celeba, tmp_path, line, message):
    with (celeba / "list_eval_partition.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=message):
        opened(celeba, tmp_path, layout="celeba")
