-- Wrong calls and what their errors say: the operation, the argument, what came and what was expected.
local pl = require "perilune"
local core = require "perilune.core"
local check = require "tests.tensor.check"

local a, b, whole = pl.ones { 2, 3 }, pl.ones { 4 }, pl.ones { 2, dtype = "int64" }
local vector, flag = pl.ones { 3 }, pl.tensor { true, false, true }

local function heads(count, positions, features) return pl.ones { 1, count, positions, features } end

-- A call by name and arguments (n given, so that nil counts), and the pattern that its message must match.
local function call(name, ...) return { name = name, table.pack(...) } end

local cases <const> = {
  -- Constructors
  { call("tensor"), "tensor: data: expected a number or a nested table, got nil" },
  { call("tensor", "x"), "tensor: data: expected a number or a nested table, got string" },
  { call("tensor", a), "tensor: data: expected numbers, got a tensor; use clone or to" },
  { call("tensor", { 1, "2" }), "tensor: data: expected a number, got string" },
  { call("tensor", { { 1, 2 }, { 3 } }), "ragged: a table at depth 2 has 1 entries, the first one there has 2" },
  { call("tensor", { { 1 }, 2 }), "ragged: expected a table at depth 2, got number" },
  { call("tensor", { 1, { 2 } }), "tensor: data: expected a number, got table" },
  { call("tensor", { x = 1 }), "tensor: data: expected a sequence, got a table with the key 'x'" },
  { call("tensor", { { { { { { { { { 1 } } } } } } } } }), "tensor: data: nested deeper than 8" },
  { call("tensor", { 1 }, "float64"), "tensor: options: expected a table such as { dtype = \"float64\" }, got string" },
  { call("tensor", { 1 }, { type = "float64" }), "tensor: unknown option 'type' %(dtype and device are known%)" },
  { call("tensor", { 1 }, { dtype = "double" }), "dtype: expected float64, float32, .* or bool, got 'double'" },
  { call("tensor", { 1 }, { dtype = 1 }), "dtype: expected float64, .* got number" },
  { call("tensor", { 1 }, { device = "tpu" }), "device: there is no 'tpu' here; expected one of 'cpu'" },
  { call("tensor", { 1 }, { device = true }), "tensor: device: expected a name, got boolean" },
  { call("zeros"), "zeros: shape: expected a table of sizes, got nil" },
  { call("zeros", 2, 3), "zeros: shape: expected a table of sizes, got number" },
  { call("ones", { 2, -1 }), "ones: shape: size 2: expected an integer of 0 or more, got %-1" },
  { call("ones", { 2 }, 3), "ones: options: expected a table such as .*, got number" },
  { call("zeros", { 2 }, { type = "float64" }), "zeros: unknown option 'type'" },
  { call("randn", { 2 }, { dtype = "int64" }), "randn: dtype: expected a floating%-point type, got int64" },
  { call("ones", { 2, 1.5 }), "ones: shape: size 2: expected an integer of 0 or more, got 1.5" },
  { call("zeros", { "x" }), "zeros: shape: size 1: expected an integer of 0 or more, got x" },
  { call("zeros", { 1, 1, 1, 1, 1, 1, 1, 1, 1 }), "zeros: shape: at most 8 dimensions, got 9" },
  { call("zeros", { 2, typo = "x" }), "zeros: unknown option 'typo'" },
  { call("full", { 2 }), "full: value: expected a number, got nil" },
  { call("full", { 2 }, a), "full: value: expected a number, got userdata" },
  { call("rand", { 2, dtype = "int64" }), "rand: dtype: expected a floating%-point type, got int64" },
  { call("randn", 3), "randn: shape: expected a table of sizes, got number" },
  { call("randint", 5, 1, { 2 }), "randint: low 5 is above high 1" },
  { call("randint", 1, "x", { 2 }), "randint: high: expected an integer, got x" },
  { call("randint", 1, 1 << 60, { 2 }), "randint: bounds past 2%^53 are not supported" },
  { call("bernoulli", 1.5, { 2 }), "bernoulli: p: expected 0 <= p <= 1, got 1.5" },
  { call("bernoulli", {}, { 2 }), "bernoulli: p: expected a number, got table" },
  { call("arange", 1), "arange: last: expected a number, got nil" },
  { call("arange", 1, 2, 0), "arange: step: expected a number other than 0" },
  { call("arange", 1, 2, "x"), "arange: step: expected a number, got string" },
  { call("linspace", 0, 1), "linspace: n: expected an integer, got nil" },
  { call("linspace", 0, 1, -1), "linspace: n: expected 0 or more, got %-1" },
  { call("eye", 1.5), "eye: n: expected an integer of 0 or more, got 1.5" },
  { call("eye", { 2, -1 }), "eye: m: expected an integer of 0 or more, got %-1" },
  { call("eye", { 2, 2, 2 }), "eye: expected one or two sizes, got 3" },
  { call("eye", { 2, typo = 1 }), "eye: unknown option 'typo'" },
  { call("eye", 2, 3), "eye: options: expected a table, got number; rows and columns are eye{ n, m }" },
  { call("randperm", "x"), "randperm: n: expected an integer of 0 or more, got x" },
  { call("zeros_like", 3), "zeros_like: self: expected a tensor, got number" },
  { call("zeros_like", a, 3), "zeros_like: options: expected a table, got number" },
  { call("seed", "x"), "seed: n: expected an integer, got x" },

  -- Elementwise
  { call("add", a), "add: second operand: expected a tensor or a number, got nothing" },
  { call("add", a, "x"), "add: second operand: expected a tensor or a number, got string" },
  { call("add", nil, a), "add: first operand: expected a tensor or a number, got nil" },
  { call("add", a, b), "add: shapes %[2, 3%] and %[4%] do not broadcast: dimension 2 has sizes 3 and 4" },
  { call("exp", a, a), "exp: expected 1 arguments, got 2" },
  { call("exp", true), "exp: first operand: expected a tensor or a number, got boolean" },
  { call("where", flag, vector), "where: third operand: expected a tensor or a number, got nothing" },
  { call("where", flag, a, b), "where: shapes .* do not broadcast" },

  -- Shapes
  { call("reshape", a, { 4 }), "reshape: %[2, 3%] has 6 elements, %[4%] would have 4" },
  { call("reshape", a, { -1, 4 }), "reshape: cannot infer a size: 6 elements over 4" },
  { call("reshape", a, { -1, -1 }), "reshape: only one size may be %-1" },
  { call("reshape", a, { -2 }), "reshape: size: sizes must not be negative, got %-2" },
  { call("reshape", a, "x"), "reshape: size: expected an integer, got string" },
  { call("reshape", a, { 1, 1, 1, 1, 1, 1, 1, 2, 3 }), "reshape: size: at most 8 dimensions, got 9" },
  { call("reshape", 3, { 1 }), "reshape: self: expected a tensor, got number" },
  { call("transpose", a, 1, 3), "transpose: j: dimension 3 is outside 1..2 %(or %-2..%-1%)" },
  { call("transpose", a, 0, 1), "transpose: i: dimension 0 is outside 1..2" },
  { call("transpose", a, 1), "transpose: j: expected an integer, got nothing" },
  { call("permute", a, { 1 }), "permute: order: expected each dimension 1..2 exactly once" },
  { call("permute", a, { 1, 1 }), "permute: order: expected each dimension 1..2 exactly once" },
  { call("narrow", a, 2, 2, 3), "narrow: 3 elements from 2 are outside dimension 2 of size 3" },
  { call("narrow", a, 2, 0, 1), "narrow: 1 elements from 0 are outside dimension 2 of size 3" },
  { call("narrow", a, 2, 1, -1), "narrow: %-1 elements from 1 are outside" },
  { call("pieces", pl.ones { 9 }, 1, 2),
    "pieces: size: expected one that gives 1..4 pieces of dimension 1 of size 9, got 2" },
  { call("pieces", a, 1, 0), "pieces: size: expected one that gives 1..4 pieces of dimension 1 of size 2, got 0" },
  { call("narrow", a, 2, 1), "narrow: length: expected an integer, got nothing" },
  { call("select", a, 1, 3), "select: index 3 is outside dimension 1 of size 2" },
  { call("unsqueeze", a, 4), "unsqueeze: dimension 4 is outside 1..3" },
  { call("squeeze", a, 3), "squeeze: dim: dimension 3 is outside 1..2" },
  { call("expand", a, { 3 }), "expand: %[2, 3%] has more dimensions than the 1 asked for" },
  { call("expand", a, { 5, 3 }), "expand: %[2, 3%] does not broadcast to %[5, 3%]" },
  { call("expand", a, { -1, 2, 3 }), "expand: %-1 needs a dimension that is there already" },
  { call("cat", {}), "cat: tensors: expected at least one tensor" },
  { call("cat", a), "cat: tensors: expected a table of tensors, got userdata" },
  { call("cat", { a, 1 }), "cat: tensors: expected a tensor, got number" },
  { call("cat", { a, b }), "cat: tensor 2 has shape %[4%], tensor 1 has %[2, 3%]" },
  { call("cat", { a, a:t() }),
    "cat: tensor 2 has shape %[3, 2%], tensor 1 has %[2, 3%]: they may differ in dimension 1 only" },
  { call("cat", { a }, 3), "cat: dim: dimension 3 is outside 1..2" },
  { call("stack", { a, a }, 5), "stack: dim: dimension 5 is outside 1..3" },
  { call("stack", { a, b }), "stack: tensor 2 has shape" },

  -- Reductions
  { call("sum", a, 3), "sum: dim: dimension 3 is outside 1..2" },
  { call("sum", a, { 1, 3 }), "sum: dim: dimension 3 is outside 1..2" },
  { call("sum", a, 1, 1), "sum: keepdim: expected true or false, got number" },
  { call("sum", a, 1, true, 5), "sum: expected at most 3 arguments, got 4" },
  { call("sum", a, { axis = 1 }), "sum: unknown option 'axis'" },
  { call("mean", a, "x"), "mean: dim: expected an integer, got string" },
  { call("var", vector, { correction = 3 }), "var: 3 elements are too few for correction 3" },
  { call("max", a, { 1, 2 }), "max: expected one dimension" },
  { call("argmin", a, 1.5), "argmin: dim: expected an integer, got number" },
  { call("cumsum", a), "cumsum: dim: expected an integer, got nothing" },

  -- Products and norms
  { call("matmul", a, a), "matmul: inner sizes differ: %[2, 3%] has 3 columns, %[2, 3%] has 2 rows" },
  { call("matmul", a, 2), "matmul: other: expected a tensor, got number" },
  { call("matmul", a, a:t():double()),
    "matmul: expected two tensors of one floating%-point type, got float32 and float64" },
  { call("matmul", whole, whole), "matmul: expected two tensors of one floating%-point type, got int64 and int64" },
  { call("matmul", pl.tensor(1), a), "matmul: expected vectors or matrices, got shapes %[%] and %[2, 3%]" },
  { call("matmul", pl.ones { 2, 1, 2 }, pl.ones { 3, 2, 1 }),
    "matmul: batch dimensions of %[2, 1, 2%] and %[3, 2, 1%]" },
  { call("softmax", whole), "softmax: expected a floating%-point type, got int64" },
  { call("softmax", a, 3), "softmax: dim: dimension 3 is outside 1..2" },
  { call("layer_norm", a, b), "layer_norm: weight: expected %[3%], got %[4%]" },
  { call("layer_norm", a, nil, b), "layer_norm: bias: expected %[3%], got %[4%]" },
  { call("layer_norm", a, flag), "layer_norm: weight: expected a floating%-point type, got bool" },
  { call("layer_norm", a, nil, nil, "x"), "layer_norm: eps: expected a number, got string" },
  { call("layer_norm", whole), "layer_norm: expected a floating%-point tensor of at least one dimension, got int64" },
  { call("rms_norm", a, { weight = vector, epsilon = 1 }), "rms_norm: unknown option 'epsilon'" },
  { call("scaled_dot_product_attention", a, a, a),
    "scaled_dot_product_attention: query: expected floating%-point %[B, H, positions, D%], got float32 %[2, 3%]" },
  { call("scaled_dot_product_attention", heads(2, 3, 4), heads(2, 5, 4), heads(2, 6, 4)),
    "value: expected a position for each of key, got %[1, 2, 6, 4%] for %[1, 2, 5, 4%]" },
  { call("scaled_dot_product_attention", heads(2, 3, 4), heads(3, 3, 4), heads(2, 3, 4)),
    "key: expected the query's B, H and D, got %[1, 3, 3, 4%] for %[1, 2, 3, 4%]" },
  { call("scaled_dot_product_attention", heads(2, 3, 4), heads(2, 3, 4), heads(2, 3, 4):double()),
    "value is float64, query float32" },
  { call("scaled_dot_product_attention", heads(2, 3, 4), heads(2, 2, 4), heads(2, 2, 4), { causal = true }),
    "causal: expected as many positions of key as of query or more, got %[1, 2, 2, 4%] for %[1, 2, 3, 4%]" },
  { call("scaled_dot_product_attention", heads(2, 3, 4), heads(2, 0, 4), heads(2, 0, 4)),
    "key: expected at least one position, got %[1, 2, 0, 4%]" },
  { call("scaled_dot_product_attention", heads(2, 3, 0), heads(2, 3, 0), heads(2, 3, 0)),
    "query: expected at least one feature, got %[1, 2, 3, 0%]" },
  { call("scaled_dot_product_attention", heads(2, 3, 4), heads(2, 3, 4), heads(2, 3, 4), { scale = math.huge }),
    "scale: expected a finite number, got inf" },
  { call("scaled_dot_product_attention", heads(2, 3, 4), heads(2, 3, 4), heads(2, 3, 4), { is_causal = true }),
    "scaled_dot_product_attention: unknown option 'is_causal'" },
  { call("dropout", a, 1.5), "dropout: p: expected 0 <= p <= 1, got 1.5" },
  { call("dropout", a), "dropout: p: expected a number, got nothing" },
  { call("dropout", whole, 0.5), "dropout: expected a floating%-point type, got int64" },

  -- Indices and losses
  { call("gather", a, 1, whole), "gather: index has shape %[2%], expected as many dimensions as %[2, 3%]" },
  { call("gather", a, 1, pl.ones { 1, 5, dtype = "int64" }),
    "gather: index of shape %[1, 5%] is larger than %[2, 3%] in dimension 2" },
  { call("gather", a, 1, a), "gather: index: expected int64, int32 or uint8, got float32" },
  { call("index_select", a, 1, pl.ones { 1, 1, dtype = "int64" }),
    "index_select: index: expected one dimension, got shape %[1, 1%]" },
  { call("scatter_add", a, 1, pl.ones { 1, 2, dtype = "int64" }, a),
    "scatter_add: source has shape %[2, 3%], index %[1, 2%]" },
  { call("scatter_add", a, 1, pl.ones { 2, 3, dtype = "int64" }, a:double()),
    "scatter_add: source is float64, expected float32" },
  { call("embedding", vector, whole), "embedding: weight: expected %[vocabulary, size%], got shape %[3%]" },
  { call("embedding", a, a), "embedding: index: expected int64, int32 or uint8, got float32" },
  { call("one_hot", whole, 0), "one_hot: classes: expected a positive number, got 0" },
  { call("one_hot", whole), "one_hot: classes: expected an integer, got nothing" },
  { call("cross_entropy", 3, whole), "cross_entropy: logits: expected a tensor, got number" },
  { call("cross_entropy", whole, whole),
    "cross_entropy: logits: expected a floating%-point %[.., classes%], got int64 %[2%]" },
  { call("cross_entropy", a, { 1 }),
    "labels: expected the shape of logits without the last dimension, got %[1%] for %[2, 3%]" },
  { call("cross_entropy", a, 1), "labels: expected a tensor, got number" },
  { call("cross_entropy", a, whole, "mean"), "cross_entropy: options: expected a table, got string" },
  { call("cross_entropy", a, whole, { smoothing = 1 }), "cross_entropy: unknown option 'smoothing'" },
  { call("cross_entropy", a, whole, { label_smoothing = 1 }), "label_smoothing: expected 0 <= s < 1, got 1" },
  { call("cross_entropy", a, whole, { reduction = "avg" }), 'reduction: expected "mean", "sum" or "none", got avg' },
  { call("cross_entropy", pl.zeros { 2, 0 }, whole), "logits: expected at least one class, got shape %[2, 0%]" },

  -- The rest
  { call("memory_limit", "x"), "memory_limit: bytes: expected an integer, got x" },
  { call("save"), "save: path: expected a string, got no value" },
  { call("load", 5), "load: path: expected a string, got number" },
  { call("threads", 0), "threads: n: expected 1..4096, got 0" },
  { call("tf32", 3), "tf32: on: expected true or false, got number" },
  { call("scatter_add", a:to "bfloat16", 1, pl.ones { 2, 3, dtype = "int64" }, a:to "bfloat16"),
    "scatter_add: expected float32, float64 or int64, got bfloat16" },
  { call("no_grad"), "no_grad: f: expected a function, got no value" },
}

local methods <const> = {
  { call("item", a), "item: expected a tensor of one element, got shape %[2, 3%]" },
  { call("size", a, 3), "size: dim: 3 is outside 1..2" },
  { call("size", a, "x"), "size: dim: x is outside 1..2" },
  { call("t", vector), "t: expected 2 dimensions, got 1" },
  { call("split", a, 0), "split: size: expected a positive integer or a table, got 0" },
  { call("split", a, { 1, 2 }), "split: sizes: expected a sum of 2" },
  { call("split", a, { 1 }), "split: sizes: expected a sum of 2" },
  { call("split", a, { 2, 1 }), "split: sizes: expected a sum of 2" },
  { call("chunk", a, 0), "chunk: n: expected a positive integer, got 0" },
  { call("fill_", a, "x"), "fill_: value: expected a number, got string" },
  { call("fill_", a, a), "fill_: value: expected a number, got userdata" },
  { call("copy_", a, nil), "copy_: value: expected a tensor, got nil" },
  { call("add_", a, {}), "add_: value: expected a tensor, got table" },
  { call("add_", a, a, "x"), "add_: alpha: expected a number, got string" },
  { call("to", a, "float8"), "to: 'float8' is neither a type nor a device here" },
  { call("sum", 5), "sum: self: expected a tensor, got number" },
  { call("keep", "x"), "keep: self: expected a tensor, got string" },
  { call("backward", a), "backward: this tensor does not depend on any that requires a gradient" },
}

local others <const> = {
  { function() return a + {} end, "add: second operand: expected a tensor or a number, got table" },
  { function() return "x" * a end, "mul: first operand: expected a tensor or a number, got string" },
  { function() return a ^ b end, "pow: shapes %[2, 3%] and %[4%] do not broadcast" },
  { function() a.colour = 1 end, "a tensor has no field 'colour' that can be set" },
  { function() a[5] = 1 end, "select: index 5 is outside dimension 1 of size 2" },
  { function() a[1] = {} end, "copy_: value: expected a tensor, got table" },
  { function() return a.shape() end, "attempt to call" },
  { function() return a < b end, "tensors cannot be compared with < and <=" },
  { function() core.methods.sum() end, "sum: self: expected a tensor, got nothing" },
}

describe("a wrong call", function()
  local function each(list, functions)
    for _, case in ipairs(list) do
      local one, pattern = case[1], case[2]
      local name, given = one.name, one[1]
      it(("of %s says: %s"):format(name, pattern), function()
        assert.matches(pattern, check.message(functions[name], table.unpack(given, 1, given.n)))
      end)
    end
  end
  each(cases, pl)
  each(methods, core.methods)

  it("through an operator or a field says what was wrong", function()
    for _, case in ipairs(others) do assert.matches(case[2], check.message(case[1])) end
  end)
end)

describe("after all those errors", function()
  it("the session works as before", function()
    assert.is_true(pl.grad_enabled())
    local x = pl.tensor({ 1, 2, 3 }):requires_grad()
    local y = (x * x):sum()
    y:backward()
    check.near({ 2, 4, 6 }, x.grad)
    assert.equal("tensor [2, 3] float32 cpu\n{ { 1.0000, 1.0000, 1.0000 },\n  { 1.0000, 1.0000, 1.0000 } }",
      tostring(a))
  end)

  it("through a field names the line of the script", function()
    assert.matches("^[^\n]*errors_spec%.lua:%d+: select: index 5", check.message(function() return a[5] + 1 end))
    assert.matches("^[^\n]*errors_spec%.lua:%d+: select: index 5", check.message(function() a[5] = 1 end))
  end)

  it("numbers print rounded, and in a form that shows something", function()
    assert.equal("tensor [6] float64 cpu { 1.2346, -0.5000, 0.0000, 1.0000e-09, -2.5000e+10, nan }",
      tostring(pl.tensor({ 1.23456, -0.5, 0, 1e-9, -2.5e10, 0 / 0 }, { dtype = "float64" })))
    assert.equal("tensor [] bool cpu 1", tostring(pl.tensor(true)))
    assert.equal("tensor [2] float32 cpu { inf, -inf }", tostring(pl.tensor { math.huge, -math.huge }))
  end)

  it("long tensors print their ends", function()
    assert.equal("tensor [100] int64 cpu { 1, 2, 3, ..., 98, 99, 100 }",
      tostring(pl.arange(1, 100, { dtype = "int64" })))
  end)
end)
