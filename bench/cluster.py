"""A PostgreSQL server, a Kafka broker, and roles of Framehook on them, for the length of a `with` block."""

import asyncio
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import asyncpg
from framehook import ROOT, Failure, Platform

# A first start makes a cluster and a log; on a busy machine that takes its time.
START_SECONDS = 60
STOP_SECONDS = 30


class Cluster:
    """Servers on fresh folders and free ports; `start` adds a role."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="framehook-bench-"))
        # PostgreSQL runs as a user of its own when this is root.
        self.folder.chmod(0o755)
        self.servers, self.roles = [], []

    def __enter__(self):
        try:
            postgres, kafka, controller = free_port(), free_port(), free_port()
            self._serve("postgres", signal.SIGINT, postgres)
            self._serve("kafka", signal.SIGTERM, kafka, controller)
            self._wait("postgres", "database system is ready to accept connections")
            self._wait("kafka", "Kafka Server started")
            self.database, self.brokers = f"postgres://postgres@127.0.0.1:{postgres}/postgres", f"127.0.0.1:{kafka}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # Those that speak to others first.
        for role in reversed(self.roles):
            role.stop()
        for _, process, how in reversed(self.servers):
            process.send_signal(how)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _serve(self, name, how_to_stop, *arguments):
        command = [ROOT / "scripts" / f"{name}.sh", self.folder / name, *map(str, arguments)]
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True)
        self.servers.append((name, process, how_to_stop))

    def _wait(self, name, sentence):
        log, deadline = self.folder / f"{name}.log", time.monotonic() + START_SECONDS
        process = next(process for known, process, _ in self.servers if known == name)
        while sentence not in (said := log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"scripts/{name}.sh did not start:\n{said[-2000:]}")
            time.sleep(0.05)

    def start(self, role, name=None):
        """A role that is ready; `stop` ends it."""
        name = name or role
        environment = {"DATABASE_URL": self.database, "KAFKA_BROKERS": self.brokers,
                       "FRAMEHOOK_BLOBS": f"file://{self.folder}/blobs", "FRAMEHOOK_RUNNER_ID": name}
        process = Platform(self.folder / name, role=role, environment=environment)
        self.roles.append(process)
        process.__enter__()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with process.request("GET", "/readyz"):
                    return process
            except Failure:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self, role):
        role.stop()
        self.roles.remove(role)

    def sql(self, call):
        """Runs an async function on a connection to the database."""
        async def run():
            connection = await asyncpg.connect(self.database)
            try:
                return await call(connection)
            finally:
                await connection.close()
        return asyncio.run(run())


def free_port():
    """One that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def quantile(values, share):
    """The smallest value that at least this share of all is not above."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 1).__int__() - 1)]
