"""Running planned cells: pretrain what is not there yet, measure, record."""

from __future__ import annotations

import functools
import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console

import mimbench
from mimbench.contract import ArraySplit, Encoder, FitReport, TaskContext, TaskResult
from mimbench.convert import resized
from mimbench.engine.device import device_name
from mimbench.engine.fit import fit
from mimbench.engine.pretrain import Pretrainer
from mimbench.errors import InputError, MimbenchError, RunError
from mimbench.harness.features import FrozenFeatures
from mimbench.harness.plan import Cell, Pretraining, Request, build_method, evaluation_input
from mimbench.harness.provenance import provenance
from mimbench.harness.stage import PretrainStage
from mimbench.harness.training import train_on_images
from mimbench.recipe.resolve import Recipe
from mimbench.store.files import fingerprint
from mimbench.store.record import Checkpoint, Cost, Named, Record, Value
from mimbench.store.store import Store, StoredCheckpoint


@dataclass
class Outcome:
    """What a run led to: a record for each cell that went through, a reason for each that did not."""

    records: list[Record] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Harness:
    """One results folder, one device, one console to speak on."""

    store: Store
    device: torch.device
    console: Console

    def __post_init__(self) -> None:
        provenance()  # notes the commit now: the tree may change under a long run

    def run(self, request: Request, cells: Sequence[Cell]) -> Outcome:
        """Run every cell that has no record yet. A cell that fails does not stop the others."""
        outcome = Outcome()
        for cell in cells:
            try:
                outcome.records.append(self._cell(request, cell))
            except InputError:
                raise
            except Exception as error:
                reason = str(error) if isinstance(error, MimbenchError) else f"{type(error).__name__}: {error}"
                outcome.failures.append((cell.label, reason))
                self._keep_traceback(cell, error)
                self._say(f"failed: {cell.label}: {reason}")
        return outcome

    def pretrain(self, wanted: Pretraining) -> StoredCheckpoint:
        """The checkpoint of a pretraining: the one that is there, or a new one; two processes do it once."""
        if wanted.checkpoint:
            self._say(f"using the checkpoint in {wanted.checkpoint.folder}")
            return wanted.checkpoint
        waiting = functools.partial(self._say, f"waiting: another process is pretraining {wanted.label}")
        with self.store.lock(wanted.fingerprint, waiting):
            found = self.store.checkpoint(wanted.fingerprint)
            if found:
                _check_card(found, wanted)
                self._say(f"reusing pretraining of {wanted.label} ({wanted.fingerprint})")
                return found
            made = self._pretrain(wanted)
            self.store.discard_work(wanted.fingerprint)
            return made

    def _pretrain(self, wanted: Pretraining) -> StoredCheckpoint:
        recipe, channels = wanted.recipe, wanted.dataset.channels
        method = build_method(recipe, wanted.seed, channels)
        report = FitReport([], 0.0, 0, 0, None, "fp32")
        if method.pretrains:
            split = wanted.images()
            method.prepare(PretrainStage(wanted, self.store, self.device, self.console))
            if recipe.pretrain.grad_checkpointing:
                method.encoder.set_grad_checkpointing()
            self._say(f"pretraining {wanted.label} on {len(split):,} images ({wanted.fingerprint})")
            report = train_on_images(
                Pretrainer(method, recipe.input, channels=channels, batched=isinstance(split, ArraySplit)),
                wanted,
                recipe.pretrain,
                label=f"pretrain {wanted.label}",
                workdir=self.store.work(wanted.fingerprint),
                device=self.device,
                console=self.console,
            )
        else:
            self._say(f"{wanted.label}: nothing to pretrain")
        encoder = method.exported_encoder()
        card = {
            "mimbench": mimbench.__version__,
            "what": dict(wanted.identity),
            "recipe": recipe.as_tables(),
            "seed": wanted.seed,
            "cost": asdict(report) | {"device": device_name(self.device)},
            "provenance": provenance(),
        }
        return self.store.save_checkpoint(wanted.fingerprint, encoder.state_dict(), _rest(method, encoder), card)

    def _cell(self, request: Request, cell: Cell) -> Record:
        found = self.store.record(cell.record_id)
        if found:
            self._say(f"already recorded: {cell.label} ({self.store.record_path(cell.record_id)})")
            return found.model_copy(update={"varied": dict(cell.varied)})  # as this command asked for it
        checkpoint = self.pretrain(cell.pretraining)
        self._say(f"running {cell.label}")
        workdir = self.store.work(cell.record_id)
        with self.store.lock(
            cell.record_id, functools.partial(self._say, f"waiting: another process runs {cell.label}")
        ):
            again = self.store.record(cell.record_id)
            if again:
                return again
            started = time.perf_counter()
            result = self._task(cell, checkpoint, workdir)
            seconds = time.perf_counter() - started
            artifacts = self._keep(cell, result)
            record = self._record(request, cell, checkpoint, result, artifacts, seconds)
            self.store.save_record(record)
            self.store.discard_work(cell.record_id)
        name, value = record.primary
        self._say(f"{cell.label}: {name} {value.value:.2f} {value.unit}, n = {value.n} ({seconds:.0f} s)")
        return record

    def _task(self, cell: Cell, checkpoint: StoredCheckpoint, workdir: Path) -> TaskResult:
        recipe, wanted = cell.pretraining.recipe, cell.pretraining
        encoder = load_encoder(recipe, wanted, checkpoint)
        features = FrozenFeatures(
            encoder,
            recipe.input,
            self.device,
            {
                "weights": checkpoint.weights_sha256,
                "encoder": wanted.identity["encoder"],
                "data": cell.protocol["dataset"],
                "input": evaluation_input(recipe),
            },
            self.store.root / "features",
            recipe.pretrain.workers,
        )
        context = TaskContext(
            seed=wanted.seed,
            device=self.device,
            workdir=workdir,
            input=recipe.input,
            fit=functools.partial(
                fit, seed=wanted.seed, device=self.device, workdir=workdir / "training", console=self.console
            ),
            features=features,
            say=self._say,
        )
        result = cell.task.run(encoder, cell.dataset, context)
        declared = {metric.name for metric in cell.task.metrics}
        unknown = set(result.metrics) - declared
        if unknown:
            raise RunError(f"task {cell.task.name!r} reported undeclared metrics: {', '.join(sorted(unknown))}")
        return result

    def _keep(self, cell: Cell, result: TaskResult) -> dict[str, str]:
        """Move a task's files beside its record; paths relative to the results folder."""
        kept = {}
        folder = self.store.artifacts(cell.record_id)
        for name, path in result.artifacts.items():
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / path.name
            shutil.move(path, target)
            kept[name] = str(target.relative_to(self.store.root))
        return kept

    def _record(
        self,
        request: Request,
        cell: Cell,
        checkpoint: StoredCheckpoint,
        result: TaskResult,
        artifacts: dict[str, str],
        seconds: float,
    ) -> Record:
        recipe, task = cell.pretraining.recipe, cell.task
        spent = result.cost
        return Record(
            id=cell.record_id,
            method=Named(name=recipe.method, version=recipe.method_class().version),
            task=Named(name=task.name, version=task.version),
            encoder=Named(name=recipe.encoder, version=recipe.encoder_class().version),
            dataset=Named(name=cell.dataset_name, version=cell.dataset.fingerprint()),
            protocol=dict(cell.protocol),
            protocol_fingerprint=fingerprint(cell.protocol),
            seed=cell.pretraining.seed,
            varied=dict(cell.varied),
            recipe_name=recipe.name,
            recipe_passed=request.passed(),
            recipe={**cell.pretraining.tables(), "task": task.config.model_dump(mode="json")},
            checkpoint=_checkpoint_entry(checkpoint),
            metrics={
                metric.name: Value(
                    value=result.metrics[metric.name].value,
                    n=result.metrics[metric.name].n,
                    unit=metric.unit,
                    low=metric.low,
                    high=metric.high,
                    higher_is_better=metric.higher_is_better,
                )
                for metric in task.metrics
                if metric.name in result.metrics
            },
            pretraining=fingerprint({k: v for k, v in cell.pretraining.identity.items() if k != "seed"}),
            chance=task.chance(cell.dataset),
            curves={name: list(map(float, curve)) for name, curve in result.curves.items()},
            artifacts=artifacts,
            details=dict(result.details),
            cost=Cost(
                seconds=max(seconds, spent.seconds if spent else 0.0),  # what a resumed training took before counts
                images_seen=spent.images_seen if spent else 0,
                steps=spent.steps if spent else 0,
                peak_memory=spent.peak_memory if spent else None,
                device=device_name(self.device),
                precision=spent.precision if spent else "fp32",
            ),
            provenance=provenance(),
        )

    def _keep_traceback(self, cell: Cell, error: Exception) -> None:
        if isinstance(error, MimbenchError):
            return
        try:
            path = self.store.work(cell.record_id) / "error.txt"
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
            self._say(f"traceback: {path}")
        except OSError as problem:  # a full disk may be what failed the cell
            self._say(f"the traceback cannot be kept: {problem}")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _check_card(found: StoredCheckpoint, wanted: Pretraining) -> None:
    """Raise InputError where a checkpoint's card does not say what its fingerprint stands for."""
    card = found.card
    if "cost" not in card or "seed" not in card or fingerprint(card.get("what")) != wanted.fingerprint:
        raise InputError(f"checkpoint {found.folder} is corrupt: its card was altered; delete it to pretrain again")


def load_encoder(recipe: Recipe, wanted: Pretraining, checkpoint: StoredCheckpoint) -> Encoder:
    """A fresh copy of the pretrained encoder, on the CPU; every tensor must fit by name and shape.

    Only position tables are resampled, where a given checkpoint is used at another image size.
    """
    encoder = build_method(recipe, wanted.seed, wanted.channels).exported_encoder()
    try:
        encoder.load_state_dict(resized(checkpoint.encoder(), encoder), strict=True)
    except RuntimeError as error:
        raise InputError(
            f"checkpoint {checkpoint.folder} does not fit encoder {recipe.encoder!r}: {error}; "
            "delete it to pretrain again"
        ) from error
    return encoder


def _rest(method: torch.nn.Module, encoder: Encoder) -> dict[str, torch.Tensor]:
    """The method's state besides the exported encoder's."""
    prefix = next(name for name, module in method.named_modules() if module is encoder)
    return {key: value for key, value in method.state_dict().items() if not key.startswith(f"{prefix}.")}


def _checkpoint_entry(checkpoint: StoredCheckpoint) -> Checkpoint:
    cost = checkpoint.card["cost"]
    return Checkpoint(
        fingerprint=checkpoint.card["fingerprint"],
        weights_sha256=checkpoint.weights_sha256,
        seed=checkpoint.card["seed"],
        cost=Cost(**{key: cost[key] for key in Cost.model_fields}),
    )
