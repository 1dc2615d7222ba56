"""Statistics of many masks at once, as tests/golden/mask_stats.json defines them."""

import numpy as np
from scipy import ndimage

CROSS = ndimage.generate_binary_structure(2, 1)
SQUARE = np.ones((3, 3), dtype=bool)


def statistics(masks):
    """bool [N, H, W] -> one float array [N] for each statistic."""
    sizes, owners = _components(masks, CROSS)
    largest = np.zeros(len(masks))
    np.maximum.at(largest, owners, sizes)
    return {
        "count": masks.sum((1, 2)),
        "n_components_4conn": _per_mask(owners, masks),
        "n_components_8conn": _per_mask(_components(masks, SQUARE)[1], masks),
        "n_visible_components_4conn": _per_mask(_components(~masks, CROSS)[1], masks),
        "largest_component_size_4conn": largest,
        "mask_bbox_area": _extent(masks.any(2)) * _extent(masks.any(1)),
        "boundary_edges": (masks[:, 1:] != masks[:, :-1]).sum((1, 2))
        + (masks[:, :, 1:] != masks[:, :, :-1]).sum((1, 2)),
    }


def summary(values):
    return {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max()}


def regions(masks):
    """Masked share of each mask's four corners, border, inside and centre, [N] each."""
    rows, columns = masks.shape[1:]
    inner = masks[:, 1:-1, 1:-1]
    border = rows * columns - inner[0].size
    centre = masks[:, (rows - 1) // 2 : rows // 2 + 1, (columns - 1) // 2 : columns // 2 + 1]
    return {
        "corners": masks[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(1),
        "border_ring": (masks.sum((1, 2)) - inner.sum((1, 2))) / border,
        "inside": inner.mean((1, 2)),
        "centre": centre.mean((1, 2)),
    }


def position_probability(masks):
    """How often each region is masked, and the cells masked least and most often."""
    share = masks.mean(0)
    return {name: values.mean() for name, values in regions(masks).items()} | {"min": share.min(), "max": share.max()}


def _components(masks, neighbours):
    """Size of each connected component, and the mask it is in."""
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = neighbours
    labels, count = ndimage.label(masks, structure)
    owners = np.zeros(count + 1, dtype=int)
    where = np.nonzero(masks)
    owners[labels[where]] = where[0]
    return np.bincount(labels.ravel(), minlength=count + 1)[1:], owners[1:]


def _per_mask(owners, masks):
    return np.bincount(owners, minlength=len(masks))


def _extent(occupied):
    """bool [N, L] -> cells from the first to the last True."""
    return occupied.shape[1] - occupied.argmax(1) - occupied[:, ::-1].argmax(1)
