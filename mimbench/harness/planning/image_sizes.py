"""Image sizes that change over a pretraining: from the recipe to the views of each epoch, and the checks of a plan."""

from __future__ import annotations

from mimbench.contract import InputError, Method
from mimbench.contract.abilities import require_abilities
from mimbench.contract.image_sizes import first_epochs, require_multiple
from mimbench.data import Views, ViewSchedule
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.planning.plugin_checks import describe_masks_problem
from mimbench.optim import Schedule


def training_views(pretraining: Pretraining) -> Views:
    """How a pretraining augments each view of an image, in each epoch.

    Raises:
        InputError: a size of `pretrain.image_sizes` would never be used, or a view would have no whole number of px.
    """
    recipe, train = pretraining.recipe, pretraining.recipe.pretrain
    if not train.image_sizes:
        return recipe.views()
    schedule = Schedule(train, steps_per_epoch=len(pretraining.images()) // train.batch_size)
    starts = first_epochs(train.image_sizes, steps=schedule.steps, steps_per_epoch=schedule.steps_per_epoch)
    return ViewSchedule.from_sizes(recipe.views(), starts)


def check_image_sizes(pretraining: Pretraining, method: Method) -> None:
    """Raise InputError if the encoder or the method cannot follow `pretrain.image_sizes`.

    Args:
        method: of the pretraining. It is as before afterwards.
    """
    views = training_views(pretraining)
    if not isinstance(views, ViewSchedule):
        return
    encoder = method.encoder
    if {size for _, size in pretraining.recipe.pretrain.image_sizes} == {encoder.image_size}:
        raise InputError(f"pretrain.image_sizes: images have {encoder.image_size} px anyway; leave the option out")
    require_abilities("pretrain.image_sizes", {"any-size"}, encoder, name=pretraining.recipe.encoder)
    try:
        for _, views_of_size in views.starts:
            first, *others = [view.image_size for view in views_of_size]
            where = f"pretrain.image_sizes, at {first} px"
            try:
                require_multiple(first, encoder.stride, "stride")
                for side in others:
                    require_multiple(side, encoder.patch_size, "patch size")
                method.set_image_size(first)
                problem = describe_masks_problem(method)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            if problem:
                raise InputError(f"{where}: the result of sample_mask of method {method.name!r} {problem}")
    finally:
        method.set_image_size(encoder.image_size)
