"""The cluster for a person to play with: that it starts, tells what happens to it, and leaves nothing behind."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SCRIPTS))
import framehook  # noqa: E402
import up_cluster  # noqa: E402

# Past what the script itself waits for.
DEADLINE = 200


def wait_for(what, condition):
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {DEADLINE} s in vain for {what}")
        time.sleep(0.05)
    return value


def processes_that_name(text):
    """Command lines of all processes of this machine that contain `text`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in command:
                found.append(command)
    return found


class Running(unittest.TestCase):
    def setUp(self):
        # Where the server's own user can reach it.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="cluster-", dir=framehook.EXECUTABLES))
        self.folder.chmod(0o755)
        self.addCleanup(lambda: subprocess.run(["rm", "-rf", self.folder], check=True))

    def start(self, *arguments):
        self.output = self.folder.with_suffix(".log")
        self.addCleanup(self.output.unlink, missing_ok=True)
        with self.output.open("wb") as out:
            script = subprocess.Popen([sys.executable, SCRIPTS / "up_cluster.py", "--folder", self.folder, *arguments],
                                      stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.addCleanup(script.wait)
        self.addCleanup(script.kill)
        return script

    def said(self, pattern, script):
        def look():
            text = self.output.read_text()
            self.assertIsNone(script.poll(), f"it ended:\n{text}")
            return re.search(pattern, text)
        return wait_for(pattern, look)

    def test_it_runs_tells_and_leaves_nothing(self):
        script = self.start("--port", "0")
        self.said("Ctrl-C stops everything", script)
        url = self.said(r"balancer +(\S+)", script)[1]
        with urllib.request.urlopen(url + "/readyz") as answer:
            self.assertIn(b'"runners_alive":2', answer.read())

        second = subprocess.run([sys.executable, SCRIPTS / "up_cluster.py", "--folder", self.folder],
                                capture_output=True, text=True)
        self.assertEqual(second.returncode, 1)
        self.assertIn(f"already, as process {script.pid};", second.stderr)

        pid = int(self.said(r"api-1 +\S+ +(\d+)", script)[1])
        os.kill(pid, signal.SIGKILL)
        self.said(rf"api-1 \(process {pid}\) was ended by SIGKILL; its log is \S+/log/api-1.log", script)
        with urllib.request.urlopen(url + "/readyz") as answer:
            self.assertEqual(answer.status, 200)
        again = int(self.said(r"api-1 runs again, as process (\d+)", script)[1])
        self.assertNotEqual(again, pid)

        script.send_signal(signal.SIGINT)
        self.assertEqual(script.wait(DEADLINE), 0)
        self.assertEqual(processes_that_name(self.folder.name), [])

        # Killed, it takes everything with it, and the next one begins all the same.
        script = self.start("--port", "0")
        self.said("Ctrl-C stops everything", script)
        script.kill()
        script.wait()
        wait_for("its processes to end", lambda: not processes_that_name(self.folder.name))


class Ports(unittest.TestCase):
    def test_a_port_that_was_asked_for_and_is_taken_is_an_error(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with self.assertRaisesRegex(framehook.Failure, f"cannot listen on port {port}.*another with --port"):
                up_cluster.balancer_port(port)

    def test_free_ports_are_different(self):
        self.assertEqual(len(set(up_cluster.free_ports(20))), 20)


if __name__ == "__main__":
    unittest.main()
