"""Drives the kernel through Jupyter's own client, point by point of the messaging protocol.

Usage: kernel_test.py PROGRAM. Skipped (exit status 77) where jupyter_client is not installed.
"""
import contextlib
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

try:
    import zmq
    from jupyter_client import BlockingKernelClient
    from jupyter_client.connect import write_connection_file
    from jupyter_client.session import Session
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

PROGRAM = os.path.abspath(sys.argv.pop(1))
TIMEOUT = 20


class Kernel:
    """One kernel process with a connected client."""

    def __init__(self, key=b"a key", transport="tcp", environment=None, closed=()):
        self.folder = tempfile.TemporaryDirectory()
        self.file = os.path.join(self.folder.name, "connection.json")
        ip = os.path.join(self.folder.name, "ipc") if transport == "ipc" else "127.0.0.1"
        write_connection_file(self.file, key=key, transport=transport, ip=ip)
        self.process = subprocess.Popen([PROGRAM, "kernel", "--connection-file", self.file],
                                        env={**os.environ, **(environment or {})},
                                        preexec_fn=lambda: [os.close(descriptor) for descriptor in closed])
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

    def ask(self, kind, content, channel="shell"):
        message = self.client.session.msg(kind, content)
        getattr(self.client, f"{channel}_channel").send(message)
        return message["header"]["msg_id"]


def content_of(messages, kind):
    return [m["content"] for m in messages if m["msg_type"] == kind]


def text_of(messages, name="stdout"):
    return "".join(c["text"] for c in content_of(messages, "stream") if c["name"] == name)


def result_of(messages):
    return [c["data"]["text/plain"] for c in content_of(messages, "execute_result")]


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
        self.assertEqual(reply["header"]["version"], "5.5")
        self.assertEqual(reply["parent_header"]["msg_id"], message_id)
        self.assertIsNotNone(reply["header"]["date"].tzinfo)
        self.assertEqual(reply["metadata"], {})

    def test_unknown_types_get_busy_and_idle(self):
        for channel in "shell", "control":
            message_id = self.kernel.ask("frobnicate_request", {"x": 1}, channel)
            kinds = [m["content"]["execution_state"] for m in self.kernel.iopub(message_id)]
            self.assertEqual(kinds, ["busy", "idle"])

    def test_comms(self):
        message_id = self.kernel.ask("comm_info_request", {})
        self.assertEqual(self.kernel.reply(message_id)["content"], {"status": "ok", "comms": {}})
        message_id = self.kernel.ask("comm_open", {"comm_id": "abc", "target_name": "none", "data": {}})
        self.assertEqual(content_of(self.kernel.iopub(message_id), "comm_close")[0]["comm_id"], "abc")

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
        message_id = client.execute("print('early') local t = os.clock() while os.clock() - t < 1 do end")
        start = time.time()
        while True:
            message = client.get_iopub_msg(timeout=TIMEOUT)
            if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == message_id:
                break
        self.assertLess(time.time() - start, 0.5)
        self.assertEqual(message["content"]["text"], "early\n")
        self.kernel.reply(message_id)
        self.kernel.iopub(message_id)

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
        self.assertEqual(self.complete("string.re", 10000)["cursor_end"], 9)
        self.assertEqual(self.complete("f().x")["matches"], [])

    def test_history(self):
        self.run_code("first_input()")
        self.run_code("second = 2")
        content = self.kernel.reply(self.kernel.client.history(hist_access_type="tail", n=2))["content"]
        self.assertEqual([entry[2] for entry in content["history"]], ["first_input()", "second = 2"])
        content = self.kernel.reply(self.kernel.client.history(hist_access_type="search", pattern="first*"))["content"]
        self.assertEqual([entry[2] for entry in content["history"]], ["first_input()"])


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
        self.assertLess(time.time() - start, 1)
        self.kernel.iopub(message_id)
        self.assertEqual(reply["status"], "error")
        self.assertEqual(reply["ename"], "Interrupted")
        _, messages = self.run_code("local n = 0 for i = 1, 1000 do pcall(error) n = n + 1 end return n")
        self.assertEqual(result_of(messages), ["1000"])

    def test_message(self):
        for name, code in self.LOOPS.items():
            with self.subTest(name):
                self.interrupted(code, lambda: self.kernel.ask("interrupt_request", {}, "control"))

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
        self.assertLess(peak_mb - self.start_mb, 64)

    def test_commands_wait(self):
        message_id = self.kernel.client.execute(f"os.execute [[head -c {self.MEGABYTES}000000 /dev/zero | tr '\\0' x]]")
        time.sleep(1)
        length, peak_mb = self.read_all(message_id)
        self.assertEqual(length, self.MEGABYTES * 1000000)
        self.assertLess(peak_mb - self.start_mb, 64)

    def test_an_interrupt_ends_the_wait(self):
        for code in "while true do print(('x'):rep(99)) end", "os.execute('yes')":
            message_id = self.kernel.client.execute(code)
            time.sleep(1)
            self.assertLess(self.resident_mb() - self.start_mb, 64)
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

    def test_parent_header_comes_back_exactly(self):
        client = self.kernel.client
        message = client.session.msg("kernel_info_request", {})
        message["header"]["big"] = 9007199254740993
        message["header"]["unknown"] = {"ü": [None]}
        client.shell_channel.send(message)
        reply = self.kernel.reply(message["header"]["msg_id"])
        self.assertEqual(reply["parent_header"]["big"], 9007199254740993)
        self.assertEqual(reply["parent_header"]["unknown"], {"ü": [None]})

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

    def test_ipc(self):
        with contextlib.closing(Kernel(transport="ipc")) as kernel:
            self.assertEqual(result_of(kernel.run("1 + 1")[1]), ["2"])

    def test_orphans_end(self):
        with contextlib.closing(Kernel()) as kernel:
            file = kernel.file + ".2"
            write_connection_file(file, key=b"k")
            starter = ("import os, subprocess, sys, time; p = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL,"
                       " stderr=subprocess.DEVNULL, env={**os.environ, 'JPY_PARENT_PID': str(os.getpid())});"
                       " print(p.pid); time.sleep(0.5)")
            out = subprocess.run([sys.executable, "-c", starter, PROGRAM, "kernel", "--connection-file", file],
                                 stdout=subprocess.PIPE, check=True, timeout=10).stdout
            pid, deadline = int(out), time.time() + 5
            while os.path.exists(f"/proc/{pid}") and time.time() < deadline:
                with open(f"/proc/{pid}/stat") as stat:
                    if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                        break
                time.sleep(0.05)
            self.assertLess(time.time(), deadline)

    def test_broken_connection_files(self):
        for text in "", "[]", "{}", "{\"shell_port\": \"x\"}", None:
            with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                file.write(text or "")
                file.flush()
                name = file.name if text is not None else "/nonexistent.json"
                done = subprocess.run([PROGRAM, "kernel", "--connection-file", name], stderr=subprocess.PIPE, timeout=10)
                self.assertEqual(done.returncode, 1)
                self.assertIn(name.encode(), done.stderr)

    def test_kernelspec(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([PROGRAM, "kernel", "install", "--prefix", folder, "--name", "moon"], check=True,
                           stdout=subprocess.DEVNULL)
            path = os.path.join(folder, "share/jupyter/kernels/moon/kernel.json")
            with open(path) as file:
                spec = json.load(file)
            self.assertEqual((spec["display_name"], spec["language"]), ("Lua 5.4 (Perilune)", "lua"))
            self.assertTrue(os.path.isabs(spec["argv"][0]))
            subprocess.run([PROGRAM, "kernel", "uninstall", "--prefix", folder, "--name", "moon"], check=True,
                           stdout=subprocess.DEVNULL)
            self.assertFalse(os.path.exists(os.path.dirname(path)))
            again = subprocess.run([PROGRAM, "kernel", "uninstall", "--prefix", folder, "--name", "moon"],
                                   stderr=subprocess.PIPE)
            self.assertEqual(again.returncode, 1)
            bad = subprocess.run([PROGRAM, "kernel", "install", "--prefix", folder, "--name", "../x"], stderr=subprocess.PIPE)
            self.assertEqual(bad.returncode, 1)


if __name__ == "__main__":
    unittest.main(verbosity=1)
