"""Debian's Chromium without a screen, driven through its DevTools protocol, with no package beyond those of Jupyter's
server (its tornado is the WebSocket client). https://chromedevtools.github.io/devtools-protocol/"""
import asyncio
import base64
import json
import os
import subprocess
import tempfile
import time
import urllib.request

from tornado.websocket import websocket_connect

PATIENCE_S = 20
SHIFT = 8  # of DevTools' modifiers
KEYS = {"Enter": 13, "Tab": 9, "ArrowRight": 39}  # and their virtual key codes


def wait_for(what, look, patience_s=PATIENCE_S):
    """The first true answer of `look`; an AssertionError that names `what` when none comes in time."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        answer = look()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not seen within {patience_s} s: {what}")


class Chromium:
    """A browser process with a profile of its own."""

    def __init__(self, program):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--force-color-profile=srgb", "--window-size=1100,1400", "--remote-debugging-port=0",
             f"--user-data-dir={self.folder.name}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = os.path.join(self.folder.name, "DevToolsActivePort")
        wait_for("Chromium's port", lambda: os.path.exists(port) and os.path.getsize(port))
        with open(port) as file:
            self.address = f"http://127.0.0.1:{file.readline().strip()}"

    def page(self, part):
        """The open page whose address contains `part`."""
        def find():
            with urllib.request.urlopen(f"{self.address}/json/list") as answer:
                pages = json.load(answer)
            return next((p for p in pages if p["type"] == "page" and part in p["url"]), None)
        return Page(wait_for(f"a page at {part}", find)["webSocketDebuggerUrl"])

    def open(self, address):
        """A new page, once it is loaded."""
        request = urllib.request.Request(f"{self.address}/json/new?{address}", method="PUT")
        with urllib.request.urlopen(request) as answer:
            page = Page(json.load(answer)["webSocketDebuggerUrl"])
        page.wait("document.readyState == 'complete'")
        return page

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


class Page:
    """One tab. `complaints` collects JavaScript's uncaught errors and what pages themselves log as errors."""

    def __init__(self, address):
        self.loop = asyncio.new_event_loop()
        self.socket = self._wait(lambda: websocket_connect(address, max_message_size=1 << 28))
        self.sent = 0
        self.complaints = []
        for domain in "Page", "Runtime":
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # as if its window were the one in front

    def _wait(self, begin):
        async def answer():
            return await asyncio.wait_for(begin(), PATIENCE_S)
        return self.loop.run_until_complete(answer())

    def call(self, method, **parameters):
        self.sent += 1
        self.socket.write_message(json.dumps({"id": self.sent, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._wait(self.socket.read_message))
            if message.get("id") == self.sent:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, event, parameters):
        if event == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif event == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.complaints.append(" ".join(str(a.get("value", a.get("description"))) for a in parameters["args"]))

    def evaluate(self, script):
        """The value of a JavaScript expression; a promise's when it is kept."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']['exception'].get('description')}")
        return answer["result"].get("value")

    def wait(self, script, patience_s=PATIENCE_S):
        return wait_for(script, lambda: self.evaluate(script), patience_s)

    def click(self, selector):
        """Presses and releases the left mouse button in the middle of the first element of this kind that is shown."""
        box = self.wait(f"(() => {{ for (const e of document.querySelectorAll({json.dumps(selector)})) {{"
                        " e.scrollIntoView({block: 'nearest'}); const b = e.getBoundingClientRect();"
                        " if (b.width) return {x: b.x + b.width / 2, y: b.y + b.height / 2} } })()")
        for event in "mousePressed", "mouseReleased":
            self.call("Input.dispatchMouseEvent", type=event, button="left", clickCount=1, **box)

    def press(self, key, modifiers=0):
        text = {"text": "\r"} if key == "Enter" and not modifiers else {}
        for event in "keyDown" if text else "rawKeyDown", "keyUp":
            self.call("Input.dispatchKeyEvent", type=event, key=key, code=key, windowsVirtualKeyCode=KEYS[key],
                      modifiers=modifiers, **(text if event == "keyDown" else {}))

    def type(self, text):
        self.call("Input.insertText", text=text)

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        self.call("Page.close")
        while self._wait(self.socket.read_message):  # up to the end of the connection
            pass
        self.loop.close()
