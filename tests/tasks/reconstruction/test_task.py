"""The scorer: masked pixels are withheld, scores have closed forms, an oracle is best, a blind method is at chance."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from mimbench.contract import (
    ArraySplit,
    Config,
    DataConfig,
    Dataset,
    InputConfig,
    InputError,
    Method,
    NotSupported,
    TaskContext,
)
from mimbench.encoders.vit import ViT, ViTConfig
from mimbench.masks import mask_at_pixels, random_mask, random_order
from mimbench_tasks.reconstruction.config import ReconstructionConfig
from mimbench_tasks.reconstruction.fills import (
    grid_of_masks,
    mask_first,
    masked_cells,
    mean_filled,
    nearest_filled,
)
from mimbench_tasks.reconstruction.scores import Scores
from mimbench_tasks.reconstruction.task import Reconstruction

SIDE = 16
INPUT = InputConfig(image_size=SIDE, mean=(0.3,), std=(0.25,))
RATIOS = tuple(share / 10 for share in range(1, 10))


class Blobs(Dataset):
    """Smooth grey blobs, no two alike, of two classes."""

    name, channels = "blobs", 1

    def __init__(self, cache: Path = Path(), n: int = 40) -> None:
        super().__init__(DataConfig(), cache)
        generator = torch.Generator().manual_seed(0)
        centres = 4 + 8 * torch.rand(n, 2, 1, 1, generator=generator)
        rows = torch.arange(SIDE)[:, None].expand(SIDE, SIDE)
        distance = (rows - centres[:, 0]).square() + (rows.T - centres[:, 1]).square()
        self.labels = (centres[:, 0, 0, 0] > 8).long()
        self.images = (255 * torch.exp(-distance / 12)).round().to(torch.uint8)[:, None]

    def fingerprint(self) -> str:
        return "blobs"

    def split(self, name):
        return ArraySplit(self.images, self.labels, ("up", "down"))


class Toy(Method):
    """A method without weights, which rebuilds with the function that it is given."""

    name, version = "toy", "1"

    def __init__(self, rebuild, patch: int = 4) -> None:
        encoder = ViT(ViTConfig(patch_size=4, embed_dim=8, depth=1, num_heads=2), image_size=SIDE, in_channels=1)
        super().__init__(Config(), encoder)
        self.rebuild, self.cells = rebuild, SIDE // patch

    def sample_mask(self, batch, generator):
        return random_mask(batch, (self.cells, self.cells), 0.6, generator)

    def target(self, images):
        return images

    def predict(self, images, mask):
        return self.rebuild(images, mask)

    def loss(self, prediction, target, mask):
        return (prediction - target).abs().mean()

    def reconstruct(self, images, mask):
        return self.rebuild(images, mask)


def run(method: Method, tmp_path: Path, dataset: Dataset | None = None, **options):
    context = TaskContext(
        seed=0, device=torch.device("cpu"), workdir=tmp_path, input=INPUT, fit=None, features=None,
        say=lambda text: None, method=method,
    )  # fmt: skip
    task = Reconstruction(ReconstructionConfig(**{"generate": False, **options}))
    return task.run(method.encoder, dataset or Blobs(), context)


def normalised_batches(dataset: Dataset) -> torch.Tensor:
    return (dataset.images / 255 - INPUT.mean[0]) / INPUT.std[0]


def oracle(images, mask):
    """It knows every image by heart, and finds the one that agrees best with what is visible."""
    known = normalised_batches(Blobs())
    far = ((images[:, None] - known).square() * ~mask_at_pixels(mask, images)[:, None]).sum((2, 3, 4))
    return known[far.argmin(1)]


def test_the_oracle_scores_best_at_every_ratio(tmp_path):
    result = run(Toy(oracle), tmp_path)
    values = {name: metric.value for name, metric in result.metrics.items()}
    assert values["ssim"] == pytest.approx(1, abs=1e-5)
    assert values["hidden_mae"] < 1e-6
    assert values["hidden_mse"] < 1e-10
    assert result.curves["mask_ratio"] == list(RATIOS)
    assert min(result.curves["psnr"]) == 100
    assert all(metric.n == 40 for metric in result.metrics.values())
    assert result.details["truth_given"] is None


def test_a_method_that_copies_what_it_is_shown_is_found_out(tmp_path):
    details = run(Toy(lambda images, mask: images), tmp_path).details
    assert details["truth_given"]["psnr"] == 100
    result = run(Toy(lambda images, mask: images), tmp_path)
    assert result.metrics["psnr"].value == pytest.approx(details["nearest_fill"]["psnr"])
    assert result.metrics["psnr"].value < 40


def test_the_blind_are_at_chance_and_fall_with_the_ratio(tmp_path):
    result = run(Toy(mean_filled), tmp_path)
    task = Reconstruction(ReconstructionConfig())
    assert result.metrics["psnr"].value == pytest.approx(result.details["mean_fill"]["psnr"])
    # Chance knows the mean of the whole image; with 16 cells, that of the visible ones is a poor guess at it.
    assert task.chance(Blobs()) - 1.5 < result.metrics["psnr"].value < task.chance(Blobs())
    assert result.curves["psnr"] == sorted(result.curves["psnr"], reverse=True)
    assert result.curves["psnr"] == pytest.approx(result.curves["psnr, mean fill"])
    assert result.curves["ssim"] == sorted(result.curves["ssim"], reverse=True)
    easier = Reconstruction(ReconstructionConfig(ratio=0.3)).chance(Blobs())
    assert easier == pytest.approx(task.chance(Blobs()) + 10 * torch.tensor(2.0).log10().item(), abs=1e-4)


def test_it_repeats_bit_for_bit(tmp_path):
    first, second = (run(Toy(mean_filled), tmp_path) for _ in range(2))
    assert first.metrics == second.metrics
    assert first.curves == second.curves


def test_a_visible_pixel_counts_as_it_is(tmp_path):
    """The autoencoder rebuilds the visible part too; its errors there are not counted."""
    result = run(
        Toy(lambda images, mask: torch.where(mask_at_pixels(mask, images), oracle(images, mask), 5.0)), tmp_path
    )
    assert result.metrics["psnr"].value == 100


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_masks_have_the_methods_own_cells_and_the_nearest_count(patch, tmp_path):
    seen = []

    def note(images, mask):
        seen.append(mask)
        return images

    method = Toy(note, patch)
    details = run(method, tmp_path).details
    cells = (SIDE // patch) ** 2
    assert grid_of_masks(method) == (SIDE // patch, SIDE // patch)
    assert details["mask_grid"] == [SIDE // patch, SIDE // patch]
    assert details["hidden_cells"] == {f"{ratio:g}": round(ratio * cells) for ratio in RATIOS}
    counts = {int(count) for mask in seen for count in mask.sum((1, 2))}
    assert counts == set(details["hidden_cells"].values())


def test_a_grid_of_few_cells_always_hides_and_always_shows_something():
    assert [masked_cells((2, 2), ratio) for ratio in (0.05, 0.5, 0.95, 1)] == [1, 2, 3, 4]


def test_higher_ratios_hide_what_lower_ones_do():
    order = random_order(5, (4, 4), torch.Generator().manual_seed(0))
    masks = [mask_first(order, (4, 4), count) for count in (2, 7, 16)]
    assert [mask.sum((1, 2)).tolist() for mask in masks] == [[2] * 5, [7] * 5, [16] * 5]
    assert not (masks[0] & ~masks[1]).any()
    assert not (masks[1] & ~masks[2]).any()


def test_fills_take_nothing_from_what_is_hidden():
    images = normalised_batches(Blobs())[:6]
    mask = random_mask(6, (4, 4), 0.6, torch.Generator().manual_seed(1))
    mask[0] = True
    changed = torch.where(mask_at_pixels(mask, images), 7.0, images)

    def generator():
        return torch.Generator().manual_seed(2)

    assert torch.equal(nearest_filled(images, mask, generator()), nearest_filled(changed, mask, generator()))
    assert torch.equal(mean_filled(images, mask), mean_filled(changed, mask))
    blind = nearest_filled(images, mask, generator())[0]
    assert blind.mean().abs() < 0.2
    assert blind.std() == pytest.approx(1, abs=0.2)


def test_fills_are_what_they_say():
    images = torch.arange(16.0).view(1, 1, 4, 4).repeat(1, 2, 1, 1)
    images[:, 1] *= 10
    mask = torch.tensor([[[False, True], [True, True]]])
    visible = torch.tensor([[0.0, 1.0], [4.0, 5.0]])
    nearest = nearest_filled(images, mask, torch.Generator())
    assert torch.equal(nearest[0, 0], visible.repeat(2, 2))
    mean = mean_filled(images, mask)
    assert mean[0, :, 3, 3].tolist() == [2.5, 25.0]
    assert torch.equal(mean[..., :2, :2], images[..., :2, :2])


def test_scores_agree_with_closed_forms():
    truth = torch.full((4, 3, 32, 32), 0.5)
    hidden = torch.zeros(4, 1, 32, 32, dtype=torch.bool)
    hidden[..., :8] = True
    scores = Scores(32)
    for off, part in ((0.1, slice(0, 1)), (-0.2, slice(1, 4))):
        scores.add(torch.where(hidden, truth + off, truth)[part], truth[part], hidden[part])
    mse = (0.01 + 3 * 0.04) / 4
    values = scores.values()
    assert values["hidden_mae"] == pytest.approx((0.1 + 3 * 0.2) / 4)
    assert values["hidden_mse"] == pytest.approx(mse)
    assert values["psnr"] == pytest.approx(-10 * torch.tensor(mse / 4).log10().item(), abs=1e-4)
    assert 0 < values["ssim"] < 1


def test_ssim_of_flat_images_is_its_luminance_term():
    scores, light, dark = Scores(32), torch.full((2, 1, 32, 32), 0.8), torch.full((2, 1, 32, 32), 0.4)
    scores.add(light, dark, torch.ones(2, 1, 32, 32, dtype=torch.bool))
    assert scores.values()["ssim"] == pytest.approx((2 * 0.32 + 1e-4) / (0.64 + 0.16 + 1e-4), abs=1e-4)


def test_images_too_small_for_ssim_have_none():
    scores, images = Scores(8), torch.rand(2, 1, 8, 8)
    scores.add(images, images, torch.ones(2, 1, 8, 8, dtype=torch.bool))
    assert set(scores.values()) == {"psnr", "hidden_mae", "hidden_mse"}


def test_the_picture_has_a_column_a_ratio_and_says_what_was_withheld(tmp_path):
    plain = run(Toy(mean_filled), tmp_path, shown=3).artifacts["rebuilt"].read_bytes()
    peeking = run(Toy(lambda images, mask: images), tmp_path, shown=3).artifacts["rebuilt"].read_bytes()
    with Image.open(io.BytesIO(plain)) as one, Image.open(io.BytesIO(peeking)) as other:
        assert one.width > 10 * 96
        assert one.height > 6 * 96
        assert other.height > one.height


def test_options_that_make_no_sense_are_refused():
    for options in ({"ratios": (0.5, 1.0)}, {"ratios": (0.5, 0.5)}, {"starts": (0.0,)}, {"ratio": 1.0}, {"starts": ()}):
        with pytest.raises(ValidationError):
            ReconstructionConfig(**options)


def test_what_it_cannot_measure_is_refused_while_planning(tmp_path):
    class Unlabelled(Blobs):
        provides = frozenset({"images"})

    task, encoder = Reconstruction(ReconstructionConfig()), Toy(oracle).encoder
    with pytest.raises(InputError, match=r"task\.generate=false"):
        task.check(encoder, Unlabelled())
    Reconstruction(ReconstructionConfig(generate=False)).check(encoder, Unlabelled())
    with pytest.raises(InputError, match="four or more test images"):
        task.check(encoder, Blobs(n=3))
    context = TaskContext(
        seed=0, device=torch.device("cpu"), workdir=tmp_path, input=INPUT, fit=None, features=None, say=print
    )
    with pytest.raises(InputError, match="only an encoder"):
        task.run(encoder, Blobs(), context)


def test_a_method_without_masks_is_measured_on_the_encoders_patches(tmp_path):
    class Maskless(Toy):
        def sample_mask(self, batch, generator):
            raise NotSupported("none")

    assert run(Maskless(mean_filled), tmp_path).details["mask_grid"] == [4, 4]
