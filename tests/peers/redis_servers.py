"""Redis servers of the tests' own, on free ports of loopback."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time

import redis

PASSWORD = "MARKED-PASSWORD"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Server:
    """A redis-server, whose process can be killed, stopped and started again."""

    def __init__(self, folder, *options, port=None):
        self.port = port or free_port()
        self.address = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._command = [*command, "--requirepass", PASSWORD, *map(str, options)]
        self.client = redis.Redis(port=self.port, password=PASSWORD)
        self.start()

    def start(self):
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        while not self._answers():
            assert self.process.poll() is None
            time.sleep(0.02)  # until the server listens

    def _answers(self):
        with contextlib.suppress(redis.ConnectionError):
            return self.client.ping()
        return False

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.client.connection_pool.disconnect()

    def entry(self):
        """The one key that holds a token."""
        [key] = [key for key in self.client.scan_iter() if not key.endswith(b":lock")]
        return key

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.client.close()
