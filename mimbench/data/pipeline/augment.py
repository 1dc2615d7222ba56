"""timm's training augmentation, drawn from seeds: RandAugment in the loader, erasing and mixing on the device.

timm draws from the generators of Python, numpy and torch that all code shares. Here each use seeds them
and restores them (`fork_rng`), so that a batch depends on its seed only, and not on workers, ranks or a resume. timm is
imported when something is built: a command that trains nothing does without it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mimbench.contract import InputConfig
from mimbench.distributed import reduce_over_ranks
from mimbench.errors import InputError
from mimbench.seeds import fork_rng
from mimbench.shared_batch import Share, current_share, spread_rows, take_rows

Augment = Callable[[Tensor], Tensor]
"""One image uint8 [C, H, W] -> uint8 [C, S, S], or a clip [C, T, H, W] -> [C, T, S, S]; draws from the shared
generators."""


class ImageAugment:
    """timm's training transform without normalisation and erasing: crop, flip, and RandAugment or colour jitter.

    With "trivial", torchvision's TrivialAugmentWide takes the place of RandAugment, with bicubic interpolation.
    """

    def __init__(self, input_config: InputConfig, channels: int, rand_augment: str | None) -> None:
        """channels: of the images, 1 or 3. rand_augment: timm's notation, or "trivial"; with it there is no jitter.

        Raises:
            InputError: timm does not know such a policy, or cannot augment such images.
        """
        from timm.data import create_transform

        if channels not in (1, 3):
            raise InputError(
                f"timm's augmentation takes grey and RGB images, and these have {channels} channels: "
                "leave rand_augment out"
            )

        trivial = rand_augment == "trivial"
        try:
            self.pipeline = create_transform(
                input_config.image_size,
                is_training=True,
                scale=input_config.crop_scale,
                ratio=input_config.crop_ratio,
                hflip=input_config.flip,
                color_jitter=input_config.color_jitter or None,
                auto_augment=None if trivial else rand_augment,
                interpolation=input_config.interpolation,
                mean=input_config.mean if len(input_config.mean) == channels else input_config.mean[:1] * channels,
                normalize=False,
            )
        except (AssertionError, ValueError, KeyError) as error:
            raise InputError(
                f"rand_augment {rand_augment!r} is no policy that timm knows; write it as 'rand-m9-mstd0.5-inc1', "
                "or 'trivial'"
            ) from error
        if trivial:
            self._insert_trivial_augment()

    def __call__(self, image: Tensor) -> Tensor:
        """[C, H, W] on the scale of bytes -> uint8 [C, S, S]; draws from the shared generators.

        Of a clip [C, T, H, W] all frames get the same crop and the same operations. Pillow's images are bytes, so
        float pixels are rounded.
        """
        if image.ndim == 4:
            seed = int(torch.randint(2**31, ()))
            return torch.stack([self._with_seed(frame, seed) for frame in image.unbind(1)], 1)
        from torchvision.transforms.functional import to_pil_image

        return self.pipeline(to_pil_image(image.round().to(torch.uint8) if image.is_floating_point() else image))

    def _with_seed(self, frame: Tensor, seed: int) -> Tensor:
        with fork_rng(seed):
            return self(frame)

    def _insert_trivial_augment(self) -> None:
        """Before the pipeline's last transform, which makes a tensor, as keyu-tian/SparK@a63e386f has it."""
        from torchvision.transforms import InterpolationMode, TrivialAugmentWide

        self.pipeline.transforms.insert(-1, TrivialAugmentWide(interpolation=InterpolationMode.BICUBIC))


class Erasing:
    """timm's random erasing of normalised images: a rectangle of 2% to a third of the area becomes normal noise.

    In a clip it is the same rectangle in every frame, as in VideoMAE.
    """

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """float [B, C, H, W], or clips [B, C, T, H, W]; contiguous, and changed in place."""
        from timm.data.random_erasing import RandomErasing

        erase, share = RandomErasing(self.probability, mode="pixel", device=images.device), current_share()
        with fork_rng(seed, images.device):
            rows = _with_frames_as_channels(images)
            if share is None:
                erase(rows)
                return images
            # timm draws image by image: what it draws for the images of other processes goes to a scratch image.
            first, scratch = share.rank * len(rows), torch.empty_like(rows[0])
            for index in range(share.processes * len(rows)):
                erase(rows[index - first] if first <= index < first + len(rows) else scratch)
        return images


class Mixing:
    """timm's Mixup: a group is blended with its reverse, or boxes are pasted from it (CutMix), and so are labels.

    Groups are `group` images of the batch in order; the last one may be smaller. Each draws once, for all its images.
    In a batch that processes share, groups are those of the whole batch. If a process does not hold whole groups, all
    images are exchanged.
    """

    def __init__(
        self,
        *,
        mixup: float,
        cutmix: float,
        probability: float,
        switch: float,
        smoothing: float,
        classes: int,
        group: int,
    ) -> None:
        """mixup, cutmix: alphas of their Beta distributions, 0: off, not both. switch: how often it is CutMix.

        group: images, even.
        """
        from timm.data import Mixup

        self.group = group

        self.mix = Mixup(
            mixup_alpha=mixup,
            cutmix_alpha=cutmix,
            prob=probability,
            switch_prob=switch,
            label_smoothing=smoothing,
            num_classes=classes,
        )

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """float [B, C, H, W], changed in place, and int64 [B] -> the same images and soft targets [B, classes].

        Of clips [B, C, T, H, W] every frame is mixed in the same way. The images are contiguous. B must be even, or
        the number of images of all processes that share the batch.
        """
        share = current_share()
        with fork_rng(seed):
            if share is None:
                return images, self._mix_groups(images, labels)
            if len(images) % self.group == 0:
                self._draw_as_before(share, images)
                return images, self._mix_groups(images, labels)
            whole, known = (reduce_over_ranks(spread_rows(rows), "sum") for rows in (images, labels))
            targets = self._mix_groups(whole, known)
            return take_rows(whole), take_rows(targets)

    def _mix_groups(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mix whole groups in place. Returns soft targets."""
        groups = zip(_with_frames_as_channels(images).split(self.group), labels.split(self.group), strict=True)
        return torch.cat([self.mix(*group)[1] for group in groups])  # a group is a view: `images` itself is mixed

    def _draw_as_before(self, share: Share, images: Tensor) -> None:
        """Draw for the groups of the ranks before this one, as a single process would: draws depend on the size."""
        for _ in range(share.rank * len(images) // self.group):
            self.mix(torch.zeros(2, 1, *images.shape[-2:]), torch.zeros(2, dtype=torch.long))


def _with_frames_as_channels(images: Tensor) -> Tensor:
    """A view [B, C, H, W] of images, or [B, C * T, H, W] of contiguous clips [B, C, T, H, W]."""
    return images if images.ndim == 4 else images.view(len(images), -1, *images.shape[-2:])
