"""Visual vocabularies, and the stage in which they are fitted once and kept."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from mimbench.contract import Batch, InputError, NotSupported
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.plan import plan
from mimbench.harness.running.session import Session
from mimbench.harness.running.stage import PretrainStage
from mimbench.harness.running.trainer import Trainer
from mimbench.store.store import Store
from mimbench.testing.lockstep import Lockstep
from mimbench_methods.tokenizers import TOKENIZERS, DalleTokenizer, DVAETokenizer, KMeansTokenizer

TINY = {
    "data.train_limit": 64,
    "data.test_limit": 20,
    "pretrain.epochs": 1,
    "pretrain.schedule.warmup_epochs": 0,
    "pretrain.batch_size": 32,
    "method.kmeans.vocabulary": 8,
    "method.kmeans.samples": 500,
    "method.dvae.vocabulary": 8,
    "method.dvae.width": 8,
    "method.dvae.epochs": 1,
}


class Bench:
    """BEiT with tiny settings in one results folder."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.store, self.cache, self.screen = Store(folder), cache, io.StringIO()
        self.console = Console(file=self.screen, width=10_000)

    def pretraining_of(self, seed=0, **settings):
        request = Request(["beit"], ["linear-probe"], "smoke", (seed,), {**TINY, **settings})
        return plan(request, torch.device("cpu"), self.cache)[0].pretraining

    def prepared(self, seed=0, **settings):
        pretraining = self.pretraining_of(seed, **settings)
        method = build_method(pretraining.recipe, seed, 1)
        method.prepare(PretrainStage(pretraining, self.store, torch.device("cpu"), self.console))
        return method

    @property
    def files(self) -> list[Path]:
        return sorted((self.store.root / "stages").glob("*.safetensors"))


@pytest.fixture
def bench(tmp_path, cache):
    return Bench(tmp_path / "results", cache)


@pytest.mark.parametrize("tokenizer", ["kmeans", "dvae"])
def test_a_tokenizer_is_fitted_once_and_used_again(bench, tokenizer):
    first = bench.prepared(**{"method.tokenizer": tokenizer})
    untouched = build_method(bench.pretraining_of(**{"method.tokenizer": tokenizer}).recipe, 0, 1)
    names = [n for n in first.state_dict() if n.startswith("tokenizer.")]
    assert any(not torch.equal(first.state_dict()[n], untouched.state_dict()[n]) for n in names)
    assert "reusing" not in bench.screen.getvalue()
    again = bench.prepared(**{"method.tokenizer": tokenizer, "pretrain.base_lr": 0.5})
    assert "reusing" in bench.screen.getvalue()
    assert all(torch.equal(first.state_dict()[n], again.state_dict()[n]) for n in names)
    assert len(bench.files) == 1


def test_what_shapes_the_words_makes_new_ones(bench):
    first = bench.prepared()
    for change in ({"method.kmeans.vocabulary": 9}, {"data.train_limit": 60}, {"input.crop_scale": [0.5, 1.0]}):
        bench.prepared(**change)
    other = bench.prepared(seed=1)
    assert len(bench.files) == 5
    assert not torch.equal(first.tokenizer.words, other.tokenizer.words)


def test_fitting_again_gives_the_same_words(bench):
    first = bench.prepared()
    bench.files[0].with_suffix(".json").unlink()
    assert torch.equal(bench.prepared().tokenizer.words, first.tokenizer.words)


def test_damaged_words_are_named_and_never_used(bench):
    bench.prepared()
    path = bench.files[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} is corrupt: .* delete both files"):
        bench.prepared()
    path.unlink()
    with pytest.raises(InputError, match=f"{path} or its card .* is corrupt"):
        bench.prepared()


def test_a_stored_checkpoint_reconstructs_without_fitting_again(bench):
    pretraining = bench.pretraining_of()
    trainer = Trainer(Session(bench.store, torch.device("cpu"), bench.console))
    trainer.train([pretraining])
    checkpoint = trainer.load_stored(pretraining)
    method = build_method(pretraining.recipe, 0, 1)
    state = {f"encoder.{key}": value for key, value in checkpoint.encoder().items()} | checkpoint.rest()
    method.load_state_dict(state, strict=True)
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    mask = method.sample_mask(2, torch.Generator().manual_seed(0))
    picture = method.reconstruct(images, mask)
    assert picture.shape == images.shape
    assert torch.equal(bench.prepared().tokenizer.words, method.tokenizer.words)


def test_too_few_patches_for_the_vocabulary_is_one_clear_line(bench):
    with pytest.raises(InputError, match=r"500 patches cannot make 501 words; lower method\.kmeans\.vocabulary"):
        bench.prepared(**{"method.kmeans.vocabulary": 501})


def test_kmeans_takes_the_nearest_word():
    tokenizer = KMeansTokenizer(KMeansTokenizer.Config(vocabulary=5), patch_size=2, channels=3)
    words = torch.randint(0, 5, (4, 3, 3), generator=torch.Generator().manual_seed(0))
    images = tokenizer.decode(words)
    assert images.shape == (4, 3, 6, 6)
    assert torch.equal(tokenizer.tokens(images + 1e-3), words)
    far = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    patches = far.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 4, 5, 1).flatten(3)
    assert torch.equal(
        tokenizer.tokens(far), torch.cdist(patches.flatten(0, 2), tokenizer.words).argmin(1).view(2, 2, 2)
    )


@pytest.mark.parametrize("patch_size", [1, 2, 3, 4, 7, 12])
def test_dvae_has_one_word_for_each_patch(patch_size):
    config = DVAETokenizer.Config(vocabulary=5, width=4)
    tokenizer = DVAETokenizer(config, patch_size=patch_size, channels=3)
    words = tokenizer.tokens(torch.zeros(2, 3, 2 * patch_size, 3 * patch_size))
    assert words.shape == (2, 2, 3)
    assert words.dtype == torch.int64
    assert tokenizer.decode(words).shape == (2, 3, 2 * patch_size, 3 * patch_size)


@pytest.fixture
def one_thread():
    """Layers this small are faster so, and many times faster where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_dvae_learns_to_distinguish_patches(one_thread):
    torch.manual_seed(0)
    tokenizer = DVAETokenizer(DVAETokenizer.Config(vocabulary=8, width=16), patch_size=2, channels=1)
    generator = torch.Generator().manual_seed(0)
    shades = torch.tensor([-1.0, 0.0, 1.0, 2.0])[torch.randint(4, (16, 1, 2, 2), generator=generator)]
    images = shades.repeat_interleave(2, 2).repeat_interleave(2, 3)
    optimizer = torch.optim.Adam(tokenizer.dvae.parameters(), 3e-3)
    for step in range(400):
        optimizer.zero_grad()
        tokenizer.dvae.step(Batch((images,)), generator).loss.backward()
        optimizer.step()
        tokenizer.dvae.after_step(step / 400)
    with torch.no_grad():
        error = (tokenizer.decode(tokenizer.tokens(images)) - images).square().mean()
    assert error < 0.1 * images.var()


def official(folder: Path, **options) -> tuple[DalleTokenizer, dict[str, torch.Tensor], dict]:
    """A tiny DALL-E encoder, its state under OpenAI's names, and its options."""
    options = {"vocabulary": 16, "width": 8, **options}
    names = {"weight": "w", "bias": "b"}
    path = folder / "seed.safetensors"
    shapes = {}
    torch.manual_seed(3)
    width = options["width"]
    previous = width
    shapes["blocks.input"] = (width, 3, 7)
    for group in range(4):
        wide = width * 2**group
        for block in range(2):
            stem = f"blocks.group_{group + 1}.block_{block + 1}"
            inputs = previous if block == 0 else wide
            if inputs != wide:
                shapes[f"{stem}.id_path"] = (wide, inputs, 1)
            for index, (out, into, side) in enumerate(
                ((wide // 4, inputs, 3), (wide // 4, wide // 4, 3), (wide // 4, wide // 4, 3), (wide, wide // 4, 1)), 1
            ):
                shapes[f"{stem}.res_path.conv_{index}"] = (out, into, side)
        previous = wide
    shapes["blocks.output.conv"] = (options["vocabulary"], previous, 1)
    state = {}
    for name, (out, into, side) in shapes.items():
        state[f"{name}.{names['weight']}"] = torch.randn(out, into, side, side) / (into * side**2) ** 0.5
        state[f"{name}.{names['bias']}"] = torch.randn(out) / 10
    save_file(state, path)
    config = DalleTokenizer.Config(weights=path, **options)
    return DalleTokenizer(config, patch_size=4, channels=1), state, options


def test_dalle_reads_openais_names_from_safetensors_and_state_dicts(tmp_path):
    tokenizer, state, options = official(tmp_path)
    torch.save(state, tmp_path / "encoder.pt")
    config = DalleTokenizer.Config(weights=tmp_path / "encoder.pt", **options)
    other = DalleTokenizer(config, patch_size=4, channels=1)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    words = tokenizer.tokens(images)
    assert words.shape == (2, 2, 2)
    assert len(words.unique()) > 1
    assert torch.equal(other.tokens(images), words)
    assert len(tokenizer.state_dict()) == len(state) + 2
    with pytest.raises(NotSupported, match="pixels"):
        tokenizer.decode(words)


def test_dalle_computes_what_openais_encoder_does(tmp_path):
    tokenizer, state, _ = official(tmp_path)

    def conv(x, name):
        weight = state[f"{name}.w"]
        return torch.nn.functional.conv2d(x, weight, state[f"{name}.b"], padding=weight.shape[-1] // 2)

    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = conv(images, "blocks.input")
    for group in range(1, 5):
        for block in (1, 2):
            stem, y = f"blocks.group_{group}.block_{block}", x
            for index in range(1, 5):
                y = conv(y.relu(), f"{stem}.res_path.conv_{index}")
            x = (conv(x, f"{stem}.id_path") if f"{stem}.id_path.w" in state else x) + y / 64
        x = torch.nn.functional.max_pool2d(x, 2) if group < 4 else x
    expected = conv(x.relu(), "blocks.output.conv")
    with torch.no_grad():
        assert torch.allclose(tokenizer.encoder(images), expected, atol=1e-5)


def test_dalle_undoes_the_recipes_normalisation(bench, tmp_path):
    _, _, options = official(tmp_path)
    settings = {f"method.dalle.{key}": value for key, value in options.items()}
    method = bench.prepared(
        **settings, **{"method.tokenizer": "dalle", "method.dalle.weights": str(tmp_path / "seed.safetensors")}
    )
    assert method.tokenizer.mean.item() == pytest.approx(0.1307)
    assert method.tokenizer.std.item() == pytest.approx(0.3081)
    assert bench.files == []


class Module(torch.nn.Module):
    """What a pickled encoder is: an object of a class."""


def test_a_pickled_module_is_refused_with_the_reason_and_the_way_out(tmp_path):
    _, _, options = official(tmp_path)
    path = tmp_path / "encoder.pkl"
    for save in (lambda: torch.save(Module(), path), lambda: path.write_bytes(pickle.dumps(Module(), protocol=2))):
        save()
        with pytest.raises(InputError, match=r"is a pickled module.* can run any code.*state_dict\(\)"):
            DalleTokenizer(DalleTokenizer.Config(weights=path, **options), patch_size=4, channels=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blocks.input.b"), r"has no tensor 'blocks\.input\.bias'"),
        (lambda s: s.update({"blocks.input.b": torch.zeros(3)}), r"'blocks\.input\.bias' is \[3\] .*, not \[8\]"),
        (lambda s: s.update(extra=torch.zeros(3)), "tensor 'extra' that the encoder does not have"),
        (lambda s: s.clear(), "has no tensor"),
    ],
)
def test_dalle_weights_that_do_not_fit_are_refused(tmp_path, change, message):
    _, state, options = official(tmp_path)
    change(state)
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=message):
        DalleTokenizer(DalleTokenizer.Config(weights=tmp_path / "bad.pt", **options), patch_size=4, channels=1)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x02]q\x00.", b"PK\x03\x04 torn"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        DalleTokenizer(DalleTokenizer.Config(weights=path), patch_size=4, channels=1)


def test_the_content_of_dalle_weights_shapes_the_result_not_their_place(bench, tmp_path):
    _, state, options = official(tmp_path)

    def fingerprint(path: Path) -> str:
        save_file(state, path)
        settings = {f"method.dalle.{key}": value for key, value in {**options, "weights": str(path)}.items()}
        return bench.pretraining_of(**settings, **{"method.tokenizer": "dalle"}).fingerprint

    first, moved = fingerprint(tmp_path / "a.safetensors"), fingerprint(tmp_path / "b.safetensors")
    state["blocks.input.b"] += 1
    assert first == moved != fingerprint(tmp_path / "a.safetensors")


def test_dalle_without_a_file_says_so_before_anything_runs(bench, tmp_path):
    with pytest.raises(InputError, match=r"set method\.dalle\.weights"):
        bench.pretraining_of(**{"method.tokenizer": "dalle"})
    with pytest.raises(InputError, match="there is no file"):
        bench.pretraining_of(**{"method.tokenizer": "dalle", "method.dalle.weights": str(tmp_path / "none.pt")})


def test_every_tokenizer_is_known_by_its_name():
    assert {name: cls.name for name, cls in TOKENIZERS.items()} == {n: n for n in ("kmeans", "dvae", "dalle")}


def test_two_processes_take_the_dvae_through_one_step():
    tokenizer = DVAETokenizer(DVAETokenizer.Config(vocabulary=8, width=8), patch_size=2, channels=1)
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def loss(images):
        return tokenizer.dvae.step(Batch((images,)), torch.Generator().manual_seed(1)).loss.detach()

    shared = Lockstep(2).run(lambda rank: loss(images.chunk(2)[rank]))
    torch.testing.assert_close(torch.stack(shared).mean(), loss(images))
