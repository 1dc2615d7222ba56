"""What tables call methods, tasks, metrics and settings: as papers do, or by the keys of the records."""

from __future__ import annotations

import re

from mimbench.display import describe_method, describe_metric, describe_task, setting_label


class Names:
    """As papers call them."""

    def field(self, name: str) -> str:
        """The head of a column of labels."""
        return setting_label(name)

    def value(self, field: str, text: str) -> str:
        """A label of a row or column. text: the field's value."""
        if field == "method":
            return describe_method(text).label or text
        if field == "task":
            return describe_task(text).label or text
        return text

    def metric(self, task: str, metric: str) -> str:
        """The head of a column of scores: "5-shot top-1"."""
        display = describe_metric(task, metric)
        return display.column or f"{self.value('task', task)}: {display.label}"

    def baseline(self, text: str) -> str:
        """A baseline: "mae", "simmim:method.mask_ratio=0.6", or "simmim (its most similar setting)"."""
        method = re.split("[: ]", text, maxsplit=1)[0]
        return self.value("method", method) + text.removeprefix(method)


class Keys(Names):
    """By the keys of the records, for files that programs read."""

    def field(self, name: str) -> str:
        return name

    def value(self, field: str, text: str) -> str:
        return text

    def metric(self, task: str, metric: str) -> str:
        return f"{task}: {metric}"

    def baseline(self, text: str) -> str:
        return text


NAMES, KEYS = Names(), Keys()
