"""carto-auth 0.2.0 and this package, side by side in one run; the table goes to RESULTS.md.

Run it with ``make bench``. Each has an environment of its own, with the same Python; they take turns, so that
what else the machine does hits both; the numbers are medians. A small server on this computer stands for
CARTO's token endpoint and counts. carto-auth 0.2.0 knows no other address than CARTO's, so its ``requests`` is
told the way. Of the nanoseconds, each process tells the least of seven repetitions, as ``timeit`` advises.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent

ROUNDS = 30
PROCESSES_AT_ONCE = 64
THREADS_AT_ONCE = 50
STARTS_AT_ONCE = 40
START_ROUNDS = 5

#: Seconds that a token takes; CARTO's is no quicker.
TOKEN_SECONDS = 0.5

BASE = "https://gcp-us-east1.api.carto.com"
LATER = 4_000_000_000

START = "from carto_auth import CartoAuth; CartoAuth.from_m2m('carto_credentials.json').get_access_token()"

NANOSECONDS = """
import timeit
from carto_auth import CartoAuth
call = CartoAuth.from_m2m('carto_credentials.json').get_access_token
print(min(timeit.repeat(call, number=50_000, repeat=7)) / 50_000 * 1e9)
"""

LEAD_REQUESTS_TO_THE_SERVER = """
import os, requests
original = requests.Session.request
def request(self, method, url, *arguments, **options):
    url = url.replace("https://auth.carto.com", os.environ["CARTO_AUTH_URL"])
    return original(self, method, url, *arguments, **options)
requests.Session.request = request
"""

#: A start that has done its imports, and goes on when it is told.
START_WHEN_TOLD = """
from carto_auth import CartoAuth
print(flush=True)
input()
CartoAuth.from_m2m('carto_credentials.json').get_access_token()
"""

THREADS = f"""
import threading
from concurrent.futures import ThreadPoolExecutor
from carto_auth import CartoAuth
carto = CartoAuth("m2m", "{BASE}", "old", 1, "an-id", "a-secret")
barrier = threading.Barrier({THREADS_AT_ONCE})
def use(_):
    barrier.wait()
    return carto.get_access_token()
with ThreadPoolExecutor({THREADS_AT_ONCE}) as pool:
    list(pool.map(use, range({THREADS_AT_ONCE})))
"""


class TokenServer(ThreadingHTTPServer):
    """A token endpoint that counts."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.count = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _TokenHandler(BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.count += 1
        time.sleep(TOKEN_SECONDS)
        answer = json.dumps({"access_token": "a-token", "token_type": "Bearer", "expires_in": 86400}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        """Nothing: the numbers are what is printed."""


class Contender(NamedTuple):
    """A version of carto-auth in an environment of its own, and a home."""

    python: Path
    folder: Path
    server: TokenServer
    lead: str

    @classmethod
    def prepared(cls, name: str, requirement: str, folder: Path, server: TokenServer, lead: str = "") -> Contender:
        environment = PROJECT / f".venv-bench-{name}"
        python = environment / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        # Ours may have changed since the last run, under the same version.
        again = ["--force-reinstall", "--no-deps"]
        for options in ([], again if requirement == str(PROJECT) else []):
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, requirement]
            subprocess.run(pip, check=True)
        folder = folder / name
        folder.mkdir()
        credentials = {"api_base_url": BASE, "client_id": "an-id", "client_secret": "a-secret"}
        (folder / "carto_credentials.json").write_text(json.dumps(credentials))
        (folder / "carto_credentials.json").chmod(0o600)
        return cls(python, folder, server, lead)

    def keep_a_good_token(self) -> None:
        """Put a token into the default cache, in the form of 0.2.0, which both read."""
        self.keep_no_token()
        cache = self.folder / ".carto-auth" / "token_m2m.json"
        cache.parent.mkdir()
        cache.write_text(json.dumps({"api_base_url": BASE, "access_token": "a-token", "expiration": LATER}))

    def keep_no_token(self) -> None:
        shutil.rmtree(self.folder / ".carto-auth", ignore_errors=True)

    def begin(self, program: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CARTO"))}
        environment |= {"HOME": str(self.folder), "TZ": "UTC"}
        if program != START and program != NANOSECONDS:
            environment["CARTO_AUTH_URL"] = self.server.url
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([self.python, "-c", program], cwd=self.folder, env=environment, text=True, **pipes)

    def run(self, program: str) -> str:
        process = self.begin(program)
        output, _ = process.communicate(timeout=60)
        if process.returncode != 0:
            raise RuntimeError(f"{self.python} failed at: {program}")
        return output

    def cpu_milliseconds(self, program: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.run(program)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000

    def failures_at_once(self, number: int) -> int:
        """How many starts fail of so many that are let go at the same time."""
        processes = [self.begin(self.lead + START_WHEN_TOLD) for _ in range(number)]
        for process in processes:
            process.stdout.readline()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            process.communicate(timeout=120)
        return sum(process.returncode != 0 for process in processes)

    def requests_of_processes(self) -> int:
        self.keep_no_token()
        before = self.server.count
        self.failures_at_once(PROCESSES_AT_ONCE)
        return self.server.count - before

    def requests_of_threads(self) -> int:
        before = self.server.count
        self.run(self.lead + THREADS)
        return self.server.count - before

    def failed_share(self) -> float:
        failures = 0
        for _ in range(START_ROUNDS):
            self.keep_a_good_token()
            failures += self.failures_at_once(STARTS_AT_ONCE)
        return failures / (START_ROUNDS * STARTS_AT_ONCE)

    def version(self, package: str) -> str:
        return self.run(f"from importlib.metadata import version; print(version('{package}'))").strip()


def measure(theirs: Contender, ours: Contender) -> list[tuple[str, str, str, str, str]]:
    """The rows of the table: what is measured, theirs, ours, the ratio, the goal."""
    contenders = (theirs, ours)
    for contender in contenders:
        contender.keep_a_good_token()
        contender.run(START)  # what is done once, such as reading files from the disk, is not measured
    spent: dict[tuple[Contender, str], list[float]] = {(c, p): [] for c in contenders for p in ("pass", START)}
    calls: dict[Contender, list[float]] = {contender: [] for contender in contenders}
    for number in range(ROUNDS):
        for (contender, program), times in spent.items():
            times.append(contender.cpu_milliseconds(program))
        if number % 2 == 0:
            for contender in contenders:
                calls[contender].append(float(contender.run(NANOSECONDS)))
    median = {key: statistics.median(times) for key, times in spent.items()}
    start = {contender: median[contender, START] - median[contender, "pass"] for contender in contenders}
    call = {contender: statistics.median(times) for contender, times in calls.items()}

    def row(what: str, goal: str, kind: str, values: dict[Contender, float], ratio: bool) -> tuple[str, ...]:
        times_less = f"{values[theirs] / values[ours]:.1f} times less" if ratio else ""
        return (what, format(values[theirs], kind), format(values[ours], kind), times_less, goal)

    of_processes = {contender: contender.requests_of_processes() for contender in contenders}
    of_threads = {contender: contender.requests_of_threads() for contender in contenders}
    failed = {contender: contender.failed_share() for contender in contenders}
    bare = median[ours, "pass"]
    return [
        row(
            f"CPU of a cached M2M start, over the {bare:.0f} ms of a bare interpreter (ms)",
            "7 times less",
            ".1f",
            start,
            True,
        ),
        row("`get_access_token()` on a good token (ns)", "3 times less", ".0f", call, True),
        row(f"token requests of {PROCESSES_AT_ONCE} cold processes", "1", "d", of_processes, False),
        row(f"token requests of {THREADS_AT_ONCE} threads at expiry", "1", "d", of_threads, False),
        row(f"failed starts, {STARTS_AT_ONCE} at once with a valid cache", "0 %", ".0%", failed, False),
    ]


def report(rows: list[tuple[str, ...]], theirs: Contender, ours: Contender) -> str:
    """The text of RESULTS.md."""
    system = platform.system()
    with suppress(OSError, KeyError):
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    lines = [
        "# carto-auth 0.2.0 and this package, side by side",
        "",
        "Made by `make bench`; `bench.py` says what is measured, and how.",
        "",
        f"- {os.cpu_count()} CPUs ({platform.machine()}), {system}",
        f"- {platform.python_implementation()} {platform.python_version()}",
    ]
    for name, contender in (("theirs", theirs), ("ours", ours)):
        packages = [f"{package} {contender.version(package)}" for package in ("carto-auth", "requests")]
        lines.append(f"- {name}: {', '.join(packages)}")
    lines += ["", "| | 0.2.0 | ours | | goal |", "|---|---:|---:|---|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    server = TokenServer()
    with tempfile.TemporaryDirectory() as folder:
        lead = LEAD_REQUESTS_TO_THE_SERVER
        theirs = Contender.prepared("theirs", "carto-auth==0.2.0", Path(folder), server, lead)
        ours = Contender.prepared("ours", str(PROJECT), Path(folder), server)
        text = report(measure(theirs, ours), theirs, ours)
    (HERE / "RESULTS.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
