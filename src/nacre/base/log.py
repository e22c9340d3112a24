"""Logging: structured lines on standard error, with secrets masked by key wherever they appear."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

#: Keys whose values never reach a log, at any depth.
SECRET_KEYS = frozenset({
    "password", "adminpass", "admin_password", "original_password", "admin_pass", "secret", "token", "x-auth-token",
    "x-subject-token", "private_key", "user_data", "personality", "key_data", "authorization", "blob",
    "seal_key",
})
MASK = "***"


def mask(value: Any, key: str = "") -> Any:
    """`value` with every secret in it replaced. Dicts, lists and tuples are copied; other values pass unchanged."""
    if key.lower() in SECRET_KEYS:
        return MASK
    if isinstance(value, dict):
        return {k: mask(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [mask(v) for v in value]
    return value


def _mask_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {k: mask(v, k) for k, v in event.items()}


def configure(level: str = "INFO", *, json: bool = False) -> None:
    """Set up logging of this process, once. level: a name of `logging`; json: one object a line."""
    renderer: Any = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _mask_event,
                    structlog.processors.TimeStamper(fmt="iso"), structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr), cache_logger_on_first_use=True)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
