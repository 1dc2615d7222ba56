"""Making checkpoints: the trainings of a run, started or resumed. Under torchrun all ranks train together."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from mimbench._version import __version__
from mimbench.advice import short_text
from mimbench.contract import FitReport, Method
from mimbench.engine.device import device_name
from mimbench.engine.pretrain import TrainableMethod
from mimbench.engine.ranks import fails_together, on_first_rank
from mimbench.errors import InputError
from mimbench.files import writing_into
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.planning.code import code_of_pretraining
from mimbench.harness.planning.image_sizes import training_views
from mimbench.harness.planning.pretraining import depends_on_processes
from mimbench.harness.planning.step_cost import count_training
from mimbench.harness.running.monitoring import monitoring_of
from mimbench.harness.running.pictures import picture_names
from mimbench.harness.running.provenance import provenance
from mimbench.harness.running.session import Session
from mimbench.harness.running.stage import PretrainStage
from mimbench.harness.running.training import fit_on_images
from mimbench.harness.running.unfinished import discard_unfinished, work_key
from mimbench.store.sealing import fingerprint
from mimbench.store.store import StoredCheckpoint


class Trainer:
    """Finds the checkpoints of a session, and trains those that are missing.

    It takes no leases: whoever calls `train` or `discard_work` holds that of the training (see `Scheduler`).
    """

    def __init__(self, session: Session) -> None:
        self.session, self.store, self.shared = session, session.store, session.shared

    def existing_checkpoint(self, pretraining: Pretraining) -> StoredCheckpoint | None:
        """The checkpoint of a pretraining if there is one, with a line that says so.

        Raises:
            InputError: the checkpoint is damaged.
        """
        if pretraining.checkpoint:
            self.session.say(f"using the checkpoint in {pretraining.checkpoint.folder}")
            return pretraining.checkpoint
        stored = self.load_stored(pretraining)
        if stored:
            self.session.say(f"reusing pretraining of {pretraining.label} ({pretraining.fingerprint})")
            self.session.say_changes(
                stored.card.get("provenance"), code_of_pretraining(pretraining), "the checkpoint was trained"
            )
        return stored

    def load_stored(self, pretraining: Pretraining) -> StoredCheckpoint | None:
        """The checkpoint that was trained into this results folder, or None. Prints nothing.

        Raises:
            InputError: the checkpoint is damaged.
        """
        if not self.session.accepts(pretraining.fingerprint):
            return None
        stored = self.shared.checkpoint(pretraining.fingerprint)
        if stored:
            _check_card(stored, pretraining)
        return stored

    def missing(self, pretrainings: Sequence[Pretraining]) -> list[Pretraining]:
        """Those that have no checkpoint yet. A damaged checkpoint counts as one."""
        exists = self.shared.have_checkpoints([pretraining.fingerprint for pretraining in pretrainings])
        return [
            pretraining
            for pretraining, is_stored in zip(pretrainings, exists, strict=True)
            if not (is_stored and self.session.accepts(pretraining.fingerprint))
        ]

    def train(self, pretrainings: Sequence[Pretraining]) -> None:
        """Write the missing checkpoints of one training; resumes it if it was interrupted.

        Args:
            pretrainings: that differ in `at_epoch` or `at_step` only. The training runs to the last of them, and saves
                the others on the way.
        """
        missing = self.missing(pretrainings)
        if self.session.fresh:
            discard_unfinished(self.store, missing[0].training)
        last = max(missing, key=lambda pretraining: pretraining.end)
        work = work_key(self.store, missing)
        self.session.compare_code(work, code_of_pretraining(last))
        with writing_into(self.store.root / "work" / work):
            method, counted, report = self.fit_method(last, missing, work)
        self._save(last, method, counted, report)
        self.shared.discard_work(work)
        self.discard_work(last)

    def discard_work(self, pretraining: Pretraining) -> None:
        """Remove the states of a training whose final checkpoint exists. An earlier end keeps them."""
        if pretraining.fingerprint == pretraining.training:
            discard_unfinished(self.store, pretraining.training)

    @fails_together
    def fit_method(
        self, last: Pretraining, missing: Sequence[Pretraining], work: str
    ) -> tuple[Method, dict[str, float], FitReport]:
        """Train a method as far as the end of `last`, and save the other missing pretrainings on the way.

        Args:
            work: key of the work folder to train in.

        Returns:
            The method at the end of `last`, which is not saved yet, what each step costs, and what its training took.
        """
        recipe, channels = last.recipe, last.dataset.channels
        session = self.session
        method = build_method(recipe, last.seed, channels, to_train=True)
        report = FitReport([], 0.0, 0, 0, None, "fp32")
        if not method.pretrains:
            session.say(f"{last.label}: nothing to pretrain")
            return method, {}, report
        counted = self._count_cost(last)
        split = last.images()
        method.prepare(PretrainStage(last, self.store, session.device, session.console, fresh=session.fresh))
        if recipe.pretrain.grad_checkpointing:
            method.encoder.set_grad_checkpointing()
        save_after = {
            other.end: functools.partial(self._save, other, method, counted) for other in missing if other is not last
        }
        if 0 in save_after:  # the weights before the first step
            save_after.pop(0)(report)
        if last.end == 0:
            return method, counted, report
        ends = ", ".join(map(str, sorted(save_after)))
        others = f", kept at {last.unit}s {ends} too" if save_after else ""
        session.say(f"pretraining {last.label} on {len(split):,} images ({last.fingerprint}){others}")
        views = training_views(last)
        report = fit_on_images(
            TrainableMethod(
                method,
                views,
                channels=channels,
                batched=split.is_in_memory,
                shares_batch=not depends_on_processes(recipe),
            ),
            last,
            recipe.pretrain,
            label=f"pretrain {last.label}",
            options="pretrain",
            workdir=self.store.work(work),
            identity=last.training,
            device=session.device,
            console=session.console,
            views=views,
            end=last.end,
            call_after=save_after,
            tracks=self.store.tracks,
            monitoring=monitoring_of(last, method, session.device, session.say),
        )
        return method, counted, report

    def _save(self, pretraining: Pretraining, method: Method, counted: Mapping[str, float], report: FitReport) -> None:
        """Write a checkpoint. counted: as of `_count_cost`."""
        card = {
            "mimbench": __version__,
            "what": dict(pretraining.identity),
            "recipe": pretraining.recipe.as_tables(),
            "seed": pretraining.seed,
            "cost": {**asdict(report), "device": device_name(self.session.device), **counted},
            "provenance": provenance(code_of_pretraining(pretraining)),
        }
        self.shared.save_checkpoint(pretraining.fingerprint, method, card, replace=self.session.fresh)
        if self.session.fresh:  # the pictures show the weights that were just replaced
            folder, names = picture_names(pretraining)
            for name in names:
                self.shared.discard_artifact(folder, name)
        self.session.mark_made(pretraining.fingerprint)

    @on_first_rank
    def _count_cost(self, pretraining: Pretraining) -> dict[str, float]:
        """What a step costs per image, for the checkpoint; {} for short trainings, or if it cannot be counted."""
        recipe = pretraining.recipe
        try:
            counted = count_training(recipe, pretraining.channels, pretraining.image_count)
        except Exception as error:  # a plugin's step may need a GPU, and the training is worth keeping all the same
            self.session.say(f"{pretraining.label}: operations of a step not counted: {short_text(error)}")
            return {}
        return {"flops_per_image": counted.flops, "patches_per_image": counted.patches} if counted else {}


def _check_card(stored: StoredCheckpoint, pretraining: Pretraining) -> None:
    """Raise InputError if the card does not describe the pretraining that its fingerprint stands for."""
    card = stored.card
    if "cost" not in card or "seed" not in card or fingerprint(card.get("what")) != pretraining.fingerprint:
        raise InputError(f"checkpoint {stored.folder} is corrupt: its card was altered; delete it to pretrain again")
