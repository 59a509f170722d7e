"""The errors afterdetail raises on purpose: those of library and command line.

    AfterdetailError
    ├── InvalidInput           422  the request, picture, option or name is wrong
    │   ├── UnknownName        422  no such model, LoRA, style or detector
    │   └── ModelUnavailable   422  known, but not served or not on this machine
    ├── BodyTooLarge           413
    ├── UploadTooSlow          408
    ├── SourceFailed           502  init_image_url answered with an error
    ├── SourceTimeout          504  init_image_url was too slow
    ├── TryLater               429
    │   ├── QueueFull          429
    │   └── RateLimited        429  more requests a minute than the client may send
    ├── DeadlineExceeded       504
    ├── Aborted                499  the caller gave up; nobody is left to read this
    ├── InpaintFailed          500  every object failed
    ├── OutOfMemory            503
    ├── Loading                503  not ready yet, or draining
    ├── EngineStopped          503  its thread has died or hangs; only a restart helps
    │   └── DeviceLost         503  the device takes no more work from this process
    └── WeightsError           503  a weights file is missing, damaged or not what it should be

What only the server raises is beside what raises it: RequestInvalid (422), NotJson (415),
NoSuchResponse (404), ResponseExpired (410), StoreUnavailable (503) and Withheld (403).

``str(error)`` is one line for the person who can mend it: what was given, what is allowed, what to
do next. ``code`` is the stable name of the fault. ``public`` is the text for network clients: never
a path or an address.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, ClassVar

MOST_COMPARED = 200
"""Characters of a wrong name that are compared with those there are; megabytes take seconds."""


class AfterdetailError(Exception):
    """Base of all errors raised on purpose."""

    status: ClassVar[int] = 500
    code: str = "internal_error"

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        self.public = public or message

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process and back: the constructors of the classes below take other things."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(
    kind: type[AfterdetailError], args: tuple[Any, ...], state: dict[str, Any]
) -> AfterdetailError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class InvalidInput(AfterdetailError):
    """Something the caller gave is wrong. ``field`` names the request field, if one is to blame."""

    status = 422

    def __init__(
        self, code: str, message: str, *, field: str | None = None, public: str | None = None
    ) -> None:
        super().__init__(message, public=public)
        self.code = code
        self.field = field


class UnknownName(InvalidInput):
    """A name that is in no catalogue; the message lists the closest names there are."""

    def __init__(self, kind: str, given: str, known: Iterable[str], *, field: str) -> None:
        names = sorted(known)
        close = get_close_matches(given[:MOST_COMPARED], names, n=3, cutoff=0.4)
        shown = ", ".join(close or names[:8]) or "none"
        what = "closest" if close else "known"
        super().__init__(
            "unknown_name", f"unknown {kind} {given[:80]!r}; {what}: {shown}", field=field
        )


class ModelUnavailable(InvalidInput):
    """The name is right, but nothing here can serve it now."""

    def __init__(
        self, message: str, *, field: str | None = None, public: str | None = None
    ) -> None:
        super().__init__("model_unavailable", message, field=field, public=public)


class BodyTooLarge(AfterdetailError):
    status, code = 413, "body_too_large"


class UploadTooSlow(AfterdetailError):
    status, code = 408, "upload_too_slow"


class SourceFailed(AfterdetailError):
    status, code = 502, "url_failed"


class SourceTimeout(AfterdetailError):
    status, code = 504, "url_timeout"


class TryLater(AfterdetailError):
    """``retry_after`` is the seconds after which the same request is worth another try."""

    status = 429

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(TryLater):
    code = "queue_full"


class RateLimited(TryLater):
    code = "rate_limited"


class DeadlineExceeded(AfterdetailError):
    status, code = 504, "deadline_exceeded"


class Aborted(AfterdetailError):
    status, code = 499, "aborted"


class InpaintFailed(AfterdetailError):
    status, code = 500, "inpaint_failed"


class OutOfMemory(AfterdetailError):
    status, code = 503, "out_of_memory"


class Loading(AfterdetailError):
    status, code = 503, "loading"


class EngineStopped(AfterdetailError):
    status, code = 503, "engine_stopped"


class DeviceLost(EngineStopped):
    code = "device_lost"


class WeightsError(AfterdetailError):
    status, code = 503, "weights_error"

    def __init__(self, message: str, *, public: str = "a model's weights cannot be loaded") -> None:
        super().__init__(message, public=public)
