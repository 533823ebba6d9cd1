"""Drives the kernel through Jupyter's own client, point by point of the messaging protocol.

Usage: kernel_test.py PROGRAM. Skipped (exit status 77) where jupyter_client is not installed.
"""
import contextlib
import fcntl
import glob
import json
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from xml.etree import ElementTree

try:
    import zmq
    from jupyter_client import BlockingKernelClient, KernelManager
    from jupyter_client.connect import write_connection_file
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.session import Session
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

PROGRAM = os.path.abspath(sys.argv.pop(1))
TIMEOUT = 20


class Kernel:
    """One kernel process with a connected client."""

    def __init__(self, key=b"a key", transport="tcp", environment=None, before=(), closed=(), **options):
        self.folder = tempfile.TemporaryDirectory()
        self.file = os.path.join(self.folder.name, "connection.json")
        ip = os.path.join(self.folder.name, "ipc") if transport == "ipc" else "127.0.0.1"
        write_connection_file(self.file, key=key, transport=transport, ip=ip)
        environment = {**os.environ, "XDG_DATA_HOME": self.folder.name, **(environment or {})}
        self.process = subprocess.Popen([*before, PROGRAM, "kernel", "--connection-file", self.file], env=environment,
                                        preexec_fn=lambda: [os.close(descriptor) for descriptor in closed], **options)
        self.client = BlockingKernelClient(connection_file=self.file)
        self.client.load_connection_file()
        self.client.session.key = key
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT)

    def close(self):
        self.client.stop_channels()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def iopub(self, message_id, timeout=TIMEOUT):
        """All iopub messages of one request, up to idle."""
        messages = []
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != message_id:
                continue
            messages.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return messages

    def reply(self, message_id, channel="shell"):
        while True:
            message = getattr(self.client, f"get_{channel}_msg")(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") == message_id:
                return message

    def run(self, code, **options):
        options.setdefault("allow_stdin", False)
        message_id = self.client.execute(code, **options)
        reply = self.reply(message_id)
        return reply["content"], self.iopub(message_id)

    def ask(self, kind, content, channel="shell", metadata=None, buffers=None):
        message = self.client.session.msg(kind, content, metadata=metadata)
        socket = getattr(self.client, f"{channel}_channel").socket
        self.client.session.send(socket, message, buffers=buffers)
        return message["header"]["msg_id"]


def content_of(messages, kind):
    return [m["content"] for m in messages if m["msg_type"] == kind]


def text_of(messages, name="stdout"):
    return "".join(c["text"] for c in content_of(messages, "stream") if c["name"] == name)


def result_of(messages):
    return [c["data"]["text/plain"] for c in content_of(messages, "execute_result")]


def status_of(process):
    try:
        with open(f"/proc/{process}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0"]


def is_running(process):
    return status_of(process)[0] not in "XZ"


def parent_of(process):
    return int(status_of(process)[1])


def processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and is_running(name)]


def sleepers(text):
    """Running processes `sleep TEXT`."""
    found = []
    for process in processes():
        try:
            with open(f"/proc/{process}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[:2] == [b"sleep", text.encode()]:
            found.append(process)
    return found


class KernelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernel = Kernel()

    @classmethod
    def tearDownClass(cls):
        cls.kernel.close()

    def run_code(self, code, **options):
        return self.kernel.run(code, **options)

    def result(self, code):
        return result_of(self.run_code(code)[1])


class Information(KernelTest):
    def test_kernel_info_on_shell_and_control(self):
        for channel in "shell", "control":
            message_id = self.kernel.ask("kernel_info_request", {}, channel)
            content = self.kernel.reply(message_id, channel)["content"]
            self.assertEqual(content["status"], "ok")
            self.assertEqual(content["protocol_version"], "5.5")
            self.assertEqual(content["language_info"]["name"], "lua")
            self.assertEqual(content["language_info"]["file_extension"], ".lua")
            states = [c["execution_state"] for c in content_of(self.kernel.iopub(message_id), "status")]
            self.assertEqual(states, ["busy", "idle"])

    def test_headers(self):
        message_id = self.kernel.client.kernel_info()
        reply = self.kernel.reply(message_id)
        self.assertEqual(reply["parent_header"]["msg_id"], message_id)
        self.assertIsNotNone(reply["header"]["date"].tzinfo)
        self.assertEqual(reply["metadata"], {})
        message_id = self.kernel.client.execute("print 'x' display = require 'perilune.display' display.text 'y' 5")
        seen = [reply, self.kernel.reply(message_id)] + self.kernel.iopub(message_id)
        self.assertEqual({m["header"]["version"] for m in seen}, {"5.5"})
        self.assertEqual({m["header"]["session"] for m in seen}, {reply["header"]["session"]})
        self.assertEqual(len({m["header"]["msg_id"] for m in seen}), len(seen))

    def test_unknown_types_get_busy_and_idle(self):
        for channel in "shell", "control":
            for kind in "frobnicate_request", "execute_reply", "status", "", "create_subshell_request":
                message_id = self.kernel.ask(kind, {"x": 1}, channel)
                kinds = [m["content"]["execution_state"] for m in self.kernel.iopub(message_id)]
                self.assertEqual(kinds, ["busy", "idle"])

    def test_no_subshells(self):
        info = self.kernel.reply(self.kernel.client.kernel_info())["content"]
        self.assertNotIn("kernel subshells", info["supported_features"])
        client = self.kernel.client
        message = client.session.msg("execute_request", {"code": "6 * 7", "user_expressions": {"x": "1"}})
        message["header"]["subshell_id"] = "nobody"
        client.shell_channel.send(message)
        reply = self.kernel.reply(message["header"]["msg_id"])
        self.assertEqual((reply["content"]["status"], reply["parent_header"]["subshell_id"]), ("ok", "nobody"))
        self.assertEqual(result_of(self.kernel.iopub(message["header"]["msg_id"])), ["42"])

    def test_connect(self):
        with open(self.kernel.file) as file:
            connection = json.load(file)
        for channel in "shell", "control":
            content = self.kernel.reply(self.kernel.ask("connect_request", {}, channel), channel)["content"]
            self.assertEqual(content.pop("status"), "ok")
            self.assertEqual(content, {name: port for name, port in connection.items() if name.endswith("_port")})

    def usage(self):
        return self.kernel.reply(self.kernel.ask("usage_request", {}, "control"), "control")["content"]

    def usage_when(self, condition):
        deadline = time.time() + TIMEOUT
        while True:
            time.sleep(0.1)
            usage = self.usage()
            if condition(usage):
                return usage
            self.assertLess(time.time(), deadline, usage)

    def test_usage(self):
        first = self.usage()
        self.assertEqual((first["status"], first["pid"]), ("ok", self.kernel.process.pid))
        self.assertEqual(first["hostname"], os.uname().nodename)
        self.assertEqual((first["cpu_count"], first["gpus"]), (os.cpu_count(), []))
        message_id = self.kernel.client.execute("kept = string.rep('x', 100e6) while true do end")
        busy = self.usage_when(lambda u: u["kernel_memory"] > first["kernel_memory"] + 90e6 and u["kernel_cpu"] > 5)
        self.assertGreater(busy["host_cpu_percent"], 0)
        memory = busy["host_virtual_memory"]
        self.assertGreater(memory["total"], memory["available"])
        self.assertAlmostEqual(memory["percent"], 100 * (1 - memory["available"] / memory["total"]), delta=0.1)
        self.assertEqual(memory.keys() - {"total", "available", "percent", "used", "free", "active", "inactive", "buffers",
                                          "cached", "shared", "slab"}, set())
        self.kernel.ask("interrupt_request", {}, "control")
        self.kernel.reply(message_id)
        self.run_code("kept = nil collectgarbage()")
        message_id = self.kernel.client.execute("os.execute('head -c 50000000 /dev/zero | tail -c 50000000 | sleep 3')")
        self.usage_when(lambda u: u["kernel_memory"] > first["kernel_memory"] + 40e6)  # what children hold is counted
        self.kernel.reply(message_id)

    def test_heartbeat_while_busy(self):
        client = self.kernel.client
        message_id = client.execute("local t = os.clock() while os.clock() - t < 0.8 do end")
        socket = zmq.Context.instance().socket(zmq.REQ)
        socket.connect(client._make_url("hb"))
        start = time.time()
        for data in b"ping", b"", b"\x00\xff":
            socket.send(data)
            self.assertTrue(socket.poll(2000))
            self.assertEqual(socket.recv(), data)
        control_id = self.kernel.ask("kernel_info_request", {}, "control")
        self.kernel.reply(control_id, "control")
        self.assertLess(time.time() - start, 0.6)
        socket.close()
        self.kernel.reply(message_id)
        self.kernel.iopub(message_id)

    def test_welcome(self):
        context = zmq.Context.instance()
        for topic in b"", b"stream", b"stream":
            socket = context.socket(zmq.SUB)
            socket.setsockopt(zmq.SUBSCRIBE, topic)
            socket.connect(self.kernel.client._make_url("iopub"))
            self.assertTrue(socket.poll(5000))
            frames = socket.recv_multipart()
            self.assertEqual(frames[0], topic)
            session = Session(key=self.kernel.client.session.key)
            message = session.deserialize(session.feed_identities(frames)[1])
            self.assertEqual(message["msg_type"], "iopub_welcome")
            self.assertEqual(message["content"], {"subscription": topic.decode()})
            self.assertEqual(message["parent_header"], {})
            socket.close()


    def test_usage_of_gpus(self):
        fakes = os.path.join(os.path.dirname(PROGRAM), "tests", "fakes")  # made-up libraries of CUDA
        path = ":".join(os.path.join(fakes, name) for name in ("driver", "nvrtc", "cublas"))
        with contextlib.closing(Kernel(environment={"LD_LIBRARY_PATH": path, "CUDA_HOME": "/nowhere"})) as kernel:
            kernel.run("pl = require 'perilune' t = pl.zeros{1024, 1024, device = 'cuda'} u = pl.zeros{10, device = 'cuda'}"
                       " u = nil collectgarbage()")
            kernel.client.execute("while true do end")
            gpu, = kernel.reply(kernel.ask("usage_request", {}, "control"), "control")["content"]["gpus"]
            self.assertEqual((gpu["name"], gpu["live"], gpu["cached"]), ("cuda:0", 2**22, 512))
            self.assertGreaterEqual(gpu["peak"], gpu["live"] + gpu["cached"])
            self.assertEqual(gpu["total"], 2**30)
            self.assertLess(gpu["available"], 2**30 - 2**22)
            self.assertIsInstance(gpu["model"], str)


class Execution(KernelTest):
    def test_order_of_messages(self):
        reply, messages = self.run_code("print('a') 1 + 1")
        self.assertEqual([m["msg_type"] for m in messages],
                         ["status", "execute_input", "stream", "execute_result", "status"])
        self.assertEqual(reply["status"], "ok")
        self.assertEqual(reply["payload"], [])
        self.assertEqual(reply["user_expressions"], {})
        self.assertEqual(content_of(messages, "execute_input")[0]["execution_count"], reply["execution_count"])
        self.assertEqual(result_of(messages), ["2"])

    def test_results(self):
        self.assertEqual(self.result("1 + 1"), ["2"])
        self.assertEqual(self.result("1 + 1;"), [])
        self.assertEqual(self.result("1, nil, 'x'"), ['1\tnil\t"x"'])
        self.assertEqual(self.result("local a = 20\na + 1"), ["21"])
        self.assertEqual(self.result("local a = 20\nlocal function f(x)\n return x end\nf(a)"), ["20"])
        self.assertEqual(self.result("return 5"), ["5"])
        self.assertEqual(self.result("y = 3"), [])
        self.assertEqual(self.result("y"), ["3"])
        self.assertEqual(self.result("-- only a comment"), [])
        self.assertEqual(self.result("{1, {2, x = 'y'}}"), ['{1, {2, x = "y"}}'])
        self.assertEqual(self.result("for i = 1, 2 do end"), [])

    def test_counts(self):
        first = self.run_code("1")[0]["execution_count"]
        self.assertEqual(self.run_code("error 'x'")[0]["execution_count"], first + 1)
        reply, messages = self.run_code("1 + 1", silent=True)
        self.assertEqual(reply["execution_count"], first + 1)
        self.assertEqual([m["msg_type"] for m in messages], ["status", "status"])
        reply, messages = self.run_code("1 + 1", store_history=False)
        self.assertEqual(reply["execution_count"], first + 1)
        self.assertEqual(result_of(messages), ["2"])
        self.assertEqual(self.run_code("1")[0]["execution_count"], first + 2)

    def test_code_alone_is_enough(self):
        message_id = self.kernel.ask("execute_request", {"code": "1 + 2"})
        self.assertEqual(self.kernel.reply(message_id)["content"]["status"], "ok")
        self.assertEqual(result_of(self.kernel.iopub(message_id)), ["3"])
        message_id = self.kernel.ask("execute_request", {})
        self.assertEqual(self.kernel.reply(message_id)["content"]["status"], "error")
        self.kernel.iopub(message_id)

    def test_user_expressions(self):
        reply, _ = self.run_code("x = 4", user_expressions={"a": "x * 2", "b": "error 'no'", "c": "x +"})
        self.assertEqual(reply["user_expressions"]["a"]["data"]["text/plain"], "8")
        self.assertEqual(reply["user_expressions"]["b"]["status"], "error")
        self.assertEqual(reply["user_expressions"]["c"]["ename"], "SyntaxError")
        self.assertEqual(reply["status"], "ok")
        rich = "setmetatable({}, {__mime = function() return {['text/html'] = '<b>', ['text/plain'] = 'b'} end})"
        reply, _ = self.run_code("", user_expressions={"rich": rich})
        self.assertEqual(reply["user_expressions"]["rich"]["data"], {"text/html": "<b>", "text/plain": "b"})

    def test_errors(self):
        reply, messages = self.run_code("local function f()\n  error('deep') end\nf()")
        errors = content_of(messages, "error")
        self.assertEqual(len(errors), 1)
        self.assertEqual(errors[0]["evalue"], reply["evalue"])
        self.assertRegex(reply["evalue"], r"^In \[\d+\]:2: deep$")
        text = "\n".join(reply["traceback"])
        self.assertRegex(text, r"^\x1b\[1;31mIn \[\d+\]:2: deep\x1b\[0m\nstack traceback:\n")
        self.assertRegex(text, r"In \[\d+\]:3: in main chunk")
        self.assertNotIn("[C]: in ?", text)
        self.assertNotIn("inspect", text)
        for code in "error({})", "error(nil)", "error()", "error(setmetatable({}, {__tostring = error}))":
            reply, _ = self.run_code(code)
            self.assertEqual(reply["status"], "error")
            self.assertIsInstance(reply["evalue"], str)
            self.assertIsInstance(reply["ename"], str)
        reply, _ = self.run_code("error(setmetatable({}, {__tostring = function() return 'my own' end}))")
        self.assertEqual(reply["evalue"], "my own")
        reply, messages = self.run_code("setmetatable({}, {__tostring = function() error('broken', 0) end})")
        self.assertEqual(reply["evalue"], "__tostring failed: broken")
        self.assertEqual(len(content_of(messages, "error")), 1)
        reply, _ = self.run_code("x = = 1")
        self.assertEqual(reply["ename"], "SyntaxError")

    def test_rich_results(self):
        _, messages = self.run_code("setmetatable({}, {__mime = function() return"
                                    " {['text/html'] = '<b>', ['text/plain'] = 'b', ['application/json'] = {1}} end})")
        data = content_of(messages, "execute_result")[0]["data"]
        self.assertEqual(data, {"text/html": "<b>", "text/plain": "b", "application/json": [1]})

    def test_errors_while_showing(self):
        """An error in a metamethod that shows a value is one error of one sentence, wherever the value is."""
        for code, expected in (
                ("setmetatable({}, {__mime = function() return 1 end})", "__mime must return a table"),
                ("setmetatable({}, {__mime = function() error('broken', 0) end})", "__mime failed: broken"),
                ("setmetatable({}, {__mime = function() error({}) end})", "__mime failed: error object is a table"),
                ("setmetatable({}, {__mime = function() return {['text/html'] = print} end})", "needs a string"),
                ("setmetatable({}, {__mime = function() return {1} end})", "MIME types are strings"),
                ("{1, {setmetatable({}, {__tostring = function() error('deep', 0) end})}}", "__tostring failed: deep"),
                ("1, setmetatable({}, {__tostring = function() return {} end})", "'__tostring' must return a string"),
                ("print(setmetatable({}, {__tostring = function() error('printed', 0) end}))", "printed")):
            with self.subTest(code):
                reply, messages = self.run_code(code)
                self.assertIn(expected, reply["evalue"])
                self.assertNotIn("\n", reply["evalue"])
                self.assertEqual([m["msg_type"] for m in messages], ["status", "execute_input", "error", "status"])
                self.assertEqual(content_of(messages, "error")[0]["traceback"], reply["traceback"])
                self.assertEqual(self.result("1"), ["1"])

    def test_tables_have_limits(self):
        self.assertEqual(self.result("t = {1} t.me = t return t"), ["{1, me = <contains itself>}"])
        self.assertEqual(self.result("{{{{{{1}}}}}}"), ["{{{{{…}}}}}"])
        for code in ("t = {} for i = 1, 100 do t[i] = {} for j = 1, 100 do t[i][j] = {i, j, {i}} end end return t",
                     "t = {} for i = 1, 1000000 do t[i] = i end return t", "('x'):rep(10000000)"):
            self.assertLess(len(self.result(code)[0]), 100000)

    def test_tensors(self):
        _, messages = self.run_code("pl = require 'perilune' return pl.tensor { { 1, 2 }, { 3, 4.5 } }")
        data = content_of(messages, "execute_result")[0]["data"]
        self.assertEqual(data["text/plain"],
                         "tensor [2, 2] float32 cpu\n{ { 1.0000, 2.0000 },\n  { 3.0000, 4.5000 } }")
        self.assertIn("<tr><th>2</th><td>3.0000</td><td>4.5000</td></tr>", data["text/html"])
        _, messages = self.run_code("pl.zeros { 300, 200, 100 }")
        data = content_of(messages, "execute_result")[0]["data"]
        self.assertIn("<p>[1]</p><table>", data["text/html"])
        self.assertLess(len(data["text/html"]), 20000)
        self.assertEqual(self.run_code("pl.tensor(3)")[0]["status"], "ok")

    def test_figures(self):
        _, messages = self.run_code("require 'perilune.plot'.line { { y = { 1, 2 } } }")
        data = content_of(messages, "execute_result")[0]["data"]
        self.assertIn("plot.line", data["text/plain"])
        if "not drawn" not in data["text/plain"]: # gnuplot is there
            self.assertIn("</svg>", data["image/svg+xml"])

    def test_variables_that_ended_with_their_cell(self):
        reply, _ = self.run_code("local ended, also <const> = 1, 2 local function helper() end"
                                 " for inner = 1, 2 do local deep end")
        cell = f"In [{reply['execution_count']}]"
        for code, name in (("ended + 1", "ended"), ("ended.field", "ended"), ("also .. 'x'", "also"),
                           ("\nhelper()", "helper")):
            reply, messages = self.run_code(code)
            lines = reply["evalue"].split("\n")
            self.assertRegex(lines[0], f"a nil value .global '{name}'.$")
            self.assertEqual(lines[1], f"{name} was a local variable of {cell}, which ended with it; assign to it"
                             " without `local` to keep it")
            self.assertEqual(content_of(messages, "error")[0]["evalue"], reply["evalue"])
        for code in "inner()", "deep()", "never_seen()", "local t = {} t.ended()":
            self.assertNotIn("was a local", self.run_code(code)[0]["evalue"])

    def test_stop_on_error(self):
        client = self.kernel.client
        slow = "local t = os.clock() while os.clock() - t < 0.3 do end error 'stop'"
        failing, queued = client.execute(slow), client.execute("print 'must not run'")
        info, last = client.kernel_info(), client.execute("print 'nor this'")
        self.assertEqual(self.kernel.reply(failing)["content"]["status"], "error")
        self.kernel.iopub(failing)
        self.assertEqual(self.kernel.reply(queued)["content"]["status"], "aborted")
        states = [m["content"].get("execution_state") for m in self.kernel.iopub(queued)]
        self.assertEqual(states, ["busy", "idle"])
        self.assertEqual(self.kernel.reply(info)["content"]["status"], "ok")
        self.assertEqual(self.kernel.reply(last)["content"]["status"], "aborted")
        self.assertEqual(self.run_code("1")[0]["status"], "ok")
        failing = client.execute(slow, stop_on_error=False)
        queued = client.execute("2")
        self.assertEqual(self.kernel.reply(failing)["content"]["status"], "error")
        self.assertEqual(self.kernel.reply(queued)["content"]["status"], "ok")
        self.kernel.iopub(queued)

    def test_environment_of_cells(self):
        self.run_code("g = 1 local l = 2")
        self.assertEqual(self.result("g, l"), ["1\tnil"])
        self.run_code("kept = { require, type, tostring } require, type, tostring = nil, nil, nil")
        self.assertEqual(self.result("{1}"), ["{1}"])
        self.run_code("require, type, tostring = table.unpack(kept)")


class Output(KernelTest):
    def test_all_ways_to_write(self):
        _, messages = self.run_code("io.write('a', 1):write('b\\n') io.stdout:write('c'):write('d\\n')"
                                    " print('e', nil) io.stderr:write('f'):write('g')")
        self.assertEqual(text_of(messages), "a1b\ncd\ne\tnil\n")
        self.assertEqual(text_of(messages, "stderr"), "fg")

    def test_shell_commands(self):
        _, messages = self.run_code("print 'a' local ok, how, status = os.execute('echo b; echo c >&2; cat; exit 3')"
                                    " print(ok, how, status) return os.execute(), os.execute('kill -9 $$')")
        self.assertEqual(text_of(messages), "a\nb\nnil\texit\t3\n")
        self.assertEqual(text_of(messages, "stderr"), "c\n")
        self.assertEqual(result_of(messages), ['true\tnil\t"signal"\t9'])
        _, messages = self.run_code("os.execute('seq 200000')")
        self.assertEqual(text_of(messages), "".join(f"{i}\n" for i in range(1, 200001)))
        start = time.time()
        self.run_code("os.execute('sleep 5 &')")
        self.assertLess(time.time() - start, 2)

    def test_commands_and_prints_in_order(self):
        _, messages = self.run_code("""
            for i = 1, 20 do
              print('lua', i) os.execute('echo shell ' .. i) io.write('lua again\\n')
              local p = io.popen('echo said; echo popen ' .. i .. ' >&2') local said = p:read('a') p:close() print(said)
            end
            local p = io.popen('cat', 'w') p:write('to cat\\n') p:close() print 'end'""")
        expected = "".join(f"lua\t{i}\nshell {i}\nlua again\nsaid\n\n" for i in range(1, 21)) + "to cat\nend\n"
        self.assertEqual(text_of(messages), expected)
        self.assertEqual(text_of(messages, "stderr"), "".join(f"popen {i}\n" for i in range(1, 21)))

    def test_popen(self):
        self.assertEqual(self.result("p = io.popen('seq 3') return p:read('n', 'l', 'L', 'a')"),
                         ['1\t""\t"2\\n"\t"3\\n"'])
        self.assertEqual(self.result("p:close()"), ['true\t"exit"\t0'])
        self.assertEqual(self.result("local n = 0 for _ in io.popen('seq 1000'):lines() do n = n + 1 end return n"),
                         ["1000"])
        self.assertEqual(self.result("io.popen('exit 3'):close()"), ['nil\t"exit"\t3'])
        self.assertEqual(self.result("io.popen('kill -9 $$'):close()"), ['nil\t"signal"\t9'])
        self.assertEqual(self.result("local p = io.popen('head -c 10 >/dev/null', 'w')"
                                     " for i = 1, 100000 do p:write(i) end return p:close()"), ['true\t"exit"\t0'])
        self.assertIn("invalid mode", self.run_code("io.popen('true', 'x')")[0]["evalue"])
        self.assertEqual(self.result("io.type(io.popen('true')), tostring(io.popen('true')):match('^file')"),
                         ['"file"\t"file"'])

    def test_streams_of_c(self):
        """What is written to the process's own descriptors, and through C's streams."""
        _, messages = self.run_code("""
            one, two = io.open('/dev/fd/1', 'w'), io.open('/dev/fd/2', 'w')
            for i = 1, 100 do
              print('lua', i) one:write('one ', i, '\\n') one:flush()
              io.stderr:write('e', i) two:write('two ', i) two:flush()
            end
            warn('@on') warn('careful')""")
        self.assertEqual(text_of(messages), "".join(f"lua\t{i}\none {i}\n" for i in range(1, 101)))
        self.assertEqual(text_of(messages, "stderr"),
                         "".join(f"e{i}two {i}" for i in range(1, 101)) + "Lua warning: careful\n")
        with contextlib.closing(Kernel()) as kernel:
            # Lua's own print goes through C's stdout; it comes back with another copy of the base library.
            opened, _ = kernel.run("lua_print = print assert(package.loadlib('liblua5.4.so.0', 'luaopen_base'))()"
                                   " c_print, print = print, lua_print")
            self.assertEqual(opened["status"], "ok")
            _, messages = kernel.run("for i = 1, 100 do c_print('c', i) print('lua', i) end c_print 'last'")
            self.assertEqual(text_of(messages), "".join(f"c\t{i}\nlua\t{i}\n" for i in range(1, 101)) + "last\n")

    def test_output_after_its_cell(self):
        """It belongs to the cell that caused it, whatever else the front end has asked since."""
        client = self.kernel.client
        message_id = client.execute("os.execute('(sleep 0.5; echo late) &') print 'early'")
        self.assertEqual(text_of(self.kernel.iopub(message_id)), "early\n")
        self.kernel.reply(message_id)
        other = client.complete("pri")
        self.kernel.reply(other)
        while True:
            message = client.get_iopub_msg(timeout=TIMEOUT)
            if message["msg_type"] == "stream":
                break
        self.assertEqual(message["content"], {"name": "stdout", "text": "late\n"})
        self.assertEqual(message["parent_header"]["msg_id"], message_id)
        self.run_code("co = coroutine.wrap(function() while true do print 'resumed' coroutine.yield() end end)")
        self.assertEqual(text_of(self.run_code("co()")[1]), "resumed\n")

    def test_files_still_work(self):
        self.assertEqual(self.result("local f = io.tmpfile() f:write('x', 1) f:seek('set') return f:read('a')"), ['"x1"'])

    def test_streams_during_the_run(self):
        client = self.kernel.client

        def seconds_until_seen(code):
            message_id = client.execute(code + " while true do end")
            start = time.time()
            while True:
                message = client.get_iopub_msg(timeout=TIMEOUT)
                if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == message_id:
                    break
            seconds = time.time() - start
            self.assertEqual(message["content"]["text"], "early\n")
            self.kernel.ask("interrupt_request", {}, "control")
            self.kernel.reply(message_id)
            self.kernel.iopub(message_id)
            return seconds

        for code in ("print 'early'", "io.write 'early\\n'", "io.stderr:write 'early\\n'", "os.execute 'echo early'",
                     "local file <close> = io.open('/dev/fd/1', 'w') file:write('early\\n'):flush()",
                     "os.execute 'echo early; sleep 10'", "io.popen('echo early >&2; sleep 10'):read('a')"):
            with self.subTest(code):
                # Other processes may keep it from being prompt, but not every time.
                self.assertTrue(any(seconds_until_seen(code) < 0.05 for _ in range(20)))

    def test_many_lines_arrive_whole_in_few_messages(self):
        _, messages = self.run_code("for i = 1, 100000 do print(('x'):rep(99)) end")
        self.assertEqual(text_of(messages), ("x" * 99 + "\n") * 100000)
        self.assertLess(len(content_of(messages, "stream")), 400)
        _, messages = self.run_code("for i = 1, 10000 do print(i) end")
        self.assertEqual(text_of(messages), "".join(f"{i}\n" for i in range(1, 10001)))
        self.assertLess(len(content_of(messages, "stream")), 100)

    def test_invalid_and_split_characters(self):
        _, messages = self.run_code("print('\\xff\\0ok')")
        self.assertEqual(text_of(messages), "\ufffd\0ok\n")
        _, messages = self.run_code("io.write('\\xc3') io.write('\\xa9')")
        self.assertEqual(text_of(messages), "é")
        self.assertEqual(self.run_code("'\\xff'")[0]["status"], "ok")
        self.assertEqual(self.run_code("error('\\xff', 0)")[0]["evalue"], "\ufffd")

    def test_streams_come_before_displays(self):
        _, messages = self.run_code("local d = require 'perilune.display' print 'a' d.html 'b' print 'c'")
        kinds = [m["msg_type"] for m in messages]
        self.assertEqual(kinds[2:5], ["stream", "display_data", "stream"])

    def test_displays(self):
        _, messages = self.run_code(r"""
            local d = require 'perilune.display'
            d.png '\x89PNG\r\n\x1a\n' d.svg '<svg/>' d.html '<b>' d.markdown '*m*' d.latex '$x$' d.json { a = d.array {} }
            d.bundle { ['text/plain'] = 'p', ['image/png'] = '\x89PNG\r\n\x1a\n' }
            local h = d.html('one', { id = 'mine' }) h:update 'two'
            d.clear { wait = true }""")
        shown = content_of(messages, "display_data")
        self.assertEqual(shown[0]["data"]["image/png"], "iVBORw0KGgo=")
        self.assertEqual(shown[1]["data"]["image/svg+xml"], "<svg/>")
        self.assertEqual(shown[5]["data"]["application/json"], {"a": []})
        self.assertEqual(shown[6]["data"], {"text/plain": "p", "image/png": "iVBORw0KGgo="})
        self.assertTrue(all("text/plain" in c["data"] for c in shown))
        self.assertEqual(shown[7]["transient"], {"display_id": "mine"})
        update = content_of(messages, "update_display_data")[0]
        self.assertEqual((update["data"]["text/html"], update["transient"]), ("two", {"display_id": "mine"}))
        self.assertEqual(content_of(messages, "clear_output"), [{"wait": True}])
        self.assertEqual(self.result("require 'perilune.display'.html('x')"), [])

    def test_latex_and_markdown(self):
        _, messages = self.run_code(r"""
            local d = require 'perilune.display'
            d.latex [[e^{i\pi} = -1]] d.latex [[\begin{align} a &= b \end{align}]] d.latex [[so \(x\)]] d.latex 'and $x$'
            local h = d.markdown('# é\n| a |\n|---|\n| $x$ |', { id = true }) h:update '*m*'
            d.latex('x', { id = 'formula' }):update 'y'""")
        shown = [c["data"] for c in content_of(messages, "display_data")]
        self.assertEqual([data.get("text/latex") for data in shown],
                         [r"$$e^{i\pi} = -1$$", r"\begin{align} a &= b \end{align}", r"so \(x\)", "and $x$", None, "$$x$$"])
        self.assertEqual(shown[0]["text/plain"], r"e^{i\pi} = -1")
        self.assertEqual(shown[4]["text/markdown"], "# é\n| a |\n|---|\n| $x$ |")
        updates = [c["data"] for c in content_of(messages, "update_display_data")]
        self.assertEqual((updates[0]["text/markdown"], updates[1]["text/latex"]), ("*m*", "$$y$$"))

    def test_vegalite(self):
        kind = "application/vnd.vegalite.v5+json"
        _, messages = self.run_code("require 'perilune.display'.vegalite { mark = 'bar', data = { values = { { a = 1 } } } }")
        self.assertEqual(content_of(messages, "display_data")[0]["data"][kind],
                         {"mark": "bar", "data": {"values": [{"a": 1}]}})
        code = "require 'perilune.plot'.line { { x = {1, 2}, y = {3, 0/0} }, logx = true, interactive = true }"
        data = content_of(self.run_code(code)[1], "execute_result")[0]["data"]
        self.assertEqual(data[kind]["layer"][0]["data"]["values"], [{"x": 1, "y": 3}, {"x": 2, "y": None}])
        self.assertEqual(data[kind]["layer"][0]["encoding"]["x"]["scale"]["type"], "log")
        self.assertIn("text/plain", data)


class Monitor(KernelTest):
    """Curves that grow while a cell runs."""
    SVG = "image/svg+xml"

    def test_grows_in_its_place_a_few_times_a_second(self):
        _, messages = self.run_code("""
            local pl, core = require 'perilune', require 'perilune.core'
            local monitor <close> = pl.monitor { title = 'fit' }
            local began, step = core.time(), 0
            while core.time() - began < 1.5 do step = step + 1 monitor:log(step, { loss = 1 / step }) end
            last_step = step""")
        shown, updates = content_of(messages, "display_data"), content_of(messages, "update_display_data")
        self.assertEqual(len(shown), 1)
        self.assertTrue(2 <= len(updates) <= 5, len(updates))
        self.assertTrue(all(u["transient"] == shown[0]["transient"] for u in updates))
        self.assertTrue(all(u["data"][self.SVG].endswith("</svg>\n") for u in updates))
        last = int(self.result("last_step")[0])
        self.assertGreater(last, 1000)
        self.assertIn(f"step {last} ", updates[-1]["data"]["text/plain"])  # <close> draws what was not drawn yet
        self.assertLess(len(updates[-1]["data"][self.SVG]), 30000)

    def test_an_interrupt_keeps_the_last_picture(self):
        message_id = self.kernel.client.execute("""
            monitor = require 'perilune'.monitor()
            local guard <close>, step = monitor, 0
            while true do step = step + 1 monitor:log(step, { loss = step }) end""")
        time.sleep(1)
        self.kernel.ask("interrupt_request", {}, "control")
        self.assertEqual(self.kernel.reply(message_id)["content"]["ename"], "Interrupted")
        messages = self.kernel.iopub(message_id)
        self.assertNotIn("clear_output", [m["msg_type"] for m in messages])
        pictures = [c["data"][self.SVG] for c in content_of(messages, "update_display_data")]
        self.assertTrue(pictures and pictures[-1].endswith("</svg>\n"))
        _, messages = self.run_code("monitor")
        self.assertIn("<polyline", content_of(messages, "execute_result")[0]["data"][self.SVG])

    def test_training_loop(self):
        _, messages = self.run_code("""
            local pl = require 'perilune'
            local model = pl.nn.Linear(1, 1)
            local history = pl.train.loop { model = model, optimizer = pl.optim.SGD(model:parameters(), { lr = 0.01 }),
              steps = 300, monitor = true, progress = false, clip = 1, batch = function() return pl.ones { 4, 1 } end,
              loss = function(m, x) return (m(x) - 3):square():mean() end }
            return #history.steps""")
        self.assertEqual(result_of(messages), ["300"])
        pictures = content_of(messages, "display_data") + content_of(messages, "update_display_data")
        self.assertIn("train  step 300  grad_norm ", pictures[-1]["data"]["text/plain"])
        self.assertIn(">loss<", pictures[-1]["data"][self.SVG])


class Input(KernelTest):
    def answer(self, code, *lines):
        client = self.kernel.client
        message_id = client.execute(code, allow_stdin=True)
        prompts = []
        for line in lines:
            message = client.get_stdin_msg(timeout=TIMEOUT)
            self.assertEqual(message["msg_type"], "input_request")
            prompts.append(message["content"])
            client.input(line)
        reply = self.kernel.reply(message_id)["content"]
        return reply, self.kernel.iopub(message_id), prompts

    def test_read(self):
        _, messages, _ = self.answer("io.read(), io.read('n'), io.read('L')", "hello", "42", "line")
        self.assertEqual(result_of(messages), ['"hello"\t42\t"line\\n"'])
        _, messages, _ = self.answer("local t = {} for l in io.lines() do t[#t + 1] = l end return #t", "a", "b", "\x04")
        self.assertEqual(result_of(messages), ["2"])

    def test_formats(self):
        for code, lines, expected in (
                ("io.read('n', 'n', 'l')", ["3 0x10 rest"], '3\t16\t" rest"'),
                ("io.read('n', 'l', 'n')", ["", "  -2.5e1x", "7"], '-25.0\t"x"\t7'),
                ("local n = io.read('n') return n, io.read()", ["word"], 'nil\t"word"'),
                ("io.read(3, 0, 4)", ["abcd", "ef"], '"abc"\t""\t"d\\nef"'),
                ("io.read()", [], '""'), # what is left of that line
                ("io.read('a')", ["x", "y", "\x04"], '"x\\ny\\n"'),
                ("io.read(), io.read(5)", ["\x04", "\x04"], "nil\tnil"),
                ("io.stdin:read('L', 'l')", ["é", "b"], '"é\\n"\t"b"'),
                ("local t = {} for a, b in io.stdin:lines('n', 'l') do t[#t + 1] = a .. b end return t",
                 ["1 one", "2 two", "\x04"], '{"1 one", "2 two"}'),
                ("io.input():read()", ["default"], '"default"'),
                ("require 'perilune'.input('?'), require 'perilune'.password('!')", ["a", "b"], '"a"\t"b"')):
            with self.subTest(code):
                _, messages, _ = self.answer(code, *lines)
                self.assertEqual(result_of(messages), [expected])

    def test_questions_come_after_output(self):
        client = self.kernel.client
        message_id = client.execute("io.write 'who? ' os.execute('echo shell') return io.read()", allow_stdin=True)
        client.get_stdin_msg(timeout=TIMEOUT)
        text = ""
        while "shell" not in text:
            message = client.get_iopub_msg(timeout=TIMEOUT)
            if message["msg_type"] == "stream":
                text += message["content"]["text"]
        self.assertEqual(text, "who? shell\n")
        client.input("me")
        self.kernel.reply(message_id)
        self.assertEqual(result_of(self.kernel.iopub(message_id)), ['"me"'])

    def test_prompts(self):
        code = "local core = require 'perilune.core' return core.input('name? '), core.input('secret? ', true)"
        _, messages, prompts = self.answer(code, "é", "pass")
        self.assertEqual(prompts, [{"prompt": "name? ", "password": False}, {"prompt": "secret? ", "password": True}])
        self.assertEqual(result_of(messages), ['"é"\t"pass"'])

    def test_refused_without_allow_stdin(self):
        reply, _ = self.run_code("io.read()")
        self.assertEqual(reply["status"], "error")
        self.assertIn("does not support input", reply["evalue"])

    def test_interrupt_while_waiting(self):
        for code in "io.read()", "require 'perilune'.input()", "while true do pcall(require 'perilune'.password) end":
            message_id = self.kernel.client.execute(code, allow_stdin=True)
            self.kernel.client.get_stdin_msg(timeout=TIMEOUT)
            self.kernel.ask("interrupt_request", {}, "control")
            self.assertEqual(self.kernel.reply(message_id)["content"]["ename"], "Interrupted")
            self.kernel.iopub(message_id)
        _, messages, _ = self.answer("io.read()", "next")
        self.assertEqual(result_of(messages), ['"next"'])


class Code(KernelTest):
    def status(self, code):
        return self.kernel.reply(self.kernel.client.is_complete(code))["content"]["status"]

    def test_is_complete(self):
        for code in "1 + 1", "x = 1", "for i = 1, 2 do end", "", "local a = 1\na", "return":
            self.assertEqual(self.status(code), "complete", code)
        for code in "for i = 1, 2 do", "x =", "1 +", "f(", "--[[ comment", "[[ text", "local a = 1\na +", "if x then y()":
            self.assertEqual(self.status(code), "incomplete", code)
        for code in "x = = 1", "'unfinished", "end", "1 1 )":
            self.assertEqual(self.status(code), "invalid", code)

    def test_indent(self):
        for code, indent in (
                ("for i = 1, 3 do", "  "), ("for i = 1, 3 do\n", "  "), ("if x then\n  if y then", "    "),
                ("if x then\n  if y then\n    f()", "    "), ("if x then\n  if y then\n    f()\n  end", "  "),
                ("if x then\n  f()\nelse", "  "), ("if x then\n  f()\nelseif y then\n", "  "),
                ("while true do\n    repeat", " " * 8), ("function f()\n\tlocal x = {", "\t\t"),
                ("f(function()", "  "), ("f({ g(function() return {", "  "), ("x = {\n  1,", "  "),
                ("x = {\n        1, -- one\n", " " * 8), ("x =", "  "), ("x = a +\n  b +", "  "),
                ("for i = 1, 3 do\n  x = a +", "    "), ("for i = 1, 3 do\n  x = a +\n    b +", "    "),
                ("for i = 1, 3 do\n  x = a +\n    b\n", "  "), ("while x", "  "), ("local function f(a,", "  "),
                ("do\n  x = [[\n  text", ""), ("--[[ comment", ""), ("do --[[ comment", "  "),
                ("do\n  x = [[\n  text ]]", "  "), ("if a and", "  "), ("  do", "    "), ("a = 'do' do", "  ")):
            content = self.kernel.reply(self.kernel.client.is_complete(code))["content"]
            self.assertEqual(content, {"status": "incomplete", "indent": indent}, code)

    def complete(self, code, position=None):
        return self.kernel.reply(self.kernel.client.complete(code, position))["content"]

    def test_complete(self):
        content = self.complete("string.re")
        self.assertEqual(content["matches"], ["rep", "reverse"])
        self.assertEqual((content["cursor_start"], content["cursor_end"]), (7, 9))
        content = self.complete("x = 'äöü' .. string.upp", 23)
        self.assertEqual((content["matches"], content["cursor_start"], content["cursor_end"]), (["upper"], 20, 23))
        self.run_code("thing = setmetatable({ field = 1, method = print }, { __index = { inherited = print } })"
                      " trap = setmetatable({}, { __index = function() ran = true end })")
        self.assertEqual(self.complete("thing.")["matches"], ["field", "inherited", "method"])
        self.assertEqual(self.complete("thing:")["matches"], ["inherited", "method"])
        self.run_code("t = require 'perilune'.ones{2}")
        self.assertEqual(self.complete("t:totab")["matches"], ["totable"])
        self.assertEqual(self.complete("io.stdout:fl")["matches"], ["flush"])
        self.assertIn("while", self.complete("wh")["matches"])
        self.assertIn("mylocal", self.complete("local mylocal = 1\nmyl")["matches"])
        self.complete("trap.x.")
        self.assertEqual(self.result("ran"), ["nil"])
        self.assertEqual(self.complete("f().x")["matches"], [])

    def test_completion_counts_code_points(self):
        code = "s = '\U0001f319ü' .. string.\n  re -- \U0001f319"
        content = self.complete(code, code.index("re") + 2)
        self.assertEqual(content["matches"], ["rep", "reverse"])
        self.assertEqual((content["cursor_start"], content["cursor_end"]), (code.index("re"), code.index("re") + 2))
        for position, end in (10000, 9), (-5, 0), (None, 9):
            self.assertEqual(self.complete("string.re", position)["cursor_end"], end)
        message_id = self.kernel.ask("complete_request", {"code": "string.re"})
        self.assertEqual(self.kernel.reply(message_id)["content"]["matches"], ["rep", "reverse"])
        self.kernel.iopub(message_id)

    def test_completion_types(self):
        self.run_code("pl = require 'perilune'")
        content = self.complete("x = pl.nn.RNN{ hea")
        self.assertEqual(content["matches"], ["head_dim", "heads"])
        typed = content["metadata"]["_jupyter_types_experimental"]
        self.assertEqual(typed[0], {"text": "head_dim", "type": "param", "start": 15, "end": 18})
        kinds = {"stri": ("string", "module"), "pl.nn.Lin": ("Linear", "class"), "retu": ("return", "keyword"),
                 "string.upp": ("upper", "function"), "require 'perilune.tra": ("perilune.train", "module")}
        for code, (text, kind) in kinds.items():
            content = self.complete(code)
            self.assertEqual(content["matches"], [text])
            typed = content["metadata"]["_jupyter_types_experimental"][0]
            self.assertEqual((typed["text"], typed["type"], typed["end"]), (text, kind, len(code)))
        self.assertEqual(self.complete("string.upp")["metadata"]["_jupyter_types_experimental"][0]["signature"], "(s)")

    def test_rapid_completion(self):
        self.run_code("large = {} for i = 1, 100000 do large[i] = i large['key' .. i] = i end")
        start = time.time()
        ids = [self.kernel.client.complete("string.re"[:2 + i % 8]) for i in range(200)]
        for message_id in ids:
            self.assertEqual(self.kernel.reply(message_id)["content"]["status"], "ok")
        self.assertEqual(len(self.complete("large.key")["matches"]), 1000)
        self.assertLess(time.time() - start, 5)
        self.run_code("large = nil collectgarbage()")

    def test_questions_run_no_hooks(self):
        self.run_code("steps = 0 debug.sethook(function() steps = steps + 1 end, 'c')")
        self.result("local n = steps steps = 0 return n")  # the next cells count what showing this result takes
        count = self.result("local n = steps steps = 0 return n")
        for _ in range(20):
            self.complete("string.")
            self.inspect("string.rep(")
        self.assertEqual(self.result("local n = steps steps = 0 return n"), count)
        self.run_code("debug.sethook()")

    def test_questions_survive_broken_globals(self):
        with contextlib.closing(Kernel()) as kernel:
            kernel.run("x = 'text' for _, name in ipairs{'string', 'table', 'math', 'debug', 'io'} do"
                       " for k in pairs(_G[name]) do _G[name][k] = nil end end"
                       " for _, name in ipairs{'require', 'type', 'rawget', 'setmetatable', 'ipairs', 'pairs',"
                       " 'getmetatable', 'pcall', 'tostring'} do _G[name] = nil end")
            content = kernel.reply(kernel.client.complete("whi"))["content"]
            self.assertEqual(content["matches"], ["while"])
            self.assertTrue(kernel.reply(kernel.client.inspect("x"))["content"]["found"])

    def inspect(self, code, position=None, detail=0):
        return self.kernel.reply(self.kernel.client.inspect(code, position, detail))["content"]

    def test_inspect(self):
        content = self.inspect("string.rep('x', 3)", 11)
        self.assertEqual((content["status"], content["found"], content["metadata"]), ("ok", True, {}))
        self.assertRegex(content["data"]["text/plain"], r"^string\.rep\(s, n \[, separator\]\)\n\nn copies")
        self.assertIn("```lua\nstring.rep", content["data"]["text/markdown"])
        for code in "unknown", "", "-- string", "for":
            self.assertEqual(self.inspect(code), {"status": "ok", "found": False, "data": {}, "metadata": {}})
        code = "s = '\U0001f319' .. string.rep(s"
        self.assertIn("string.rep(s, n", self.inspect(code, code.index("(") + 1)["data"]["text/plain"])
        self.assertTrue(self.inspect("string.rep", 10000)["found"])
        self.assertFalse(self.inspect("string.rep", -1)["found"] and "rep(" in
                         self.inspect("string.rep", -1)["data"]["text/plain"])

    def test_inspect_functions_of_cells(self):
        self.run_code("-- Doubles a number.\nfunction double(x)\n  return 2 * x -- ü\nend")
        text = self.inspect("double(", detail=0)["data"]["text/plain"]
        self.assertRegex(text, r"^double\(x\)\n\nDoubles a number\.\n\nDefined in In \[\d+\]:2$")
        text = self.inspect("double(", detail=1)["data"]["text/plain"]
        self.assertTrue(text.endswith("function double(x)\n  return 2 * x -- ü\nend"), text)

    def test_inspect_tensors_and_tables(self):
        self.run_code("m = require 'perilune'.tensor{{1, 2}, {3, 0/0}} t = {1, 2, x = 'y'}")
        text = self.inspect("m")["data"]["text/plain"]
        for row in "shape +\\[2, 2\\]", "dtype +float32", "mean +2", "std +1", "min +1", "max +3", "NaN +1":
            self.assertRegex(text, row)
        self.assertIn("a sequence of 2, 1 key", self.inspect("t")["data"]["text/plain"])
        self.run_code("trap = setmetatable({}, {__index = function() ran = true end, __tostring = function() ran = true"
                      " return '' end, __mime = function() ran = true return {} end})")
        self.assertTrue(self.inspect("trap")["found"])
        self.inspect("trap.x")
        self.assertEqual(self.result("ran"), ["nil"])

    def test_questions_without_code(self):
        for kind in "complete", "inspect", "is_complete":
            message_id = self.kernel.ask(f"{kind}_request", {"code": 1})
            self.assertEqual(self.kernel.reply(message_id)["content"]["status"], "error")
            states = [c["execution_state"] for c in content_of(self.kernel.iopub(message_id), "status")]
            self.assertEqual(states, ["busy", "idle"])


class History(unittest.TestCase):
    """Each test has a data folder of its own, which its kernels share."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.file = os.path.join(self.folder.name, "perilune", "history.jsonl")

    def start(self, **environment):
        kernel = Kernel(environment={"XDG_DATA_HOME": self.folder.name, **environment})
        self.addCleanup(kernel.close)
        return kernel

    def history(self, kernel, kind, **content):
        message_id = kernel.ask("history_request", {"hist_access_type": kind, "raw": True, "output": False, **content})
        content = kernel.reply(message_id)["content"]
        self.assertEqual(content["status"], "ok")
        return content["history"]

    def test_sessions(self):
        first, second = self.start(), self.start()
        self.assertEqual(self.history(first, "tail", n=10), [])
        self.assertEqual(self.history(first, "range", session=0), [])
        first.run("a = 1")
        second.run("b = 'ü\\0'")  # two kernels at once take turns in one file
        first.run("error 'kept, too'")
        first.run("not_stored()", store_history=False)
        first.run("silent()", silent=True)
        self.assertEqual(self.history(second, "tail", n=2), [[2, 1, "b = 'ü\\0'"], [1, 2, "error 'kept, too'"]])
        self.assertEqual(self.history(second, "range", session=-1), [[1, 1, "a = 1"], [1, 2, "error 'kept, too'"]])
        third = self.start()
        self.assertEqual(self.history(third, "range", session=-1), [[2, 1, "b = 'ü\\0'"]])
        third.run("c = 3")
        for session, start, stop, lines in ((0, 1, None, ["c = 3"]), (-1, 1, None, ["b = 'ü\\0'"]),
                                            (-2, 1, None, ["a = 1", "error 'kept, too'"]), (-2, 2, None, ["error 'kept, too'"]),
                                            (-2, 1, 2, ["a = 1"]), (1, 1, 2, ["a = 1"]), (1, 2, 2, []), (-3, 1, None, []),
                                            (9, 1, None, []), (-2**63, 1, None, []), (2**63 - 1, -2**63, 2**63 - 1, [])):
            entries = self.history(third, "range", session=session, start=start, stop=stop)
            self.assertEqual([entry[2] for entry in entries], lines, (session, start, stop))
        self.assertEqual(self.history(third, "tail", n=1, output=True), [[3, 1, ["c = 3", None]]])
        self.assertEqual(len(self.history(third, "tail", n=None)), 4)
        self.assertEqual(self.history(third, "tail", n=0), [])
        self.assertEqual(os.stat(self.file).st_mode & 0o777, 0o600)

    def test_search(self):
        kernel = self.start()
        inputs = ["x = 1", "print 'x'", "x = 1", "x = [[*]]", "größe = 2", "two\nlines", "x = 1"]
        for code in inputs:
            kernel.run(code)

        def search(pattern, **options):
            return [entry[1:] for entry in self.history(kernel, "search", pattern=pattern, **options)]
        self.assertEqual(search("x = 1"), [[1, "x = 1"], [3, "x = 1"], [7, "x = 1"]])
        self.assertEqual(search("x = 1", unique=True), [[7, "x = 1"]])
        self.assertEqual(search("x*", n=2), [[4, "x = [[*]]"], [7, "x = 1"]])
        self.assertEqual(search("*", unique=True, n=3), [[5, "größe = 2"], [6, "two\nlines"], [7, "x = 1"]])
        self.assertEqual(search("gr??e*"), [[5, "größe = 2"]])
        self.assertEqual(search("gr?????e*"), [])
        self.assertEqual(search("*[[*]]"), [[4, "x = [[*]]"]])
        self.assertEqual(search("*lines"), [[6, "two\nlines"]])
        self.assertEqual(search(""), [])
        self.assertEqual(search("x"), [])
        self.assertEqual(len(self.history(kernel, "search")), 7)
        kernel.run("x = 0 -- " + "a" * 20000)
        start = time.time()
        self.assertEqual(search("x" + "*a" * 30 + "b"), [])
        self.assertLess(time.time() - start, 5)
        message_id = kernel.ask("history_request", {"hist_access_type": "everything"})
        self.assertEqual(kernel.reply(message_id)["content"]["status"], "error")

    def test_damaged_files(self):
        os.mkdir(os.path.dirname(self.file))
        with open(self.file, "wb") as file:
            file.write(b'\xff\xfe\0\n[1, 1, "good"]\n[2, 1, "cut\n{}\n[]\n[[[[\n[99999999999999999999, 1, "x"]\n[-4, 1, "y"]\n'
                       b'[3, "a", 5]\n\n\n[1, 2, "\xff"]\n[2, 2, "better"]\n[3, 1, "unfinished')
        kernel = self.start()
        self.assertEqual(self.history(kernel, "tail", n=9), [[1, 1, "good"], [2, 2, "better"]])
        kernel.run("1")
        self.assertEqual(self.history(kernel, "tail", n=9), [[1, 1, "good"], [2, 2, "better"], [4, 1, "1"]])

    def test_long_files(self):
        os.mkdir(os.path.dirname(self.file))
        with open(self.file, "w") as file:
            file.write('[77, 1, "early"]\n' + f'[5, 1, "{"x" * 1000}"]\n' * 9000)
        kernel = self.start()
        kernel.run("1")
        entries = self.history(kernel, "tail")
        self.assertLess(os.stat(self.file).st_size, 4.2e6)
        self.assertEqual((entries[-1], entries[0]), ([78, 1, "1"], [5, 1, "x" * 1000]))
        kernel.run("x = '" + "y" * 2000000 + "'")
        self.assertEqual(self.history(kernel, "tail", n=1), [[78, 1, "1"]])

    def test_without_a_file(self):
        os.mkdir(os.path.dirname(self.file))
        os.mkdir(self.file)
        for environment in {"PERILUNE_HISTORY": "0"}, {"XDG_DATA_HOME": self.folder.name}, {"XDG_DATA_HOME": "/dev/null"}:
            kernel = self.start(**environment)
            kernel.run("a = 1")
            kernel.run("b = 2")
            self.assertEqual(self.history(kernel, "tail", n=5), [[1, 1, "a = 1"], [1, 2, "b = 2"]])
        self.assertEqual(os.listdir(self.file), [])

    def test_kernels_at_once(self):
        kernels = [self.start() for _ in range(3)]
        for kernel in kernels:
            for i in range(200):
                kernel.client.execute(f"x = {i}")
        for kernel in kernels:
            self.history(kernel, "tail", n=1)  # answered when all before it are
        entries = self.history(kernels[0], "tail")
        self.assertEqual(sorted(entries), [[s, i + 1, f"x = {i}"] for s in (1, 2, 3) for i in range(200)])


class Comms(KernelTest):
    """Messages in both directions; the handlers are Lua code."""

    def tell(self, kind, content, **options):
        """What the kernel says to a message that has no reply, without busy and idle."""
        messages = self.kernel.iopub(self.kernel.ask(kind, content, **options))
        self.assertEqual([m["content"].get("execution_state") for m in messages[:1] + messages[-1:]], ["busy", "idle"])
        return messages[1:-1]

    def comms(self, **content):
        return self.kernel.reply(self.kernel.ask("comm_info_request", content))["content"]

    def test_front_end_opens(self):
        self.run_code("comm = require 'perilune.comm' comm.register_target('echo', function(c, data, buffers, metadata)"
                      " print(c.id, data.x, #buffers, metadata.m)"
                      " c:on_message(function(d, b, m) c:send({ got = d, more = {} }, { b[1] .. '!', '' }, { n = m.n }) end)"
                      " c:on_close(function(d) print('closed', d.why, c) end) end)")
        messages = self.tell("comm_open", {"comm_id": "one", "target_name": "echo", "data": {"x": 5}},
                             metadata={"m": "y"}, buffers=[b"\0\xff"])
        self.assertEqual(text_of(messages), "one\t5\t1\ty\n")
        self.assertEqual(self.comms(), {"status": "ok", "comms": {"one": {"target_name": "echo"}}})
        self.assertEqual(self.comms(target_name="echo")["comms"], {"one": {"target_name": "echo"}})
        self.assertEqual(self.comms(target_name="other")["comms"], {})
        answer, = self.tell("comm_msg", {"comm_id": "one", "data": {"a": [1, None, {}], "b": "ü"}},
                            metadata={"n": 2}, buffers=[b"\0\xff", b"second"])
        self.assertEqual(answer["msg_type"], "comm_msg")
        self.assertEqual(answer["content"],
                         {"comm_id": "one", "data": {"got": {"a": [1, None, {}], "b": "ü"}, "more": {}}})
        self.assertEqual(answer["metadata"], {"n": 2})
        self.assertEqual([bytes(b) for b in answer["buffers"]], [b"\0\xff!", b""])
        messages = self.tell("comm_close", {"comm_id": "one", "data": {"why": "done"}})
        self.assertEqual(text_of(messages), "closed\tdone\tcomm for 'echo', closed\n")
        self.assertEqual([m["msg_type"] for m in messages], ["stream"])
        self.assertEqual(self.comms()["comms"], {})
        self.assertEqual(self.tell("comm_msg", {"comm_id": "one", "data": {}}), [])
        self.assertEqual(self.tell("comm_close", {"comm_id": "one", "data": {}}), [])

    def test_kernel_opens(self):
        _, messages = self.run_code("c = require 'perilune.comm'.open('view', { a = 1 }, { 'bytes' }, { version = '2' })"
                                    " c:send() c:on_message(function(d) seen = d.v end) return c.id, c.target, c:is_open()")
        opened, sent = [m for m in messages if m["msg_type"].startswith("comm")]
        identity = opened["content"]["comm_id"]
        self.assertEqual(opened["content"], {"comm_id": identity, "target_name": "view", "data": {"a": 1}})
        self.assertEqual((opened["metadata"], [bytes(b) for b in opened["buffers"]]), ({"version": "2"}, [b"bytes"]))
        self.assertEqual((sent["msg_type"], sent["content"]), ("comm_msg", {"comm_id": identity, "data": {}}))
        self.assertEqual(sent["parent_header"]["msg_type"], "execute_request")
        self.assertEqual(result_of(messages), [f'"{identity}"\t"view"\ttrue'])
        self.assertEqual(self.comms()["comms"], {identity: {"target_name": "view"}})
        self.assertEqual(self.tell("comm_msg", {"comm_id": identity, "data": {"v": 7}}), [])
        self.assertEqual(self.result("seen"), ["7"])
        _, messages = self.run_code("c:close{ bye = true } c:close() return c:is_open()")
        closed, = [m for m in messages if m["msg_type"].startswith("comm")]
        self.assertEqual((closed["msg_type"], closed["content"]),
                         ("comm_close", {"comm_id": identity, "data": {"bye": True}}))
        self.assertEqual(result_of(messages), ["false"])
        self.assertIn("the comm for 'view' is closed", self.run_code("c:send{}")[0]["evalue"])
        self.run_code("c = require 'perilune.comm'.open('view') c.target = nil")
        self.assertEqual(self.comms()["comms"], {})
        self.run_code("c:close()")

    def test_unknown_targets_are_closed(self):
        for target in "none", 5, None:
            closed, = self.tell("comm_open", {"comm_id": "abc", "target_name": target, "data": {}})
            self.assertEqual((closed["msg_type"], closed["content"]), ("comm_close", {"comm_id": "abc", "data": {}}))
        self.assertEqual(self.tell("comm_open", {"target_name": "none"}), [])
        self.run_code("require 'perilune.comm'.register_target('gone', print)"
                      " require 'perilune.comm'.register_target('gone', nil)")
        closed, = self.tell("comm_open", {"comm_id": "abc", "target_name": "gone"})
        self.assertEqual(closed["msg_type"], "comm_close")

    def test_errors_in_handlers(self):
        self.run_code("comm = require 'perilune.comm'\ncomm.register_target('bad', function() error('no such luck') end)\n"
                      "comm.register_target('good', function(c) c:on_message(function() local x = nil; x() end) end)")
        error, closed = self.tell("comm_open", {"comm_id": "e", "target_name": "bad", "data": {}})[::-1]
        self.assertEqual((error["msg_type"], closed["msg_type"]), ("error", "comm_close"))
        self.assertRegex(error["content"]["evalue"], r"^In \[\d+\]:2: no such luck$")
        self.assertEqual(self.comms()["comms"], {})
        self.assertEqual(self.tell("comm_open", {"comm_id": "g", "target_name": "good", "data": {}}), [])
        error, = self.tell("comm_msg", {"comm_id": "g", "data": {}})
        self.assertEqual((error["msg_type"], error["content"]["ename"]), ("error", "Error"))
        self.assertRegex(error["content"]["evalue"], r"^In \[\d+\]:3: attempt to call a nil value \(local 'x'\)$")
        self.assertEqual(list(self.comms()["comms"]), ["g"])
        self.tell("comm_close", {"comm_id": "g"})
        for code, text in (("comm.open(1)", "comm.open: target: expected a string, got number"),
                           ("comm.register_target({})", "name: expected a string, got table"),
                           ("comm.register_target('x', 1)", "handler: expected a function, got number"),
                           ("comm.open('x', { 1 })", "data: expected a table with names as keys, got a sequence"),
                           ("comm.open('x', 'y')", "data: expected a table, got string"),
                           ("comm.open('x', { f = print })", "cannot write a function as JSON"),
                           ("comm.open('x', {}, 'y')", "buffers: expected an array of strings, got string"),
                           ("comm.open('x', {}, { 'a', 2 })", "buffers[2]: expected a string, got number"),
                           ("comm.open('x', {}, {}, 3)", "metadata: expected a table, got number")):
            reply, messages = self.run_code(code)
            self.assertIn(text, reply["evalue"])
            self.assertRegex(reply["evalue"], r"^In \[\d+\]:1: ")
            self.assertEqual([m for m in messages if m["msg_type"].startswith("comm")], [])

    def test_interrupt_of_a_handler(self):
        self.run_code("require 'perilune.comm'.register_target('slow', function() while true do pcall(error) end end)")
        message_id = self.kernel.ask("comm_open", {"comm_id": "s", "target_name": "slow", "data": {}})
        time.sleep(0.15)
        self.kernel.ask("interrupt_request", {}, "control")
        messages = self.kernel.iopub(message_id)
        self.assertEqual([m["msg_type"] for m in messages], ["status", "comm_close", "error", "status"])
        self.assertEqual(messages[2]["content"]["ename"], "Interrupted")
        self.assertEqual(self.comms()["comms"], {})


class Widgets(KernelTest):
    """The front end's part of jupyter-widgets' protocol, played by this test."""

    VIEW = "application/vnd.jupyter.widget-view+json"

    def setUp(self):
        self.run_code("w, pl = require 'perilune.widgets', require 'perilune'")

    def make(self, code):
        """Runs code that makes widgets; their states by their ids, and all messages."""
        reply, messages = self.run_code(code)
        self.assertEqual(reply["status"], "ok", reply)
        return {c["comm_id"]: c["data"]["state"] for c in content_of(messages, "comm_open")}, messages

    def model(self, states, name):
        """The one id of a widget of that model."""
        found, = (identity for identity, state in states.items() if state["_model_name"] == name)
        return found

    def tell(self, identity, data, **options):
        """What the kernel says to a message, without busy and idle."""
        messages = self.kernel.iopub(self.kernel.ask("comm_msg", {"comm_id": identity, "data": data}, **options))
        return messages[1:-1]

    def update(self, identity, **state):
        return self.tell(identity, {"method": "update", "state": state, "buffer_paths": []})

    def test_a_slider_changes_a_label(self):
        states, messages = self.make(
            "slider = w.IntSlider { description = 'layers', min = 1, max = 8, value = 2 }\n"
            "label = w.Label { value = '2 layers' }\n"
            "slider:observe(function(change) label.value = change.new .. ' layers' print('heard', change.new) end, 'value')\n"
            "w.VBox { slider, label }")
        box, slider, label = (self.model(states, name + "Model") for name in ("VBox", "IntSlider", "Label"))
        self.assertEqual(len(states), 3 + 3 + 2)  # with layouts and styles
        self.assertEqual({m["metadata"].get("version") for m in messages if m["msg_type"] == "comm_open"}, {"2.1.0"})
        self.assertEqual(states[box]["children"], ["IPY_MODEL_" + slider, "IPY_MODEL_" + label])
        self.assertIn(states[slider]["layout"][len("IPY_MODEL_"):], states)
        result, = content_of(messages, "execute_result")
        self.assertEqual(result["data"][self.VIEW], {"version_major": 2, "version_minor": 0, "model_id": box})
        self.assertEqual(result["data"]["text/plain"], "VBox{}")
        messages = self.update(slider, value=5)
        echo, change = content_of(messages, "comm_msg")
        self.assertEqual((echo["comm_id"], echo["data"]),
                         (slider, {"method": "echo_update", "state": {"value": 5}, "buffer_paths": []}))
        self.assertEqual((change["comm_id"], change["data"]),
                         (label, {"method": "update", "state": {"value": "5 layers"}, "buffer_paths": []}))
        self.assertEqual(text_of(messages), "heard\t5\n")
        self.assertEqual({m["parent_header"]["msg_type"] for m in messages}, {"comm_msg"})
        self.assertEqual(self.result("slider.value, label.value"), ['5\t"5 layers"'])
        _, messages = self.run_code("slider.value = 7")
        self.assertEqual([(c["comm_id"], c["data"]["state"]) for c in content_of(messages, "comm_msg")],
                         [(slider, {"value": 7}), (label, {"value": "7 layers"})])
        whole, = content_of(self.tell(slider, {"method": "request_state"}), "comm_msg")
        self.assertEqual(whole["data"]["state"], {**states[slider], "value": 7})

    def test_handlers(self):
        states, _ = self.make("button = w.Button { description = 'go' } button:on_click(function(b) print(b) end)"
                              " button:on_click(function() error 'no luck' end)")
        button = self.model(states, "ButtonModel")
        click = {"method": "custom", "content": {"event": "click"}}
        messages = self.tell(button, click)
        self.assertEqual(text_of(messages), 'Button{ description = "go" }\n')
        error, = content_of(messages, "error")
        self.assertRegex(error["evalue"], r"^In \[\d+\]:1: no luck$")
        self.assertEqual(len(content_of(self.tell(button, click), "error")), 1)  # and so on
        states, _ = self.make("slider = w.IntSlider()")
        for data in ({"method": "none"}, {}, {"method": "custom"}, {"method": "update"}, [], 5, None,
                     {"method": "update", "state": {}, "buffer_paths": [["a", "b"], 5, []]}):
            self.assertEqual(self.tell(self.model(states, "IntSliderModel"), data), [])
            self.assertEqual(self.tell(button, data), [])
        error, = content_of(self.update(self.model(states, "IntSliderModel"), value=[]), "error")
        self.assertEqual(error["evalue"], "IntSlider: value: expected an integer, got {}")
        self.assertEqual(self.result("slider.value"), ["0"])

    def test_page_reload(self):
        states, _ = self.make("image = w.Image { value = '\\0\\xff' }")
        image = self.model(states, "ImageModel")
        self.kernel.iopub(self.kernel.ask("comm_open", {"comm_id": "control", "target_name": "jupyter.widget.control",
                                                        "data": {}}, metadata={"version": "1.0.0"}))
        answer, = self.tell("control", {"method": "request_states"})
        data = answer["content"]["data"]
        self.assertEqual(data["method"], "update_states")
        listed = self.kernel.reply(self.kernel.ask("comm_info_request", {"target_name": "jupyter.widget"}))["content"]
        self.assertEqual(set(data["states"]), set(listed["comms"]))
        self.assertEqual(data["states"][image]["model_name"], "ImageModel")
        self.assertEqual(data["states"][image]["state"], states[image])
        found = [bytes(b) for path, b in zip(data["buffer_paths"], answer["buffers"]) if path == [image, "state", "value"]]
        self.assertEqual(found, [b"\0\xff"])

    def test_binary_values(self):
        _, messages = self.run_code("image = w.Image { value = '\\0\\xff' }")
        opened, = (m for m in messages if m["msg_type"] == "comm_open" and m["buffers"])
        self.assertEqual(opened["content"]["data"]["buffer_paths"], [["value"]])
        self.assertEqual([bytes(b) for b in opened["buffers"]], [b"\0\xff"])
        self.assertNotIn("value", opened["content"]["data"]["state"])
        self.tell(opened["content"]["comm_id"], {"method": "update", "state": {}, "buffer_paths": [["value"]]},
                  buffers=[b"new\xfe"])
        self.assertEqual(self.result("image.value == 'new\\xfe'"), ["true"])

    def test_output_captures(self):
        states, _ = self.make("out = w.Output()")
        out = self.model(states, "OutputModel")
        reply, messages = self.run_code("print 'before' x, y = out:capture(function(a) print 'inside'"
                                        " io.stderr:write 'e' return a, 2 end, 1) print('after', x, y)")
        kinds = [(m["msg_type"], m["content"].get("text") or m["content"]["data"]["state"]["msg_id"])
                 for m in messages if m["msg_type"] in ("stream", "comm_msg")]
        message_id = messages[0]["parent_header"]["msg_id"]
        self.assertEqual(kinds, [("stream", "before\n"), ("comm_msg", message_id), ("stream", "inside\n"), ("stream", "e"),
                                 ("comm_msg", ""), ("stream", "after\t1\t2\n")])
        reply, messages = self.run_code("out:capture(function() error 'inside' end) print 'goes on'")
        self.assertEqual(reply["status"], "ok")
        self.assertEqual([m["msg_type"] for m in messages if m["msg_type"] in ("error", "comm_msg", "stream")],
                         ["comm_msg", "error", "comm_msg", "stream"])
        reply, messages = self.run_code("out:clear { wait = true }")
        self.assertEqual([m["msg_type"] for m in messages[2:-1]], ["comm_msg", "clear_output", "comm_msg"])
        self.update(out, outputs=[{"output_type": "stream", "name": "stdout", "text": "t"}])
        self.assertEqual(self.result("out.outputs[1].text"), ['"t"'])

    def test_updates_inside_an_output(self):
        """JupyterLab's view of an Output leaves updates out: what they change is a widget of its own in it."""
        states, _ = self.make("out = w.Output() display = require 'perilune.display'")
        out = self.model(states, "OutputModel")
        _, messages = self.run_code("out:capture(function() h = display.html('one', { id = true })"
                                    " display.html 'plain' end) h:update 'two'")
        opened = {c["comm_id"]: c["data"]["state"] for c in content_of(messages, "comm_open")}
        own = self.model(opened, "OutputModel")
        self.assertEqual([o["data"]["text/html"] for o in opened[own]["outputs"]], ["one"])
        shown, plain = content_of(messages, "display_data")
        self.assertEqual((shown["data"][self.VIEW]["model_id"], plain["data"]["text/html"]), (own, "plain"))
        told = [c["data"]["state"]["outputs"] for c in content_of(messages, "comm_msg")
                if c["comm_id"] == own and "outputs" in c["data"]["state"]]
        self.assertEqual([(o["output_type"], o["data"]["text/html"]) for o, in told], [("display_data", "two")])
        _, messages = self.run_code("out:capture(function() display.clear { wait = true } print 'new' end)"
                                    " h:update 'three'")
        kinds = [m["msg_type"] for m in messages if m["msg_type"] != "status"]
        self.assertLess(kinds.index("stream"), kinds.index("comm_close"))  # seen until something new came
        self.assertIn(own, [c["comm_id"] for c in content_of(messages, "comm_close")])
        _, messages = self.run_code("out:capture(function() display.png('\\x89PNG-', { id = 'of two' }) end) out:close()"
                                    " display.html('cell', { id = 'of two' })")
        opened = [c["data"]["state"] for c in content_of(messages, "comm_open")]
        picture, = [s["outputs"] for s in opened if s["_model_name"] == "OutputModel"]
        self.assertEqual(picture[0]["data"]["image/png"], "iVBORy0=")
        self.assertIn(out, [c["comm_id"] for c in content_of(messages, "comm_close")])
        self.assertEqual(len(content_of(messages, "comm_close")), 2 * len(opened))
        self.assertEqual([c["data"].get("text/html") for c in content_of(messages, "display_data")][1:], ["cell"])

    def test_interrupt_of_a_capture(self):
        states, _ = self.make("out = w.Output()")
        message_id = self.kernel.client.execute("out:capture(function() while true do end end) print 'never'")
        time.sleep(0.15)
        self.kernel.ask("interrupt_request", {}, "control")
        messages = self.kernel.iopub(message_id)
        error, = content_of(messages, "error")
        self.assertEqual(error["ename"], "Interrupted")
        self.assertEqual(text_of(messages), "")
        self.kernel.reply(message_id)
        _, messages = self.run_code("out:capture(function() out:capture(print, 'in') print 'out' end)")
        self.assertEqual([c["data"]["state"]["msg_id"] for c in content_of(messages, "comm_msg")],
                         [messages[0]["parent_header"]["msg_id"], ""])
        self.assertEqual(text_of(messages), "in\nout\n")

    def test_interact(self):
        states, messages = self.make("pl.interact(function(x, name) if x == 13 then error 'unlucky' end"
                                     " print(x, name) return { x } end, { name = { 'a', 'b' }, x = 10 })")
        box, slider, dropdown, out = (self.model(states, name + "Model")
                                      for name in ("VBox", "IntSlider", "Dropdown", "Output"))
        self.assertEqual(states[box]["children"], ["IPY_MODEL_" + i for i in (slider, dropdown, out)])
        shown, result = content_of(messages, "display_data")
        self.assertEqual(shown["data"][self.VIEW]["model_id"], box)
        self.assertEqual(result["data"]["text/plain"], "{10}")
        self.assertEqual(content_of(messages, "execute_result"), [])
        message_id = self.kernel.ask("comm_msg", {"comm_id": dropdown, "data": {
            "method": "update", "state": {"index": 1}, "buffer_paths": []}})
        messages = self.kernel.iopub(message_id)[1:-1]
        self.assertEqual([m["msg_type"] for m in messages],
                         ["comm_msg", "comm_msg", "clear_output", "stream", "display_data", "comm_msg"])
        self.assertEqual(messages[1]["content"]["data"]["state"], {"msg_id": message_id})
        self.assertEqual((messages[1]["content"]["comm_id"], messages[2]["content"]), (out, {"wait": True}))
        self.assertEqual(text_of(messages), "10\tb\n")
        messages = self.update(slider, value=13)
        self.assertEqual([m["msg_type"] for m in messages],
                         ["comm_msg", "comm_msg", "clear_output", "error", "comm_msg"])
        self.assertEqual(text_of(self.update(slider, value=14)), "14\tb\n")

    def test_speed_curves(self):
        """The notebook of speed curves: another option gives another figure, and an interrupt does no harm."""
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "notebooks")
        with open(os.path.join(folder, "04-speed-curves.ipynb")) as file:
            cells = ["".join(c["source"]) for c in json.load(file)["cells"] if c["cell_type"] == "code"]
        kernel = Kernel(cwd=folder, environment={"PERILUNE_DEVICE": "cpu"})
        self.addCleanup(kernel.close)
        states = {}
        curve, shown = (next(i for i, code in enumerate(cells) if part in code)
                        for part in ("function curves(", "pl.interact(curves,"))
        for code in cells[:curve] + ["steps = 4 -- for a sanitizer's sake"] + cells[curve:shown + 1]:
            reply, messages = kernel.run(code)
            self.assertEqual(reply["status"], "ok", reply)
            states.update((c["comm_id"], c["data"]["state"]) for c in content_of(messages, "comm_open"))
        out = next(i for i, state in states.items() if state["_model_name"] == "OutputModel")  # the first bar is in it

        def choose(label):
            """Takes the option of that label in its dropdown; the message's id."""
            comm, index = next((comm, state["_options_labels"].index(label)) for comm, state in states.items()
                               if label in state.get("_options_labels", []))
            return kernel.ask("comm_msg", {"comm_id": comm, "data": {
                "method": "update", "state": {"index": index}, "buffer_paths": []}})

        def check_figure(label, title, *curves):
            message_id = choose(label)
            messages = kernel.iopub(message_id)
            self.assertEqual([c["data"]["state"]["msg_id"] for c in content_of(messages, "comm_msg")
                              if c["comm_id"] == out], [message_id, ""])  # what comes goes into the widget
            bar, figure = content_of(messages, "display_data")
            opened = {c["comm_id"]: c["data"]["state"] for c in content_of(messages, "comm_open")}
            inside, = opened[bar["data"][self.VIEW]["model_id"]]["outputs"]
            self.assertIn("measuring", inside["data"]["text/plain"])
            kinds = [m["msg_type"] for m in messages if m["msg_type"] in ("clear_output", "display_data", "error")]
            self.assertEqual(kinds, ["clear_output", "display_data", "clear_output", "display_data"])
            self.assertIn(title, figure["data"]["text/plain"])
            if "not drawn" not in figure["data"]["text/plain"]:  # gnuplot is there
                for curve in curves:
                    self.assertIn(f">{curve}<", figure["data"]["image/svg+xml"])

        check_figure("gru", "gru, float32: forward and backward\nbatch 16, 4 steps", "reference", "vanilla")
        check_figure("steps", "gru, float32: forward and backward\n4 x 64 units, batch 16", "time steps")
        kernel.run("short, axes.steps = axes.steps, { 500, 1000, 2000 }")  # which take many seconds
        message_id = choose("elman")
        while kernel.client.get_iopub_msg(timeout=TIMEOUT)["msg_type"] != "display_data":  # the bar
            pass
        kernel.ask("interrupt_request", {}, "control")
        error, = content_of(kernel.iopub(message_id), "error")
        self.assertEqual(error["ename"], "Interrupted")
        kernel.run("axes.steps = short")
        check_figure("inf", "elman, float32: inference\n4 x 64 units, batch 16", "reference", "vanilla")
        self.assertEqual(result_of(kernel.run("lab.controls.pass.value")[1]), ['"inf"'])

    def test_ipywidgets_6(self):
        """Its front end asks for the version before any code has run."""
        kernel = Kernel()
        self.addCleanup(kernel.close)
        kernel.iopub(kernel.ask("comm_open", {"comm_id": "v", "target_name": "jupyter.widget.version", "data": {}}))
        _, messages = kernel.run("w = require 'perilune.widgets' slider = w.IntSlider { value = 3 } slider")
        slider, = (c for c in content_of(messages, "comm_open") if c["data"]["_model_name"] == "IntSliderModel")
        self.assertEqual(slider["data"]["_model_module"], "jupyter-js-widgets")
        self.assertEqual(content_of(messages, "comm_msg"), [{"comm_id": slider["comm_id"], "data": {"method": "display"}}])
        self.assertEqual(result_of(messages), [""])  # it would stand below the slider
        self.assertEqual(kernel.iopub(kernel.ask("comm_msg", {"comm_id": slider["comm_id"], "data": {
            "method": "backbone", "sync_data": {"value": 4}, "buffer_keys": []}}))[1:-1], [])
        self.assertEqual(result_of(kernel.run("slider.value")[1]), ["4"])

    def test_closing(self):
        states, _ = self.make("label = w.Label { value = 'x' }")
        _, messages = self.run_code("label:close() label.value = 'y' label")
        self.assertEqual({c["comm_id"] for c in content_of(messages, "comm_close")}, set(states))
        self.assertEqual(content_of(messages, "comm_msg"), [])
        result, = content_of(messages, "execute_result")
        self.assertEqual(result["data"], {"text/plain": 'Label{ value = "y" }, closed'})
        states, _ = self.make("label = w.Label()")
        label = self.model(states, "LabelModel")
        self.kernel.iopub(self.kernel.ask("comm_close", {"comm_id": label, "data": {}}))
        _, messages = self.run_code("label.value = 'z'")
        self.assertEqual(content_of(messages, "comm_msg"), [])


class Magics(KernelTest):
    """Lines of a cell that are no Lua."""

    def test_time(self):
        reply, messages = self.run_code("local n = 20\n%time n + 1")
        self.assertEqual(reply["status"], "ok")
        self.assertRegex(text_of(messages), r"^CPU time: \S+ \S+, wall time: \S+ \S+\n$")
        self.assertEqual(result_of(messages), ["21"])
        _, messages = self.run_code("%%time\nlocal x = 1\nprint 'first'\nx + 1")
        self.assertRegex(text_of(messages), r"^first\nCPU time: .*\n$")
        self.assertEqual(result_of(messages), ["2"])
        reply, messages = self.run_code("%%time\nerror 'no'")
        self.assertRegex(reply["evalue"], r":2: no$")
        self.assertEqual(text_of(messages), "")
        _, messages = self.run_code("%timeit -n 10 -r 3 1 + 1")
        self.assertRegex(text_of(messages), r" per loop \(mean ± std\. dev\. of 3 runs, 10 loops each\)\n$")
        self.assertEqual(result_of(messages), [])

    def test_lines_of_errors(self):
        for code, line in (("!true\n\nerror 'no'", 3), ("if true then\n  %time error 'no'\nend", 2),
                           ("%lsmagic\nx = = 1", 2), ("x = 1\n\n%time f(", 3), ("-- what?\n\nerror 'who?'", 3)):
            self.assertRegex(self.run_code(code)[0]["evalue"], rf"^In \[\d+\]:{line}: ")
        reply, messages = self.run_code("print 'not this'\nx = 1;\n%frobnicate 3")
        self.assertEqual(reply["ename"], "SyntaxError")
        self.assertRegex(reply["evalue"], r":3: there is no magic '%frobnicate'; the magics are %%time, %load, %lsmagic, ")
        self.assertEqual(text_of(messages), "")

    def test_lua_is_left_alone(self):
        self.assertEqual(self.result("a, b = 17, 5\nlocal c = a\n% b\nreturn c, '?', [[\n!ls\n%time\n]] -- who?"),
                         ['2\t"?"\t"!ls\\n%time\\n"'])

    def test_is_complete(self):
        for code, expected in (("%time f(x)", "complete"), ("print?", "complete"), ("!echo it's", "complete"),
                               ("for i = 1, 2 do\n%time f(i)", "incomplete"), ("x = 1\n!ls\nx =", "incomplete"),
                               ("%tiem f()", "invalid"), ("%time f(", "invalid"), ("x = (\n!ls\n)", "invalid")):
            reply = self.kernel.reply(self.kernel.client.is_complete(code))["content"]
            self.assertEqual(reply["status"], expected, code)

    def test_help(self):
        for code in "?string.rep", "string.rep?", "string.rep??":
            _, messages = self.run_code(code)
            self.assertIn("string.rep(", content_of(messages, "display_data")[0]["data"]["text/plain"])
        _, messages = self.run_code("local mine = { field = 'held' }\n?mine")
        self.assertIn("held", content_of(messages, "display_data")[0]["data"]["text/plain"])
        self.assertIn("nothing is known of 'a.b'", self.run_code("?a.b")[0]["evalue"])

    def test_files(self):
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write("made = ...\nreturn made .. '!'\n")
            file.flush()
            self.assertEqual(self.result(f"%run {file.name} 'a b'"), ['"a b!"'])
            self.assertEqual(self.result("made"), ['"a b"'])
            reply, messages = self.run_code(f"%load {file.name}")
            self.assertEqual(reply["payload"], [{
                "source": "set_next_input", "replace": True,
                "text": f"-- %load {file.name}\nmade = ...\nreturn made .. '!'\n"}])
            self.assertEqual(text_of(messages), "")
            self.assertEqual(self.run_code("1")[0]["payload"], [])

    def test_reset(self):
        self.run_code("mine, require, print, type = 1, nil, nil, nil")
        self.assertEqual(self.result("%reset\nmine, type(print), type(require)"), ['nil\t"function"\t"function"'])

    def test_shell(self):
        client = self.kernel.client
        message_id = client.execute("!echo early; sleep 1; echo late; echo wrong >&2; exit 3")
        start = time.time()
        while True:
            message = client.get_iopub_msg(timeout=TIMEOUT)
            if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == message_id:
                break
        self.assertLess(time.time() - start, 0.8)
        self.assertEqual(message["content"]["text"], "early\n")
        self.assertEqual(self.kernel.reply(message_id)["content"]["status"], "ok")
        messages = self.kernel.iopub(message_id)
        self.assertEqual(text_of(messages), "late\n")
        self.assertEqual(text_of(messages, "stderr"), "wrong\nexit status 3\n")


class Interrupts(KernelTest):
    LOOPS = {
        "endless": "while true do end",
        "pcall": "while true do pcall(error) end",
        "nested pcall": "local function f() while true do pcall(f) end end f()",
        "xpcall": "while true do xpcall(error, function() end) end",
        "coroutine": "coroutine.wrap(function() while true do pcall(error) end end)()",
        "many coroutines": "while true do coroutine.resume(coroutine.create(function() coroutine.yield() end)) end",
        "sort": "while true do table.sort({3, 2, 1, 5, 4}, function(a, b) while true do end end) end",
        "deep pcalls in a coroutine": "local function f() while true do pcall(f) end end"
                                      " while true do pcall(coroutine.wrap(f)) end",
        "sort in a coroutine": "coroutine.wrap(function() while true do pcall(table.sort, {3, 2, 1},"
                               " function() while true do end end) end end)()",
        "goto": "::again:: goto again",
        "in a protected coroutine": "while true do pcall(coroutine.wrap(function() while true do end end)) end",
        "close": "while true do local c <close> = setmetatable({}, {__close = function() while true do end end}) end",
        "a shell command": "os.execute('sleep 30')",
        "a command behind '!'": "!sleep 30",
        "loops of %timeit": "%timeit pcall(error)",
        "a command that ignores it": "os.execute([[trap '' INT TERM; while true; do sleep 1; done]])",
        "commands": "while true do os.execute('true') end",
        "reading from a command": "io.popen('sleep 30'):read('a')",
        "lines of a command": "for line in io.popen('while true; do echo x; sleep 0.01; done'):lines() do end",
        "writing to a command": "local p = io.popen('sleep 30', 'w') while true do p:write(('x'):rep(1000)) end",
        "closing a command": "io.popen('sleep 30'):close()",
        "sleep": "require 'perilune'.sleep(30)",
        "sleeps": "while true do pcall(require 'perilune'.sleep, 0.001) end",
        "gnuplot": "local y = {} for i = 1, 20000 do y[i] = i % 7 end print 'ready'"
                   " local figure = require 'perilune.plot'.line { { y = y } } while true do figure:svg() end",
        "a recurrence": "local pl = require 'perilune'"
                        " local x, R = pl.zeros{4, 20000, 4, 1, 64}, pl.zeros{4, 1, 64, 64}"
                        " local options = { cell = 'lstm', backend = 'reference' } print 'ready'"
                        " while true do pl.rnn(x, R, pl.zeros{4, 1, 64}, options) end",
        "gradients of a recurrence": "local pl = require 'perilune'"
                                     " local x = pl.zeros{4, 5000, 3, 1, 64}:requires_grad()"
                                     " local options = { cell = 'gru', backend = 'reference', outputs = 'h' }"
                                     " local R, b = pl.zeros{3, 1, 64, 64}:requires_grad(), pl.zeros{4, 1, 64}"
                                     " print 'ready' while true do (pl.rnn(x, R, b, options)):sum():backward() end",
        "a product": "local a = require 'perilune'.zeros{5000, 5000} print 'ready' while true do a:matmul(a) end",
        "sums": "local pl = require 'perilune' local a = pl.zeros{1000, 10000} print 'ready'"
                " while true do a:softmax(2):sum(1) a:argmax() pl.exp(a):sum() end",
        "printing": "while true do print 'x' end",
        "tostring": "setmetatable({}, {__tostring = function() while true do end end})",
    }

    def interrupted(self, code, how):
        message_id = self.kernel.client.execute(code)
        while "ready" in code: # what comes before is only made for it
            message = self.kernel.client.get_iopub_msg(timeout=TIMEOUT)
            if message["msg_type"] in ("stream", "error"):
                break
        time.sleep(0.15)
        start = time.time()
        how()
        reply = self.kernel.reply(message_id)["content"]
        seconds = time.time() - start
        self.assertLess(seconds, 1)
        self.kernel.iopub(message_id)
        self.assertEqual(reply["status"], "error")
        self.assertEqual(reply["ename"], "Interrupted")
        _, messages = self.run_code("local n = 0 for i = 1, 1000 do pcall(error) n = n + 1 end return n")
        self.assertEqual(result_of(messages), ["1000"])
        return seconds

    def test_message(self):
        for name, code in self.LOOPS.items():
            with self.subTest(name):
                for _ in range(20): # other processes may keep it from being prompt, but not every time
                    seconds = self.interrupted(code, lambda: self.kernel.ask("interrupt_request", {}, "control"))
                    if seconds < 0.1:
                        break
                self.assertLess(seconds, 0.1)

    def test_traceback(self):
        """It tells where the interrupt struck first, and not what was closed on the way out."""
        self.run_code("pl = require 'perilune' function work() print 'ready'\nwhile true do end\nend")
        for code in ("work()", "for i in pl.progress(1, 3) do work() end", "local s <close> = pl.scope() work() print()",
                     "local c <close> = setmetatable({}, { __close = function() pl.time() end }) work() print()",
                     "pl.interact(work, {})", "for i = 1, 3 do pcall(work) end work()"):
            message_id = self.kernel.client.execute(code)
            while self.kernel.client.get_iopub_msg(timeout=TIMEOUT)["msg_type"] != "stream":
                pass
            self.kernel.ask("interrupt_request", {}, "control")
            reply = self.kernel.reply(message_id)["content"]
            self.kernel.iopub(message_id)
            self.assertEqual((reply["ename"], reply["evalue"]), ("Interrupted", "interrupted"))
            if "pcall" not in code:
                self.assertRegex(reply["traceback"][2], r"In \[\d+\]:2: in (function 'work'|function <In \[\d+\]:1>)", code)
            self.assertRegex(reply["traceback"][-1], r"In \[\d+\]:1: in main chunk", code)
            self.assertEqual("".join(reply["traceback"]).count("traceback"), 1)

    def test_nothing_is_left_behind(self):
        def files():
            return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("lua_")}
        before = files()
        self.interrupted("local fig = require 'perilune.plot'.line { { y = { 1, 2 } } } while true do fig:svg() end",
                         lambda: self.kernel.ask("interrupt_request", {}, "control"))
        self.assertEqual(files() - before, set())
        seconds = f"31.{os.getpid()}" # found by its argument
        self.interrupted(f"os.execute('sleep {seconds} | (sleep {seconds}; true)')",
                         lambda: self.kernel.ask("interrupt_request", {}, "control"))
        found = 0
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                found += file.read() == f"sleep\0{seconds}\0".encode()
        self.assertEqual(found, 0)

    def test_signal(self):
        self.interrupted("while true do pcall(error) end", lambda: self.kernel.process.send_signal(signal.SIGINT))

    def test_bursts(self):
        def burst():
            for _ in range(20):
                self.kernel.process.send_signal(signal.SIGINT)
                time.sleep(0.001)
        self.interrupted("while true do pcall(error) end", burst)

    def test_when_idle(self):
        message_id = self.kernel.ask("interrupt_request", {}, "control")
        self.assertEqual(self.kernel.reply(message_id, "control")["content"]["status"], "ok")
        self.kernel.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        self.assertEqual(self.result("1 + 1"), ["2"])

    def test_questions(self):
        code = "print?\n" * 20000 # is_complete takes minutes, inspect ends before the interrupt
        for kind in "is_complete_request", "inspect_request":
            message_id = self.kernel.ask(kind, {"code": code, "cursor_pos": len(code)})
            time.sleep(0.15)
            interrupt_id = self.kernel.ask("interrupt_request", {}, "control")
            self.kernel.reply(message_id)
            self.kernel.reply(interrupt_id, "control") # else it may come while the next cell runs
            self.assertEqual(self.result("1 + 1"), ["2"])

    def test_between_busy_and_the_code(self):
        self.run_code("1")
        with open(os.path.join(self.kernel.folder.name, "perilune", "history.jsonl"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX) # the cell waits here before it runs
            message_id = self.kernel.client.execute("while true do end")
            while self.kernel.client.get_iopub_msg(timeout=TIMEOUT)["parent_header"].get("msg_id") != message_id:
                pass
            self.kernel.reply(self.kernel.ask("interrupt_request", {}, "control"), "control")
            time.sleep(0.1)
        self.assertEqual(self.kernel.reply(message_id)["content"]["ename"], "Interrupted")
        self.kernel.iopub(message_id)
        self.assertEqual(self.result("1 + 1"), ["2"])

    def test_suspended_coroutines_survive(self):
        self.run_code("co = coroutine.create(function() for i = 1, 9 do coroutine.yield(i) end end) coroutine.resume(co)")
        self.interrupted("while true do end", lambda: self.kernel.process.send_signal(signal.SIGINT))
        self.assertEqual(self.result("coroutine.resume(co)"), ["true\t2"])


class SlowFrontEnd(unittest.TestCase):
    """100 MB for a front end that reads slowly: the code that prints waits, and the kernel stays small."""

    MEGABYTES = 100
    CODE = f"for i = 1, {MEGABYTES * 10000} do print(('x'):rep(99)) end"

    def setUp(self):
        # Under the address sanitizer freed memory is to be used again soon, as it is without.
        self.kernel = Kernel(environment={"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"})
        self.addCleanup(self.kernel.close)
        self.kernel.client.iopub_channel.stop() # it would read as fast as it can
        self.socket = zmq.Context.instance().socket(zmq.SUB)
        self.addCleanup(self.socket.close)
        self.socket.setsockopt(zmq.RCVHWM, 2)
        self.socket.setsockopt(zmq.RCVBUF, 1 << 16)
        self.socket.setsockopt(zmq.SUBSCRIBE, b"")
        self.socket.connect(self.kernel.client._make_url("iopub"))
        self.message() # the welcome
        self.start_mb = self.resident_mb()

    def message(self):
        self.assertTrue(self.socket.poll(TIMEOUT * 1000))
        session = self.kernel.client.session
        return session.deserialize(session.feed_identities(self.socket.recv_multipart())[1])

    def resident_mb(self):
        with open(f"/proc/{self.kernel.process.pid}/status") as status:
            return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024

    def read_all(self, message_id):
        """The bytes of text up to idle, read with pauses, and the most memory that the kernel had meanwhile."""
        length = count = 0
        peak_mb = self.resident_mb()
        while True:
            message = self.message()
            count += 1
            if count % 100 == 0:
                time.sleep(0.01)
                peak_mb = max(peak_mb, self.resident_mb())
            if message["msg_type"] == "stream":
                length += len(message["content"]["text"])
            if (message["parent_header"].get("msg_id") == message_id and message["msg_type"] == "status"
                    and message["content"]["execution_state"] == "idle"):
                return length, peak_mb

    def test_prints_wait(self):
        message_id = self.kernel.client.execute(self.CODE)
        time.sleep(1)
        length, peak_mb = self.read_all(message_id)
        self.assertEqual(self.kernel.reply(message_id)["content"]["status"], "ok")
        self.assertEqual(length, self.MEGABYTES * 1000000)
        self.assertLess(peak_mb - self.start_mb, 128)

    def test_commands_wait(self):
        message_id = self.kernel.client.execute(f"os.execute [[head -c {self.MEGABYTES}000000 /dev/zero | tr '\\0' x]]")
        time.sleep(1)
        length, peak_mb = self.read_all(message_id)
        self.assertEqual(length, self.MEGABYTES * 1000000)
        self.assertLess(peak_mb - self.start_mb, 128)

    def test_one_long_text_waits(self):
        message_id = self.kernel.client.execute(f"io.write(('x'):rep({self.MEGABYTES}000000))")
        time.sleep(1)
        length, peak_mb = self.read_all(message_id)
        self.assertEqual(length, self.MEGABYTES * 1000000)
        self.assertLess(peak_mb - self.start_mb, self.MEGABYTES * 2 + 128) # Lua itself makes it of two copies

    def test_results_wait(self):
        client = self.kernel.client
        client.execute("big = setmetatable({}, {__mime = function() return {['text/plain'] = ('x'):rep(1000000)} end})")
        ids = [client.execute("big") for _ in range(4 * self.MEGABYTES)]
        time.sleep(1)
        _, peak_mb = self.read_all(ids[-1])
        self.assertEqual(self.kernel.reply(ids[-1])["content"]["status"], "ok")
        self.assertLess(peak_mb - self.start_mb, 128)

    def test_an_interrupt_ends_the_wait(self):
        for code in "while true do print(('x'):rep(99)) end", "os.execute('yes')":
            message_id = self.kernel.client.execute(code)
            time.sleep(1)
            self.assertLess(self.resident_mb() - self.start_mb, 128)
            start = time.time()
            self.kernel.ask("interrupt_request", {}, "control")
            self.assertEqual(self.kernel.reply(message_id)["content"]["ename"], "Interrupted")
            self.assertLess(time.time() - start, 1)
            self.read_all(message_id)


class Robustness(KernelTest):
    def test_malformed_messages(self):
        client = self.kernel.client
        session = client.session
        good = session.serialize(session.msg("execute_request", {"code": "hacked = true"}))
        raw = [[b"junk"], [b""], [b"<IDS|MSG>"], [b"<IDS|MSG>", b"sig"], good[:4], good[:1] + [b"0" * 64] + good[2:],
               good[:1] + [b""] + good[2:], good[:1] + [b"\xff" * 64] + good[2:], [b"\x00" * 100000]]
        for header in b"[]", b"null", b"{}", b"{\"msg_type\": 5}", b"\xff\xfe", b"[" * 100000:
            frames = [header, b"{}", b"{}", b"{}"]
            raw.append([b"<IDS|MSG>", session.sign(frames)] + frames)
        frames = [session.pack(session.msg_header("execute_request")), b"{}", b"{}", b"[1]"]
        raw.append([b"<IDS|MSG>", session.sign(frames)] + frames)
        for channel in client.shell_channel, client.control_channel, client.stdin_channel:
            for message in raw:
                channel.socket.send_multipart(message)
        self.assertEqual(self.result("hacked"), ["nil"])
        message_id = self.kernel.ask("kernel_info_request", {}, "control")
        self.kernel.reply(message_id, "control")

    def test_strangers_at_the_ports(self):
        with open(self.kernel.file) as file:
            ports = [port for name, port in json.load(file).items() if name.endswith("_port")]
        for port in ports:
            for text in b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 10000, b"", b"\xff\0\0\0\0\0\0\0\1\x7f" + b"\3" + b"\0" * 200:
                with socket.create_connection(("127.0.0.1", port)) as stranger, contextlib.suppress(ConnectionError):
                    stranger.sendall(text)
        self.assertEqual(self.result("1 + 1"), ["2"])
        self.kernel.reply(self.kernel.ask("kernel_info_request", {}, "control"), "control")

    def test_replayed_messages_are_dropped(self):
        client = self.kernel.client
        session = client.session
        self.run_code("runs = 0")
        message = session.serialize(session.msg("execute_request", {"code": "runs = runs + 1", "silent": True}))
        for _ in range(3):
            client.shell_channel.socket.send_multipart(message)
        self.assertEqual(self.result("runs"), ["1"])

    def test_parent_header_comes_back_exactly(self):
        client = self.kernel.client
        message = client.session.msg("kernel_info_request", {})
        message["header"]["big"] = 9007199254740993
        message["header"]["unknown"] = {"ü": [None]}
        client.shell_channel.send(message)
        reply = self.kernel.reply(message["header"]["msg_id"])
        self.assertEqual(reply["parent_header"]["big"], 9007199254740993)
        self.assertEqual(reply["parent_header"]["unknown"], {"ü": [None]})

    def test_large_numbers(self):
        message_id = self.kernel.ask("execute_request", {"code": "6 * 7", "unknown": 10 ** 30})
        self.assertEqual(self.kernel.reply(message_id)["content"]["status"], "ok")
        self.assertEqual(result_of(self.kernel.iopub(message_id)), ["42"])

    def test_many_pipelined_requests(self):
        client = self.kernel.client
        ids = [client.execute(f"{i}") for i in range(1000)]
        results = {}
        while len(results) < 1000:
            message = client.get_iopub_msg(timeout=TIMEOUT)
            if message["msg_type"] == "execute_result":
                results[message["parent_header"]["msg_id"]] = message["content"]["data"]["text/plain"]
        self.assertEqual([results[i] for i in ids], [str(i) for i in range(1000)])
        for message_id in ids:
            self.kernel.reply(message_id)
        self.kernel.iopub(ids[-1])


class Clients(KernelTest):
    """Several front ends at one kernel."""

    def setUp(self):
        self.clients = []
        for _ in range(4):
            client = BlockingKernelClient(connection_file=self.kernel.file)
            client.load_connection_file()
            client.session.key = self.kernel.client.session.key
            client.start_channels()
            client.wait_for_ready(timeout=TIMEOUT)
            self.addCleanup(client.stop_channels)
            self.clients.append(client)

    def test_replies_go_to_who_asked(self):
        asked = {client: [client.execute(f"print({i}, {n})") for n in range(50)] for i, client in enumerate(self.clients)}
        for client, ids in asked.items():
            for message_id in ids:
                self.assertEqual(client.get_shell_msg(timeout=TIMEOUT)["parent_header"]["msg_id"], message_id)
            self.assertRaises(queue.Empty, client.get_shell_msg, timeout=0.05)

    def test_everyone_sees_what_is_published(self):
        self.run_code("require 'perilune.comm'.register_target('all', function(c) c:send{ hello = true } end)")
        message_id = self.clients[0].execute("print 'to all'")
        session = self.clients[1].session
        self.clients[1].shell_channel.send(session.msg("comm_open", {"comm_id": "x", "target_name": "all", "data": {}}))
        for client in self.clients:
            missing = {"stream", "comm_msg"}  # in either order: requests of different clients have none
            while missing:
                message = client.get_iopub_msg(timeout=TIMEOUT)
                if message["parent_header"].get("msg_id") == message_id and message["msg_type"] == "stream":
                    self.assertEqual(message["content"]["text"], "to all\n")
                missing.discard(message["msg_type"])

    def test_questions_go_to_who_runs_the_cell(self):
        asking = self.clients[2].execute("return io.read()", allow_stdin=True)
        self.assertEqual(self.clients[2].get_stdin_msg(timeout=TIMEOUT)["msg_type"], "input_request")
        self.clients[1].input("not mine to answer")
        for client in self.clients:
            self.assertRaises(queue.Empty, client.get_stdin_msg, timeout=0.05)
        self.clients[2].input("mine")
        while True:
            message = self.clients[2].get_iopub_msg(timeout=TIMEOUT)
            if message["msg_type"] == "execute_result" and message["parent_header"]["msg_id"] == asking:
                break
        self.assertEqual(message["content"]["data"]["text/plain"], '"mine"')

    def test_a_client_that_vanishes(self):
        self.clients[3].execute("for i = 1, 1e5 do print(i) end")
        self.clients[3].stop_channels()
        self.assertEqual(self.result("1 + 1"), ["2"])

    def test_shutdown_is_told_to_all(self):
        with contextlib.closing(Kernel()) as kernel:
            other = BlockingKernelClient(connection_file=kernel.file)
            other.load_connection_file()
            other.session.key = kernel.client.session.key
            other.start_channels()
            other.wait_for_ready(timeout=TIMEOUT)
            kernel.ask("shutdown_request", {"restart": True}, "control")
            while True:
                message = other.get_iopub_msg(timeout=TIMEOUT)
                if message["msg_type"] == "shutdown_reply":
                    break
            self.assertEqual(message["content"], {"status": "ok", "restart": True})
            other.stop_channels()


class LifeCycle(unittest.TestCase):
    def shut_down(self, channel, restart, busy):
        with contextlib.closing(Kernel()) as kernel:
            if busy:
                kernel.client.execute("while true do pcall(error) end")
                time.sleep(0.1)
            message_id = kernel.ask("shutdown_request", {"restart": restart}, channel)
            self.assertEqual(kernel.reply(message_id, channel)["content"], {"status": "ok", "restart": restart})
            self.assertEqual(kernel.process.wait(5), 0)

    def test_shutdown(self):
        for channel, restart, busy in (("control", False, False), ("control", True, True), ("shell", True, False)):
            with self.subTest(channel=channel, restart=restart, busy=busy):
                self.shut_down(channel, restart, busy)

    def test_without_standard_streams(self):
        with contextlib.closing(Kernel(closed=(0, 1, 2))) as kernel:
            _, messages = kernel.run("print 'a' os.execute('echo b') return io.popen('echo c'):read()")
            self.assertEqual((text_of(messages), result_of(messages)), ("a\nb\n", ['"c"']))

    def test_no_child_is_left(self):
        with contextlib.closing(Kernel()) as kernel:
            _, messages = kernel.run("kept = io.popen('echo $$; exec sleep 32') return kept:read('n')")
            pid = int(result_of(messages)[0])
            kernel.ask("shutdown_request", {"restart": False}, "control")
            self.assertEqual(kernel.process.wait(5), 0)
            self.assertFalse(os.path.exists(f"/proc/{pid}"))

    def test_empty_key(self):
        with contextlib.closing(Kernel(key=b"")) as kernel:
            self.assertEqual(result_of(kernel.run("1 + 1")[1]), ["2"])
            session = Session(key=b"")
            frames = session.serialize(session.msg("execute_request", {"code": "n = (n or 0) + 1"}))
            self.assertEqual(frames[1], b"")
            for _ in range(2):  # without signatures there is no telling a replayed message
                kernel.client.shell_channel.socket.send_multipart(frames)
            self.assertEqual(result_of(kernel.run("n")[1]), ["2"])

    def test_ipc(self):
        with contextlib.closing(Kernel(transport="ipc")) as kernel:
            self.assertEqual(result_of(kernel.run("1 + 1")[1]), ["2"])

    def start_through(self, starter, **options):
        """Runs Python code that starts a kernel as `start()` and ends. Returns the kernel's number and a client of it."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        file = os.path.join(folder.name, "connection.json")
        write_connection_file(file, key=b"k")
        code = ("import os, subprocess, sys, threading, time\n"
                "def start(*before):\n"
                "    global p\n"
                "    p = subprocess.Popen([*before, *sys.argv[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,"
                "                         env={**os.environ, 'JPY_PARENT_PID': str(os.getpid())})\n"
                "    print(p.pid, flush=True)\n" + starter)
        process = subprocess.Popen([sys.executable, "-c", code, PROGRAM, "kernel", "--connection-file", file],
                                   stdout=subprocess.PIPE, stdin=subprocess.PIPE, **options)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.stdout.close)
        kernel = int(process.stdout.readline())
        client = BlockingKernelClient(connection_file=file)
        client.load_connection_file()
        client.session.key = b"k"
        client.start_channels()
        self.addCleanup(client.stop_channels)
        return process, kernel, client

    def assert_ends(self, kernel, within):
        deadline = time.time() + within
        while is_running(kernel) and time.time() < deadline:
            time.sleep(0.01)
        self.assertFalse(is_running(kernel))

    def test_ends_with_its_parent(self):
        for code in None, "while true do pcall(error) end", "os.execute('sleep 1000')", "io.popen('sleep 1000'):read()":
            with self.subTest(code):
                process, kernel, client = self.start_through("start(); sys.stdin.read()")
                client.wait_for_ready(timeout=TIMEOUT)
                if code:
                    client.execute(code)
                    time.sleep(0.2)
                process.kill()
                self.assert_ends(kernel, 3)

    def test_ends_with_its_parent_at_once(self):
        process, kernel, client = self.start_through("start(); sys.stdin.read()")
        client.wait_for_ready(timeout=TIMEOUT)
        process.kill()
        self.assert_ends(kernel, 0.8)

    def test_ends_with_the_front_end_behind_a_shell(self):
        wrapper = ["sh", "-c", '"$@"; true', "sh"]
        process, shell, client = self.start_through(f"start(*{wrapper}); sys.stdin.read()")
        client.wait_for_ready(timeout=TIMEOUT)
        children = [p for p in processes() if parent_of(p) == shell]
        self.assertEqual(len(children), 1)
        process.kill()
        self.assert_ends(children[0], 3)

    def test_ends_when_its_parent_has_ended_before(self):
        # The parent ends while the kernel is still being loaded, in many ways of meeting.
        for delay in 0, 0, 0, 0.001, 0.002, 0.003, 0.004, 0.006, 0.01:
            _, kernel, _ = self.start_through(f"start(); time.sleep({delay}); os._exit(0)")
            self.assert_ends(kernel, 3)

    def test_outlives_the_thread_that_started_it(self):
        _, kernel, client = self.start_through(
            "t = threading.Thread(target=start); t.start(); t.join(); sys.stdin.read()")
        client.wait_for_ready(timeout=TIMEOUT)
        time.sleep(0.3)
        self.assertTrue(is_running(kernel))

    def test_lives_on_without_a_front_end(self):
        environment = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"}
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "connection.json")
            write_connection_file(file, key=b"k")
            code = ("import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL,"
                    " stderr=subprocess.DEVNULL).pid)")
            out = subprocess.run([sys.executable, "-c", code, PROGRAM, "kernel", "--connection-file", file],
                                 stdout=subprocess.PIPE, check=True, timeout=10, env=environment).stdout
            time.sleep(1.5)
            self.assertTrue(is_running(int(out)))
            os.kill(int(out), signal.SIGTERM)
            self.assert_ends(int(out), 3)

    # Ways to start a process that a kernel could leave behind.
    CHILDREN = ("os.execute('sleep %s &')", "p = io.popen('sleep %s')", "os.execute('setsid sleep %s & true')",
                "os.execute('(setsid nohup sleep %s &) >/dev/null 2>&1')",
                "os.execute(\"sh -c \\\"trap '' TERM HUP; sleep %s; sleep %s\\\" &\")")

    def await_sleepers(self, mark, count):
        deadline = time.time() + 5
        while len(sleepers(mark)) < count and time.time() < deadline:
            time.sleep(0.01)
        self.assertEqual(len(sleepers(mark)), count)

    def start_children(self, client):
        """Returns what their command lines hold."""
        mark = f"1000.{os.getpid()}{time.time_ns() % 1000000}"
        client.wait_for_ready(timeout=TIMEOUT)
        for code in self.CHILDREN:
            client.execute(code.replace("%s", mark))
        self.await_sleepers(mark, len(self.CHILDREN))
        return mark

    def test_leaves_no_children(self):
        for how in "shutdown", "restart", "signal":
            with self.subTest(how), contextlib.closing(Kernel()) as kernel:
                mark = self.start_children(kernel.client)
                if how == "signal":
                    kernel.process.terminate()
                else:
                    kernel.ask("shutdown_request", {"restart": how == "restart"}, "control")
                self.assertEqual(kernel.process.wait(5), 0)
                self.assertEqual(sleepers(mark), [])

    def test_leaves_no_children_when_its_parent_ends(self):
        process, kernel, client = self.start_through("start(); sys.stdin.read()")
        mark = self.start_children(client)
        process.kill()
        self.assert_ends(kernel, 5)
        self.assertEqual(sleepers(mark), [])

    def test_leaves_no_children_when_a_cell_cannot_be_interrupted(self):
        with contextlib.closing(Kernel()) as kernel:
            mark = self.start_children(kernel.client)
            kernel.client.execute("(('x'):rep(300000)):find(('.-'):rep(40) .. 'y')")
            time.sleep(0.2)
            kernel.ask("shutdown_request", {"restart": False}, "control")
            self.assertEqual(kernel.process.wait(8), 0)
            self.assertEqual(sleepers(mark), [])

    def test_leaves_what_is_to_outlive_it(self):
        with contextlib.closing(Kernel()) as kernel:
            mark = f"3000.{os.getpid()}"
            kernel.run(f"os.execute('env -u PERILUNE_KERNEL setsid -f sleep {mark}')")
            self.await_sleepers(mark, 1) # setsid goes on by itself
            kernel.ask("shutdown_request", {"restart": False}, "control")
            self.assertEqual(kernel.process.wait(5), 0)
            left = sleepers(mark)
            self.assertEqual(len(left), 1)
            os.kill(left[0], signal.SIGKILL)

    def test_leaves_others_alone(self):
        stranger = subprocess.Popen(["sleep", "1000"])
        try:
            with contextlib.closing(Kernel()) as kernel, contextlib.closing(Kernel()) as other:
                other.run("os.execute('sleep 2000 &')")
                kernel.ask("shutdown_request", {"restart": False}, "control")
                self.assertEqual(kernel.process.wait(5), 0)
                self.assertEqual(result_of(other.run("1 + 1")[1]), ["2"])
            self.assertIsNone(stranger.poll())
        finally:
            stranger.kill()
            stranger.wait()

    def assert_works(self, kernel):
        _, messages = kernel.run("print 'a' io.stderr:write 'b' os.execute 'echo c; cat; echo d >&2'"
                                 " io.popen('cat; echo to stdout; echo to stderr >&2', 'w'):close()"
                                 " local f = io.popen 'echo e' return f:read(), io.stdout:flush()")
        self.assertEqual(text_of(messages)[:4], "a\nc\n")
        self.assertEqual(text_of(messages, "stderr")[:3], "bd\n")
        self.assertIn('"e"', result_of(messages)[0])
        self.assertEqual(result_of(kernel.run("1 + 1")[1]), ["2"])
        kernel.ask("shutdown_request", {"restart": False}, "control")
        self.assertEqual(kernel.process.wait(5), 0)

    def test_signals_of_who_starts_it(self):
        change = ("import os, signal as s, sys; s.signal(s.SIGCHLD, s.SIG_IGN);"
                  " s.pthread_sigmask(s.SIG_BLOCK, [s.SIGUSR1, s.SIGINT, s.SIGTERM]); os.execv(sys.argv[1], sys.argv[1:])")
        with contextlib.closing(Kernel(before=[sys.executable, "-c", change])) as kernel:
            _, messages = kernel.run("return os.execute('exit 3')")
            self.assertEqual(result_of(messages), ['nil\t"exit"\t3'])
            message_id = kernel.client.execute("while true do end")
            time.sleep(0.1)
            kernel.ask("interrupt_request", {}, "control")
            self.assertEqual(kernel.reply(message_id)["content"]["ename"], "Interrupted")
            kernel.process.terminate()
            self.assertEqual(kernel.process.wait(5), 0)

    def test_closed_files(self):
        for closing in "<&-", ">&-", "2>&-", "<&- >&- 2>&-":
            with self.subTest(closing):
                with contextlib.closing(Kernel(before=["sh", "-c", 'exec "$@" ' + closing, "sh"],
                                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)) as kernel:
                    self.assert_works(kernel)

    def test_readers_of_its_output_vanish(self):
        read, write = os.pipe()
        with contextlib.closing(Kernel(stdout=write, stderr=write)) as kernel:
            os.close(read)
            os.close(write)
            self.assert_works(kernel)

    def test_broken_connection_files(self):
        for text in "", "[]", "{}", "{\"shell_port\": \"x\"}", None:
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                file.write(text or "")
                file.flush()
                name = file.name if text is not None else "/nonexistent.json"
                done = subprocess.run([PROGRAM, "kernel", "--connection-file", name], stderr=subprocess.PIPE, timeout=10)
                self.assertEqual(done.returncode, 1)
                self.assertIn(name.encode(), done.stderr)


class Installation(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.data = os.path.join(self.folder.name, "share/jupyter")
        self.spec = os.path.join(self.data, "kernels/moon/kernel.json")

    def command(self, *words, program=PROGRAM, **environment):
        done = subprocess.run([program, "kernel", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={**os.environ, **environment}, timeout=10, text=True, errors="replace")
        return done.returncode, done.stdout, done.stderr

    def install(self, *words, **options):
        status, out, err = self.command("install", "--prefix", self.folder.name, "--name", "moon", *words, **options)
        self.assertEqual((status, err), (0, ""))
        with open(self.spec) as file:
            return json.load(file), out

    def uninstall(self):
        return self.command("uninstall", "--prefix", self.folder.name, "--name", "moon")

    def test_files(self):
        spec, out = self.install()
        self.assertEqual(spec, {"argv": [PROGRAM, "kernel", "--connection-file", "{connection_file}"],
                                "display_name": "Lua 5.4 (moon)", "language": "lua", "interrupt_mode": "message",
                                "kernel_protocol_version": "5.5.0", "metadata": {"debugger": True}})
        self.assertIn(f"installed in {os.path.dirname(self.spec)}", out)
        self.assertIn(f"It starts {PROGRAM}: install it again when that has moved.", out)
        for size in 32, 64:
            with open(os.path.join(os.path.dirname(self.spec), f"logo-{size}x{size}.png"), "rb") as file:
                head = file.read(24)
            self.assertEqual(head[:8], b"\x89PNG\r\n\x1a\n")
            self.assertEqual(struct.unpack(">II", head[16:]), (size, size))
        tree = ElementTree.parse(os.path.join(os.path.dirname(self.spec), "logo-svg.svg"))
        self.assertEqual(tree.getroot().tag, "{http://www.w3.org/2000/svg}svg")
        self.install()  # again, over what is there
        self.assertEqual(self.uninstall()[0], 0)
        self.assertEqual(os.listdir(os.path.join(self.data, "kernels")), [])
        status, _, err = self.uninstall()
        self.assertEqual(status, 1)
        self.assertIn("no kernel 'moon' is installed in '" + os.path.dirname(self.spec), err)

    def test_user_folder(self):
        for variable, below in (("JUPYTER_DATA_DIR", ""), ("XDG_DATA_HOME", "jupyter"), ("HOME", ".local/share/jupyter")):
            with self.subTest(variable), tempfile.TemporaryDirectory() as folder:
                environment = {"JUPYTER_DATA_DIR": "", "XDG_DATA_HOME": "", variable: folder}
                for words in [], ["--user"]:
                    self.assertEqual(self.command("install", *words, **environment)[0], 0)
                    with open(os.path.join(folder, below, "kernels/perilune/kernel.json")) as file:
                        self.assertEqual(json.load(file)["display_name"], "Lua 5.4 (Perilune)")
                    self.assertEqual(self.command("uninstall", *words, **environment)[0], 0)

    def test_environment(self):
        spec, _ = self.install("--env", "MOON_A=a=b", "--env=MOON_B=", "--env", "MOON_C=${HOME}/x", "--env", "MOON_A=c")
        self.assertEqual(spec["env"], {"MOON_A": "c", "MOON_B": "", "MOON_C": "${HOME}/x"})
        manager = self.manager()
        manager.start_kernel()
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=TIMEOUT)
            reply = client.execute("", user_expressions={"x": "os.getenv 'MOON_A' .. os.getenv 'MOON_C'"}, reply=True)
            self.assertEqual(reply["content"]["user_expressions"]["x"]["data"]["text/plain"],
                             f'"c{os.environ["HOME"]}/x"')
        finally:
            client.stop_channels()
            manager.shutdown_kernel()

    def manager(self):
        specs = KernelSpecManager(kernel_dirs=[os.path.join(self.data, "kernels")])
        return KernelManager(kernel_name="moon", kernel_spec_manager=specs)

    def test_a_program_that_has_moved(self):
        program = os.path.join(self.folder.name, "perilune")
        shutil.copy(PROGRAM, program)
        spec, _ = self.install(program=program)
        self.assertEqual(spec["argv"][0], program)
        os.rename(program, program + "2")
        with self.assertRaises(FileNotFoundError) as raised:
            self.manager().start_kernel()
        self.assertIn(program, str(raised.exception))
        self.assertEqual(self.install(program=program + "2")[0]["argv"][0], program + "2")
        self.assertEqual(self.uninstall()[0], 0)

    def test_kernels_of_others_stay(self):
        os.makedirs(os.path.dirname(self.spec))
        for text in '{"argv": ["python3", "-m", "ipykernel_launcher"]}', "no JSON":
            with open(self.spec, "w") as file:
                file.write(text)
            for what in "install", "uninstall":
                status, _, err = self.command(what, "--prefix", self.folder.name, "--name", "moon")
                self.assertEqual(status, 1)
                self.assertIn(f"'{self.spec}' is not a kernel of perilune", err)
                self.assertIn("python3" if "python3" in text else "nothing", err)
            with open(self.spec) as file:
                self.assertEqual(file.read(), text)

    def test_files_of_others_stay(self):
        self.install()
        with open(os.path.join(os.path.dirname(self.spec), "kernel.js"), "w"):
            pass
        status, _, err = self.uninstall()
        self.assertEqual(status, 1)
        self.assertIn(f"its folder '{os.path.dirname(self.spec)}' is not: Directory not empty", err)
        self.assertEqual(os.listdir(os.path.dirname(self.spec)), ["kernel.js"])

    def test_what_is_wrong(self):
        file = os.path.join(self.folder.name, "file")
        with open(file, "w"):
            pass
        for words, message in ((["--name", "../x"], "kernel name '../x': letters, digits"),
                               (["--name", ""], "kernel name ''"),
                               (["--name"], "--name needs a value"),
                               (["--prefix", ""], "--prefix: expected a folder, got ''"),
                               (["--prefix", file], f"cannot create the directory '{file}/share': Not a directory"),
                               (["--user", "--sys-prefix"], "--user, --prefix and --sys-prefix exclude each other"),
                               (["--user=yes"], "unexpected '--user=yes'"),
                               (["--env", "A"], "--env: expected KEY=VALUE with letters, digits and '_' in KEY, got 'A'"),
                               (["--env", "=x"], "got '=x'"), (["--env", "1A=x"], "got '1A=x'"),
                               (["--env", b"A=\xff"], "--env: expected valid UTF-8"),
                               (["--frobnicate"], "unexpected '--frobnicate'"), (["word"], "unexpected 'word'")):
            status, _, err = self.command("install", *words)
            self.assertEqual(status, 1)
            self.assertIn(message, err)
        status, _, err = self.command("uninstall", "--env", "A=b")
        self.assertEqual(status, 1)
        self.assertIn("unexpected '--env'", err)
        status, _, err = self.command("install", HOME="", JUPYTER_DATA_DIR="", XDG_DATA_HOME="")
        self.assertEqual(status, 1)
        self.assertIn("HOME is not set", err)

    def test_help(self):
        for words in ["--help"], ["install", "--help"], ["uninstall", "-h"]:
            status, out, _ = self.command(*words)
            self.assertEqual(status, 0)
            for word in "--user", "--prefix DIR", "--sys-prefix", "--name NAME", "--env KEY=VALUE", "uninstall":
                self.assertIn(word, out)


class Debugger(unittest.TestCase):
    """The debugger, driven as JupyterLab drives it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()  # a kernel that is killed leaves its dumped cells behind
        self.addCleanup(folder.cleanup)
        self.kernel = Kernel(environment={"TMPDIR": folder.name})
        self.addCleanup(self.kernel.close)
        self.seen = []  # iopub messages that nobody asked for yet

    def debug(self, command, **arguments):
        message_id = self.kernel.ask("debug_request", {"type": "request", "seq": 7, "command": command,
                                                       "arguments": arguments}, "control")
        content = self.kernel.reply(message_id, "control")["content"]
        self.assertEqual((content["type"], content["request_seq"], content["command"]), ("response", 7, command))
        return content

    def body(self, command, **arguments):
        content = self.debug(command, **arguments)
        self.assertTrue(content["success"], content)
        return content["body"]

    def refusal(self, command, **arguments):
        content = self.debug(command, **arguments)
        self.assertFalse(content["success"], content)
        return content["message"]

    def next_message(self, wanted):
        """The next iopub message for which `wanted` is true; those before it are kept."""
        for i, message in enumerate(self.seen):
            if wanted(message):
                return self.seen.pop(i)
        while True:
            message = self.kernel.client.get_iopub_msg(timeout=TIMEOUT)
            if wanted(message):
                return message
            self.seen.append(message)

    def event(self, name):
        message = self.next_message(lambda m: m["msg_type"] == "debug_event" and m["content"]["event"] == name)
        self.assertEqual(message["content"]["type"], "event")
        return message["content"].get("body")

    def stopped(self, reason, line=None):
        """Waits until it stands still; returns the innermost frame."""
        body = self.event("stopped")
        self.assertEqual((body["reason"], body["threadId"], body["allThreadsStopped"]), (reason, 1, True))
        self.top, *_ = self.frames = self.body("stackTrace", threadId=1)["stackFrames"]
        if line:
            self.assertEqual(self.top["line"], line)
        return self.top

    def start(self):
        self.body("initialize", clientID="jupyterlab", linesStartAt1=True)
        self.body("attach")
        self.event("initialized")
        self.event("thread")

    def dump(self, code):
        return self.body("dumpCell", code=code)["sourcePath"]

    def break_at(self, code, *points):
        """Breakpoints of a cell: lines, or dicts with more than a line."""
        path = self.dump(code)
        asked = [point if isinstance(point, dict) else {"line": point} for point in points]
        answers = self.body("setBreakpoints", source={"path": path}, breakpoints=asked, sourceModified=False)
        return answers["breakpoints"]

    def execute(self, code):
        return self.kernel.client.execute(code, allow_stdin=False)

    def finish(self, message_id):
        """The reply to a cell and its output."""
        reply = self.kernel.reply(message_id)["content"]
        self.next_message(lambda m: m["msg_type"] == "status" and m["content"]["execution_state"] == "idle"
                          and m["parent_header"].get("msg_id") == message_id)
        return reply, text_of([m for m in self.seen if m["parent_header"].get("msg_id") == message_id])

    def scopes(self, frame=None):
        scopes = self.body("scopes", frameId=(frame or self.top)["id"])["scopes"]
        return {scope["name"]: scope["variablesReference"] for scope in scopes}

    def variables(self, reference, **arguments):
        listed = self.body("variables", variablesReference=reference, **arguments)["variables"]
        return {variable["name"]: variable for variable in listed}

    def locals(self, frame=None):
        return {name: v["value"] for name, v in self.variables(self.scopes(frame)["Locals"]).items()}

    def evaluate(self, expression, **arguments):
        arguments.setdefault("frameId", self.top["id"])
        return self.body("evaluate", expression=expression, context="repl", **arguments)["result"]

    FUNCTION = "function f(a)\n  local b = a * 2\n  return b + 1\nend\nlocal x = f(3)\nprint(x)"

    def test_breakpoint_variables_and_continue(self):
        self.start()
        points = self.break_at(self.FUNCTION, 3)
        self.assertEqual([(p["verified"], p["line"]) for p in points], [(True, 3)])
        message_id = self.execute(self.FUNCTION)
        top = self.stopped("breakpoint", 3)
        self.assertEqual(top["name"], "f")
        self.assertEqual(top["source"]["path"], self.dump(self.FUNCTION))
        self.assertEqual([f["line"] for f in self.frames], [3, 5])
        self.assertEqual(self.locals(), {"a": "3", "b": "6"})
        self.assertEqual(self.evaluate("a + b"), "9")
        self.assertEqual(self.evaluate("a = 10"), "")
        reference = self.scopes()["Locals"]
        self.assertEqual(self.body("setVariable", variablesReference=reference, name="b", value="a * 10")["value"],
                         "100")
        self.body("continue", threadId=1)
        self.event("continued")
        reply, output = self.finish(message_id)
        self.assertEqual((reply["status"], output), ("ok", "101\n"))

    def test_steps(self):
        self.start()
        self.break_at(self.FUNCTION, 5)
        message_id = self.execute(self.FUNCTION)
        self.stopped("breakpoint", 5)
        for command, line in ("stepIn", 2), ("next", 3), ("stepOut", 6):  # at the first new line after the call's
            self.body(command, threadId=1)
            self.event("continued")
            self.stopped("step", line)
        self.body("next", threadId=1)
        self.assertEqual(self.finish(message_id)[0]["status"], "ok")
        self.break_at(self.FUNCTION)
        message_id = self.execute("tostring(setmetatable({}, {__tostring = function()\nreturn 'x'\nend}))\n1")
        self.assertEqual(self.finish(message_id)[0]["status"], "ok")  # the step ended with its cell

    def test_next_passes_over_calls_and_recursion(self):
        code = "function r(n)\n  if n == 0 then return 0 end\n  local rest = r(n - 1)\n  return rest + n\nend\nr(4)\n1"
        self.start()
        self.break_at(code, {"line": 3, "condition": "n == 3"})
        message_id = self.execute(code)
        self.stopped("breakpoint", 3)
        self.assertEqual(self.locals(), {"n": "3"})
        self.body("next")
        self.assertEqual(self.stopped("step", 4)["name"], "r")
        self.assertEqual(self.locals(), {"n": "3", "rest": "3"})
        self.body("stepOut")
        self.stopped("step", 4)
        self.assertEqual(self.locals()["n"], "4")
        self.body("continue")
        self.assertEqual(self.finish(message_id)[0]["status"], "ok")

    def test_step_in_passes_through_the_program_itself(self):
        code = "local inspect = require 'perilune.inspect'\ninspect.text(setmetatable({}, {__tostring = function()\n" \
               "  return 'x'\nend}))\nlocal z = 1"
        self.start()
        self.break_at(code, 2)
        message_id = self.execute(code)
        self.stopped("breakpoint", 2)
        self.break_at(code)
        lines = []
        while lines[-1:] != [3]:
            self.body("stepIn")
            lines.append(self.stopped("step")["line"])
        self.assertEqual(set(lines[:-1]) - {2, 4}, set())  # those of the expression itself
        self.body("continue")
        self.assertEqual(self.finish(message_id)[0]["status"], "ok")

    def test_conditions_hits_and_log_points(self):
        code = "for i = 1, 10 do\n  local square = i * i\n  last = square\nend"
        self.start()
        bad = self.break_at(code, {"line": 3, "condition": "i == 4"}, {"line": 2, "hitCondition": "%5"},
                            {"line": 3, "logMessage": "{i} squared: {square}, {nonsense(}"}, {"line": 3, "hitCondition": "x"})
        self.assertEqual([p["verified"] for p in bad], [True, True, True, False])
        self.assertIn("hitCondition", bad[3]["message"])
        message_id = self.execute(code)
        for line, i in (3, 4), (2, 5), (2, 10):
            self.stopped("breakpoint", line)
            self.assertEqual(self.locals()["i"], str(i))
            self.body("continue")
        reply, output = self.finish(message_id)
        lines = output.splitlines()
        self.assertEqual(len(lines), 10)
        self.assertRegex(lines[6], "^7 squared: 49, <.*expected.*>$")
        self.break_at(code, {"line": 3, "condition": "i >"})
        message_id = self.execute(code)
        self.stopped("breakpoint", 3)  # a condition that fails is not passed over
        self.break_at(code)
        self.body("continue")
        self.finish(message_id)
        errors = text_of([m for m in self.seen if m["parent_header"].get("msg_id") == message_id], "stderr")
        self.assertIn("breakpoint: condition 'i >'", errors)

    def test_lines_of_breakpoints(self):
        code = "-- comment\n\nlocal a = {\n  1,\n  2,\n}\n\nlocal function f()\n  return 1\nend\n-- end"
        self.start()
        points = self.break_at(code, 1, 2, 7, 9, 11, 500, {"line": "x"}, {})
        self.assertEqual([p["verified"] for p in points], [True, True, True, True, False, False, False, False])
        self.assertEqual([p["line"] for p in points[1:4]], [points[0]["line"], points[2]["line"], 9])
        self.assertLess(points[2]["line"], 11)
        broken, = self.break_at("x = = 1", 1)
        self.assertFalse(broken["verified"])
        self.assertIn("unexpected symbol", broken["message"])
        long, = self.break_at("x = 1\n" + "\n" * 1000 + "function f(...)\n" + "\n" * 300 + "  return ...\nend", 1100)
        self.assertEqual((long["verified"], long["line"]), (True, 1303))

    def test_files(self):
        self.start()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "module.lua")
            with open(path, "w") as file:
                file.write("local m = {}\n\nfunction m.twice(x)\n  local y = 2 * x\n  return y\nend\n\nreturn m\n")
            link = os.path.join(folder, "link")
            os.symlink(folder, link)
            asked = os.path.join(link, "module.lua")
            answer = self.body("setBreakpoints", source={"path": asked}, breakpoints=[{"line": 5}])
            self.assertTrue(answer["breakpoints"][0]["verified"])
            for code in f"package.path = '{folder}/?.lua'\nrequire('module').twice(4)", f"dofile('{path}').twice(4)":
                message_id = self.execute(code)
                top = self.stopped("breakpoint", 5)
                self.assertEqual((top["source"]["path"], top["source"]["name"]), (asked, "module.lua"))
                self.assertEqual(self.locals()["y"], "8")
                self.assertIn("m.twice", self.body("source", source={"path": asked}, sourceReference=0)["content"])
                self.body("continue")
                self.assertEqual(self.finish(message_id)[0]["status"], "ok")
            gone = self.body("setBreakpoints", source={"path": folder + "/none.lua"}, breakpoints=[{"line": 1}])
            self.assertFalse(gone["breakpoints"][0]["verified"])
            self.assertIn("none.lua", self.refusal("source", source={"path": folder + "/none.lua"}))

    def test_coroutines(self):
        code = "local co = coroutine.wrap(function(a)\n  local b = coroutine.yield(a + 1)\n  return b\nend)\n" \
               "local x = co(1)\nlocal y = co(10)\nprint(x, y)"
        self.start()
        self.break_at(code, 3)
        message_id = self.execute(code)
        self.stopped("breakpoint", 3)
        self.assertEqual([f["line"] for f in self.frames], [3, 6])
        self.assertEqual(self.locals(), {"a": "1", "b": "10"})
        self.assertEqual(self.locals(self.frames[1])["x"], "2")
        self.body("stepOut")
        self.stopped("step", 7)
        self.body("continue")
        self.assertEqual(self.finish(message_id)[1], "2\t10\n")
        self.break_at(code, 2)  # from inside, next leaves with the yield
        message_id = self.execute(code)
        self.stopped("breakpoint", 2)
        self.body("next")
        self.stopped("step", 6)
        self.break_at(code)
        self.body("continue")
        self.assertEqual(self.finish(message_id)[1], "2\t10\n")

    def test_errors(self):
        code = "local function g(t)\n  return t.x.y\nend\nlocal ok = pcall(g, {})\ng({})"
        self.start()
        self.assertIn("filters", self.refusal("setExceptionBreakpoints"))
        self.body("setExceptionBreakpoints", filters=["uncaught"])
        message_id = self.execute(code)
        top = self.stopped("exception", 2)
        self.assertEqual([f["line"] for f in self.frames], [2, 5])
        self.assertEqual(self.locals(), {"t": "{}"})
        info = self.body("exceptionInfo", threadId=1)
        self.assertEqual(info["breakMode"], "unhandled")
        self.assertIn("index a nil value (field 'x')", info["description"])
        self.assertIn("stack traceback", info["details"]["stackTrace"])
        self.body("continue")
        self.assertEqual(self.finish(message_id)[0]["status"], "error")
        self.body("setExceptionBreakpoints", filters=["raised"])
        message_id = self.execute(code)
        self.stopped("exception", 2)
        self.assertEqual(self.body("exceptionInfo")["breakMode"], "always")
        self.assertEqual([f["line"] for f in self.frames], [2, 4])
        self.body("continue")
        self.stopped("exception", 2)
        self.body("continue")
        self.assertEqual(self.finish(message_id)[0]["status"], "error")
        message_id = self.execute("local co = coroutine.create(function(v)\n  error{v}\nend)\n"
                                  "xpcall(coroutine.resume, print, co, 5)")
        self.stopped("exception", 2)
        self.assertEqual([f["line"] for f in self.frames], [2, 4])
        self.assertEqual(self.locals(), {"v": "5"})
        self.body("continue")
        self.assertEqual(self.finish(message_id)[0]["status"], "ok")
        self.body("setExceptionBreakpoints", filters=[])
        self.assertEqual(self.finish(self.execute(code))[0]["status"], "error")
        self.assertIn("no error", self.refusal("exceptionInfo"))

    def test_evaluate(self):
        code = "local n, t = 5, {1, 2, {x = 'y'}}\nlocal function f(...)\n  local u = n\n  return u + n\nend\nf(1, nil, 3)"
        self.start()
        self.break_at(code, 4)
        message_id = self.execute(code)
        self.stopped("breakpoint", 4)
        self.assertEqual(self.variables(self.scopes()["Upvalues"])["n"]["value"], "5")
        self.assertEqual(self.evaluate("select('#', ...), ..."), "3, 1, nil, 3")
        self.assertEqual(self.locals()["(vararg 3)"], "3")
        self.assertEqual(self.evaluate("t[3].x", frameId=self.frames[1]["id"]), '"y"')
        self.assertEqual(self.evaluate("made = n + 1; n = 7"), "")
        self.assertEqual(self.evaluate("made, n, f"), "6, 7, nil")
        self.assertEqual(self.evaluate("f(1)", frameId=self.frames[1]["id"]), "14")  # through the breakpoint
        self.assertEqual(self.evaluate("print 'seen'"), "")
        self.assertIn("unexpected symbol", self.refusal("evaluate", expression="1 +* 2", frameId=self.top["id"]))
        self.assertIn("nil value", self.refusal("evaluate", expression="nothing.x", frameId=self.top["id"]))
        self.assertIn("frameId", self.refusal("evaluate", expression="1", frameId=12345))
        self.body("copyToGlobals", srcVariableName="u", dstVariableName="copied", srcFrameId=self.top["id"])
        self.body("continue")
        reply, output = self.finish(message_id)
        self.assertEqual((reply["status"], output), ("ok", "seen\n"))
        self.assertEqual(result_of(self.kernel.run("copied, made")[1]), ["5\t6"])
        self.assertEqual(self.body("evaluate", expression="made + 1")["result"], "7")  # while nothing runs

    def test_interrupt_while_stopped(self):
        code = "kept = 1\nlocal x = 2\nprint 'not reached'"
        self.start()
        for run in range(2):
            self.break_at(code, 2)
            message_id = self.execute(code)
            self.stopped("breakpoint", 2)
            if run == 0:
                started = time.time()
                self.kernel.reply(self.kernel.ask("interrupt_request", {}, "control"), "control")
            else:
                self.body("terminate")
            reply, output = self.finish(message_id)
            self.assertLess(time.time() - started, 5)
            self.event("continued")
            self.assertEqual((reply["ename"], reply["evalue"], output), ("Interrupted", "interrupted", ""))
            self.assertEqual(self.body("debugInfo")["stoppedThreads"], [])
        self.break_at(code)
        self.assertEqual(result_of(self.kernel.run("kept")[1]), ["1"])

    def test_interrupt_ends_an_evaluation(self):
        code = "local x = 1\nlocal y = 2"
        self.start()
        self.break_at(code, 2)
        message_id = self.execute(code)
        self.stopped("breakpoint", 2)
        content = {"type": "request", "seq": 7, "command": "evaluate",
                   "arguments": {"expression": "(function() while true do end end)()", "frameId": self.top["id"]}}
        asked = self.kernel.ask("debug_request", content, "control")
        time.sleep(0.3)
        info = self.kernel.reply(self.kernel.ask("kernel_info_request", {}, "control"), "control")
        self.assertEqual(info["content"]["status"], "ok")
        self.kernel.ask("interrupt_request", {}, "control")
        answer = self.kernel.reply(asked, "control")["content"]
        self.assertEqual((answer["success"], answer["message"]), (False, "interrupted"))
        self.assertEqual(self.finish(message_id)[0]["ename"], "Interrupted")

    def test_shutdown_while_stopped(self):
        code = "local x = 1\nlocal y = 2"
        self.start()
        self.break_at(code, 2)
        folder = os.path.dirname(self.dump(code))
        self.execute(code)
        self.stopped("breakpoint", 2)
        reply = self.kernel.reply(self.kernel.ask("shutdown_request", {"restart": True}, "control"), "control")
        self.assertEqual(reply["content"], {"status": "ok", "restart": True})
        self.assertEqual(self.kernel.process.wait(timeout=5), 0)
        self.assertFalse(os.path.exists(folder))

    def test_heart_and_control_while_stopped(self):
        code = "local x = 1\nlocal y = 2"
        self.start()
        self.break_at(code, 2)
        message_id = self.execute(code)
        self.stopped("breakpoint", 2)
        socket = zmq.Context.instance().socket(zmq.REQ)
        socket.connect(self.kernel.client._make_url("hb"))
        socket.send(b"ping")
        self.assertTrue(socket.poll(2000))
        socket.close()
        for kind in "kernel_info_request", "usage_request":
            content = self.kernel.reply(self.kernel.ask(kind, {}, "control"), "control")["content"]
            self.assertEqual(content["status"], "ok")
        self.assertEqual(self.body("threads")["threads"], [{"id": 1, "name": "Lua"}])
        self.body("disconnect", restart=False, terminateDebuggee=False)  # lets it go on
        self.assertEqual(self.finish(message_id)[0]["status"], "ok")
        self.assertEqual(self.body("debugInfo")["breakpoints"], [])
        self.assertEqual(self.finish(self.execute(code))[0]["status"], "ok")

    def test_reloaded_front_end(self):
        """A page that is loaded anew asks for all that it has forgotten."""
        code = "local x = 1\nlocal y = 2"
        info = self.body("debugInfo")
        self.assertEqual((info["isStarted"], info["breakpoints"], info["stoppedThreads"]), (False, [], []))
        self.assertEqual((info["hashMethod"], info["tmpFileSuffix"], info["richRendering"]), ("Murmur2", ".lua", True))
        self.start()
        self.break_at(code, {"line": 2, "condition": "x == 1"})
        message_id = self.execute(code)
        self.stopped("breakpoint", 2)
        info = self.body("debugInfo")
        self.assertEqual((info["isStarted"], info["stoppedThreads"]), (True, [1]))
        self.assertEqual(info["breakpoints"], [{"source": self.dump(code),
                                                "breakpoints": [{"line": 2, "condition": "x == 1"}]}])
        self.body("initialize")
        self.body("continue")
        self.finish(message_id)

    def murmur2(self, text, seed):
        """As in JupyterLab's packages/debugger/src/hash.ts says it: MurmurHash2 of the text in UTF-8."""
        data, m, mask = text.encode(), 0x5BD1E995, 0xFFFFFFFF
        h = seed ^ len(data)
        while len(data) >= 4:
            k = int.from_bytes(data[:4], "little") * m & mask
            h = h * m & mask ^ ((k ^ k >> 24) * m & mask)
            data = data[4:]
        if data:
            h = (h ^ int.from_bytes(data, "little")) * m & mask
        h = (h ^ h >> 13) * m & mask
        return h ^ h >> 15

    def test_paths_of_cells(self):
        info = self.body("debugInfo")
        self.start()
        for code in "", "x", "xy", "xyz", "print 'ü'", "x = 1\n" * 100 + "é", "\0":
            path = self.dump(code)
            hashed = self.murmur2(code, info["hashSeed"])
            self.assertEqual(path, f"{info['tmpFilePrefix']}{hashed}{info['tmpFileSuffix']}")
            with open(path, newline="") as file:
                self.assertEqual(file.read(), code)
            self.assertEqual(self.body("source", source={"path": path})["content"], code)
        self.assertEqual(os.stat(os.path.dirname(path)).st_mode & 0o777, 0o700)

    def test_functions_of_cells_from_before(self):
        self.kernel.run(self.FUNCTION)
        self.start()
        self.break_at(self.FUNCTION, 2)
        message_id = self.execute("f(20)")
        top = self.stopped("breakpoint", 2)
        self.assertEqual(top["source"]["path"], self.dump(self.FUNCTION))
        self.assertEqual(self.frames[1]["source"]["path"], self.dump("f(20)"))
        self.body("continue")
        self.finish(message_id)

    def test_variables(self):
        self.kernel.run("number, float, text, flag = 1, 1.5, 'a\\n\\0\\255', true\n"
                        "list = {} for i = 1, 1300 do list[i] = i end\n"
                        "tree = {leaf = {deep = {1}}, ['odd key'] = 2, [5] = 3} tree.self = tree\n"
                        "object = setmetatable({}, {__name = 'Thing', __tostring = error, __index = error})\n"
                        "local up = 4 function closure() return up end\n"
                        "co = coroutine.create(function(inner) coroutine.yield() end) coroutine.resume(co, 'c')")
        found = {v["name"]: v for v in self.body("inspectVariables")["variables"]}
        self.assertEqual(set(found), {"number", "float", "text", "flag", "list", "tree", "object", "closure", "co"})
        self.assertEqual([(found[n]["type"], found[n]["value"]) for n in ("number", "float", "text", "flag")],
                         [("int", "1"), ("float", "1.5"), ("str", '"a\\n\\x00\ufffd"'), ("bool", "true")])
        self.assertEqual(found["object"]["type"], "Thing")
        self.assertEqual(found["closure"]["value"], "function: In [1]:5")
        tree = self.variables(found["tree"]["variablesReference"])
        self.assertEqual(set(tree), {"[5]", "leaf", '["odd key"]', "self"})
        self.assertEqual(tree['["odd key"]']["evaluateName"], 'tree["odd key"]')
        deep = self.variables(self.variables(tree["leaf"]["variablesReference"])["deep"]["variablesReference"])
        self.assertEqual((deep["[1]"]["value"], deep["[1]"]["evaluateName"]), ("1", "tree.leaf.deep[1]"))
        self.assertEqual(self.variables(found["closure"]["variablesReference"])["up"]["value"], "4")
        levels = self.variables(found["co"]["variablesReference"])
        level, = [v for v in levels.values() if v["name"] != "[C]"]
        self.assertEqual(self.variables(level["variablesReference"])["inner"]["value"], '"c"')
        reference = found["list"]["variablesReference"]
        self.assertEqual(found["list"]["indexedVariables"], 1300)
        self.assertEqual(list(self.variables(reference, start=1000, count=3)), ["[1001]", "[1002]", "[1003]"])
        self.assertEqual(self.variables(reference, filter="named"), {})
        pages = []
        while reference:
            page = self.variables(reference)
            rest = [v for v in page.values() if v["name"].startswith("…")]
            pages.append(len(page) - len(rest))
            reference = rest[0]["variablesReference"] if rest else 0
        self.assertEqual(pages, [500, 500, 300])
        self.body("initialize")
        self.body("setVariable", variablesReference=found["tree"]["variablesReference"], name='["odd key"]', value="{7}")
        self.assertEqual(result_of(self.kernel.run("tree['odd key'][1]")[1]), ["7"])
        self.assertIn("cannot be set", self.refusal("setVariable", variablesReference=found["tree"]["variablesReference"],
                                                    name="none", value="1"))

    def test_tensors(self):
        self.kernel.run("pl = require 'perilune'\nt = pl.tensor{{1, 2, 3}, {4, 5, 6}}\ndo local s <close> = pl.scope() "
                        "dropped = pl.zeros{2} end\nscalar = pl.tensor(5)")
        found = {v["name"]: v for v in self.body("inspectVariables")["variables"]}
        self.assertEqual(found["t"]["type"], "float32[2, 3] cpu")
        self.assertEqual(found["dropped"]["type"], "dropped tensor")
        inside = self.variables(found["t"]["variablesReference"])
        self.assertEqual([inside[name]["value"] for name in ("shape", "dtype", "device", "grad")],
                         ["{2, 3}", '"float32"', '"cpu"', "nil"])
        row = self.variables(inside["[2]"]["variablesReference"])
        self.assertEqual([row[f"[{i}]"]["value"] for i in (1, 2, 3)], ["4.0", "5.0", "6.0"])
        self.assertNotIn("[1]", self.variables(found["scalar"]["variablesReference"]))
        self.refusal("variables", variablesReference=found["dropped"]["variablesReference"])
        rich = self.body("richInspectVariables", variableName="t")
        self.assertIn("<table", rich["data"]["text/html"])
        self.assertEqual(rich["metadata"], {})
        code = "local here = pl.ones{2}\nlocal y = 1"
        self.start()
        self.break_at(code, 2)
        message_id = self.execute(code)
        self.stopped("breakpoint", 2)
        rich = self.body("richInspectVariables", variableName="here", frameId=self.top["id"])
        self.assertIn("float32", rich["data"]["text/plain"])
        self.body("continue")
        self.finish(message_id)

    def test_while_a_cell_runs(self):
        """What a front end asks while code runs is answered between two of its instructions."""
        self.start()
        code = "x = 5\nwhile not done do\n  count = (count or 0) + 1\nend"
        message_id = self.execute(code)
        time.sleep(0.2)
        found = {v["name"]: v["value"] for v in self.body("inspectVariables")["variables"]}
        self.assertEqual(found["x"], "5")
        self.assertEqual(self.body("stackTrace")["stackFrames"], [])
        self.body("pause", threadId=1)
        self.stopped("pause")
        self.body("evaluate", expression="done = true")
        self.body("continue")
        self.assertEqual(self.finish(message_id)[0]["status"], "ok")
        message_id = self.execute("done = false\nwhile not done do\nend\nlocal last = 1")
        time.sleep(0.2)
        self.break_at("done = false\nwhile not done do\nend\nlocal last = 1", 4)  # while it runs
        self.body("evaluate", expression="done = true")
        self.stopped("breakpoint", 4)
        self.body("continue")
        self.finish(message_id)
        message_id = self.kernel.client.execute("answer = io.read()", allow_stdin=True)
        self.kernel.client.get_stdin_msg(timeout=TIMEOUT)
        self.assertEqual(self.body("evaluate", expression="x")["result"], "5")  # while it waits for the user
        self.kernel.client.input("yes")
        self.assertEqual(self.finish(message_id)[0]["status"], "ok")

    def test_while_a_cell_waits(self):
        """A C function that takes long keeps nobody else waiting, and is not disturbed."""
        self.start()
        for wait in "os.execute 'sleep 1'", "io.popen('sleep 1; echo x'):read 'a'", "require 'perilune'.sleep(1)":
            message_id = self.execute(f"x = {wait}")
            time.sleep(0.2)
            started = time.time()
            asked = self.kernel.ask("debug_request", {"seq": 1, "command": "inspectVariables"}, "control")
            self.kernel.reply(self.kernel.ask("kernel_info_request", {}, "control"), "control")
            self.assertLess(time.time() - started, 0.5)
            self.assertTrue(self.kernel.reply(asked, "control")["content"]["success"])
            self.assertEqual(self.finish(message_id)[0]["status"], "ok")
            self.assertGreater(time.time() - started, 0.5)
        message_id = self.execute("x = os.execute 'sleep 60'")
        asked = self.kernel.ask("debug_request", {"seq": 1, "command": "inspectVariables"}, "control")
        time.sleep(0.2)
        self.kernel.ask("interrupt_request", {}, "control")
        self.assertEqual(self.finish(message_id)[0]["ename"], "Interrupted")
        self.assertTrue(self.kernel.reply(asked, "control")["content"]["success"])

    def test_recursion_without_end(self):
        self.start()
        self.body("setExceptionBreakpoints", filters=["uncaught"])
        message_id = self.execute("local function f()\n  return 1 + f()\nend\nf()")
        self.stopped("exception", 2)
        self.assertGreaterEqual(len(self.frames), 1000)
        self.assertIn("stack overflow", self.body("exceptionInfo")["description"])
        some = self.body("stackTrace", threadId=1, startFrame=2, levels=3)
        self.assertEqual([f["id"] for f in some["stackFrames"]], [f["id"] for f in self.frames[2:5]])
        self.body("continue")
        self.assertEqual(self.finish(message_id)[0]["ename"], "Error")

    def test_handlers_of_comms(self):
        """What widgets call is debugged as cells are."""
        code = "require 'perilune.comm'.register_target('t', function(c)\n  local id = 5\n  seen = id\nend)"
        self.start()
        self.break_at(code, 3)
        self.finish(self.execute(code))
        self.kernel.ask("comm_open", {"comm_id": "a", "target_name": "t", "data": {}})
        self.stopped("breakpoint", 3)
        self.assertEqual(self.locals()["id"], "5")
        self.body("next")
        self.stopped("step", 4)
        self.body("next")  # it ends with the handler
        self.assertEqual(result_of(self.kernel.run("local x = 1\nseen")[1]), ["5"])

    def test_hooks_of_the_user(self):
        """debug.sethook of a cell keeps its hook, and loses none to requests of a front end."""
        self.start()
        message_id = self.execute("lines = 0\ndebug.sethook(function() lines = lines + 1 end, 'l')\n"
                                  "while not done do\n  local x = 1\nend\nlocal hook = debug.gethook()\n"
                                  "debug.sethook()\nprint(hook ~= nil, lines > 1000)")
        time.sleep(0.2)
        for _ in range(5):
            self.body("inspectVariables")
        self.body("evaluate", expression="done = true")
        self.assertEqual(self.finish(message_id)[1], "true\ttrue\n")

    def test_redefined_globals(self):
        """What cells do to global names does not reach the debugger."""
        self.kernel.run("1")
        self.kernel.run("for name, value in next, {pairs = 1, ipairs = 1, type = 1, next = 1, error = 1, pcall = 1, select = 1, "
                        "tostring = 1, load = 1, setmetatable = 1, require = 1, debug = 1} do _ENV[name] = nil end\n"
                        "string.format, string.sub, table.concat, table.sort, math.type = nil\n"
                        "getmetatable('').__index = nil")
        self.test_breakpoint_variables_and_continue()
        self.assertEqual([v["name"] for v in self.body("inspectVariables")["variables"]], ["f"])

    def test_malformed_requests(self):
        code = "local x = 1\nlocal y = 2"

        def check():
            for content in {}, {"command": 5}, {"command": None}, {"seq": "x", "command": "frobnicate"}, \
                    {"command": "evaluate", "arguments": []}, {"command": "variables", "arguments": None}:
                reply = self.kernel.reply(self.kernel.ask("debug_request", content, "control"), "control")["content"]
                self.assertEqual((reply["type"], reply["success"]), ("response", False))
                self.assertTrue(reply["message"])
            for command in "setBreakpoints", "scopes", "variables", "evaluate", "source", "setVariable", "dumpCell", \
                    "copyToGlobals", "richInspectVariables", "setExceptionBreakpoints", "stackTrace":
                for value in None, True, -1, 0.5, 2**62, "", "x", [], {}, [None], {"path": 5}:
                    names = ("source", "frameId", "variablesReference", "expression", "name", "value", "code", "filters",
                             "breakpoints", "srcVariableName", "dstVariableName", "srcFrameId", "variableName", "start",
                             "count", "levels", "startFrame", "filter")
                    answer = self.debug(command, **{name: value for name in names})
                    self.assertIsInstance(answer["success"], bool)
                    self.assertEqual(answer["success"], "message" not in answer)

        self.assertIn("initialize", self.refusal("setBreakpoints", source={"path": "x"}, breakpoints=[]))
        self.start()
        check()
        for command in "continue", "next", "stepIn", "stepOut":
            self.assertIn("stands still", self.refusal(command))
        self.break_at(code, 2)
        message_id = self.execute(code)
        self.stopped("breakpoint", 2)
        check()
        self.body("continue")
        self.assertEqual(self.finish(message_id)[0]["status"], "ok")

    def test_no_cost_without_breakpoints(self):
        self.start()
        hook = "debug.gethook()"
        self.assertEqual(result_of(self.kernel.run(hook)[1]), ["nil"])
        self.break_at("x = 1", 1)
        self.assertEqual(result_of(self.kernel.run(hook)[1]), ['"external hook"\t"l"\t0'])
        self.body("disconnect")
        self.assertEqual(result_of(self.kernel.run(hook)[1]), ["nil"])

    def test_announced(self):
        info = self.kernel.reply(self.kernel.client.kernel_info())["content"]
        self.assertIn("debugger", info["supported_features"])
        self.assertIs(info["debugger"], True)
        capabilities = self.body("initialize")
        for name in "ConditionalBreakpoints", "HitConditionalBreakpoints", "LogPoints", "SetVariable", "ModulesRequest":
            self.assertIs(capabilities[f"supports{name}"], True)
        self.assertEqual([f["filter"] for f in capabilities["exceptionBreakpointFilters"]], ["raised", "uncaught"])
        modules = {m["name"]: m["path"] for m in self.body("modules")["modules"]}
        self.assertTrue(modules["perilune.inspect"].endswith("/lua/perilune/inspect.lua"))


if __name__ == "__main__":
    unittest.main(verbosity=1)
