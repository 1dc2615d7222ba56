"""Optimizer steps of iBOT as those of its official code, bytedance/ibot@da316d82."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from mimbench.api import Golden, Method, OfficialCode, TrainConfig


class IBOTSteps(OfficialCode):
    """The trajectory of a golden file: crops and masks of each step, rates, and the states after all steps."""

    trajectory_states: ClassVar = {"traj/student_after.": "param/student.", "traj/teacher_after.": "param/teacher."}
    not_compared: ClassVar = {
        "traj/loss_*": "the sum of both losses is compared at each step",
        "traj/momentum": "the momentum of the steps that are compared",
        "traj/*temp": "the steps use the temperatures of the method",
        "traj/image_order": "the images of the steps that are compared",
        "traj/*_crops": "the images of the steps that are compared",
        "traj/masks": "the masks of the steps that are compared",
        "traj/grad_norms_before_clip": "the weights after these steps are compared",
    }

    def training(self, golden: Golden) -> TrainConfig:
        clip = golden.meta["traj"]["clip_grad"]
        return TrainConfig(epochs=1, batch_size=1, base_lr=1.0, clip_grad=clip or None, clip_each=bool(clip))

    def begin(self, golden: Golden, method: Method) -> None:
        """The teacher begins as a copy of the student, the centres at zero."""
        steps, model = golden.meta["traj"], method
        follow(method, 0.0)
        changed = {
            "temperature_epochs": steps["warmup_teacher_temp_epochs"],
            "freeze_epochs": steps["freeze_last_layer"],
        }
        model.config = model.config.model_copy(update=changed)

    def step_loss(self, golden: Golden, method: Method, step: int) -> Tensor:
        model: Any = method
        chosen = golden.tensor("traj/image_order")[step]
        views, crops = (golden.tensor(f"traj/{kind}_crops")[chosen].transpose(0, 1) for kind in ("global", "local"))
        model._epoch = step // golden.meta["traj"]["steps_per_epoch"]
        mask = golden.tensor("traj/masks")[step].bool().flatten(0, 1)
        return model.compare(tuple(views), tuple(crops), mask).loss

    def after_step(self, golden: Golden, method: Method, step: int) -> None:
        follow(method, float(golden.tensor("traj/momentum")[step]))

    def after_all_steps(self, golden: Golden, method: Method) -> dict[str, Tensor]:
        model: Any = method
        return {"traj/center_after": model.centre, "traj/center2_after": model.patch_centre}


def follow(method: Method, momentum: float) -> None:
    """Move the teacher and its head, which keep `momentum` of themselves."""
    model: Any = method
    model.teacher.follow(model.encoder, momentum)
    model.teacher_head.follow(model.head, momentum)
