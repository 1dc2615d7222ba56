"""The two things that a run is made of: a pretraining, and a measurement on it.

Under torchrun all ranks train and measure together; the first alone looks, locks and writes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from mimbench._version import __version__
from mimbench.contract import FitReport, Method, TaskContext, TaskResult
from mimbench.distributed import get_rank
from mimbench.engine.device import device_name
from mimbench.engine.pretrain import Pretrainer
from mimbench.engine.progress import say
from mimbench.engine.ranks import on_all_ranks, on_first_rank
from mimbench.errors import InputError
from mimbench.files import file_sha256, writing_into
from mimbench.harness.planning.cells import Cell, Pretraining, Request
from mimbench.harness.planning.code import Code, changes, code_of_cell, code_of_pretraining
from mimbench.harness.planning.plan import build_method
from mimbench.harness.planning.plugin_checks import check_result
from mimbench.harness.planning.weights import rest_of, restore, restore_encoder
from mimbench.harness.running.features import FrozenFeatures
from mimbench.harness.running.pictures import keep_picture, picture_name
from mimbench.harness.running.provenance import provenance
from mimbench.harness.running.record import build_record
from mimbench.harness.running.stage import PretrainStage
from mimbench.harness.running.training import TaskTraining, train_on_images
from mimbench.harness.running.unfinished import compare_code, discard_unfinished, work_key
from mimbench.store.record import Record
from mimbench.store.sealing import fingerprint
from mimbench.store.store import Store, StoredCheckpoint


@dataclass
class Harness:
    """One results folder, one device, one console to speak on."""

    store: Store
    device: torch.device
    console: Console
    fresh: bool = False
    """Pretrain and measure anew, whatever is there; what this run has made counts as there."""
    _made: set[str] = field(default_factory=set)
    """Fingerprints and ids of the checkpoints and records of this run."""
    _said: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        provenance()  # notes the commit now: the tree may change under a long run

    @contextmanager
    def alone(self, key: str) -> Iterator[bool]:
        """Hold `key` among all processes; False, at once, where another one holds it."""
        with ExitStack() as stack:
            yield on_first_rank(lambda: stack.enter_context(self.store.lock_if_free(key)))

    def found(self, wanted: Pretraining) -> StoredCheckpoint | None:
        """The checkpoint of a pretraining that is there already. Raises InputError where it is damaged."""
        if wanted.checkpoint:
            self.say(f"using the checkpoint in {wanted.checkpoint.folder}")
            return wanted.checkpoint
        found = self.stored(wanted)
        if found:
            with self.alone(wanted.training) as free:
                if free:  # left where a process was killed just after it saved
                    self._discard_work(wanted)
            self.say(f"reusing pretraining of {wanted.label} ({wanted.fingerprint})")
            self.say_changes(found.card.get("provenance"), code_of_pretraining(wanted), "the checkpoint was trained")
        return found

    def stored(self, wanted: Pretraining) -> StoredCheckpoint | None:
        """As `found`, of what was trained here, without a word."""
        if not self.counts(wanted.fingerprint):
            return None
        found = on_first_rank(lambda: self.store.checkpoint(wanted.fingerprint))
        if found:
            _check_card(found, wanted)
        return found

    def counts(self, key: str) -> bool:
        """Whether an existing checkpoint or record is used; with `fresh`, only those of this run are."""
        return not self.fresh or key in self._made

    def train(self, asked: Sequence[Pretraining]) -> None:
        """New checkpoints; an interrupted training is taken up again. The caller holds the training.

        asked: epochs of one training. It runs to the last of them, and keeps the others as it passes there.
        """
        left = self.lacking(asked)
        if self.fresh:
            on_first_rank(lambda: discard_unfinished(self.store, left[0].training))
        last, work = max(left, key=lambda one: one.epoch), on_first_rank(lambda: work_key(self.store, left))
        self._compare_code(work, code_of_pretraining(last))
        with writing_into(self.store.root / "work" / work):
            method, report = on_all_ranks(lambda: self._train(last, left, work))
        self._save(last, method, report)
        on_first_rank(lambda: self.store.discard_work(work))
        self._discard_work(last)

    def lacking(self, asked: Sequence[Pretraining]) -> list[Pretraining]:
        """Those of `asked` that have no checkpoint yet, sound or damaged."""
        there = on_first_rank(lambda: [self.store.has_checkpoint(one.fingerprint) for one in asked])
        return [one for one, kept in zip(asked, there, strict=True) if not (kept and self.counts(one.fingerprint))]

    def _discard_work(self, made: Pretraining) -> None:
        """The end is there: no training of it is to be taken up any more."""
        if made.fingerprint == made.training:
            on_first_rank(lambda: discard_unfinished(self.store, made.training))

    def _save(self, wanted: Pretraining, method: Method, report: FitReport) -> None:
        card = {
            "mimbench": __version__,
            "what": dict(wanted.identity),
            "recipe": wanted.recipe.as_tables(),
            "seed": wanted.seed,
            "cost": asdict(report) | {"device": device_name(self.device)},
            "provenance": provenance(code_of_pretraining(wanted)),
        }

        def write() -> None:
            encoder = method.exported_encoder().state_dict()
            self.store.save_checkpoint(wanted.fingerprint, encoder, rest_of(method), card, replace=self.fresh)
            if self.fresh:  # drawn from the weights that were just replaced
                self.store.artifact(*picture_name(wanted)).unlink(missing_ok=True)

        on_first_rank(write)
        self._made.add(wanted.fingerprint)

    def _train(self, last: Pretraining, left: Sequence[Pretraining], work: str) -> tuple[Method, FitReport]:
        """Train as far as `last`; the others of `left` are saved on the way."""
        recipe, channels = last.recipe, last.dataset.channels
        method = build_method(recipe, last.seed, channels)
        report = FitReport([], 0.0, 0, 0, None, "fp32")
        if not method.pretrains:
            self.say(f"{last.label}: nothing to pretrain")
            return method, report
        split = last.images()
        method.prepare(PretrainStage(last, self.store, self.device, self.console, fresh=self.fresh))
        if recipe.pretrain.grad_checkpointing:
            method.encoder.set_grad_checkpointing()
        keep = {one.epoch: functools.partial(self._save, one, method) for one in left if one is not last}
        if 0 in keep:
            keep.pop(0)(report)
        if last.epoch == 0:
            return method, report
        others = f", kept at epochs {', '.join(str(epoch) for epoch in sorted(keep))} too" if keep else ""
        self.say(f"pretraining {last.label} on {len(split):,} images ({last.fingerprint}){others}")
        report = train_on_images(
            Pretrainer(method, recipe.input, channels=channels, batched=split.is_in_memory),
            last,
            recipe.pretrain,
            label=f"pretrain {last.label}",
            options="pretrain",
            workdir=self.store.work(work),
            identity=last.training,
            device=self.device,
            console=self.console,
            epochs=last.epoch,
            after_epoch=keep,
        )
        return method, report

    def measure(self, request: Request, cell: Cell, checkpoint: StoredCheckpoint) -> Record:
        """Run a cell's task and write its record; the caller holds the cell."""
        wanted = cell.pretraining
        pictures = on_first_rank(
            lambda: keep_picture(wanted, lambda: self._method(wanted, checkpoint), self.store, self.say)
        )
        self.say(f"running {cell.label}")
        if self.fresh:
            on_first_rank(lambda: self.store.discard_work(cell.record_id))
        self._compare_code(cell.record_id, code_of_cell(cell))
        workdir = self.store.work(cell.record_id)
        started = time.perf_counter()
        with writing_into(workdir):
            result = on_all_ranks(lambda: self._task(cell, checkpoint, workdir))
        seconds = time.perf_counter() - started

        def write() -> Record:
            artifacts = pictures | self._keep(cell, result)
            record = build_record(
                request,
                cell,
                checkpoint,
                result,
                artifacts=artifacts,
                artifacts_sha256={name: file_sha256(self.store.root / path) for name, path in artifacts.items()},
                seconds=seconds,
                device=self.device,
            )
            self.store.save_record(record)
            return record

        record = on_first_rank(write)
        self._made.add(cell.record_id)
        name, value = record.primary
        self.say(f"{cell.label}: {name} {value.value:.2f} {value.unit}, n = {value.n} ({seconds:.0f} s)")
        return record

    def _method(self, wanted: Pretraining, checkpoint: StoredCheckpoint) -> Method:
        """The whole pretrained method, on the device."""
        return restore(build_method(wanted.recipe, wanted.seed, wanted.channels), checkpoint).to(self.device)

    def _task(self, cell: Cell, checkpoint: StoredCheckpoint, workdir: Path) -> TaskResult:
        recipe, wanted = cell.pretraining.recipe, cell.pretraining
        encoder = restore_encoder(build_method(recipe, wanted.seed, wanted.channels), checkpoint)
        features = FrozenFeatures(
            encoder,
            recipe.input,
            self.device,
            {
                "weights": checkpoint.weights_sha256,
                "encoder": wanted.identity["encoder"],
                "data": cell.protocol["dataset"],
                "input": recipe.input.evaluation(),
                "code": {kind: code_of_cell(cell)[kind]["sha256"] for kind in ("encoder", "dataset")},
            },
            self.store,
            say=self.say,
            workers=recipe.pretrain.workers,
        )
        own = workdir / f"rank{get_rank()}" if get_rank() else workdir
        own.mkdir(exist_ok=True)
        context = TaskContext(
            seed=wanted.seed,
            device=self.device,
            workdir=own,
            input=recipe.input,
            fit=TaskTraining(
                workdir / "training", cell.record_id, seed=wanted.seed, device=self.device, console=self.console
            ),
            features=features,
            say=self.say,
            method=self._method(wanted, checkpoint) if cell.task.needs_reconstruction else None,
        )
        result = cell.task.run(encoder, cell.dataset, context)
        check_result(cell.task, result)
        return result

    def _keep(self, cell: Cell, result: TaskResult) -> dict[str, str]:
        """Move a task's files beside its record; paths relative to the results folder."""
        kept = {}
        for name, path in result.artifacts.items():
            kept[name] = self.store.save_artifact(cell.record_id, path.name, path.read_bytes())
            path.unlink()
        return kept

    def _compare_code(self, work: str, code: Code) -> None:
        """Say which plugins were edited since what is to be taken up again in a work folder was interrupted."""
        self._say_once(on_first_rank(lambda: compare_code(self.store, work, code)))

    def say(self, text: str) -> None:
        say(self.console, text)

    def say_changes(self, noted: object, now: Code, what: str) -> None:
        """A line, once, for each plugin whose code has changed without a new version."""
        self._say_once(changes(noted, now, what))

    def _say_once(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line not in self._said:
                self.say(line)
            self._said.add(line)


def _check_card(found: StoredCheckpoint, wanted: Pretraining) -> None:
    """Raise InputError where a checkpoint's card does not say what its fingerprint stands for."""
    card = found.card
    if "cost" not in card or "seed" not in card or fingerprint(card.get("what")) != wanted.fingerprint:
        raise InputError(f"checkpoint {found.folder} is corrupt: its card was altered; delete it to pretrain again")
