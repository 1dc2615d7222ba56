"""PSNR, SSIM and pixel errors of reconstructed images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

BEST_PSNR = 100.0
"""dB; reported for an exact copy, whose PSNR is infinite."""
LEAST_SSIM_SIDE = 11
"""Side of SSIM's Gaussian window in px. Smaller images have no SSIM."""


class Scores(nn.Module):
    """Means over all images added, with pixels in [0, 1].

    PSNR is computed from the mean squared error over all images. A mean of PSNRs would be infinite if one image were
    reconstructed exactly, such as a black one. PSNR and SSIM (Wang et al. 2004: Gaussian window of 11 px, sigma 1.5)
    compare whole images, with the masked part reconstructed and the visible part as it is. The errors are of masked
    pixels only.
    """

    def __init__(self, side: int) -> None:
        # torchmetrics takes a second to import.
        from torchmetrics import MeanAbsoluteError, MeanSquaredError
        from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

        super().__init__()
        # Every process has all images: torchmetrics would count them once per process.
        local: dict[str, Any] = {"sync_on_compute": False}
        self.psnr = PeakSignalNoiseRatio(data_range=1.0, **local)
        self.ssim = StructuralSimilarityIndexMeasure(data_range=1.0, **local) if side >= LEAST_SSIM_SIDE else None
        self.hidden_mae, self.hidden_mse = MeanAbsoluteError(**local), MeanSquaredError(**local)

    def add(self, rebuilt: Tensor, truth: Tensor, masked: Tensor) -> None:
        """Add a batch: reconstructions and images, float [B, C, H, W] in [0, 1], and masks, bool [B, 1, H, W]."""
        self.psnr.update(rebuilt, truth)
        if self.ssim is not None:
            self.ssim.update(rebuilt, truth)
        chosen = masked.expand_as(truth)
        self.hidden_mae.update(rebuilt[chosen], truth[chosen])
        self.hidden_mse.update(rebuilt[chosen], truth[chosen])

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        """psnr [dB], ssim (absent for images below 11 px), and hidden_mae and hidden_mse of masked pixels."""
        values = {"psnr": min(float(self.psnr.compute()), BEST_PSNR)}
        if self.ssim is not None:
            ssim = self.ssim.compute()  # torchmetrics returns a pair if it also returns maps
            values["ssim"] = float(ssim if isinstance(ssim, Tensor) else ssim[0])
        return values | {
            "hidden_mae": float(self.hidden_mae.compute()),
            "hidden_mse": float(self.hidden_mse.compute()),
        }
