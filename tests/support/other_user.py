"""Programs as a person starts them who is not root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tidemill.config import PREFIX

NOBODY = 65534
_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
# It owns nothing and writes nothing of root's. It reads what root reads: the checkout or its interpreter may be below
# root's home, which is no matter of the test.
_READS_ALL = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
_DAC_READ_SEARCH = 1 << 2
"""The capability's bit, see capabilities(7)."""


@dataclass(frozen=True)
class OtherUser:
    """An ordinary user: where the tests run as root another one, else the one that runs them."""

    uid: int
    home: Path
    """Only this user may enter it."""
    prefix: tuple[str, ...]
    """Words before a command line that run it as this user."""

    def environment(self, environment: dict[str, str], **settings: object) -> dict[str, str]:
        """An environment in which home and temporary files are the user's, with some settings replaced."""
        replaced = {PREFIX + name.upper(): str(value) for name, value in settings.items()}
        return environment | {"HOME": str(self.home), "TMPDIR": str(self.home)} | replaced


def _may_give_it() -> bool:
    """Whether this root has the capability; that of a container has not."""
    status = Path("/proc/self/status").read_text().splitlines()
    return any(line.startswith("CapEff:") and int(line.split()[1], 16) & _DAC_READ_SEARCH for line in status)


@contextmanager
def other_user() -> Iterator[OtherUser]:
    """A user with a home that is removed afterwards."""
    # Not below pytest's folders, which their owner alone may enter.
    home = Path(tempfile.mkdtemp(prefix="tidemill-user-"))
    try:
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
            yield OtherUser(NOBODY, home, (*_AS_NOBODY, *(_READS_ALL if _may_give_it() else ()), "--"))
        else:
            yield OtherUser(os.geteuid(), home, ())
    finally:
        shutil.rmtree(home)
