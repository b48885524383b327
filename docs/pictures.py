"""Make the documents' pictures, with Chromium and a sandbox. Run: make pictures"""

from __future__ import annotations

import html
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pydeck
from jupyter_client.manager import start_new_kernel
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from carto_auth.pkce import CartoPKCE
from carto_auth.sandbox import CartoSandbox
from carto_auth.sandbox.sample import WORLD_CITIES

PICTURES = Path(__file__).parent / "pictures"
WALKER = f"{shlex.quote(sys.executable)} -m carto_auth.sandbox.walker %s"

#: Seconds for a page.
PATIENCE = 60

STYLE = """<style>
body { margin: 0; padding: 24px; background: #fff; color: #24292f; font: 15px/1.5 "DejaVu Sans", sans-serif }
pre { margin: 0; font: 14px/1.6 "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere }
.window { background: #1b2330; color: #e6edf3; border-radius: 8px; padding: 20px 24px }
.cell { border: 1px solid #d0d7de; border-left: 4px solid #2f7fd1; padding: 10px 14px; background: #f6f8fa }
.out { padding: 12px 18px; overflow-wrap: anywhere }
</style>"""


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, CartoSandbox() as sandbox:
        os.environ.update(sandbox.environment() | {"CARTO_AUTH_HOME": folder, "BROWSER": WALKER})
        for name in ("CARTO_CLIENT_ID", "CARTO_CLIENT_SECRET"):  # the pictures show a person's login
            del os.environ[name]
        browser = chromium()
        try:
            login(browser, sandbox)
            show(browser, "notebook", notebook(), 800)
            show(browser, "status", terminal("carto-auth", "status"), 960)
            cities(browser, Path(folder) / "map.html")
        finally:
            browser.quit()


def chromium() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    for flag in ("headless=new", "no-sandbox", "hide-scrollbars", "enable-unsafe-swiftshader", "use-gl=angle"):
        options.add_argument(f"--{flag}")
    options.add_argument("--use-angle=swiftshader")
    # Without its path, Selenium would look for one on the network.
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def login(browser: webdriver.Chrome, sandbox: CartoSandbox) -> None:
    """The pages of a login that ends with an access code."""
    browser.set_window_size(760, 760)
    browser.get(CartoPKCE(open_browser=False, services=sandbox.services).get_authorize_url())
    browser.find_element(By.ID, "password").send_keys("any password")
    save(browser, "login")
    for button in ("continue", "allow"):
        old_page = browser.find_element(By.CSS_SELECTOR, f"button[value={button}]")
        old_page.click()
        WebDriverWait(browser, PATIENCE).until(expected_conditions.staleness_of(old_page))
    save(browser, "code")


def notebook() -> str:
    """A login in a notebook, as its kernel shows it: what is shown under a name may be replaced."""
    code = "from carto_auth import CartoAuth\n\nauth = CartoAuth.from_oauth()\nprint(auth.get_api_base_url())"
    shown = {}

    def keep(message: dict[str, Any]) -> None:
        content = message["content"]
        if "data" in content:
            shown[content["transient"]["display_id"]] = content["data"]["text/html"]
        elif "text" in content:
            shown[content["name"]] = f"<pre>{html.escape(content['text'])}</pre>"

    manager, client = start_new_kernel(kernel_name="python3")
    client.execute_interactive(code, allow_stdin=True, timeout=PATIENCE, output_hook=keep)
    manager.shutdown_kernel(now=True)
    client.stop_channels()
    outputs = "".join(f'<div class="out">{output}</div>' for output in shown.values())
    return f'<div class="cell"><pre>{html.escape(code)}</pre></div>{outputs}'


def terminal(*command: str) -> str:
    """A command and what it prints; the folders of this run are left out of it."""
    done = subprocess.run([sys.executable, "-m", "carto_auth", *command[1:]], capture_output=True, text=True)
    text = done.stdout.replace(os.environ["CARTO_AUTH_HOME"], "/home/ana/.carto-auth").replace(
        str(Path.home()), "/home/ana"
    )
    return f'<div class="window"><pre>$ {" ".join(command)}\n{html.escape(text)}</pre></div>'


def cities(browser: webdriver.Chrome, file: Path) -> None:
    """The map of the tutorial. What draws it is part of pydeck, so nothing is loaded from elsewhere."""
    rows = [{"name": n, "longitude": x, "latitude": y, "population": people} for n, _, people, x, y in WORLD_CITIES]
    circles = pydeck.Layer(
        "ScatterplotLayer",
        rows,
        get_position=["longitude", "latitude"],
        get_radius="population / 50",
        get_fill_color=[238, 77, 90, 160],
    )
    names = pydeck.Layer(
        "TextLayer",
        rows,
        get_position=["longitude", "latitude"],
        get_text="name",
        get_size=12,
        get_pixel_offset=[0, 20],
        character_set=pydeck.types.String("auto"),
    )
    view = pydeck.ViewState(longitude=20, latitude=20, zoom=1)
    page = pydeck.Deck([circles, names], initial_view_state=view, map_provider=None)
    file.write_text(page.to_html(as_string=True, offline=True) or "", encoding="utf-8")
    browser.set_window_size(900, 560)
    browser.get(file.as_uri())
    browser.execute_async_script("setTimeout(arguments[0], 6000)")
    save(browser, "map")


def show(browser: webdriver.Chrome, name: str, body: str, width: int) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
        file.write(f"<!doctype html><meta charset=utf-8>{STYLE}<body>{body}")
        file.flush()
        browser.set_window_size(width, 600)
        browser.get(Path(file.name).as_uri())
        browser.find_element(By.TAG_NAME, "body").screenshot(str(PICTURES / f"{name}.png"))


def save(browser: webdriver.Chrome, name: str) -> None:
    browser.save_screenshot(str(PICTURES / f"{name}.png"))


if __name__ == "__main__":
    main()
