"""How fast each method trains, bare and through `fit`, eager and compiled: images/s, memory, warm-up.

    python benchmarks/step.py                              # small models, every method, on what there is
    python benchmarks/step.py --size full --device cuda    # the published sizes
    python benchmarks/step.py --readme results.json        # write the table of benchmarks/README.md

A step is forward, backward, clipping and AdamW on images that are on the device already. "bare" is a plain loop around
it, "fit" the whole engine around the same step: hooks, progress, checks. On CUDA time is elapsed time between two
synchronisations. On the CPU it is the CPU time of the process, which does not depend on what else runs. The peak is
the rate of one large matrix product in the precision of the training.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from mimbench.contract import Batch, StepOutput, TrainConfig
from mimbench.engine.acceleration import accelerated, choose_acceleration, has_dropout, matrix_precision
from mimbench.engine.bare_step import BareStep
from mimbench.engine.device import device_name, pick_device, pick_precision
from mimbench.engine.fit import fit
from mimbench.engine.pretrain import TrainableMethod
from mimbench.recipe.document import read
from mimbench.recipe.resolve import resolve
from mimbench.registry import methods
from mimbench.testing.method_subject import MethodSubject

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- steps: benchmarks/step.py writes what follows -->", "<!-- end of steps -->"
FULL = {
    "imagenet-vit-base": ("simmim", "mae", "beit", "maskfeat", "data2vec", "hpm", "cae", "beitv2"),
    "imagenet-swin-base": ("simmim",),
    "imagenet-vit-small": ("ibot",),
    "imagenet-convnext-base": ("spark", "fcmae"),
}
"""Preset -> methods, largest interest first. Small: the preset "smoke" with every method."""
LOOPS = ("bare", "fit")


@dataclass(frozen=True)
class Row:
    """One measurement."""

    method: str
    preset: str
    loop: str
    compile: str
    attention: str
    precision: str
    batch: int
    images_per_second: float
    milliseconds: float
    share_of_peak: float | None
    peak_memory: float | None
    """GiB."""
    warm_up: float
    """Seconds of the first step, compilation included."""
    compiled: str


class Clock:
    """Seconds on a device: elapsed, after all queued work, on CUDA; CPU time of the process elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()


class FixedImages(TrainableMethod):
    """A method whose every step gets the same views; it notes the time after the first steps and after the last."""

    def __init__(self, subject: MethodSubject, batch: int, warm: int, steps: int, clock: Clock) -> None:
        method = subject.build()
        super().__init__(method, (), channels=subject.channels, batched=True)
        made = subject.batch(batch)
        self.fixed = [view.to(clock.device) for view in made.views]
        self.labels = None if made.labels is None else made.labels.to(clock.device)
        self.clock, self.warm, self.steps, self.done = clock, warm, steps, 0
        self.started, self.first, self.times = clock.now(), 0.0, [0.0, 0.0]

    def training_step(self, batch: Any, generator: torch.Generator) -> StepOutput:
        return self.method.step(Batch(tuple(self.fixed), self.labels, self._progress, self._epoch), generator)

    def before_epoch(self, epoch: int) -> None:
        """All epochs have the same views."""

    def after_step(self, progress: float) -> None:
        super().after_step(progress)
        self.done += 1
        if self.done == 1:
            self.first = self.clock.now() - self.started
        if self.done == self.warm:
            self.times[0] = self.clock.now()
        if self.done == self.warm + self.steps:
            self.times[1] = self.clock.now()

    @property
    def seconds(self) -> float:
        """Of one step."""
        return (self.times[1] - self.times[0]) / self.steps


def subject_of(preset: str, name: str) -> tuple[MethodSubject, Any]:
    recipe = resolve(preset, read(preset), name, {}, None)
    channels = 3 if len(recipe.input.mean) == 3 else 1
    method, encoder = recipe.method_class(), recipe.encoder_class()
    return MethodSubject(method, recipe.method_config, encoder, recipe.encoder_config, recipe.input, channels), recipe


def options_of(recipe: Any, batch: int, steps: int, **changes: Any) -> TrainConfig:
    """The recipe's optimizer with a budget of so many steps."""
    names = ("base_lr", "betas", "weight_decay", "clip_grad", "clip_each", "channels_last")
    options = {name: getattr(recipe.pretrain, name) for name in names}
    return TrainConfig(epochs=None, steps=steps, batch_size=batch, checkpoint_steps=10**6, **options | changes)


def run_fit(model: FixedImages, config: TrainConfig, device: torch.device) -> str:
    # What is loaded is not looked at, so loading takes no time.
    numbers = range(config.length * config.batch_size)
    loader = DataLoader(numbers, batch_size=config.batch_size, collate_fn=lambda rows: [torch.zeros(1)])  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        report = fit(
            model,
            loader,
            config,
            label="step",
            images_per_epoch=config.length * config.batch_size,
            seed=0,
            device=device,
            workdir=Path(folder),
            console=Console(file=io.StringIO()),
        )
    return report.compiled


def count_flops(subject: MethodSubject, device: torch.device, batch: int) -> float:
    """Floating-point operations of one image's forward and backward pass, in matrix products and convolutions."""
    method = subject.build().to(device)
    made = subject.batch(batch)
    views = tuple(view.to(device) for view in made.views)
    labels = None if made.labels is None else made.labels.to(device)
    with FlopCounterMode(display=False) as counter:
        subject.begin_step(method, 0.0)
        method.step(Batch(views, labels), torch.Generator(device).manual_seed(0)).loss.backward()
    return counter.get_total_flops() / batch


def measure_peak(device: torch.device, precision: str) -> float:
    """Floating-point operations per second of a large matrix product of random numbers, the best of some."""
    side, dtype = (8192 if device.type == "cuda" else 768), torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    clock, best = Clock(device), float("inf")
    with matrix_precision(precision, device):
        for _ in range(8):
            start = clock.now()
            for _ in range(4):
                torch.mm(one, other)
            best = min(best, (clock.now() - start) / 4)
    return 2 * side**3 / best


@contextmanager
def fresh_memory(device: torch.device) -> Iterator[None]:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield


def measure(
    preset: str, name: str, loop: str, changes: dict[str, Any], arguments: argparse.Namespace, peak: float, flops: float
) -> Row:
    device, batch = arguments.device, arguments.batch
    subject, recipe = subject_of(preset, name)
    total = arguments.warm + arguments.steps
    config = options_of(recipe, batch, total, precision=arguments.precision, **changes)
    precision = pick_precision(config, device)
    with fresh_memory(device):
        model = FixedImages(subject, batch, arguments.warm, arguments.steps, Clock(device))
        if loop == "fit":
            compiled = run_fit(model, config, device)
        else:
            step = BareStep(model, config, device)
            choice = choose_acceleration(config, device, total, has_dropout=has_dropout(model))
            console = Console(file=io.StringIO())
            with accelerated(model, choice, falls_back=False, label=name, console=console) as describe:
                for _ in range(total):
                    step((None,))
                compiled = describe()
        memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    rate = batch / model.seconds
    return Row(
        method=name,
        preset=preset,
        loop=loop,
        compile=config.compile,
        attention=config.attention,
        precision=precision,
        batch=batch,
        images_per_second=rate,
        milliseconds=1000 * model.seconds,
        share_of_peak=rate * flops / peak if flops else None,
        peak_memory=memory,
        warm_up=model.first,
        compiled=compiled,
    )


def measure_overhead(arguments: argparse.Namespace) -> dict[str, Any]:
    """CPU or elapsed time of a step through `fit` over that of a bare loop, in turn, several times."""
    ratios, preset = [], arguments.overhead_preset
    for _ in range(arguments.repeats):
        pair = [
            measure(preset, arguments.overhead, loop, {"compile": "off"}, arguments, 1.0, 0.0).milliseconds
            for loop in LOOPS
        ]
        ratios.append(pair[1] / pair[0])
        print(f"fit {pair[1]:.2f} ms, bare {pair[0]:.2f} ms: {ratios[-1]:.3f}", flush=True)
    return {"method": arguments.overhead, "preset": preset, "ratios": ratios, "median": statistics.median(ratios)}


def variants(device: torch.device, position: str) -> list[dict[str, Any]]:
    """Options of each run: eager and compiled; on CUDA also CUDA graphs, TF32, and the forms of attention."""
    runs: list[dict[str, Any]] = [{"compile": "off"}, {"compile": "on"}]
    if device.type == "cuda":
        runs.append({"compile": "cuda-graphs"})
        if position.startswith("relative"):
            runs += [{"compile": "on", "attention": form} for form in ("sdpa", "flex", "aligned")]
    return runs


def table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['device']}, torch {result['torch']}, peak {result['peak'] / 1e12:.3g} TFLOP/s in "
        f"{result['precision']}, batch {result['batch']}:",
        "",
        "| Method | Recipe | Loop | Compile | Attention | images/s | ms per step | Of the peak | GiB | First step, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        share = "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.1%}"
        memory = "" if row["peak_memory"] is None else f"{row['peak_memory']:.1f}"
        names = [row[key] for key in ("method", "preset", "loop", "compile", "attention")]
        rates = [f"{row['images_per_second']:,.0f}", f"{row['milliseconds']:.1f}"]
        lines.append(f"| {' | '.join([*names, *rates, share, memory, format(row['warm_up'], '.1f')])} |")
    if result.get("overhead"):
        over = result["overhead"]
        lines += ["", f"A step of {over['method']} through `fit` takes {over['median']:.3f} times that of a bare loop."]
    return "\n".join(lines)


def write_readme(path: Path) -> None:
    """Put the table of a JSON file between the two marks of benchmarks/README.md."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = table(json.loads(path.read_text(encoding="utf-8")))
    README.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "tf32"), default="auto")
    parser.add_argument("--methods", default="", help="names with commas; default: all")
    parser.add_argument("--loops", default="bare,fit")
    parser.add_argument("--batch", type=int, default=0, help="default: 128 on CUDA, 16 elsewhere")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--compile", default="", help="off,on,cuda-graphs; default: what fits the device")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin no measurement after so many seconds"
    )
    parser.add_argument("--overhead", default="", help="measure fit over bare with this method alone")
    parser.add_argument("--overhead-preset", default="smoke")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--readme", type=Path, help="a file of --json; measure nothing")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.readme:
        write_readme(arguments.readme)
        return
    arguments.device = device = pick_device(arguments.device)
    arguments.batch = arguments.batch or (128 if device.type == "cuda" else 16)
    began = time.monotonic()
    chosen = set(arguments.methods.split(",")) - {""}
    trained = tuple(name for name in methods.names() if methods.load(name).pretrains)
    presets = FULL if arguments.size == "full" else {"smoke": trained}
    _, recipe = subject_of("smoke", "simmim")
    precision = pick_precision(options_of(recipe, arguments.batch, 1, precision=arguments.precision), device)
    result: dict[str, Any] = {
        "device": device_name(device),
        "host": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "batch": arguments.batch,
        "precision": precision,
        "peak": measure_peak(device, precision),
        "rows": [],
    }
    if arguments.overhead:
        result["overhead"] = measure_overhead(arguments)
        presets = {}
    for preset, names in presets.items():
        for name in names:
            if (chosen and name not in chosen) or time.monotonic() - began > arguments.seconds:
                continue
            subject, recipe = subject_of(preset, name)
            flops = count_flops(subject, device, min(arguments.batch, 8))
            position = str(getattr(recipe.encoder_config, "position", ""))
            for changes in variants(device, position):
                if arguments.compile and changes["compile"] not in arguments.compile.split(","):
                    continue
                for loop in arguments.loops.split(","):
                    if (loop == "fit" and "attention" in changes) or time.monotonic() - began > arguments.seconds:
                        continue
                    try:
                        row = measure(preset, name, loop, changes, arguments, result["peak"], flops)
                    except Exception as error:  # one failure must not cost the other measurements
                        result.setdefault("failures", []).append([name, loop, changes, str(error)[:300]])
                        print(f"{name} {loop} {changes}: {str(error)[:200]}", flush=True)
                        continue
                    result["rows"].append(asdict(row))
                    print(
                        f"{name:14} {loop:5} {row.compile:12} {row.attention:8} {row.images_per_second:8.0f} images/s "
                        f"{row.milliseconds:8.1f} ms  {row.compiled}",
                        flush=True,
                    )
                    if arguments.json:  # after each row, so that a time limit loses nothing
                        arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
