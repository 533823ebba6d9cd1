"""What people see: Debian's notebook server with this kernel, in a real browser, by mouse and keyboard.

Usage: browser_test.py PROGRAM [TEST...]. Skipped (exit status 77) where Chromium or the notebook server is not
installed. A picture of every test's page is kept in $PERILUNE_ARTIFACTS, or else in a new folder that is printed.
"""
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

CHROMIUM, SERVER = shutil.which("chromium"), shutil.which("jupyter-notebook")
try:
    from chromium import SHIFT, Chromium, wait_for
    missing = None if CHROMIUM and SERVER else "no chromium" if SERVER else "no jupyter-notebook"
except ImportError as error:
    missing = error
if missing:
    print(f"skipped: {missing}")
    sys.exit(77)

PROGRAM = os.path.abspath(sys.argv.pop(1))
ARTIFACTS = os.environ.get("PERILUNE_ARTIFACTS") or tempfile.mkdtemp(prefix="perilune-browser-")
WIDGETS = "/usr/share/jupyter/nbextensions/jupyter-js-widgets"


class Server:
    """A notebook server of Debian's that knows only this kernel, in a folder of its own."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        home = self.folder.name
        prefix = os.path.join(home, "prefix")
        environment = {**os.environ, "HOME": home, "PERILUNE_HISTORY": "0",
                       "JUPYTER_PATH": os.path.join(prefix, "share", "jupyter"),
                       "JUPYTER_RUNTIME_DIR": os.path.join(home, "runtime")}
        subprocess.run([PROGRAM, "kernel", "install", "--prefix", prefix], check=True, stdout=subprocess.DEVNULL)
        self.log = open(os.path.join(ARTIFACTS, "server.log"), "w")
        self.process = subprocess.Popen([SERVER, "--no-browser", "--allow-root", "--ip=127.0.0.1"], env=environment,
                                        cwd=home, stdout=self.log, stderr=self.log)
        description = os.path.join(home, "runtime", "nbserver-*.json")
        file = wait_for("the notebook server", lambda: glob.glob(description))[0]
        self.address = wait_for("its address", lambda: self._address(file))

    @staticmethod
    def _address(file):
        with open(file) as text:
            try:
                server = json.load(text)
            except json.JSONDecodeError:  # still being written
                return None
        return f"{server['url']}tree?token={server['token']}"

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()


class Notebook(unittest.TestCase):
    """Each test has a notebook of its own, opened from the list of files."""

    @classmethod
    def setUpClass(cls):
        os.makedirs(ARTIFACTS, exist_ok=True)
        print(f"pictures: {ARTIFACTS}")
        cls.server = Server()
        cls.addClassCleanup(cls.server.close)
        cls.browser = Chromium(CHROMIUM)
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        tree = self.browser.open(self.server.address)
        self.addCleanup(tree.close)
        tree.click("#new-dropdown-button")
        tree.click("#kernel-perilune a")
        self.page = self.browser.page("/notebooks/")
        self.addCleanup(self.close_notebook)
        self.wait_for_kernel()
        self.page.click(".CodeMirror")

    def close_notebook(self):
        self.page.screenshot(os.path.join(ARTIFACTS, f"{self._testMethodName}.png"))
        self.page.evaluate("window.onbeforeunload = null, Jupyter.notebook.session.delete()")  # no question on leaving
        self.page.close()
        self.assertEqual(self.page.complaints, [])

    def wait_for_kernel(self):
        self.page.wait("window.Jupyter && Jupyter.notebook && Jupyter.notebook.kernel"
                       " && Jupyter.notebook.kernel.is_connected() && !!document.querySelector('#kernel_indicator_icon"
                       ".kernel_idle_icon')")

    def show(self, selector, key=None, modifiers=0):
        """The text of the first such element that is on the page, once there is one. A key that brings it is pressed now
        and then: the page may still be loading what heeds it."""
        element = f"document.querySelector({json.dumps(selector)})"
        seen = (f"!!{element} && {element}.getClientRects().length > 0 && getComputedStyle({element}).opacity == 1")
        for _ in range(4 if key else 0):
            self.page.press(key, modifiers)
            try:
                self.page.wait(seen, 5)
                break
            except AssertionError:
                continue
        self.page.wait(seen)
        return self.page.evaluate(f"{element}.textContent")

    def write(self, code):
        """Types into the cell with the cursor. The editor takes it in a little later than the page does."""
        self.page.type(code)
        self.page.wait(f"Jupyter.notebook.get_selected_cell().code_mirror.getValue().endsWith({json.dumps(code)})")

    def start(self, code):
        """Runs code in the last cell, behind what it holds; another follows it then."""
        self.page.click(".code_cell:last-child .CodeMirror")
        self.write(code)
        self.page.press("Enter", SHIFT)

    def outputs(self, code):
        """The text below a cell once it has run."""
        cells = "[...document.querySelectorAll('.code_cell')]"
        before = self.page.evaluate(f"{cells}.length")
        self.start(code)
        self.page.wait(f"{cells}.length > {before} && /\\[\\d+\\]/.test("
                       f"{cells}[{before - 1}].querySelector('.input_prompt').innerText)")
        # The number comes with the reply, which may be there before what was put out.
        self.page.wait("(c => !c || c.iopub_done === true)(Jupyter.notebook.kernel.get_callbacks_for_msg("
                       f"Jupyter.notebook.get_cell({before - 1}).last_msg_id))")
        return self.page.evaluate(f"{cells}[{before - 1}].querySelector('.output').innerText")

    def test_results_and_text(self):
        self.assertEqual(self.outputs("1 + 1").split(), ["Out[1]:", "2"])
        self.assertEqual(self.outputs("print 'first'\nio.stderr:write 'second\\n'\nprint 'third';").split(),
                         ["first", "second", "third"])
        self.assertIn("{a = 1, b = {1, 2}}", self.outputs("{ a = 1, b = { 1, 2 } }"))

    def test_errors(self):
        said = self.outputs("local function fails() error 'a reason' end\nfails()")
        self.assertIn("a reason", said)
        self.assertNotIn("\x1b", said)
        self.assertTrue(self.page.evaluate("!!document.querySelector('.output_error [class^=ansi-]')"))

    def test_plot(self):
        self.start("plot = require 'perilune.plot'\n"
                   "plot.line{ { y = { 1, 4, 9, 16 }, label = 'squares' }, title = 'A curve', xlabel = 'x' }")
        self.assertIn("A curve", self.show(".output_svg svg"))

    def test_pictures(self):
        self.start("pl = require 'perilune'\npl.tensor{ { 1, 2.5 }, { -3, 4e-9 } }")
        self.assertIn("2.5", self.show(".output_html table"))
        self.start("for i, bar in pl.progress(1, 3, 'train') do bar:message('loss %.1f', 1 / i) end")
        self.assertIn("3/3", self.show(".output_html progress + *, .output_html div:has(progress)"))
        self.start("do local monitor <close> = pl.monitor { logy = true }\n"
                   "for i = 1, 300 do monitor:log(i, { loss = math.exp(-i / 50), norm = 1 / i }) end end")
        self.assertIn("loss", self.show(".output_svg svg"))
        self.start("display = require 'perilune.display'\ndisplay.latex 'h_t = \\\\sigma(W x_t + R h_{t-1})'\n"
                   "display.markdown '**bold**'")
        self.assertEqual(self.show(".output_markdown strong"), "bold")
        self.show(".output_latex .MathJax")

    def test_completion(self):
        self.write("string.re")
        self.assertEqual(self.show("#complete", "Tab"), "repreverse")
        self.page.screenshot(os.path.join(ARTIFACTS, "test_completion_menu.png"))
        self.page.press("Enter")
        self.assertIn("olleh", self.outputs("('hello', 1) == 'hello' and ('hello'):reverse()"))

    def test_tooltip(self):
        self.write("string.rep(")
        self.assertIn("string.rep", self.show("#tooltip .tooltiptext", "Tab", SHIFT))

    def test_interrupt(self):
        self.outputs("kept = 5")
        self.start("while true do end")
        self.page.wait("!!document.querySelector('#kernel_indicator_icon.kernel_busy_icon')")
        self.page.click("[data-jupyter-action='jupyter-notebook:interrupt-kernel']")
        self.assertIn("interrupted", self.show(".output_error"))
        self.assertIn("5", self.outputs("kept"))

    def test_input(self):
        self.start("answer = io.read()")
        self.page.click("input.raw_input")
        self.page.type("from a person")
        self.page.press("Enter")
        self.wait_for_kernel()
        self.assertIn("from a person!", self.outputs("answer .. '!'"))

    def test_restart(self):
        self.outputs("gone = 1")
        self.page.click("[data-jupyter-action='jupyter-notebook:confirm-restart-kernel']")
        self.page.click(".modal-dialog .btn-danger")
        self.page.wait("!document.querySelector('.modal-dialog')")
        self.wait_for_kernel()
        self.assertEqual(self.outputs("gone == nil").split(), ["Out[1]:", "true"])

    def test_widget(self):
        if not os.path.exists(WIDGETS):
            self.skipTest("no jupyter-nbextension-jupyter-js-widgets")
        self.start("slider = require 'perilune.widgets'.IntSlider{ value = 3, min = 0, max = 10 }\nslider")
        self.page.click(".widget-slider .ui-slider-handle, .widget-slider .noUi-handle")
        self.page.press("ArrowRight")
        self.assertIn("4", self.outputs("slider.value"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
