"""torchvision's sets, read by torchvision from files in its own formats, written here in miniature."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision.datasets as sources

from mimbench.data.sources.vision import CIFAR10, CIFAR100, STL10, DownloadConfig
from mimbench.errors import InputError

RNG = np.random.RandomState(0)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


def fake_cifar(monkeypatch, root, source, key, meta_key, classes):
    folder = root / source.base_folder
    for attribute in ("train_list", "test_list"):
        listed = []
        for name, _ in getattr(source, attribute):
            table = {"data": RNG.randint(0, 256, (3, 3072)).astype(np.uint8), key: [0, 1, 2]}
            listed.append([name, write(folder / name, pickle.dumps(table))])
        monkeypatch.setattr(source, attribute, listed)
    digest = write(folder / source.meta["filename"], pickle.dumps({meta_key: classes}))
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": digest})


def fake_stl(monkeypatch, root):
    folder = root / sources.STL10.base_folder
    write(folder / "class_names.txt", b"airplane\nbird\n")
    write(folder / "fold_indices.txt", b"")
    for attribute, count in (("train_list", 4), ("test_list", 2)):
        listed = []
        for name, digest in getattr(sources.STL10, attribute):
            if name.endswith("_X.bin") and "unlabeled" not in name:
                digest = write(folder / name, RNG.randint(0, 256, (count, 3, 96, 96)).astype(np.uint8).tobytes())
            elif name.endswith("_y.bin"):
                digest = write(folder / name, np.arange(1, count + 1, dtype=np.uint8).tobytes())
            elif name.startswith("unlabeled"):
                digest = write(folder / name, b"")
            listed.append([name, digest])
        monkeypatch.setattr(sources.STL10, attribute, listed)


@pytest.mark.parametrize(
    ("cls", "source", "key", "meta_key"),
    [
        (CIFAR10, sources.CIFAR10, "labels", "label_names"),
        (CIFAR100, sources.CIFAR100, "fine_labels", "fine_label_names"),
    ],
)
def test_cifar_from_a_local_root(cls, source, key, meta_key, tmp_path, monkeypatch):
    fake_cifar(monkeypatch, tmp_path, source, key, meta_key, ["a", "b", "c"])
    dataset = cls(DownloadConfig(root=tmp_path), tmp_path)
    train, test = dataset.split("train"), dataset.split("test")
    assert train.images.shape == (3 * len(source.train_list), 3, 32, 32)
    assert test.images.dtype == torch.uint8
    assert test.labels.tolist() == [0, 1, 2]
    assert train.classes == ("a", "b", "c")
    first = pickle.loads((tmp_path / source.base_folder / source.train_list[0][0]).read_bytes())["data"][0]
    assert train.images[0].flatten().tolist() == first.tolist()
    assert dataset.fingerprint() == cls(DownloadConfig(root=tmp_path), tmp_path).fingerprint()


def test_stl10_from_a_local_root(tmp_path, monkeypatch):
    fake_stl(monkeypatch, tmp_path)
    dataset = STL10(DownloadConfig(root=tmp_path), tmp_path)
    assert dataset.split("train").images.shape == (4, 3, 96, 96)
    assert dataset.split("test").labels.tolist() == [0, 1]
    assert dataset.split("test").classes == ("airplane", "bird")


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100, STL10])
def test_absent_sets_say_what_to_do_and_download_nothing(cls, tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("tried to download"))
    with pytest.raises(InputError, match=f"{cls.name} needs data.root: pass --set data.root=PATH"):
        cls(DownloadConfig(), tmp_path)
    with pytest.raises(InputError, match=r"--set data.download=true to fetch .* into it$"):
        cls(DownloadConfig(root=tmp_path / "absent"), tmp_path)
