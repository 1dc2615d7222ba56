"""Generation: the schedule, the order of filling, the judge and its distance, against what is known beforehand."""

from __future__ import annotations

import functools
import io
import math

import pytest
import torch
from PIL import Image
from rich.console import Console

from mimbench.contract import ArraySplit, Config, DataConfig, Dataset, InputConfig, Method, TaskContext
from mimbench.data import denormalise
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.engine.fit import fit
from mimbench.masks import mask_at_pixels, random_mask
from mimbench_methods.beit import BEiT, BEiTConfig
from mimbench_methods.mae import MAE, MAEConfig
from mimbench_methods.simmim import SimMIM, SimMIMConfig
from mimbench_methods.tokenizers import KMeansConfig
from mimbench_tasks.reconstruction.config import ReconstructionConfig
from mimbench_tasks.reconstruction.generation import generate
from mimbench_tasks.reconstruction.judge import JudgeConfig, frechet, load_or_train_judge
from mimbench_tasks.reconstruction.task import Reconstruction

SIDE, CELLS = 16, 4
INPUT = InputConfig(image_size=SIDE, mean=(0.4,), std=(0.3,))
CPU = torch.device("cpu")


class Stripes(Dataset):
    """Bright rows or bright columns, of any shade, at any place: two classes."""

    name, channels = "stripes", 1

    def __init__(self, cache) -> None:
        super().__init__(DataConfig(), cache)
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(64) % 2
        images = torch.randint(0, 60, (64, 1, SIDE, SIDE), generator=generator)
        for index, place in enumerate(torch.randint(0, SIDE - 3, (64,), generator=generator).tolist()):
            image = images[index, 0] if self.labels[index] else images[index, 0].T
            image[place : place + 3] += 160
        self.images = images.to(torch.uint8)

    def fingerprint(self) -> str:
        return "stripes"

    def split(self, name):
        return ArraySplit(self.images, self.labels, ("rows", "columns"))


def encoder(**options) -> ViT:
    return ViT(ViTConfig(patch_size=4, embed_dim=16, depth=1, num_heads=2, **options), image_size=SIDE, in_channels=1)


def beit() -> BEiT:
    torch.manual_seed(0)
    return BEiT(
        BEiTConfig(hidden_patches=6, min_block=2, tokenizer="kmeans", kmeans=KMeansConfig(vocabulary=12)), encoder()
    ).eval()


def simmim() -> SimMIM:
    torch.manual_seed(0)
    return SimMIM(SimMIMConfig(mask_patch_size=4), encoder(position="relative")).eval()


def mae() -> MAE:
    torch.manual_seed(0)
    return MAE(MAEConfig(decoder_dim=16, decoder_depth=1, decoder_heads=2), encoder(position="relative")).eval()


class Sure(Method):
    """A method without weights that is asked for draws: all it fills is white, and its sureness is given."""

    name, version = "sure", "1"

    def __init__(self, sure) -> None:
        super().__init__(Config(), encoder())
        self.sure = sure

    def sample_mask(self, batch, generator):
        return random_mask(batch, (CELLS, CELLS), 0.5, generator)

    def target(self, images):
        return images

    def predict(self, images, mask):
        return images

    def loss(self, prediction, target, mask):
        return prediction.mean()

    def sample_masked(self, images, mask, temperature, generator):
        return torch.where(mask_at_pixels(mask, images), 50.0, images), self.sure.expand(len(images), -1, -1)


def steps_of(method, images, mask, *, steps=8, temperature=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(generate(method, images, mask, INPUT, steps=steps, temperature=temperature, generator=generator))


def everything(batch: int) -> torch.Tensor:
    return torch.ones(batch, CELLS, CELLS, dtype=torch.bool)


@pytest.mark.parametrize("steps", [1, 3, 8, 40])
def test_the_schedule_is_a_cosine(steps):
    made = steps_of(Sure(torch.rand(CELLS, CELLS)), torch.zeros(2, 1, SIDE, SIDE), everything(2), steps=steps)
    left = [int(mask[0].sum()) for _, mask in made]
    expected = [int(16 * math.cos(math.pi / 2 * step / steps)) for step in range(steps + 1)]
    assert left == sorted(set(expected), reverse=True)
    assert left[0] == 16
    assert left[-1] == 0
    assert all((mask.sum((1, 2)) == count).all() for (_, mask), count in zip(made, left, strict=True))


def test_the_surest_cells_come_first_and_stay():
    sure = torch.randperm(16, generator=torch.Generator().manual_seed(3)).float().view(CELLS, CELLS)
    made = steps_of(Sure(sure), torch.zeros(2, 1, SIDE, SIDE), everything(2))
    for images, mask in made[1:]:
        assert (sure[~mask[0]].min() > sure[mask[0]].max()) if mask.any() else True
        filled = ~mask_at_pixels(mask, images)
        white = (1 - INPUT.mean[0]) / INPUT.std[0]
        assert torch.allclose(images[filled], torch.tensor(white))
    noisy = steps_of(Sure(sure), torch.zeros(2, 1, SIDE, SIDE), everything(2), temperature=50.0)
    assert not torch.equal(noisy[3][1][0], noisy[3][1][1])


@pytest.mark.parametrize("make", [simmim, mae, beit])
def test_methods_make_images_from_something_and_from_nothing(make):
    method, images = make(), torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).clamp(-1.3, 2)
    for mask in (random_mask(3, (CELLS, CELLS), 0.7, torch.Generator().manual_seed(2)), everything(3)):
        visible = ~mask_at_pixels(mask, images).expand_as(images)
        made, left = steps_of(method, images, mask, temperature=1.0)[-1]
        assert not left.any()
        assert made.isfinite().all()
        assert torch.equal(made[visible], images[visible])
        assert 0 <= denormalise(made, INPUT).min() <= denormalise(made, INPUT).max() <= 1
        again, _ = steps_of(method, images, mask, temperature=1.0)[-1]
        assert torch.equal(made, again)
        other, _ = steps_of(method, torch.where(visible, images, 1.5), mask, temperature=1.0)[-1]
        assert torch.equal(made, other)


def test_words_are_drawn_by_their_probabilities():
    method = beit()
    images, mask = torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)), everything(2)
    mask[:, 0] = False
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        likeliest, sure = method.sample_masked(images, mask, 0.0, generator)
        assert torch.equal(likeliest, method.reconstruct(images, mask))
        scores = method.predict(images, mask)
        assert torch.allclose(sure, scores.log_softmax(-1).amax(-1))
        draws = [method.sample_masked(images, mask, 1.0, generator) for _ in range(300)]
    visible = ~mask_at_pixels(mask, images).expand_as(images)
    assert all(torch.equal(drawn[visible], images[visible]) for drawn, _ in draws)
    shown = torch.stack([drawn[0, 0, 8, 8] for drawn, _ in draws])
    words, counts = shown.unique(return_counts=True)
    word_pixels = method.tokenizer.decode(torch.arange(12).view(1, 1, 12))[0, 0, 0, ::4]
    chances = scores.softmax(-1)[0, 2, 2]
    for pixel, count in zip(words, counts, strict=True):
        chance = chances[(word_pixels - pixel).abs() < 1e-6].sum().item()
        assert count.item() / 300 == pytest.approx(chance, abs=0.1)


def test_an_answer_is_surest_where_answers_agree():
    """A pixel method that answers white above, and below the mean of what is visible, fills the upper half first."""

    class Half(Sure):
        sample_masked = Method.sample_masked

        def reconstruct(self, images, mask):
            hidden = mask_at_pixels(mask, images)
            below = (images * ~hidden).sum((2, 3), keepdim=True) / (~hidden).sum((2, 3), keepdim=True)
            rows = torch.arange(SIDE)[:, None] < SIDE // 2
            return torch.where(hidden, torch.where(rows, 2.0, below), images)

    mask = everything(5)
    mask[:, :, 0] = False
    images = torch.randn(5, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    orders = [mask for _, mask in steps_of(Half(torch.zeros(1)), images, mask, steps=3)]
    halfway = next(mask for mask in orders if int(mask[0].sum()) <= 6)
    assert not halfway[:, :2].any()


def exactly(n: int, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """n samples whose mean is `mean` and whose covariance is diag(deviation^2), to rounding."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T
    return white * deviation + mean


def test_the_distance_has_its_closed_form():
    means = torch.tensor([[0.0, 1, -2, 3], [1.0, 1, 0, 5]], dtype=torch.float64)
    deviations = torch.tensor([[1.0, 2, 0.5, 1], [1.0, 1, 3, 0]], dtype=torch.float64)
    one, other = exactly(300, means[0], deviations[0]), exactly(200, means[1], deviations[1])
    expected = (means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    assert frechet(one, other) == pytest.approx(expected.item(), rel=1e-6)
    assert frechet(other, one) == pytest.approx(expected.item(), rel=1e-6)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))).Q
    assert frechet(one @ turn, other @ turn) == pytest.approx(expected.item(), rel=1e-6)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet(one, one + 2) == pytest.approx(16, rel=1e-6)


def context(tmp_path, method=None, seed=0, trains=True) -> TaskContext:
    train = functools.partial(
        fit, seed=seed, device=CPU, workdir=tmp_path / "training", console=Console(file=io.StringIO())
    )
    tmp_path.mkdir(exist_ok=True)
    return TaskContext(
        seed=seed, device=CPU, workdir=tmp_path, input=INPUT, fit=train if trains else None, features=None,
        say=lambda text: None, method=method,
    )  # fmt: skip


def test_the_judge_learns_once_and_is_the_same_for_every_seed(tmp_path):
    dataset = Stripes(tmp_path / "cache")
    config = JudgeConfig(features=8, epochs=15, batch_size=16)
    judge, cost = load_or_train_judge(config, dataset, dataset.split("train"), 1, context(tmp_path / "a"))
    assert cost.images_seen == 15 * 64
    loaded, cost = load_or_train_judge(
        config, dataset, dataset.split("train"), 1, context(tmp_path / "b", trains=False)
    )
    assert cost is None
    images = judge.transform(dataset.images)
    assert torch.equal(judge.features(images), loaded.features(images))
    assert (judge.head(judge(images)).argmax(1) == dataset.labels).float().mean() > 0.9
    (path,) = (tmp_path / "cache" / "judges").glob("*.safetensors")
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:-9] + bytes([whole[-9] ^ 64]) + whole[-8:]):
        path.write_bytes(damaged)
        other, cost = load_or_train_judge(config, dataset, dataset.split("train"), 1, context(tmp_path / "c", seed=5))
        assert cost is not None
        assert torch.allclose(judge.features(images), other.features(images), atol=1e-4)


def test_completed_images_come_nearer_than_those_made_from_nothing(tmp_path):
    dataset = Stripes(tmp_path / "cache")
    options = {"generated": 32, "steps": 3, "ratios": (0.5,), "judge": {"features": 8, "epochs": 15, "batch_size": 16}}
    task = Reconstruction(ReconstructionConfig(starts=(1.0, 0.3), **options))
    result = task.run(None, dataset, context(tmp_path / "run", simmim()))
    details = result.details["frechet"]
    nothing, something = details["by_share_hidden_at_start"]["1"], details["by_share_hidden_at_start"]["0.3"]
    assert result.metrics["frechet"].value == nothing
    assert result.metrics["frechet"].n == details["images"] == 32
    assert details["floor"] < something < nothing
    with Image.open(result.artifacts["generated"]) as picture:
        assert picture.width > 4 * 96
        assert picture.height > 8 * 96
    swapped = Reconstruction(ReconstructionConfig(starts=(0.3, 1.0), **options))
    again = swapped.run(None, dataset, context(tmp_path / "again", simmim(), trains=False))
    assert again.metrics["frechet"].value == something
