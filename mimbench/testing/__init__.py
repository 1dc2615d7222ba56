"""Checks that plugin authors run on their plugins: one named check per property, with a result and a remedy.

    from mimbench.testing import check_method, method_suite, parametrize_checks

`mimbench check KIND NAME` runs them on the command line.
"""

from mimbench.testing.audits import audit_suite, check_audit
from mimbench.testing.checks import Result, Suite, parametrize_checks
from mimbench.testing.datasets import check_dataset, dataset_suite
from mimbench.testing.encoders import check_encoder, encoder_suite
from mimbench.testing.methods import check_method, method_suite
from mimbench.testing.tasks import check_task, task_suite

__all__ = [
    "Result",
    "Suite",
    "audit_suite",
    "check_audit",
    "check_dataset",
    "check_encoder",
    "check_method",
    "check_task",
    "dataset_suite",
    "encoder_suite",
    "method_suite",
    "parametrize_checks",
    "task_suite",
]
