"""How near rebuilt images come to the true ones, by share of hidden cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BEST_PSNR = 100.0
"""dB; what an exact copy, whose ratio is infinite, is said to have."""
LEAST_SSIM_SIDE = 11
"""Side of SSIM's Gaussian window, px: smaller images have no SSIM."""


class Scores(nn.Module):
    """Means over all images that it was shown, pixels in [0, 1].

    PSNR is of the mean squared error over all of them, not a mean of PSNRs, which a single exact copy (plain black
    hidden in black) would make infinite. Both it and SSIM (Wang et al. 2004: Gaussian window of 11 px, sigma 1.5) are
    of whole images, hidden part as rebuilt, visible part as it is; the errors are of hidden pixels alone.
    """

    def __init__(self, side: int) -> None:
        # torchmetrics takes a second to import.
        from torchmetrics import MeanAbsoluteError, MeanSquaredError
        from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

        super().__init__()
        self.psnr = PeakSignalNoiseRatio(data_range=1.0)
        self.ssim = StructuralSimilarityIndexMeasure(data_range=1.0) if side >= LEAST_SSIM_SIDE else None
        self.hidden_mae, self.hidden_mse = MeanAbsoluteError(), MeanSquaredError()

    def add(self, rebuilt: Tensor, truth: Tensor, hidden: Tensor) -> None:
        """rebuilt, truth: float [B, C, H, W] in [0, 1]. hidden: bool [B, 1, H, W]."""
        self.psnr.update(rebuilt, truth)
        if self.ssim is not None:
            self.ssim.update(rebuilt, truth)
        chosen = hidden.expand_as(truth)
        self.hidden_mae.update(rebuilt[chosen], truth[chosen])
        self.hidden_mse.update(rebuilt[chosen], truth[chosen])

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        """psnr [dB], ssim (absent for images below 11 px), hidden_mae, hidden_mse."""
        values = {"psnr": min(float(self.psnr.compute()), BEST_PSNR)}
        if self.ssim is not None:
            ssim = self.ssim.compute()  # a pair where torchmetrics is asked for whole maps too
            values["ssim"] = float(ssim if isinstance(ssim, Tensor) else ssim[0])
        return values | {
            "hidden_mae": float(self.hidden_mae.compute()),
            "hidden_mse": float(self.hidden_mse.compute()),
        }
