"""A platform of its own for a script, and a small client of its REST API. Standard library only."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXECUTABLES = ROOT / "target" / "release"
PLUGINS = ROOT / "target" / "plugins" / "wasm32-wasip2" / "release"

# A cold start opens a database and a port: seconds at most, even on a busy machine.
START_SECONDS = 30
# Draining a worker takes about one frame.
STOP_SECONDS = 20
# A request answers in milliseconds; an upload is judged by a child process within seconds.
REQUEST_SECONDS = 60
# Longer than any start of a worker, and than its restart after a crash.
STALL_SECONDS = 60
POLL_SECONDS = 0.1
ENDED = ("completed", "failed", "stopped")


class Failure(Exception):
    """Something the user must read; the message is complete."""


class Platform:
    """`framehook up`, or one role of it, on a fresh folder and a free port, for the length of a `with` block."""

    def __init__(self, folder, *arguments, role="up", environment=None, launcher=()):
        self.data, self.log = folder / "data", folder / "framehook.log"
        self.role, self.arguments, self.environment = role, arguments, {**os.environ, **(environment or {})}
        # What stands before the executable in its command, and becomes it.
        self.launcher = launcher
        self.process, self.url = None, None

    def __enter__(self):
        executable = EXECUTABLES / "framehook"
        if not executable.exists():
            raise Failure(f"{shown(executable)} is missing; run `make build` first")
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.parent.mkdir(parents=True, exist_ok=True)
        command = [*self.launcher, executable, self.role, "--data", self.data, "--port", "0", *self.arguments]
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches this script, which then stops the platform in order.
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.environment, start_new_session=True)
        try:
            self.url = self._wait_for_url()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _wait_for_url(self):
        file, deadline = self.data / "url", time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failure(f"framehook {self.role} ended with code {self.process.returncode}:\n{self.last_lines()}")
            if file.exists() and (url := file.read_text().strip()):
                return url.rstrip("/")
            time.sleep(0.02)
        raise Failure(f"framehook {self.role} wrote no {file.name} within {START_SECONDS} s:\n{self.last_lines()}")

    def stop(self):
        """In order if possible; the process is gone in any case."""
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
                self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"framehook {self.role} did not stop within {STOP_SECONDS} s and was killed; see {shown(self.log)}")
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def last_lines(self, count=20):
        """The end of the log, for messages."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    # --- REST ---------------------------------------------------------------------------------

    def request(self, method, path, body=None, headers=None):
        """The open answer to a request."""
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers or {})
        try:
            return urllib.request.urlopen(request, timeout=REQUEST_SECONDS)
        except urllib.error.HTTPError as error:
            with error:
                raise Failure(f"{method} {path}: {explain(error)}") from None
        except OSError as error:
            raise Failure(f"{method} {path}: {error}; the platform's log is {shown(self.log)}") from None

    def json(self, method, path, value=None):
        """Sends and receives JSON."""
        body = None if value is None else json.dumps(value).encode()
        with self.request(method, path, body, {"Content-Type": "application/json"}) as answer:
            return json.load(answer)

    def upload(self, kind, file, **query):
        """Uploads a file as a `model`, `video` or `plugin`; gives `name@version`."""
        if not file.exists():
            raise Failure(f"{shown(file)} is missing; run `make build` first")
        path = f"/{kind}?{urllib.parse.urlencode(query)}" if query else f"/{kind}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
        with file.open("rb") as body, self.request("POST", path, body, headers) as answer:
            view = json.load(answer)
        return f"{view['name']}@{view['version']}"

    def upload_plugin(self, name):
        """Uploads a stock plugin."""
        return self.upload("plugin", PLUGINS / f"{name.replace('-', '_')}.wasm")

    def follow(self, scenario_id, report=lambda view: None, poll_seconds=POLL_SECONDS):
        """Calls `report` with the scenario again and again until it has ended; gives its last view."""
        last, deadline = None, time.monotonic() + STALL_SECONDS
        while True:
            view = self.json("GET", f"/scenario/{scenario_id}")
            report(view)
            if view["state"] in ENDED:
                return view
            now = (view["state"], view["progress"]["frames"])
            if now != last:
                last, deadline = now, time.monotonic() + STALL_SECONDS
            elif time.monotonic() > deadline:
                raise Failure(f"the scenario is {describe(view)} and made no progress for {STALL_SECONDS} s;"
                              f" see {shown(self.log)}")
            time.sleep(poll_seconds)

    def predictions(self, scenario_id, file):
        """Streams all predictions of a scenario into a file of JSON lines, and gives them."""
        headers = {"Accept": "application/x-ndjson"}
        with self.request("GET", f"/prediction/{scenario_id}", headers=headers) as answer, file.open("wb") as out:
            shutil.copyfileobj(answer, out)
        with file.open() as lines:
            return [json.loads(line) for line in lines]


def explain(error):
    """An HTTP error in words: the problem document, if there is one (RFC 9457)."""
    try:
        problem = json.load(error)
        field = f" (field `{problem['field']}`)" if problem.get("field") else ""
        return f"{error.code} {problem['code']}: {problem.get('detail') or problem['title']}{field}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{error.code} {error.reason}"


def describe(view):
    """A scenario's state with its reason."""
    reason = view.get("reason")
    return f"{view['state']} ({reason['code']}: {reason['message']})" if reason else view["state"]


def worker(*arguments):
    """Runs `framehook-worker` to its end; gives what it printed."""
    environment = {"FRAMEHOOK_ONNXRUNTIME": str(EXECUTABLES / "libonnxruntime.so"), **os.environ}
    run = subprocess.run([EXECUTABLES / "framehook-worker", *arguments], env=environment, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise Failure(f"framehook-worker {arguments[0]} failed: {run.stderr.strip()}")
    return run.stdout


def shown(path):
    """A path as a person at the project's folder would write it."""
    path = pathlib.Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
