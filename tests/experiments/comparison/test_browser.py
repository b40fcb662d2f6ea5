"""A comparison's TensorBoard, opened in a real browser and read as a user would.

It alone protects what TensorBoard's own pages make of the log: charts, columns, names as they are.
"""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import time

import pytest

from dograph.experiments.comparison.comparison import compare
from dograph.experiments.comparison.tables import plus_minus
from dograph.experiments.comparison.tensorboard import write_board

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
BROWSER = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason="there is no chromium"),
    pytest.mark.skipif(not DRIVER, reason="there is no chromedriver"),
]
PATIENCE = 60.0  # seconds that a tab may take on a busy machine
# TensorBoard's parts are shadow trees, which neither innerText nor a selector looks into.
EVERYWHERE = """
const found = [];
const visit = (node) => {
  for (const inner of node.querySelectorAll('*')) {
    if (inner.shadowRoot) visit(inner.shadowRoot);
    if (inner.matches(arguments[0]) && inner.getClientRects().length) found.push(inner);
  }
};
visit(document);
"""
TEXTS = EVERYWHERE + "return found.map((node) => node.textContent.trim().replace(/\\s+/g, ' '));"
WIDTHS = EVERYWHERE + "return found.map((image) => image.naturalWidth);"
NAMES = ".heading-label.name"
MATCHES = ".matches-text, .collapsible-title-text"


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def wait_until(condition):
    """The condition's first true value, or its last."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return value


def runs_shown(port):
    """TensorBoard runs that a server has read so far."""
    connection = http.client.HTTPConnection("localhost", port, timeout=5)
    try:
        connection.request("GET", "/data/runs")
        return json.load(connection.getresponse())
    except (OSError, http.client.HTTPException):
        return []  # it has not started yet
    finally:
        connection.close()


@pytest.fixture(scope="module")
def comparison(oddly_named_runs):
    return compare([oddly_named_runs])


@pytest.fixture(scope="module")
def tensorboard(comparison, tmp_path_factory):
    """The address of a TensorBoard of the comparison."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), dpi=100)
    figure.suptitle("A figure")
    folder = tmp_path_factory.mktemp("browser") / "board"
    write_board(comparison, {"first": figure, "second": figure}, folder)
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    with subprocess.Popen(
        [*command, "--port", str(port), "--host", "localhost"], stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert wait_until(lambda: len(runs_shown(port)) == 7)
            yield f"http://localhost:{port}/"
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    # Without Chromium's sandbox, which containers and root do not allow; the page is our own.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1400,900"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, tensorboard, tmp_path):
    """Opens a tab, waits until what it shows is as expected, and keeps a screenshot."""

    def open_tab(tab, selector, expected, script=TEXTS):
        browser.get("about:blank")  # or else another tab of the same page is no new page
        browser.get(f"{tensorboard}#{tab}")
        came = wait_until(lambda: expected(browser.execute_script(script, selector)))
        browser.save_screenshot(str(tmp_path / f"{tab}.png"))
        found = browser.execute_script(script, selector)
        assert came, f"{tab} shows {found}"
        assert browser.title == "TensorBoard"  # no name was run as a script
        return found

    return open_tab


def test_scalars_show_the_comparison(show):
    names, kinds = ("mean", "target", "worst"), ("loss", "perplexity")
    scores = [f"{name}_{kind}" for name in names for kind in kinds]
    tags = [f"comparison/{score}" for score in scores]
    assert show("scalars", NAMES, lambda found: set(tags) <= set(found))[:6] == tags


def test_custom_scalars_show_every_chart_with_both_methods(show, comparison):
    charts = ["Target's perplexity", "Target's loss"]
    charts += ["Mean perplexity", "Worst domain's perplexity", "Mean loss", "Worst domain's loss"]
    expected = sorted([*charts, *charts, *comparison.domains, *comparison.domains])
    assert show("custom_scalars", NAMES, lambda found: sorted(found) == expected)[:6] == charts
    both = ["Matches (2)"] * len(expected)
    show("custom_scalars", MATCHES, lambda found: found == both)


def test_hparams_show_each_run_with_its_method(show, comparison):
    cells = show(
        "hparams",
        "vaadin-grid-cell-content",
        lambda found: {"uniform/seed_0", "dynamic loss/seed_1", "final/mean_loss"} <= set(found),
    )
    for method in comparison.methods:
        assert cells.count(method.label) == 2
        assert cells.count(method.runs[0].summary.mixer) == 2
    assert {"method", "mixer", "seed"} <= set(cells)


def test_images_load(show):
    assert show("images", "img", lambda found: len(found) == 2 and all(found), WIDTHS) == [400, 400]


def test_text_shows_the_tables_and_names_as_they_are(show, comparison):
    names = [*comparison.domains, *(method.label for method in comparison.methods)]
    found = show("text", "th, td", lambda found: set(names) <= set(found))
    for method in comparison.methods:
        assert plus_minus(method.mean) in found
        assert all(plus_minus(value) in found for value in method.domains.values())
