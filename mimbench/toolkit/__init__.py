"""Parts that several tasks are built from. Built-in and third-party tasks import them through `mimbench.api`."""
