"""A headless browser, where the machine has one: what a page measures there, and how it looks."""

import json
import re
import shutil
import subprocess
import tempfile
from html import unescape
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
SCHEMES = {"dark": 0, "light": 1}


def found():
    """The path of a browser, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def _run(page, width, height, scheme, *arguments):
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size={width},{height}"
        colours = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
        command = [found(), *FLAGS, f"--user-data-dir={profile}", size, colours, *arguments, Path(page).as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def screenshot(page, picture, *, width=1200, height=1000, scheme="light"):
    _run(page, width, height, scheme, f"--screenshot={picture}")


def measure(page, program, *, width=1200, scheme="light"):
    """What a function in JavaScript, run in the page at a width of the window, returns.

    The page stands in a frame of that width: a window of its own may have a least width.
    """
    text = Path(page).read_text()
    inside = f"<script>addEventListener('load', () => parent.postMessage(JSON.stringify(({program})()), '*'))</script>"
    outside = """<body style="margin: 0"><pre id="found"></pre><script>
        addEventListener('message', event => { document.getElementById('found').textContent = event.data })
        const frame = document.createElement('iframe')
        frame.style = 'border: 0; height: 3000px; width: %dpx'
        frame.srcdoc = %s
        document.body.append(frame)
        </script></body>"""
    source = json.dumps(text.replace("</body>", inside + "</body>")).replace("</", "<\\/")
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file:
        file.write(outside % (width, source))
        file.flush()
        document = _run(file.name, max(width, 600), 1000, scheme, "--virtual-time-budget=5000", "--dump-dom")
    return json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)[1]))
