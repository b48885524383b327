"""The demo: both logins, the warehouse and the cache, against a sandbox."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from carto_auth import CartoAuth, CredentialsError, __version__
from carto_auth._login import browser, place
from carto_auth.sandbox import CartoSandbox

#: What the demo asks of the warehouse.
QUERY = """SELECT name, country, population
FROM `carto-demo-data.demo_tables.world_cities`
ORDER BY population DESC
LIMIT 5"""

#: A second program, which may not ask anybody to log in.
SECOND_PROGRAM = """
from carto_auth import CartoAuth
auth = CartoAuth.from_oauth(interactive=False)
print(auth.get_access_token())
"""

#: How the programs that the demo starts begin. With -I, Python finds none of the modules that lie in the current
#: folder; nor those in PYTHONPATH and in the user's own site-packages, where this package may be.
IMPORTS = "import sys\nsys.path += [path for path in {path!r} if path not in sys.path]\n"

#: The person at the sandbox's login.
PERSON = "from carto_auth.sandbox import walker\nsys.exit(walker.main())\n"

#: Seconds that the second program may take.
SECOND_PROGRAM_SECONDS = 60


class DemoFailed(Exception):
    """A step did not do what it announced."""


def run(say: Callable[[str], None] = print) -> int:
    """Run the demo, talking by ``say``; 0 if each step did what it announced, else 1."""
    try:
        with tempfile.TemporaryDirectory(prefix="carto-auth-demo-") as folder, CartoSandbox() as sandbox:
            _Demo(sandbox, Path(folder), say).run()
    except (CredentialsError, DemoFailed) as error:
        say(f"\nThe demo failed: {error}")
        return 1
    return 0


class _Demo:
    def __init__(self, sandbox: CartoSandbox, folder: Path, say: Callable[[str], None]) -> None:
        self.sandbox = sandbox
        self.home = folder / ".carto-auth"
        self.folder = folder
        self._say = say
        self._step = 0

    def run(self) -> None:
        self._say(f"carto-auth {__version__}: the main job, on a CARTO sandbox\n")
        self._say(f"A sandbox is listening at {self.sandbox.url}; nothing leaves this computer.")
        before = dict(os.environ)
        # The demo must not see your own tokens, nor a proxy or a CARTO that your environment names.
        os.environ.update(self.sandbox.environment() | {"CARTO_AUTH_HOME": str(self.home)})
        try:
            self.application()
            auth = self.person()
            self.warehouse(auth)
            self.cache(auth)
            self.second_start(auth)
        finally:
            os.environ.clear()
            os.environ.update(before)
        self._say("\nAll of it worked. The sandbox and its tokens are gone now.")

    def application(self) -> None:
        file = self.sandbox.credentials_file(self.folder)
        self._title("A job logs in with its credentials file", f'CartoAuth.from_m2m("{file.name}")')
        auth = CartoAuth.from_m2m(file)
        self._tell("access token", _masked(auth.get_access_token()))
        self._tell("API base URL", auth.get_api_base_url())
        self._require(auth.get_api_base_url() == self.sandbox.url, "the API base URL is not the sandbox's")
        self._require(self._token_requests() == 1, "the token did not take exactly one request")

    def person(self) -> CartoAuth:
        self._title("A person logs in", "CartoAuth.from_oauth()")
        if _person_can_click():
            self._say("   Your browser opens now; any password will do.")
        else:
            # Quoted: the webbrowser module splits the variable as a shell does.
            os.environ["BROWSER"] = f"{shlex.join(self._program('person.py', PERSON))} %s"
            self._say("   There is no browser here in which you could click, so a small HTTP client fills in")
            self._say("   the login and consent forms, and calls back as a browser would.")
        auth = CartoAuth.from_oauth(interactive=True)
        self._tell("access token", _masked(auth.get_access_token()))
        self._tell("API base URL", auth.get_api_base_url())
        self._require(self.sandbox.count("/accounts") == 1, "the accounts API was not asked for the API base URL")
        return auth

    def warehouse(self, auth: CartoAuth) -> None:
        self._title("The CARTO Data Warehouse", "auth.get_carto_dw_credentials()")
        project_id, token = auth.get_carto_dw_credentials()
        self._tell("project", project_id)
        self._tell("token", _masked(token))
        self._title("A BigQuery query", "auth.get_carto_dw_client().query(...)")
        self._say("\n".join(f"   {line}" for line in QUERY.splitlines()) + "\n")
        client = auth.get_carto_dw_client()
        try:
            rows = list(client.query(QUERY).result())
        finally:
            client.close()  # type: ignore[no-untyped-call]
        self._require(len(rows) == 5, f"the query gave {len(rows)} rows instead of 5")
        for row in rows:
            self._say(f"   {row['name']:<16}{row['country']:<16}{row['population']:>12,}")

    def cache(self, auth: CartoAuth) -> None:
        self._title("Where the tokens are kept", "for your user only; here in a temporary folder")
        for file in sorted(self.home.glob("token_*.json")):
            mode = file.stat().st_mode & 0o777
            self._tell(file.name, f"{mode:o}  {file.stat().st_size} bytes  in {self.home}")
            self._require(os.name != "posix" or mode == 0o600, f"{file.name} can be read by others")
        self._require((self.home / "token_oauth.json").exists(), "the login was not kept")

    def second_start(self, auth: CartoAuth) -> None:
        self._title("A second program", "CartoAuth.from_oauth(), in a new process that must not ask anybody")
        requests, began = len(self.sandbox.requests), time.perf_counter()
        second = subprocess.run(  # noqa: S603 - our own interpreter and text
            self._program("second.py", SECOND_PROGRAM),
            capture_output=True,
            text=True,
            errors="replace",
            cwd=self.folder,
            timeout=SECOND_PROGRAM_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - began
        self._require(second.returncode == 0, f"it failed: {second.stderr.strip()[-300:]}")
        self._require(second.stdout.strip() == auth.get_access_token(), "it has another token")
        self._require(len(self.sandbox.requests) == requests, "it sent a request")
        self._say(f"   The same token, without a login and without a request, in {seconds * 1000:.0f} ms.")

    def _program(self, name: str, text: str) -> list[str]:
        """A command that runs a program in the demo's own folder, with this very package and its libraries."""
        here = os.getcwd()
        own = str(Path(__file__).parents[2])
        path = [own, *(folder for folder in sys.path if os.path.isabs(folder) and folder != here)]
        file = self.folder / name
        file.write_text(IMPORTS.format(path=path) + text, encoding="utf-8")
        return [sys.executable, "-I", str(file)]

    def _token_requests(self) -> int:
        return self.sandbox.count("/oauth/token")

    def _title(self, title: str, call: str) -> None:
        self._step += 1
        self._say(f"\n{self._step}. {title}\n   {call}\n")

    def _tell(self, name: str, value: str) -> None:
        self._say(f"   {name:<18}{value}")

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise DemoFailed(f"{otherwise}.")


def _person_can_click() -> bool:
    return place.can_ask() and not os.environ.get("CI") and not place.browser_is_elsewhere() and browser.can_open()


def _masked(token: str) -> str:
    """Enough of a token to see that it is one, and too little to use it."""
    return f"{token[:8]}... ({len(token)} characters)"
