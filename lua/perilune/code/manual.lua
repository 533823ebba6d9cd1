-- The manual of functions written in C, which have no comments that help could read: one row for each, the call
-- and what it does. Operations on tensors have their calls from the tables in host/tensor and host/device, so that only
-- words are added here; Lua's own functions are in lua54.lua. A function in Lua has the comment above it.
local core = require "perilune.core"

-- Cells may give other values to these names.
local require, type, rawget, ipairs, pairs, getinfo = require, type, rawget, ipairs, pairs, debug.getinfo
local format, gmatch, gsub, match, rep, concat = string.format, string.gmatch, string.gsub, string.match, string.rep,
  table.concat
local globals, registry, file_methods = _G, debug.getregistry(), getmetatable(io.stdout).__index

local manual = {}

-- Operations of the table in host/tensor/operations.c, functions of pl and methods of tensors.
local operations <const> = {
  reshape = "the elements in another shape; one size may be -1. A view where the strides allow it",
  transpose = "a view with dimensions i and j exchanged",
  permute = "a view with the dimensions in another order",
  narrow = "a view of `length` entries along `dim` from `start` on",
  pieces = "views of all entries along `dim`, `size` of them each (the last may have less), at most four",
  select = "a view of one entry along `dim`, without that dimension; t[i] is t:select(1, i)",
  unsqueeze = "a view with a dimension of size 1 inserted at `dim`",
  squeeze = "a view without the dimensions of size 1, or without those named",
  expand = "a view in which dimensions of size 1 are repeated to the sizes given",
  contiguous = "the tensor, or a copy whose elements lie in order",
  clone = "a copy, through which gradients flow",
  detach = "the same elements outside the graph of gradients",
  cat = "tensors joined along an existing dimension",
  stack = "tensors joined along a new dimension",
  sum = "the sum over all elements, or over the dimensions named",
  mean = "the mean over all elements, or over the dimensions named",
  var = "the variance; `correction` is subtracted from the number of elements (1: Bessel's correction)",
  max = "the greatest element; with `dim` the greatest along it, and their indices",
  min = "the smallest element; with `dim` the smallest along it, and their indices",
  argmax = "the index of the greatest element, over all elements or along `dim`",
  argmin = "the index of the smallest element, over all elements or along `dim`",
  norm = "the 2-norm over all elements, or over the dimensions named",
  cumsum = "running sums along `dim`",
  matmul = "the matrix product [.., m, k] [.., k, n] -> [.., m, n]; vectors as in PyTorch",
  softmax = "exp(x) / sum(exp(x)) along `dim`",
  log_softmax = "log(softmax(x)) along `dim`",
  logsumexp = "log(sum(exp(x))), over all elements or the dimensions named",
  scaled_dot_product_attention = "softmax(scale query key^T) value for query [B,H,T,D], key and value [B,H,S,D]; "
    .. "with `causal`, query t sees the keys up to S - T + t (PyTorch's is_causal: up to t); scale: 1 / sqrt(D)",
  layer_norm = "(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension",
  rms_norm = "x / sqrt(mean(x^2) + eps) * weight over the last dimension",
  dropout = "each element 0 with probability `p`, the others divided by 1 - p",
  gather = "picks along `dim` the elements whose positions `index` holds",
  index_select = "the entries along `dim` whose positions the vector `index` holds",
  scatter_add = "a copy with `source` added along `dim` at the positions in `index`",
  embedding = "rows of `weight` [count, dim] for the integers in `index`",
  one_hot = "a new last dimension of `classes` zeros with a 1 at the place that `index` says",
}

-- Constructors and the rest of what pl and core hold.
local functions <const> = {
  { "tensor(data [, { dtype =, device = }]) -> tensor", "a tensor from a number or a nested table" },
  { "full({ sizes }, value [, { dtype =, device = }]) -> tensor", "a tensor of one number" },
  { "rand{ sizes, dtype =, device = } -> tensor", "random numbers, uniform in [0, 1)" },
  { "randn{ sizes, dtype =, device = } -> tensor", "random numbers, normal with mean 0 and standard deviation 1" },
  { "randint(low, high, { sizes, dtype =, device = }) -> tensor", "random integers from low to high, both included" },
  { "bernoulli(p, { sizes, dtype =, device = }) -> tensor", "1 with probability p, else 0" },
  { "arange(first, last [, step [, { dtype =, device = }]]) -> tensor", "first, first + step, .. up to and with last" },
  { "linspace(first, last, n [, { dtype =, device = }]) -> tensor", "n numbers at equal distances from first to last" },
  { "seed(n)", "starts the random numbers anew: the same seed gives the same numbers on the same device" },
  { "scope() -> scope", "`local s <close> = pl.scope()` drops every tensor made inside it, also on error" },
  { "no_grad(f, ...) -> what f returns", "f(...) without recording for gradients" },
  { "with_grad(f, ...) -> what f returns", "f(...) with recording for gradients, inside a no_grad, too" },
  { "grad_enabled() -> boolean", "whether operations are recorded for gradients" },
  { "memory() -> table", "per device the bytes { live =, cached =, peak =, buffers = }" },
  { "memory_limit(bytes [, device])", "bounds the live bytes of a device; nil lifts the limit" },
  { "reset_peak_memory([device])", "lets the peak of pl.memory() count from now on" },
  { "devices() -> list", "the CPU and the GPUs as { name =, description = }" },
  { "synchronize([device])", "waits until a device has done what it was given, and raises its errors" },
  { "threads() -> integer", "how many threads the CPU's operations use" },
  { "tf32([on]) -> boolean", "lets products of float32 round their operands to tf32; returns what was set before" },
  { "compilations([device]) -> table", "the kernels compiled so far: { compiled =, cached =, total_ms =, most_ms = }" },
  { "time() -> seconds", "a clock that only runs forward; for a GPU use pl.timer" },
  { "timer([device]) -> timer", "measures by the device's own clock: timer:start(), timer:mark(), timer:stop()" },
  { "cuda_graph(device, f) -> graph", "records what f() asks of a GPU; graph:replay() does it, again and again, by one "
    .. "call. f runs once, and nothing of it is done meanwhile: tensors that it changes in place, and those that it "
    .. "makes, get their values by a replay. It cannot read results, copy from the host or draw random numbers. The "
    .. "graph keeps f and what that refers to, but no tensor of it may be dropped by a scope before the last replay" },
  { "save(path, tensors)", "writes { name = tensor } to a .safetensors file, or one tensor to a .npy file" },
  { "load(path [, device]) -> tensors", "{ name = tensor } of a .safetensors file, or the tensor of a .npy file" },
  { "is_tensor(value) -> boolean", "whether a value is a tensor" },
  { "json_encode(value) -> text", "a value as JSON: a sequence is an array, any other table an object" },
  { "json_decode(text) -> value", "the value of a JSON text; null is pl.null" },
  { "json_array(table) -> table", "marks a table as an array, so that an empty one is [] in JSON" },
  { "input([prompt]) -> text", "asks the user for a line" },
  { "sleep(seconds)", "waits; an interrupt ends it" },
}

-- Methods of tensors beside the operations.
local methods <const> = {
  { "to(self, dtype or device, ..) -> tensor", "the tensor with another type or on another device" },
  { "totable(self) -> table", "the elements as a nested table of numbers" },
  { "item(self) -> number", "the only element of a tensor" },
  { "keep(self) -> tensor", "moves the tensor to the next scope outward, so that it outlives this one" },
  { "dim(self) -> integer", "the number of dimensions" },
  { "numel(self) -> integer", "the number of elements" },
  { "stride(self) -> table", "per dimension, how many elements its neighbours lie apart" },
  { "is_contiguous(self) -> boolean", "whether the elements lie in order" },
  { "add_(self, value [, alpha]) -> tensor", "adds value * alpha in place" },
  { "mul_(self, value) -> tensor", "multiplies in place" },
  { "copy_(self, value) -> tensor", "takes over the elements of a tensor or a number, broadcast and converted" },
  { "fill_(self, value) -> tensor", "sets every element to a number" },
  { "zero_(self) -> tensor", "sets every element to 0" },
  { "requires_grad(self [, on = true]) -> tensor", "asks for a gradient, which backward leaves in t.grad" },
  { "needs_grad(self) -> boolean", "whether gradients flow through the tensor" },
  { "backward(self [, seed])", "computes the gradients of all tensors that the result came from" },
}

-- Methods of a timer.
local timer_methods <const> = {
  { "start(self) -> timer", "begins a measurement" },
  { "mark(self) -> timer", "ends what is measured here, without waiting" },
  { "stop(self) -> milliseconds", "the time from start to the last mark, or to now; waits for the device" },
}

-- Methods of a graph.
local graph_methods <const> = {
  { "replay(self) -> graph", "does what was recorded once more, on the same tensors; does not wait" },
  { "close(self)", "gives back what the recording holds; so does the collector" },
}

-- Methods of a scope.
local scope_methods <const> = {
  { "close(self)", "drops the tensors made since the scope was opened, but those that were kept" },
}

-- "sum(self [, dim [, keepdim]])" from "self:t dim:D? keepdim:b?". A default of nan depends on the other arguments.
local function call_of(row)
  local words, optional = {}, 0
  for name, code, mark, default in gmatch(row.signature, "([%w_]+):(%a)(%??)=?(%S*)") do
    if code ~= "a" then
      local word = name .. (default ~= "" and default ~= "nan" and " = " .. default or "")
      if mark ~= "" then
        optional = optional + 1
        word = (#words > 0 and " [, " or "[") .. word
      elseif #words > 0 then
        word = ", " .. word
      end
      words[#words + 1] = word
    end
  end
  return format("%s(%s%s) -> tensor", row.name, concat(words), rep("]", optional))
end

-- An elementwise operation: its formula says all.
local function pointwise_entry(row)
  local operands = concat({ "a", "b", "c" }, ", ", 1, row.arity)
  local formula = gsub(row.value, "K%(([^()]*)%)", "%1")
  return { format("%s(%s) -> tensor", row.name, operands), "elementwise " .. formula }
end

local entries = setmetatable({}, { __mode = "k" }) -- function -> { call, words }

local function add(f, entry)
  if type(f) == "function" and not entries[f] then entries[f] = entry end
end

-- A function in Lua in a place that the manual knows is the user's own.
local function add_rows(rows, holder)
  for _, entry in ipairs(rows) do
    local f = rawget(holder, match(entry[1], "^[%w_]+"))
    if type(f) == "function" and getinfo(f, "S").what == "C" then add(f, entry) end
  end
end

-- Where the functions are found. Those in Lua that stand in place of an operation have comments of their own.
local function read()
  local pl = require "perilune"
  for _, row in ipairs(core.pointwise) do
    local entry = pointwise_entry(row)
    for _, holder in ipairs { pl, core, core.methods } do add(rawget(holder, row.name), entry) end
  end
  for _, row in ipairs(core.operations) do
    if operations[row.name] then add(core[row.name], { call_of(row), operations[row.name] }) end
  end
  add_rows(functions, core)
  add_rows(methods, core.methods)
  add_rows(timer_methods, registry["perilune.timer"].__index)
  add_rows(graph_methods, registry["perilune.cuda_graph"].__index)
  add_rows(scope_methods, registry["perilune.scope"].__index)
  for path, rows in pairs(require "perilune.code.lua54") do
    local holder = path == "" and globals or path == "file" and file_methods or rawget(globals, path)
    if type(holder) == "table" then add_rows(rows, holder) end
  end
end

--- { call, words } for a function, or nil.
function manual.of(f)
  if read then
    local first = read
    read = nil
    first()
  end
  return f ~= nil and entries[f] or nil
end

return manual
