"""Debian's Chromium, opened by the library itself and driven by Selenium, through the sandbox's pages."""

import contextlib
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from werkzeug.serving import make_server

from carto_auth import CartoAuth

#: Seconds for a page; the machine may be busy.
PATIENCE = 60

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)

#: Where the screenshots go, to be looked at.
SCREENSHOTS = Path(os.environ.get("CARTO_AUTH_SCREENSHOTS", tempfile.gettempdir()))

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")) and not os.environ.get("CI"),
    reason="Debian: apt install chromium chromium-driver",
)

LOOKS = {"light": ("light", 1100, 760), "dark": ("dark", 1100, 760), "phone": ("light", 360, 740)}
LOOKS |= {"phone-dark": ("dark", 360, 740)}


@pytest.fixture
def debugging_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def python(carto, callback_port, debugging_port, tmp_path, monkeypatch, program, log_in):
    """A program that logs in. Its BROWSER is a Chromium whose command lasts as long as its window."""
    chromium = program(
        "chromium-here",
        f'exec chromium {FLAGS} --remote-debugging-port={debugging_port} --user-data-dir="{tmp_path}/profile" "$@" '
        ">/dev/null 2>&1",
    )
    monkeypatch.setenv("BROWSER", str(chromium))
    monkeypatch.setenv("DISPLAY", ":0")
    process = subprocess.Popen(
        [sys.executable, "-c", log_in("timeout=120")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)


@pytest.fixture
def window(python, debugging_port):
    """The window that the library opened."""
    options = webdriver.ChromeOptions()
    options.debugger_address = f"127.0.0.1:{debugging_port}"
    wait_for_port(debugging_port, open_=True)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        with contextlib.suppress(Exception):
            driver.execute_cdp_cmd("Browser.close", {})
        driver.quit()
        wait_for_port(debugging_port, open_=False)  # it takes its temporary files away


def wait_for_port(port, *, open_):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with socket.socket() as probe:
            if (probe.connect_ex(("127.0.0.1", port)) == 0) is open_:
                return
        time.sleep(0.05)
    raise AssertionError(f"Chromium does not {'start' if open_ else 'end'}: port {port}")


def wait_for_title(window, title):
    WebDriverWait(window, PATIENCE).until(lambda window: window.find_elements(By.TAG_NAME, "h1"))
    WebDriverWait(window, PATIENCE).until(lambda window: title in window.find_element(By.TAG_NAME, "h1").text)


def look(window, name, scheme, width, height):
    """Show the page as that device would; take a picture, and return its background's brightness."""
    window.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    window.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    window.save_screenshot(str(SCREENSHOTS / f"{name}.png"))
    seen = window.execute_script(
        "return [document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('p')).fontSize]"
    )
    assert seen[0] <= width, "the page is wider than the screen"
    assert float(seen[2].removesuffix("px")) >= 16
    red, green, blue = (int(part) for part in seen[1].removeprefix("rgb(").rstrip(")").split(","))
    return (red + green + blue) / 3


def fill_in(window, email="ana@example.com"):
    wait_for_title(window, "Log in to the sandbox")
    window.find_element(By.ID, "email").clear()
    window.find_element(By.ID, "email").send_keys(email)
    window.find_element(By.ID, "password").send_keys("any password")
    window.find_element(By.CSS_SELECTOR, "button[value=continue]").click()
    wait_for_title(window, "wants to access your CARTO account")


def assert_looks(window, page):
    for name, (scheme, width, height) in LOOKS.items():
        brightness = look(window, f"{page}-{name}", scheme, width, height)
        assert (brightness > 200) if scheme == "light" else (brightness < 60)


def test_approve(python, window, carto):
    fill_in(window)
    window.find_element(By.CSS_SELECTOR, "button[value=allow]").click()
    wait_for_title(window, "Back to Python")
    # While the window stays open:
    out, err = python.communicate(timeout=PATIENCE)
    assert (python.returncode, err) == (0, "")
    assert out.splitlines()[-1] == f"API: {carto.url}"
    assert out.index("/authorize?") < out.index("API:")
    assert "code=" in window.current_url
    assert_looks(window, "approved")
    assert not [entry for entry in window.get_log("browser") if "favicon" not in entry["message"]]


def test_cancel(python, window, carto):
    fill_in(window)
    window.find_element(By.CSS_SELECTOR, "button[value=cancel]").click()
    wait_for_title(window, "Not logged in")
    _, err = python.communicate(timeout=PATIENCE)
    assert python.returncode == 1
    assert "LoginDenied: CARTO did not log you in: User did not authorize the request (access_denied). Try again" in err
    assert_looks(window, "cancelled")


def test_a_favicon_and_a_stranger_come_first(python, window, carto):
    fill_in(window)
    consent = window.current_window_handle
    for address in ("http://localhost:10000/favicon.ico", "http://localhost:10000/callback/?code=evil&state=evil"):
        window.switch_to.new_window("tab")
        window.get(address)
        wait_for_title(window, {"f": "Nothing here", "c": "Not this login"}[address[23]])
    assert_looks(window, "stranger")
    window.switch_to.window(consent)
    window.find_element(By.CSS_SELECTOR, "button[value=allow]").click()
    wait_for_title(window, "Back to Python")
    out, _ = python.communicate(timeout=PATIENCE)
    assert out.splitlines()[-1] == f"API: {carto.url}"


def test_the_code_page(carto, window_of_its_own):
    window, pending = window_of_its_own(), CartoAuth.begin_oauth()
    window.get(pending.url)
    fill_in(window)
    window.find_element(By.CSS_SELECTOR, "button[value=allow]").click()
    wait_for_title(window, "Your access code")
    by_code = window.find_element(By.ID, "access_code").get_attribute("value")
    assert by_code in window.current_url
    assert pending.finish(window.current_url).get_api_base_url() == carto.url


@pytest.fixture
def window_of_its_own(tmp_path):
    """Opens windows, each of a browser of its own."""
    with contextlib.ExitStack() as stack:

        def open_one():
            options = webdriver.ChromeOptions()
            options.binary_location = "/usr/bin/chromium"
            for flag in [*FLAGS.split(), f"--user-data-dir={tempfile.mkdtemp(dir=tmp_path)}"]:
                options.add_argument(flag)
            driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
            stack.callback(driver.quit)
            return driver

        yield open_one


@pytest.fixture
def flask_app(carto, monkeypatch):
    """The Flask app of the examples, served, and registered with the sandbox: its address."""
    server = make_server("localhost", 0, None, threaded=True)
    url = f"http://localhost:{server.server_port}"
    monkeypatch.setenv("CALLBACK", f"{url}/login/done")
    monkeypatch.setenv("CARTO_AUTH_CLIENT_ID", carto.add_web_application(f"{url}/login/done"))
    server.app = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "flask_app.py"))["app"]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield url
    server.shutdown()
    thread.join()
    server.server_close()


def text_of(window, address):
    window.get(address)
    return window.find_element(By.TAG_NAME, "p").text


def link_kept_from(window):
    """Where the consent page would lead the browser: with its form sent by somebody else, who keeps the answer."""
    fields = window.find_elements(By.CSS_SELECTOR, "input, button[value=allow]")
    form = {field.get_attribute("name"): field.get_attribute("value") for field in fields}
    cookies = {cookie["name"]: cookie["value"] for cookie in window.get_cookies()}
    answer = requests.post(window.current_url, form, cookies=cookies, allow_redirects=False, timeout=PATIENCE)
    return answer.headers["Location"]


def test_visitors_of_the_flask_app_come_back_by_themselves(flask_app, carto, window_of_its_own):
    ana, bob = window_of_its_own(), window_of_its_own()
    nobody, said = "You are not logged in.", "You are logged in as {}@example.com. The API is at " + carto.url
    assert text_of(ana, flask_app) == nobody
    assert_looks(ana, "flask-begin")
    for window, email in ((bob, "bob@example.com"), (ana, "ana@example.com")):
        window.get(flask_app)
        window.find_element(By.TAG_NAME, "button").click()
        fill_in(window, email)
    link = link_kept_from(ana)
    bob.find_element(By.CSS_SELECTOR, "button[value=allow]").click()
    wait_for_title(bob, "My CARTO account")
    assert (bob.current_url, text_of(bob, flask_app)) == (f"{flask_app}/", said.format("bob"))
    assert text_of(bob, link).startswith("This login was not begun in this browser")
    assert text_of(bob, flask_app) == said.format("bob"), "a link that somebody sends logs nobody in"
    assert text_of(ana, link) == said.format("ana")
    assert_looks(ana, "flask-done")
    bob.find_element(By.TAG_NAME, "button").click()
    assert [text_of(window, flask_app) for window in (bob, ana)] == [nobody, said.format("ana")]
