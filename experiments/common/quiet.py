"""Orbax without the noise of failures that it raises as well."""

import asyncio
from collections.abc import Iterator
import contextlib
import logging


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Keeps Orbax from printing, with tracebacks, what it raises too.

  Orbax logs an error that it raises. And where one file of several cannot be
  written it closes its event loop before the others are; each of them then
  prints from its own thread, at any later time, that the loop is closed. Loops
  that are made inside this context do not mind.
  """
  logger = logging.getLogger('absl')
  level = logger.level
  policy = asyncio.get_event_loop_policy()
  logger.setLevel(logging.CRITICAL + 1)
  asyncio.set_event_loop_policy(_Policy())
  try:
    yield
  finally:
    asyncio.set_event_loop_policy(policy)
    logger.setLevel(level)


class _Loop(asyncio.SelectorEventLoop):
  """A loop that ignores what reaches it when it is closed."""

  def call_soon_threadsafe(self, callback, *args, context=None):
    """Schedules a call from another thread; None if the loop is closed."""
    if self.is_closed():
      return None
    return super().call_soon_threadsafe(callback, *args, context=context)

  def call_exception_handler(self, context):
    """Reports a failure, such as a task that was never awaited."""
    if not self.is_closed():
      super().call_exception_handler(context)


class _Policy(asyncio.DefaultEventLoopPolicy):
  _loop_factory = _Loop
