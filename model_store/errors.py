"""Errors of the kernel, and the root of every error tree of the project.

    KDiffEError                    everything that a user can cause and mend; its text says what and what next
    ├── StoreError                 the model store
    │   ├── UnknownVersionError    no such version
    │   ├── NoActiveVersionError   nothing has been activated yet
    │   └── StoreBusyError         another process holds the store's lock
    ├── ArtifactError              an artifact that can't be used
    │   ├── DamagedArtifactError   a file is missing, truncated or its checksum is wrong
    │   └── FormatVersionError     written by a newer (or too old) format
    ├── UnknownIdError             an external id that is not in the map
    └── MissingExtraError          a command needs an extra that is not installed

`training.errors` and `service.errors` hang their own trees below `KDiffEError`.
"""


class KDiffEError(Exception):
    """Something that a user can cause and mend. The text names the value and the next step."""


class StoreError(KDiffEError):
    """The model store can't do what was asked."""


class UnknownVersionError(StoreError):
    """No such version in the store."""


class NoActiveVersionError(StoreError):
    """No version of the store is active."""


class StoreBusyError(StoreError):
    """Another process holds the store's lock."""


class ArtifactError(KDiffEError):
    """An artifact that can't be used."""


class DamagedArtifactError(ArtifactError):
    """A file of the artifact is missing, truncated or doesn't match its checksum."""


class FormatVersionError(ArtifactError):
    """The artifact was written by a format that this release can't read."""


class UnknownIdError(KDiffEError):
    """An external id that is not in the map."""


class MissingExtraError(KDiffEError):
    """A command needs an extra that is not installed."""
