"""What can go wrong for a user, one class and one exit code for each kind.

A FoundryError is shown as one line on stderr. Anything else is our own bug: it keeps its traceback and
exits with code 1.
"""

from typing import ClassVar

EXIT_BUG = 1
EXIT_INTERRUPTED = 130


class FoundryError(Exception):
    """A failure that the user can mend; its message says what, where, what was expected, what to do."""

    exit_code: ClassVar[int] = EXIT_BUG
    kind: ClassVar[str] = "error"


class ConfigError(FoundryError):
    """A setting is unknown, missing, of the wrong type or out of range."""

    exit_code = 2
    kind = "configuration"


class HardwareError(FoundryError):
    """The machine cannot do the job: memory, device, disk."""

    exit_code = 3
    kind = "hardware"


class DataError(FoundryError):
    """The rows, or a model's files, cannot be used."""

    exit_code = 4
    kind = "data"


class GateError(FoundryError):
    """A gate of the examination is not met; nothing was published."""

    exit_code = 5
    kind = "gate"


class PublishError(FoundryError):
    """The release could not be published, or a tag is taken by another one."""

    exit_code = 6
    kind = "publishing"


class TrainingError(FoundryError):
    """Training went wrong, for instance the loss is not finite."""

    exit_code = 7
    kind = "training"
