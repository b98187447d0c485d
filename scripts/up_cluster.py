"""A cluster on this machine, to play with: `make up-cluster`.

PostgreSQL, Kafka, Redis, two APIs, two orchestrators, two runners and a balancer in front, all on 127.0.0.1. Runs
until Ctrl-C; what it keeps is in `framehook-cluster/`, and the next start goes on with it. What ends meanwhile is started
again, as a service manager would, only later, so that one sees how the others go on without it. No process outlives
this one, however it ends: the kernel sees to that.
"""

import argparse
import base64
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from framehook import EXECUTABLES, ROOT, Failure, shown

DEFAULT_PORT = 8080
# Below those that Linux gives to outgoing connections: while a server is down, no connection takes its port.
SERVER_PORTS = range(16384, 32768)
# The first start makes a database and a log; a busy machine takes some times as long as an idle one.
START_SECONDS = 90
# A runner drains its workers for some seconds; Kafka closes its log.
STOP_SECONDS = 40
# Past the leases, 5 s of a leader and 10 s of a runner: what it had is elsewhere by then.
RESTART_SECONDS = 15
# A probe asks the database and the broker, which have two seconds.
PROBE_SECONDS = 3
POLL_SECONDS = 0.1
PR_SET_PDEATHSIG = 1
# Of the key that seals credentials of sources.
KEY_BYTES = 32
# Of a database server that was killed a moment ago: its last processes still hold its memory.
NOT_YET = "is still in use"

libc = ctypes.CDLL(None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "framehook-cluster",
                        help="where all of it keeps its data [default: framehook-cluster]")
    parser.add_argument("--port", type=int, help=f"of the balancer [default: {DEFAULT_PORT}, or a free one]")
    arguments = parser.parse_args()
    # Ctrl-C too: who starts this in the background may have told it to ignore that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        folder = arguments.folder.resolve()
        with alone(folder), Cluster(folder, balancer_port(arguments.port)) as cluster:
            cluster.start()
            cluster.tell()
            cluster.watch()
    except Failure as failure:
        sys.exit(f"up-cluster: {failure}")
    except KeyboardInterrupt:
        pass


def interrupt(*_):
    raise KeyboardInterrupt


class Process:
    """One process of the cluster, in a session of its own: Ctrl-C reaches this script alone."""

    def __init__(self, name, command, log, where, stop_signal=signal.SIGTERM):
        self.name, self.command, self.log, self.where = name, [str(word) for word in command], log, where
        self.stop_signal, self.popen, self.starts_at, self.log_begin = stop_signal, None, None, 0

    def start(self, environment):
        self.starts_at = None
        with self.log.open("ab") as log:
            self.log_begin = log.tell()
            self.popen = subprocess.Popen(self.command, cwd=ROOT, env={**os.environ, **environment}, stdout=log,
                                          stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                                          preexec_fn=die_with_parent)

    def has_ended(self):
        return self.popen.poll() is not None

    def said(self, text):
        """In this life; the log holds those before, too."""
        with self.log.open("rb") as log:
            log.seek(self.log_begin)
            return text in log.read().decode(errors="replace")

    def is_ready(self):
        return self.readiness() is not None

    def readiness(self):
        """What /readyz says, if it is."""
        try:
            with urllib.request.urlopen(self.where + "/readyz", timeout=PROBE_SECONDS) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError):
            return None

    def end(self):
        """How it ended, in words."""
        code = self.popen.returncode
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"{self.name} (process {self.popen.pid}) {how}; its log is {shown(self.log)}"


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Cluster:
    """Everything; leaving the `with` block stops it."""

    def __init__(self, folder, port):
        for executable in (EXECUTABLES / name for name in ("framehook", "framehook-worker", "framehook-worker-opencv")):
            if not executable.exists():
                raise Failure(f"{shown(executable)} is missing; run `make build` first")
        haproxy = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not haproxy:
            raise Failure("HAProxy is missing; run scripts/setup.sh --tests first")

        self.folder = folder
        (folder / "log").mkdir(exist_ok=True)
        postgres, kafka, controller, redis, *roles = free_ports(10)
        database, brokers = f"postgres://postgres@127.0.0.1:{postgres}/postgres", f"127.0.0.1:{kafka}"
        self.postgres = self.process("postgres", ["scripts/postgres.sh", shown(folder / "postgres"), postgres],
                                     database, signal.SIGINT)
        self.kafka = self.process("kafka", ["scripts/kafka.sh", shown(folder / "kafka"), kafka, controller], brokers)
        self.redis = self.process("redis", ["scripts/redis.sh", redis], f"redis://127.0.0.1:{redis}")
        names = [f"{role}-{number}" for role in ("api", "orchestrator", "runner") for number in (1, 2)]
        self.roles = [self.role(name, port) for name, port in zip(names, roles)]
        self.balancer = self.process("balancer", [haproxy, "-db", "-f", "deploy/haproxy.cfg"],
                                     f"http://127.0.0.1:{port}")
        self.all = [self.balancer, *self.roles, self.redis, self.kafka, self.postgres]
        # What every process is told, and `env` for more of them.
        self.environment = {
            "DATABASE_URL": database,
            "KAFKA_BROKERS": brokers,
            "REDIS_URL": self.redis.where,
            "FRAMEHOOK_BLOBS": f"file://{folder}/blobs",
            "FRAMEHOOK_KEY_FILE": str(key_file(folder)),
            "FRAMEHOOK_LISTEN": f"127.0.0.1:{port}",
            "FRAMEHOOK_API_1": self.roles[0].where.removeprefix("http://"),
            "FRAMEHOOK_API_2": self.roles[1].where.removeprefix("http://"),
        }
        lines = [f"export {key}={shlex.quote(value)}\n" for key, value in self.environment.items()]
        (folder / "env").write_text("".join(lines))

    def process(self, name, command, where, stop_signal=signal.SIGTERM):
        return Process(name, command, self.folder / "log" / f"{name}.log", where, stop_signal)

    def role(self, name, port):
        role = name.split("-")[0]
        command = [shown(EXECUTABLES / "framehook"), role, "--data", shown(self.folder / name), "--port", port]
        return self.process(name, [*command, *(["--runner-id", name] if role == "runner" else [])],
                            f"http://127.0.0.1:{port}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # --- start ---------------------------------------------------------------------------------

    def start(self):
        say("starting PostgreSQL, Kafka and Redis")
        self.start_all([self.postgres, self.kafka, self.redis])
        self.wait(self.postgres, lambda: self.postgres.said("ready to accept connections"))
        self.wait(self.kafka, lambda: self.kafka.said("Kafka Server started"))
        self.wait(self.redis, lambda: self.redis.said("Ready to accept connections"))
        say("starting two APIs, two orchestrators, two runners")
        self.start_all(self.roles)
        for process in self.roles:
            self.wait(process, process.is_ready)
        say("starting the balancer")
        self.start_all([self.balancer])
        # Before the leader has heard of both runners, everything that is posted would go to one of them.
        self.wait(self.balancer, lambda: (self.balancer.readiness() or {}).get("runners_alive") == 2)

    def start_all(self, processes):
        for process in processes:
            process.start(self.environment)

    def wait(self, process, is_up):
        deadline = time.monotonic() + START_SECONDS
        while not is_up():
            if process.has_ended() and process.said(NOT_YET):
                process.start(self.environment)
            elif process.has_ended():
                raise Failure(f"{process.end()} and says:\n{last_lines(process.log)}")
            if time.monotonic() > deadline:
                raise Failure(f"{process.name} is not ready after {START_SECONDS} s; its log is {shown(process.log)}"
                              f" and says:\n{last_lines(process.log)}")
            time.sleep(POLL_SECONDS)

    # --- while it runs -------------------------------------------------------------------------

    def tell(self):
        """Where everything is, and what to do first."""
        print()
        for process in self.all:
            row(process.name, process.where, process.popen.pid, shown(process.log))
        row("blobs", shown(self.folder / "blobs"))
        url, executable, folder = self.balancer.where, shown(EXECUTABLES / "framehook"), shown(self.folder)
        print(f"""
    Two runners should answer here; README.md goes on from that, with api={url}:
        curl {url}/runner
    A third runner, in another terminal (it is yours to stop):
        . {folder}/env
        {executable} runner --data {folder}/runner-3 --runner-id runner-3 --port 0
    Ctrl-C stops everything; its data stays in {folder}/.
""", flush=True)

    def watch(self):
        """Tells of every process that ends, and starts it again; meanwhile the others go on without it."""
        while True:
            for process in self.all:
                if process.has_ended() and process.starts_at is None:
                    process.starts_at = time.monotonic() + RESTART_SECONDS
                    say(f"{process.end()}; it is started again in {RESTART_SECONDS} s")
                elif process.has_ended() and time.monotonic() > process.starts_at:
                    process.start(self.environment)
                    say(f"{process.name} runs again, as process {process.popen.pid}")
            time.sleep(POLL_SECONDS)

    # --- stop ----------------------------------------------------------------------------------

    def stop(self):
        """Who calls, before who is called: so that the last words of each are still heard."""
        try:
            for processes in ([self.balancer], self.roles[4:], self.roles[:4], [self.redis, self.kafka], [self.postgres]):
                stop_all([process for process in processes if process.popen and not process.has_ended()])
        except KeyboardInterrupt:
            say("killing what is left; the next start goes on where this one ended")
        finally:
            for process in self.all:
                if process.popen and not process.has_ended():
                    process.popen.kill()
                    process.popen.wait()


def stop_all(processes):
    if processes:
        say(f"stopping {', '.join(process.name for process in processes)}")
    for process in processes:
        process.popen.send_signal(process.stop_signal)
    for process in processes:
        try:
            process.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"{process.name} did not stop within {STOP_SECONDS} s and is killed; its log is {shown(process.log)}")
            process.popen.kill()
            process.popen.wait()


# --- this machine --------------------------------------------------------------------------------

@contextlib.contextmanager
def alone(folder):
    """One cluster a folder; the lock ends with the process that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        lock.seek(0)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(f"a cluster runs on {shown(folder)} already, as process {lock.read() or '?'};"
                          " stop that one with Ctrl-C, or run scripts/up_cluster.py with another --folder") from None
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def key_file(folder):
    """The platform's key, made at the first start; nobody else may read it."""
    path = folder / "key"
    if not path.exists():
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)))
    return path


def balancer_port(wanted):
    """The one that was asked for; by default the usual one, or else any."""
    with socket.socket() as probe:
        # A connection of an earlier run that is still being closed is nobody who listens.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT if wanted is None else wanted))
        except OSError as error:
            if wanted is not None:
                raise Failure(f"cannot listen on port {wanted}: {error.strerror}; choose another with --port,"
                              " or 0 for a free one") from None
            say(f"port {DEFAULT_PORT} is taken; the balancer gets a free one")
            return free_ports(1)[0]
        return probe.getsockname()[1]


def free_ports(count):
    """Different ports that nobody listened on a moment ago."""
    with contextlib.ExitStack() as sockets:
        ports = []
        for port in random.sample(SERVER_PORTS, len(SERVER_PORTS)):
            with contextlib.suppress(OSError):
                sockets.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise Failure(f"no {count} ports from {SERVER_PORTS[0]} to {SERVER_PORTS[-1]} are free")


def last_lines(log, count=15):
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def row(name, where, process="", log=""):
    print(f"    {name:16}{where:52}{process:<10}{log}".rstrip(), flush=True)


def say(text):
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    main()
