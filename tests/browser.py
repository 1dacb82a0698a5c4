# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, spoken to over a pipe in its DevTools protocol: what a page says, asks for and looks like."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe"]


class Browser:
    """One page. events: what the browser told of it, (method, parameters), from open() on."""

    def __init__(self, seconds=60):
        self.profile = tempfile.mkdtemp(prefix="unroll-browser-")
        self.end = time.monotonic() + seconds
        commands, self.to = os.pipe()
        self.answers, replies = os.pipe()
        shell = f'exec "$@" 3<&{commands} 4>&{replies}'
        self.child = subprocess.Popen(["sh", "-c", shell, "sh", PROGRAM, *FLAGS, f"--user-data-dir={self.profile}",
                                       "about:blank"], pass_fds=(commands, replies), stderr=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, env={**os.environ, "HOME": self.profile})
        os.close(commands)
        os.close(replies)
        self.events, self.pending, self.last, self.session = [], b"", 0, None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        os.close(self.to)
        os.close(self.answers)
        shutil.rmtree(self.profile, ignore_errors=True)

    def message(self):
        while b"\0" not in self.pending:
            left = self.end - time.monotonic()
            if left <= 0 or not select.select([self.answers], [], [], left)[0]:
                raise TimeoutError("the browser does not answer")
            more = os.read(self.answers, 1 << 20)
            if not more:
                raise ConnectionError("the browser has ended")
            self.pending += more
        text, self.pending = self.pending.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        self.last += 1
        call = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            call["sessionId"] = self.session
        data = json.dumps(call).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        while True:
            answer = self.message()
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self.events.append((answer["method"], answer.get("params", {})))

    def open(self, path, width=1000, height=900, dark=False, touch=False):
        self.events = []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        self.call("Emulation.setEmulatedMedia", features=[
                  {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url="file://" + os.path.abspath(path))
        while self.run("document.readyState") != "complete":
            time.sleep(0.02)

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def key(self, key, shift=False):
        for kind in ("keyDown", "keyUp"):
            self.call(
    "Input.dispatchKeyEvent",
    type=kind,
    key=key,
    code=key,
    modifiers=8 if shift else 0,
    windowsVirtualKeyCode={
        "ArrowRight": 39,
        "ArrowLeft": 37,
        "ArrowDown": 40,
        "Home": 36,
        "Tab": 9,
         "End": 35}[key])

    def drag(self, start, end):
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, path, whole=False):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def complaints(self):
        """Errors and warnings of the console, and exceptions."""
        kinds = {"Runtime.exceptionThrown": lambda p: True, "Log.entryAdded": lambda p: p["entry"]["level"] != "info",
                 "Runtime.consoleAPICalled": lambda p: p["type"] in ("error", "warning", "assert")}
        return [event for event in self.events if event[0] in kinds and kinds[event[0]](event[1])]

    def requests(self):
        """Addresses that were asked for, data: left out."""
        return [p["request"]["url"] for method, p in self.events
                if method == "Network.requestWillBeSent" and not p["request"]["url"].startswith("data:")]
