"""Holds `perilune notebook run` to nbclient: both run the same notebooks, with the same kernel, and the files are compared.

Usage: notebook_test.py PROGRAM. Skipped (exit status 77) where nbclient is not installed.
"""
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

PROGRAM = os.path.abspath(sys.argv.pop(1))
STALE = [new_output("stream", text="stale\n")]


def code(source, **options):
    options.setdefault("outputs", copy.deepcopy(STALE))
    return new_code_cell(source, execution_count=99, **options)


def tagged(source, *tags):
    return code(source, metadata={"tags": list(tags), "keep": {"z": 1.50, "a": [1e5, 10**30]}})


def notebook(*cells):
    metadata = {"kernelspec": {"name": "perilune", "language": "lua", "display_name": "any"}, "zeta": 1, "alpha": [0.10]}
    return new_notebook(cells=[code(c) if isinstance(c, str) else c for c in cells], metadata=metadata)


def merge_streams(book):
    """As this nbclient does not: how a kernel cuts its text into messages is a matter of time."""
    for cell in book.cells:
        merged = []
        for output in cell.get("outputs", []):
            last = merged[-1] if merged else {}
            if output["output_type"] == last.get("output_type") == "stream" and output["name"] == last["name"]:
                last["text"] += output["text"]
            else:
                merged.append(output)
        if "outputs" in cell:
            cell["outputs"] = merged
    return book


EVERYTHING = notebook(
    new_markdown_cell("# Title\n\n![x](attachment:a.png)", attachments={"a.png": {"image/png": "iVBORw0KGgo="}}),
    new_raw_cell("raw\ntext"),
    "print 'a'\nio.write('b', 1)\nio.stderr:write 'c\\n'\nprint 'd'",
    "1 + 1",
    "x = 5",
    "x;",
    "1, nil, 'two'",
    "{ 1, { 2, x = 'y' } }",
    "",
    " \n\t\n",
    "-- only a comment",
    "io.write '10 %\\r' io.write '20 %\\r' print 'done\\f1\\v2\\u{2028}3\\u{85}4'",
    "print '\\xff\\0ok' io.write '\\xc3' io.write '\\xa9';",
    "d = require 'perilune.display'\nh = d.html('<b>\\none</b>', { id = 'mine', metadata = { a = 1 } })",
    "d.html('again', { id = 'mine' }) print 'between' h2 = d.text('other', { id = 'other' })",
    "h:update 'two\\nlines'",
    "print 'gone' d.clear() print 'kept' d.clear { wait = true }",
    "print 'gone' d.html('gone', { id = 'mine' }) d.clear { wait = true } print 'new'",
    "h:update 'three'",
    "d.json { z = 1e15, a = { 1.5, 1e16, 123456789012345680, 0.1, 1e-7, -0.0, 100000.0 }, e = d.array {} }",
    "d.bundle { ['text/plain'] = 'p\\nq', ['image/png'] = '\\x89PNG\\r\\n\\x1a\\n', ['image/svg+xml'] = '<svg>\\n</svg>',"
    " ['application/javascript'] = 'a\\nb', ['application/x-other'] = 'a\\nb' }",
    "d.markdown 'm\\nn' d.latex '$x$'",
    "setmetatable({}, { __mime = function() return { ['text/html'] = '<i>\\n</i>', ['text/plain'] = 'i' } end })",
    "print 'before' local x\nx.y = 1",
    "error({})",
    "x = = 1",
    "error(setmetatable({}, { __tostring = function() return 'my own' end }))",
    tagged("error 'expected'", "raises-exception"),
    tagged("print 'never'", "skip-execution"),
    "os.execute 'echo from a child';",
    "print 'the last'",
)


WIDGETS = notebook(
    "w = require 'perilune.widgets'\nslider = w.IntSlider { value = 3, max = 10, description = 'x' }\nslider",
    "slider.value = 7\nimage = w.Image { value = 'abc' } image.value = '\\xff\\xfe'",
    "out = w.Output() out:show()\nprint 'before' out:capture(function() print 'taken' io.stderr:write 'e' end) print 'after'",
    "print 'a' out:capture(function() print 'gone' d = require 'perilune.display' d.clear { wait = true } print 'new'"
    " end) print 'b'",
    "out:capture(function() error 'failed' end) print 'goes on'",
    "out2 = w.Output() out:capture(function() out2:capture(function() print 'inner'"
    " d.html('h\\ni', { id = 'i' }):update 'new' end) end)",
    "#out.outputs, out.outputs[1].text, out.msg_id == ''",
    "require 'perilune'.interact(function(x) print('x is', x) return { x } end, { x = { 0, 10 } })",
    "box = w.HBox { slider, w.Label { value = 'ü' } } box:close()",
)


def without_random_ids(book):
    """The notebook's cells and widgets as text, in which what a widget holds stands in place of its id."""
    state = book["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]

    def look(value):
        if isinstance(value, str) and value.startswith("IPY_MODEL_"):
            return look(state[value[len("IPY_MODEL_"):]])
        if isinstance(value, list):
            return [look(item) for item in value]
        if isinstance(value, dict):
            return {key: look(state[item]) if key == "model_id" else look(item) for key, item in value.items()}
        return value

    looked = look(book["cells"]), sorted((look(model) for model in state.values()), key=json.dumps)
    return json.dumps(looked, sort_keys=True, indent=1)


class Notebooks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        subprocess.run([PROGRAM, "kernel", "install", "--prefix", cls.folder.name], check=True, stdout=subprocess.DEVNULL)
        os.environ["JUPYTER_PATH"] = os.path.join(cls.folder.name, "share/jupyter")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def run_own(self, text, *options):
        with open(self.path("in.ipynb"), "w", encoding="utf-8") as file:
            file.write(text)
        done = subprocess.run([PROGRAM, "notebook", "run", self.path("in.ipynb"), "-o", self.path("own.ipynb"), *options],
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=60)
        with open(self.path("own.ipynb"), encoding="utf-8") as file:
            return file.read(), done.stderr.decode(), done.returncode

    def run_nbclient(self, text, **options):
        book = nbformat.reads(text, as_version=4)
        options.setdefault("timeout", 60)
        options["record_timing"] = False  # times in the metadata: no two runs would give the same file
        client = NotebookClient(book, resources={"metadata": {"path": self.folder.name}}, **options)
        client.execute()
        nbformat.write(merge_streams(book), self.path("client.ipynb"))
        with open(self.path("client.ipynb"), encoding="utf-8") as file:
            return file.read()

    def test_the_same_file(self):
        text = nbformat.writes(EVERYTHING)
        own, errors, status = self.run_own(text, "--allow-errors")
        self.assertEqual((errors, status), ("", 0))
        self.maxDiff = None
        self.assertEqual(own, self.run_nbclient(text, allow_errors=True))

    def test_the_same_after_a_second_run(self):
        text = nbformat.writes(EVERYTHING)
        once, _, _ = self.run_own(text, "--allow-errors")
        self.assertEqual(self.run_own(once, "--allow-errors")[0], once)

    def without_ids(self, minor):
        book = json.loads(nbformat.writes(notebook("1", new_markdown_cell("m"), "2")))
        for cell in book["cells"]:
            del cell["id"]
        book["nbformat_minor"] = minor
        return json.dumps(book, indent=1, sort_keys=True) + "\n"

    def test_missing_ids_are_made(self):
        text = self.without_ids(5)
        own, client = json.loads(self.run_own(text)[0]), json.loads(self.run_nbclient(text))
        self.assertEqual(len({cell["id"] for cell in own["cells"]}), 3)
        for cell in own["cells"] + client["cells"]:
            self.assertRegex(cell["id"], "^[0-9a-f]{8}$")
            cell["id"] = "same"
        self.assertEqual(own, client)

    def test_older_notebooks_stay_without_ids(self):
        text = self.without_ids(4)
        own = self.run_own(text)[0]
        nbformat.validate(nbformat.reads(own, 4))
        self.assertEqual(own, self.run_nbclient(text))

    def test_repeated_ids_are_replaced(self):
        text = nbformat.writes(notebook(code("1", id="one"), code("2", id="one")))
        ids = [cell["id"] for cell in json.loads(self.run_own(text)[0])["cells"]]
        self.assertEqual(ids[0], "one")
        self.assertNotEqual(ids[1], "one")

    def test_language_info(self):
        for metadata in {}, {"language_info": {"name": "lua", "version": "5.1"}}, {"kernelspec": {"name": "perilune"}}:
            book = json.loads(nbformat.writes(notebook("1")))
            book["metadata"] = metadata
            text = json.dumps(book)
            own = json.loads(self.run_own(text)[0])["metadata"]
            client = json.loads(self.run_nbclient(text, kernel_name="perilune"))["metadata"]
            self.assertEqual(own, client)

    def test_errors(self):
        text = nbformat.writes(notebook("print 'a'", "local x\nx.y = 1", "print 'never'"))
        own, errors, status = self.run_own(text)
        self.assertEqual(status, 1)
        with self.assertRaises(CellExecutionError) as raised:
            self.run_nbclient(text)
        plain = re.sub("\x1b\\[[0-9;]*m", "", str(raised.exception))
        self.assertIn("CellExecutionError: " + plain.rstrip("\n"), errors)
        cells = json.loads(own)["cells"]
        self.assertEqual(cells[1]["outputs"][0]["ename"], raised.exception.ename)
        self.assertEqual(cells[2]["outputs"][0]["text"], ["stale\n"])

    def test_timeout(self):
        text = nbformat.writes(notebook("print 'a' while true do end", "print 'after'"))
        own, errors, status = self.run_own(text, "--timeout", "1")
        self.assertEqual(status, 1)
        with self.assertRaises(CellTimeoutError) as raised:
            self.run_nbclient(text, timeout=1)
        self.assertIn("CellTimeoutError: " + str(raised.exception).rstrip("\n"), errors)
        self.assertEqual(json.loads(own)["cells"][0]["outputs"][1]["ename"], "Interrupted")

    def test_timeout_where_errors_are_allowed(self):
        text = nbformat.writes(notebook("print 'a' while true do end", "print 'after'"))
        own, errors, status = self.run_own(text, "--timeout", "1", "--allow-errors")
        self.assertEqual((errors, status), ("", 0))
        self.assertEqual(own, self.run_nbclient(text, timeout=1, interrupt_on_timeout=True, allow_errors=True))

    def test_widgets(self):
        """States of widgets in the metadata, and Output widgets that take what cells print. Ids are random."""
        text = nbformat.writes(WIDGETS)
        own, errors, status = self.run_own(text, "--allow-errors")
        self.assertEqual((errors, status), ("", 0))
        client = json.loads(self.run_nbclient(text, allow_errors=True))
        self.maxDiff = None
        self.assertEqual(without_random_ids(json.loads(own)), without_random_ids(client))
        self.assertEqual(json.dumps(json.loads(own), indent=1, sort_keys=True, ensure_ascii=False) + "\n", own)
        nbformat.validate(nbformat.reads(own, 4))
        saved = json.loads(own)["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]
        self.assertEqual((saved["version_major"], saved["version_minor"]), (2, 0))
        states = [model["state"] for model in saved["state"].values()]
        self.assertCountEqual([s["value"] for s in states if s.get("description") == "x"], [7, 5])
        image, = (model for model in saved["state"].values() if model["model_name"] == "ImageModel")
        self.assertEqual(image["buffers"], [{"data": "//4=", "encoding": "base64", "path": ["value"]}])
        outputs = [[output.get("text", output["output_type"]) for output in s["outputs"]] for s in states if "outputs" in s]
        self.assertCountEqual(outputs, [["new\n", "error"], ["inner\n", "display_data"], ["display_data"],
                                        ["x is\t5\n", "display_data"]])
        updated, = (s["outputs"][0]["data"] for s in states if len(s.get("outputs", ())) == 1)
        self.assertEqual(updated["text/html"], "new")

    def test_widgets_of_an_earlier_run_stay_without_new_ones(self):
        book = notebook("1")
        book.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}}
        text = nbformat.writes(book)
        self.assertEqual(self.run_own(text)[0], self.run_nbclient(text))

    def test_cells_run_where_the_notebook_lies(self):
        with open(self.path("beside.txt"), "w") as file:
            file.write("found")
        text = nbformat.writes(notebook("io.open('beside.txt'):read 'a'"))
        self.assertEqual(self.run_own(text)[0], self.run_nbclient(text))


if __name__ == "__main__":
    unittest.main(verbosity=1)
