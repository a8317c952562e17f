"""What the tests of searches share."""

from __future__ import annotations

from typing import Any

from kit.search.study import Study
from kit.search.trials import Method, Trial


def ask(study: Study, method: Method, **settings: Any) -> Trial:
    """The next trial, where there must be one."""
    trial = study.ask(method, **settings)
    assert trial is not None
    return trial
