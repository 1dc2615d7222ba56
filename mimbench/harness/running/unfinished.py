"""Work folders of unfinished trainings: which one to resume, and which code started it.

All ranks call these functions; rank 0 looks, writes and deletes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mimbench.engine.ranks import on_first_rank
from mimbench.engine.state_files import STATES, amount_done
from mimbench.harness.planning.cells import Pretraining
from mimbench.harness.planning.code import Code, describe_changes
from mimbench.store.progress import work_keys
from mimbench.store.sealing import DAMAGE, write_json
from mimbench.store.store import Store


@on_first_rank
def work_key(store: Store, missing: Sequence[Pretraining]) -> str:
    """The key of the work folder to train in.

    An interrupted training that has already passed the end of a missing pretraining cannot give its weights. Its state
    stays, since it may still serve later ends, and a second folder is used to train again from the start.

    Args:
        missing: the pretrainings of one training that have no checkpoint yet.
    """
    ends = [pretraining.end for pretraining in missing if pretraining.end]  # 0 needs no training
    first, second = work_keys(missing[0].training)
    for key in (first, second):
        done = amount_done(store.root / "work" / key, missing[0].unit)
        reaches_all = all(done < end for end in ends)
        stopped_at_the_only_one = ends == [done]
        if reaches_all or stopped_at_the_only_one:
            return key
    store.discard_work(second)
    return second


@on_first_rank
def discard_unfinished(store: Store, training: str) -> None:
    """Remove all saved states of a training that is finished or starts from scratch."""
    for key in work_keys(training):
        store.discard_work(key)


@on_first_rank
def compare_code(store: Store, key: str, code: Code) -> list[str]:
    """A line per plugin that was edited since the training in a work folder was interrupted.

    If nothing is to be resumed there, the current code is written down for the next time. The states of other models
    below the folder, such as a tokenizer's, count too.

    Args:
        key: of the work folder.
        code: of the plugins that take part, now.
    """
    path = store.work(key) / "plugins.json"
    if not (path.exists() and any(path.parent.rglob(STATES))):
        write_json(path, {"plugins": code})
        return []
    try:
        return list(describe_changes(json.loads(path.read_text(encoding="utf-8")), code, "this training began"))
    except DAMAGE:
        return []
