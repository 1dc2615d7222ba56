"""The memory of patches: search and votes against a naive computation, on one process and shared by two."""

from __future__ import annotations

import pytest
import torch

from mimbench.testing.lockstep import Lockstep
from mimbench_tasks.dense.memory import Memory, patch_labels, pixel_votes, rare_first, soft_votes, standardise

CLASSES, PIXELS = 4, 6
CPU = torch.device("cpu")


def patches(count, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count, PIXELS), generator=generator, dtype=torch.uint8)
    labels[torch.rand(count, PIXELS, generator=generator) < 0.2] = 255
    labels[:, 0] = 1
    return torch.randn(count, dim, generator=generator), labels


VECTORS, LABELS = patches(23)
QUERIES = patches(7, seed=1)[0]


def memory(vectors=VECTORS, labels=LABELS, chunk=4):
    return Memory(vectors, labels, chunk=chunk, device=CPU)


def order(query, distance):
    """Indices of all vectors, the nearest first, and how near they are."""
    if distance == "cosine":
        near = [float(torch.cosine_similarity(query, vector, dim=0)) for vector in VECTORS]
    else:
        near = [-float(torch.dist(query, vector)) for vector in VECTORS]
    indices = sorted(range(len(VECTORS)), key=lambda index: -near[index])
    return indices, near


@pytest.mark.parametrize("distance", ["cosine", "L2"])
@pytest.mark.parametrize("k", [1, 5])
def test_soft_votes_by_brute_force(distance, k):
    votes = soft_votes(memory().nearest(QUERIES, k, distance), CLASSES, temperature=0.3)
    for query, answers in zip(QUERIES, votes, strict=True):
        indices, near = order(query, distance)
        weights = torch.tensor([near[index] / 0.3 for index in indices[:k]]).softmax(0)
        expected = torch.zeros(CLASSES)
        for index, weight in zip(indices[:k], weights, strict=True):
            known = [int(label) for label in LABELS[index] if label != 255]
            for label in known:
                expected[label] += weight / len(known)
        torch.testing.assert_close(answers, expected, rtol=1e-5, atol=1e-6)
        assert float(answers.sum()) == pytest.approx(1)


def test_votes_for_pixels_by_brute_force():
    votes = pixel_votes(memory().nearest(QUERIES, 5, "L2"), CLASSES)
    for query, answers in zip(QUERIES, votes, strict=True):
        indices = order(query, "L2")[0][:5]
        for pixel in range(PIXELS):
            counts = [sum(int(LABELS[index, pixel]) == label for index in indices) for label in range(CLASSES)]
            assert int(answers[pixel]) == counts.index(max(counts)), "of equal counts the lowest class"


@pytest.mark.parametrize("split", [0, 2, 11])
def test_two_processes_that_share_the_memory_vote_as_one(split):
    """Even if one of them holds nothing, or fewer than k."""

    def vote(rank, vectors, labels):
        whole = memory(vectors, labels)
        moments = whole.moments()
        neighbours = whole.standardised(moments).nearest(standardise(QUERIES, moments), 5, "cosine")
        return soft_votes(neighbours, CLASSES, 0.1), pixel_votes(neighbours, CLASSES), *moments

    halves = [(VECTORS[:split], LABELS[:split]), (VECTORS[split:], LABELS[split:])]
    expected = vote(0, VECTORS, LABELS)
    for answers in Lockstep(2).run(lambda rank: vote(rank, *halves[rank])):
        for one, other in zip(answers, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_fewer_patches_than_neighbours_are_no_error():
    few = memory(VECTORS[:2], LABELS[:2]).nearest(QUERIES, 5, "cosine")
    assert few.is_local.sum(1).tolist() == [2] * len(QUERIES)
    torch.testing.assert_close(soft_votes(few, CLASSES, 0.1).sum(1), torch.ones(len(QUERIES)))


def test_moments_are_those_of_all_vectors():
    mean, deviation = memory().moments()
    torch.testing.assert_close(mean, VECTORS.mean(0))
    torch.testing.assert_close(deviation, VECTORS.std(0, correction=0))
    constant = memory(torch.ones(3, 2), LABELS[:3]).moments()
    assert constant[1].tolist() == [1, 1], "nothing is divided by 0"


def test_labels_of_patches_are_their_pixels():
    labels = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    cells = patch_labels(labels, 2)
    assert cells.tolist()[:3] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert cells.shape == (6, 4)


def test_patches_with_rare_classes_are_preferred():
    labels = torch.zeros(100, PIXELS, dtype=torch.uint8)
    labels[:5] = 2
    labels[7, 1:] = 255
    taken = [rare_first(labels, CLASSES, 10, torch.Generator().manual_seed(seed)) for seed in range(50)]
    for one in taken:
        assert len(one) == 10
        assert one.tolist() == sorted(set(one.tolist()))
    share = sum(int((one < 5).sum()) for one in taken) / (50 * 5)
    assert share > 0.8, "5 of 100 patches; an even draw would take a tenth of them"
