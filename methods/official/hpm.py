"""HPM beside its official code, Haochen-Wang409/HPM@c15ae907."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mimbench.api import Golden, InputError, Method, ModelSetup, OfficialCode
from mimbench_methods.official.encoders import vit_options


class OfficialHPM(OfficialCode):
    methods = ("hpm",)
    repository = "HPM"
    names: ClassVar = {
        "decoder_embed.": "project.",
        "decoder_pos_embed": None,
        "decoder_blocks.": "blocks.",
        "decoder_norm.": "norm.",
        "decoder_pred.": "head.",
        "decoder_blocks_losspred.": "loss_blocks.",
        "decoder_norm_losspred.": "loss_norm.",
        "decoder_pred_losspred.": "loss_head.",
    }
    networks: ClassVar = {"param/": "", "teacher/": "teacher.module."}
    followed: ClassVar = {"after/student/": "param/"}
    states: ClassVar = {"after/teacher/": "teacher/"}
    tolerances: ClassVar = {"output *loss_pred": 1e-5, "output aux/loss_matrix": 1e-5}
    """Outputs, one per patch, although their names speak of losses."""

    def setup(self, config: Mapping[str, Any], meta: Mapping[str, Any]) -> ModelSetup:
        if not config["relative"]:
            raise InputError("the loss decoder ranks patches here; the official relative = False is not supported")
        step = meta["step"]
        method = {
            "mask_ratio": config["mask_ratio"],
            "norm_pixels": config["norm_pix_loss"],
            "growth_steps": step["epochs"],
            "tau_share": min(1.0, 100 / step["epochs"]),
            "decoder_dim": config["decoder_embed_dim"],
            "decoder_depth": config["decoder_depth"],
            "decoder_heads": config["decoder_num_heads"],
            "decoder_mlp_ratio": config["mlp_ratio"],
        }
        encoder = vit_options(config) | {"position": "sincos"}
        return ModelSetup("hpm", "vit", config["img_size"], config["in_chans"], method, encoder)

    def replay(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        hpm: Any = method
        images, mask = golden.images(), golden.mask()
        count = int(mask[0].sum())
        output = method(images, mask)
        keep = (~mask.flatten(1)).nonzero()[:, 1].view(len(images), -1)
        x = hpm.decoder_input(images, keep)
        prediction = hpm.decode_pixels(x)
        error = hpm.error(prediction, method.target(images))
        return {
            "out/loss": output.loss,
            "out/loss_rec": output.logs["reconstruction"],
            "out/loss_learn": output.logs["ranking"],
            "out/pred": prediction[mask].unflatten(0, (-1, count)),
            "out/loss_pred": hpm.decode_errors(x)[mask].view(-1, count),
            "out/latent": method.encoder.forward_tokens(method.encoder.embed(images), keep).sequence,
            "aux/loss_matrix": error[mask].view(-1, count),
            "aux/teacher_loss_pred": hpm.teacher.module.predicted_errors(images).flatten(1),
        }

    def update(self, golden: Golden, method: Method) -> None:
        """With the decay of the file's epoch."""
        step, hpm = golden.meta["step"], method
        hpm.before_update(step["epoch"] / step["epochs"])
        hpm.after_step(step["epoch"] / step["epochs"])
