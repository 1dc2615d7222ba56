"""VQ-KD, the tokenizer of BEiT v2: its codebook, teachers, files and stage. Its numbers are in the golden file."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from rich.console import Console
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from helpers.official_values import read_arrays, read_json
from helpers.random_inputs import seeded
from mimbench.contract import InputError, NotSupported, TrainConfig
from mimbench.harness.planning.build import build_method
from mimbench.harness.planning.cells import Request
from mimbench.harness.planning.plan import plan
from mimbench.harness.running.stage import PretrainStage
from mimbench.optim import param_groups
from mimbench.store.store import Store
from mimbench.testing.lockstep import Lockstep
from mimbench_methods.tokenizers.quantizer import Quantizer, kmeans_on_sphere
from mimbench_methods.tokenizers.vqkd import VQKDTokenizer
from mimbench_methods.tokenizers.vqkd_config import VQKDConfig
from mimbench_methods.tokenizers.vqkd_teachers import HOGTeacher, read_clip

SIZES = {"vocabulary": 6, "embed_dim": 8, "depth": 1, "num_heads": 2, "code_dim": 4}
DECODER = {"decoder_dim": 8, "decoder_depth": 1, "decoder_heads": 2}
TINY = {
    **{f"method.vqkd.{key}": value for key, value in (SIZES | DECODER).items()},
    "data.train_limit": 64,
    "data.test_limit": 20,
    "method.vqkd.batch_size": 32,
    "method.vqkd.epochs": 2,
    "pretrain.epochs": 1,
    "pretrain.schedule.warmup_epochs": 0,
    "pretrain.batch_size": 32,
}


def quantizer(count=5, dim=3, decay=0.9) -> Quantizer:
    torch.manual_seed(0)
    made = Quantizer(count, dim, decay)
    made.is_started.fill_(True)
    return made.train()


def tokenizer_of(channels=3, **options) -> VQKDTokenizer:
    torch.manual_seed(0)
    config = VQKDConfig(**({"teacher": "hog"} | SIZES | DECODER | options))
    return VQKDTokenizer(config, patch_size=4, channels=channels, image_size=16)


@pytest.fixture
def prepared(tmp_path, cache):
    def prepare(**settings):
        request = Request(["beitv2"], ["knn"], "smoke", (0,), {**TINY, **settings})
        pretraining = plan(request, torch.device("cpu"), cache)[0].pretraining
        method, screen = build_method(pretraining.recipe, 0, 1), io.StringIO()
        before = {name: value.clone() for name, value in method.tokenizer.state_dict().items()}
        console = Console(file=screen, width=10_000)
        method.prepare(PretrainStage(pretraining, Store(tmp_path / "results"), torch.device("cpu"), console))
        return method.tokenizer, before, screen.getvalue()

    return prepare


def test_a_code_moves_towards_the_mean_of_its_vectors_and_others_stay():
    made = quantizer()
    before = made.codes.clone()
    features = 3 * before[[1, 1, 2]] + 0.1 * torch.randn(3, 3, generator=seeded())
    unit = F.normalize(features, dim=1)
    codes, tokens, commitment = made(features)
    assert tokens.tolist() == [1, 1, 2]
    assert torch.allclose(codes, before[[1, 1, 2]])
    assert commitment.item() == pytest.approx((unit - before[[1, 1, 2]]).square().mean().item())
    for index, mean in ((1, unit[:2].mean(0)), (2, unit[2])):
        moved = F.normalize(0.9 * before[index] + 0.1 * F.normalize(mean, dim=0), dim=0)
        assert torch.allclose(made.codes[index], moved, atol=1e-6)
    assert torch.allclose(made.codes[[0, 3, 4]], before[[0, 3, 4]], atol=1e-6)
    assert made.usage.tolist() == pytest.approx([0, 0.2, 0.1, 0, 0])


def test_the_gradient_goes_straight_through_the_codebook():
    features = torch.randn(4, 3, generator=seeded(), requires_grad=True)
    codes, _, _ = quantizer()(features)
    weights = torch.randn(4, 3, generator=seeded(1))
    (gradient,) = torch.autograd.grad((codes * weights).sum(), features)
    (expected,) = torch.autograd.grad((F.normalize(features, dim=1) * weights).sum(), features)
    assert torch.allclose(gradient, expected)


def test_evaluation_changes_nothing():
    made = quantizer().eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    made(torch.randn(4, 3, generator=seeded()))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_the_first_batch_starts_the_codebook():
    torch.manual_seed(0)
    made = Quantizer(3, 3, 0.9).train()
    corners = torch.eye(3).repeat_interleave(20, 0)
    made(corners[torch.randperm(60, generator=seeded())] + 1e-3, seeded(3))
    assert bool(made.is_started)
    started, _ = kmeans_on_sphere(corners, 3, seeded(3))
    assert torch.allclose(made.codes.norm(dim=1), torch.ones(3))
    assert torch.allclose(started.norm(dim=1), torch.ones(3))
    codes = made.codes.clone()
    made.eval()(torch.randn(9, 3, generator=seeded()))
    assert torch.equal(made.codes, codes)


def test_two_processes_start_and_move_the_codebook_as_one_does():
    vectors = torch.randn(8, 6, 3, generator=seeded(3))
    whole, shared = quantizer(), [quantizer() for _ in range(2)]
    whole(vectors, seeded(4))
    Lockstep(2).run(lambda rank: shared[rank](vectors.chunk(2)[rank], seeded(4)))
    for one in shared:
        torch.testing.assert_close(one.state_dict(), whole.state_dict())


def test_kmeans_with_fewer_samples_than_codes():
    means, sizes = kmeans_on_sphere(F.normalize(torch.randn(4, 3, generator=seeded()), dim=1), 9, seeded())
    assert means.shape == (9, 3)
    assert int(sizes.sum()) == 4
    assert torch.allclose(means.norm(dim=1), torch.ones(9))


@pytest.mark.parametrize("patch", [4, 5, 8])
def test_hog_has_a_direction_at_a_flat_patch_too(patch):
    teacher = HOGTeacher(patch)
    pixels = torch.full((1, 3, 2 * patch, 3 * patch), 0.4)
    pixels[:, :, :, -patch // 2 :] = 1.0
    target = teacher(pixels)
    assert target.shape == (1, 2, 3, teacher.dim)
    assert torch.allclose(target[0, 0, 0], torch.tensor([0.0] * (teacher.dim - 1) + [0.1]), atol=1e-6)
    assert target[0, 0, 2, :-1].abs().sum() > 0


def clip_file(folder, *, head_bias=True, side=32, patch=8):
    """A small image tower under timm's names, and the model."""
    torch.manual_seed(3)
    tower = VisionTransformer(
        img_size=side,
        patch_size=patch,
        num_classes=6,
        embed_dim=128,
        depth=2,
        num_heads=2,
        pre_norm=True,
        act_layer="quick_gelu",
        norm_layer="layernorm",
    ).eval()
    state = {name: value + 0.1 * torch.randn(value.shape) for name, value in tower.state_dict().items()}
    if not head_bias:
        state["head.bias"].zero_()
    tower.load_state_dict(state)
    if not head_bias:
        del state["head.bias"]
    save_file(state, folder / "clip.safetensors")
    return folder / "clip.safetensors", tower


@pytest.mark.parametrize("head_bias", [True, False])
def test_clip_gives_its_projected_patches(tmp_path, head_bias):
    path, tower = clip_file(tmp_path, head_bias=head_bias)
    teacher = read_clip(path, grid=4, quick_gelu=True).eval()
    pixels = torch.rand(2, 3, 32, 32, generator=seeded())
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    )
    x = tower.patch_embed((pixels - mean) / std)
    x = tower.norm_pre(torch.cat((tower.cls_token.expand(2, -1, -1), x), 1) + tower.pos_embed)
    expected = tower.head(tower.norm(tower.blocks(x))[:, 1:]).view(2, 4, 4, 6)
    assert torch.allclose(teacher(pixels), expected, atol=1e-5)
    assert not torch.allclose(read_clip(path, grid=4, quick_gelu=False).eval()(pixels), expected, atol=1e-3)


def test_clip_sees_as_many_patches_as_the_encoder(tmp_path):
    teacher = read_clip(clip_file(tmp_path)[0], grid=7, quick_gelu=True)
    assert teacher(torch.rand(1, 3, 28, 28)).shape == (1, 7, 7, 6)


def test_a_file_that_is_no_tower_of_clip_is_refused_in_one_line(tmp_path):
    path, _ = clip_file(tmp_path)
    state = VisionTransformer(img_size=32, patch_size=8, embed_dim=128, depth=1, num_heads=2).state_dict()
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"method\.vqkd\.clip, .*: there is no tensor 'norm_pre\.weight'"):
        read_clip(tmp_path / "other.safetensors", grid=4, quick_gelu=True)
    with pytest.raises(InputError, match=r"method\.vqkd\.clip, .* does not exist"):
        read_clip(tmp_path / "none.safetensors", grid=4, quick_gelu=True)
    assert path.is_file()


def test_words_are_those_of_the_nearest_code_whatever_the_channels():
    grey, colour = tokenizer_of(1).eval(), tokenizer_of(3).eval()
    images = torch.rand(2, 1, 16, 16, generator=seeded())
    words = grey.tokens(images)
    assert words.shape == (2, 4, 4)
    assert torch.equal(words, colour.tokens(images.expand(-1, 3, -1, -1)))
    features = F.normalize(grey.words.features(2 * images.expand(-1, 3, -1, -1) - 1), dim=-1)
    distances = torch.cdist(features.flatten(0, 2), grey.words.quantizer.codes)
    assert torch.equal(words.flatten(), distances.argmin(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(grey.tokens(images), words)
    with pytest.raises(InputError, match="have 5 channels"):
        tokenizer_of(5)
    with pytest.raises(NotSupported, match="cannot turn words back into pixels"):
        grey.decode(words)


def test_it_is_fitted_once_and_used_again(prepared):
    first, before, _ = prepared()
    after = first.state_dict()
    for part in (
        "words.encoder.body.blocks.0.attn.qkv.weight",
        "words.to_code.0.weight",
        "words.quantizer.codes",
        "mean",
    ):
        assert not torch.equal(after[part], before[part])
    assert bool(first.words.quantizer.is_started)
    assert not any(value.requires_grad for value in first.parameters())
    again, _, printed = prepared(**{"pretrain.base_lr": 0.5})
    assert "reusing" in printed
    assert all(torch.equal(value, after[name]) for name, value in again.state_dict().items())
    other, _, printed = prepared(**{"method.vqkd.decay": 0.5})
    assert "reusing" not in printed
    assert not torch.equal(other.words.quantizer.codes, first.words.quantizer.codes)


def test_clip_teaches_from_its_file(prepared, tmp_path):
    path, _ = clip_file(tmp_path)
    clip = {"method.vqkd.teacher": "clip", "method.vqkd.clip": str(path)}
    taught, _, _ = prepared(**clip)
    assert not any("body.norm_pre" in name for name in taught.state_dict())
    state = {"head.bias": torch.ones(6)}
    save_file(_changed(path, state), path)  # another file under the same name is another teacher
    other, _, printed = prepared(**clip)
    assert "reusing" not in printed
    assert not torch.equal(other.words.quantizer.codes, taught.words.quantizer.codes)


def _changed(path, state):
    from safetensors.torch import load_file

    return load_file(path) | state


def official_state():
    arrays, meta = read_arrays("beitv2_vqkd_tiny")
    state = {name.removeprefix("param/"): value for name, value in arrays.items() if name.startswith("param/")}
    config = meta["config"]
    sizes = {
        "vocabulary": config["codebook_size"],
        "embed_dim": config["embed_dim"],
        "depth": config["depth"],
        "num_heads": config["num_heads"],
        "code_dim": config["codebook_dim"],
    }
    return state, sizes, arrays


def test_an_official_tokenizer_gives_the_official_words(prepared, tmp_path):
    state, sizes, arrays = official_state()
    file = tmp_path / "vqkd.pth"
    torch.save({"model": state | {"teacher_model.proj": torch.ones(2), "scaling_layer.shift": torch.ones(1)}}, file)
    config = VQKDConfig(**sizes, weights=file)
    made = VQKDTokenizer(config, patch_size=4, channels=3, image_size=32).eval()
    assert torch.equal(made.tokens(arrays["input/image"]).flatten(1), arrays["aux/eval_tokens"])
    assert "epochs" not in config.shaping()
    assert VQKDConfig(**sizes, weights=file, epochs=50).shaping() == config.shaping()
    with pytest.raises(InputError, match=r"method\.vqkd\.weights: .* set the sizes in \[method\.vqkd\]"):
        VQKDTokenizer(VQKDConfig(**sizes | {"code_dim": 4}, weights=file), patch_size=4, channels=3, image_size=32)
    del state["encode_task_layer.2.bias"]
    torch.save(state, file)
    with pytest.raises(InputError, match=r"it has no 'to_code\.2\.bias'"):
        VQKDTokenizer(config, patch_size=4, channels=3, image_size=32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "a.pth", "clip": "b.pth"}, "clip does nothing if weights names"),
        ({"teacher": "hog", "clip": "b.pth"}, 'clip does nothing while teacher is "hog"'),
        ({"num_heads": 5}, "embed_dim 768 is not a multiple of num_heads 5"),
        ({"decoder_heads": 5}, "decoder_dim 768 is not a multiple of decoder_heads 5"),
        ({"epochs": 10}, "warmup_epochs 10 must be less than epochs, 10"),
    ],
)
def test_options_without_effect_or_sense_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        VQKDConfig(**options)


def test_its_training_decays_the_official_parameters():
    made = tokenizer_of(depth=2)
    network = made.config.network(made.words, grid=4, target_dim=5)
    official = read_json("decay_groups_b")["beitv2_vqkd"]
    groups = param_groups(network, TrainConfig(epochs=1, batch_size=1, base_lr=1.0), no_decay=network.no_weight_decay())
    ours = {name: group["weight_decay"] > 0 for group in groups for name in group["names"]}
    renamed = {
        "encoder.": "words.encoder.body.",
        "decoder.": "decoder.body.",
        "encode_task_layer.": "words.to_code.",
        "decode_task_layer.": "to_target.",
    }

    def here(name: str) -> str:
        return next((new + name.removeprefix(old) for old, new in renamed.items() if name.startswith(old)), name)

    assert ours == {here(n): True for n in official["decay"]} | {here(n): False for n in official["no_decay"]}
    train = made.config.train
    assert (train.betas, train.weight_decay, train.clip_grad) == (
        tuple(official["betas"]),
        official["weight_decay"],
        official["clip_grad_norm"],
    )
