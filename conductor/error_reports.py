"""Keep secrets out of the reports of errors that Django mails and shows."""

from __future__ import annotations

from collections.abc import ItemsView
from types import FrameType
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter


class SilentFilter(SafeExceptionReporterFilter):
    """Tell where an error happened, and of no variable or form field what it held.

    Django's own filter hides what has been marked as a secret; here any frame may hold a state or an
    output in clear. With DEBUG everything is shown.
    """

    def get_post_parameters(self, request: HttpRequest | None) -> dict[str, Any]:
        """Return the names of what was posted, without the values."""
        posted: dict[str, Any] = super().get_post_parameters(request)
        return (
            dict.fromkeys(posted, self.cleansed_substitute) if self.is_active(request) else posted
        )

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: FrameType
    ) -> ItemsView[str, Any]:
        """Return the names of a frame's variables, without the values."""
        if not self.is_active(request):
            return super().get_traceback_frame_variables(request, tb_frame)
        return dict.fromkeys(tb_frame.f_locals, self.cleansed_substitute).items()
