-- Bandwidth: what operations on large tensors reach of the bandwidth of a copy, and the rate of products. A table on
-- standard output, JSON lines with --out; it is never a test.
--
--   perilune experiments/bandwidth.lua --device cuda
--   perilune experiments/bandwidth.lua --device cuda --dtypes bfloat16 --only softmax,gelu
--
-- Bytes are what the operation must read and write at least, so an operation of several passes shows less than its
-- passes reach. A time is that of the device's own clock (pl.timer: CUDA events on a GPU) around `calls` calls queued
-- one behind the other, divided by them: the GPU does not wait for the script, but in clip_grad_norm, which asks for
-- the norm. The median of the repeats is printed. Rows "f+b" run forward and backward. Products queued one behind the
-- other leave the GPU nothing to do but cuBLAS's kernels, for their outputs come from the cache of freed buffers: that
-- is cuBLAS alone, as this program calls it. "one" times single calls, in which the GPU waits for the script.
local pl = require "perilune"
local experiment = require "perilune.experiment"
local options = require "perilune.options"

local option = options.read {
  usage = "perilune experiments/bandwidth.lua [OPTIONS]",
  about = "Measures the bandwidth of operations on large tensors, and the rate of products.",
  { "device", "string", default = "cuda", help = "where to run: cpu, cuda, cuda:1" },
  { "dtypes", "list", default = { "float32", "bfloat16", "float16" },
    choices = { "float32", "float64", "bfloat16", "float16" }, help = "types of the tensors" },
  { "megabytes", "integer", default = 256, minimum = 1, help = "size of a tensor, in MiB" },
  { "repeats", "integer", default = 20, minimum = 1, help = "measurements per row, after two to warm up" },
  { "calls", "integer", default = 10, minimum = 1, help = "calls per measurement" },
  { "only", "list", default = {}, help = "operations whose names contain one of these" },
  { "matrices", "integers", default = { 1024, 4096, 8192 }, minimum = 1, help = "sizes of the square matrices" },
  { "out", "string", help = "file for JSON lines" },
}
local device <const> = option.device
options.attempt("device", pl.synchronize, device)
local results <close> = options.attempt("out", experiment.results, option.out, option)

local function wanted(name)
  if #option.only == 0 then return true end
  for _, part in ipairs(option.only) do
    if name:find(part, 1, true) then return true end
  end
  return false
end

-- The median time of one call in ms, of `calls` queued together.
local function measure(f, calls)
  local times, timer = {}, pl.timer(device)
  for i = -1, option.repeats do
    timer:start()
    for _ = 1, calls do
      local _ <close> = pl.scope()
      f()
    end
    local ms = timer:stop()
    if i > 0 then times[i] = ms / calls end
  end
  table.sort(times)
  return times[(#times + 1) // 2]
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Operations

local COLUMNS <const>, CLASSES <const> = 4096, 50304

-- Forward and backward with a given gradient.
local function both(leaves, f, seed)
  return function()
    f():backward(seed)
    for _, leaf in ipairs(leaves) do leaf.grad = nil end
  end
end

-- Lists { name, bytes moved at least, function }; `size` is the bytes of one element, `all` those of one tensor.
local function operations(dtype)
  local size = ({ float64 = 8, float32 = 4 })[dtype] or 2
  local all <const> = option.megabytes << 20
  local rows, count = all // size // COLUMNS, all // size
  local function drawn(...) return pl.randn { device = device, dtype = dtype, ... } end
  local x, y = drawn(rows, COLUMNS), drawn(rows, COLUMNS)
  local row, column, condition = drawn(COLUMNS), drawn(rows, 1), x:gt(0)
  local flat = x:reshape { -1 }
  local other = dtype == "float32" and "bfloat16" or "float32"
  local leaf, weight, bias = x:detach():requires_grad(), drawn(COLUMNS):requires_grad(), drawn(COLUMNS):requires_grad()
  local few = math.max(all // size // CLASSES, 1)
  local logits = drawn(few, CLASSES)
  local labels = (pl.rand { few, device = device } * CLASSES):to "int64" + 1
  local logits_leaf = logits:detach():requires_grad()
  local table_rows, width = 50000, 1024
  local words = drawn(table_rows, width)
  local index = (pl.rand { count // width, device = device } * table_rows):to "int64" + 1
  local words_leaf, picked = words:detach():requires_grad(), drawn(count // width, width)
  local list = {
    { "add", 3 * all, function() return x + y end },
    { "mul", 3 * all, function() return x * y end },
    { "exp", 2 * all, function() return x:exp() end },
    { "tanh", 2 * all, function() return x:tanh() end },
    { "gelu", 2 * all, function() return x:gelu() end },
    { "silu", 2 * all, function() return x:silu() end },
    { "sigmoid", 2 * all, function() return x:sigmoid() end },
    { "where", 3 * all + count, function() return pl.where(condition, x, y) end },
    { "cast to " .. other, all + all // size * (other == "float32" and 4 or 2), function() return x:to(other) end },
    { "add row", 2 * all, function() return x + row end },
    { "add column", 2 * all, function() return x + column end },
    { "add number", 2 * all, function() return x + 1 end },
    { "transpose copy", 2 * all, function() return x:t():contiguous() end },
    { "sum all", all, function() return x:sum() end },
    { "sum rows", all, function() return x:sum(2) end },
    { "sum columns", all, function() return x:sum(1) end },
    { "mean", all, function() return x:mean() end },
    { "max all", all, function() return x:max() end },
    { "argmax all", all, function() return flat:argmax() end },
    { "argmax rows", all, function() return x:argmax(2) end },
    { "argmax columns", all, function() return x:argmax(1) end },
    { "var rows", all, function() return x:var(2) end },
    { "norm", all, function() return x:norm() end },
    { "softmax rows", 2 * all, function() return x:softmax(2) end },
    { "softmax columns", 2 * all, function() return x:softmax(1) end },
    { "softmax 50304", 2 * logits:numel() * size, function() return logits:softmax(2) end },
    { "log_softmax rows", 2 * all, function() return x:log_softmax(2) end },
    { "layer_norm", 2 * all, function() return x:layer_norm(weight, bias) end },
    { "rms_norm", 2 * all, function() return x:rms_norm(weight) end },
    { "cross_entropy 50304", logits:numel() * size, function() return pl.cross_entropy(logits, labels) end },
    { "gather rows", 2 * all, function() return words:index_select(1, index) end },
    { "randn", all, function() return drawn(rows, COLUMNS) end },
    { "dropout", 2 * all, function() return x:dropout(0.1) end },
  }
  local recorded = {
    { "gelu f+b", 5 * all, both({ leaf }, function() return leaf:gelu() end, y) },
    { "softmax f+b", 5 * all, both({ leaf }, function() return leaf:softmax(2) end, y) },
    { "layer_norm f+b", 5 * all, both({ leaf, weight, bias },
      function() return leaf:layer_norm(weight, bias) end, y) },
    { "rms_norm f+b", 5 * all, both({ leaf, weight }, function() return leaf:rms_norm(weight) end, y) },
    { "cross_entropy f+b", 3 * logits:numel() * size,
      both({ logits_leaf }, function() return pl.cross_entropy(logits_leaf, labels) end) },
    { "embedding f+b", 3 * all + words:numel() * size, both({ words_leaf },
      function() return pl.embedding(words_leaf, index) end, picked) },
  }
  if dtype == "float32" then
    local p = drawn(rows, COLUMNS):requires_grad()
    p.grad = y:clone()
    local optimizer = pl.optim.AdamW({ p }, { lr = 1e-6 })
    recorded[#recorded + 1] = { "adamw step", 7 * all, function() optimizer:step() end }
    local limit = p.grad:norm():item()
    recorded[#recorded + 1] = { "clip_grad_norm", 3 * all, function()
      limit = limit * 0.97 -- below the norm of every call
      pl.optim.clip_grad_norm({ p }, limit)
    end }
  end
  return list, recorded
end

local function show(dtype, name, bytes, ms, copy)
  local rate = bytes / ms / 1e6
  print(("%-9s %-22s %10.1f %9.4f %9.1f %7.2f"):format(dtype, name, bytes / 1e6, ms, rate, rate / copy))
  results:write { kind = "bandwidth", dtype = dtype, operation = name, bytes = bytes, ms = ms, gbytes_per_s = rate,
                  of_copy = rate / copy }
end

local function bandwidths(dtype)
  local _ <close> = pl.scope()
  local source = pl.randn { option.megabytes << 18, device = device }
  local bytes = 2 * (option.megabytes << 20)
  local ms = pl.no_grad(measure, function() return source:clone() end, option.calls)
  local copy = bytes / ms / 1e6
  show(dtype, "copy", bytes, ms, copy)
  local plain, recorded = operations(dtype)
  for _, entry in ipairs(plain) do
    if wanted(entry[1]) then show(dtype, entry[1], entry[2], pl.no_grad(measure, entry[3], option.calls), copy) end
  end
  for _, entry in ipairs(recorded) do
    if wanted(entry[1]) then show(dtype, entry[1], entry[2], measure(entry[3], option.calls), copy) end
  end
end

-- ---------------------------------------------------------------------------------------------------------------------
-- Products

local function products(name, dtype, n)
  local _ <close> = pl.scope()
  local form = { n, n, device = device, dtype = dtype }
  local a, b = pl.randn(form), pl.randn(form)
  local function product() return a:matmul(b) end
  local before = pl.tf32(name == "tf32")
  local queued, one = pl.no_grad(measure, product, option.calls), pl.no_grad(measure, product, 1)
  pl.tf32(before)
  local function rate(ms) return 2 * n ^ 3 / ms / 1e9 end
  print(("%-9s %-22s %9.4f %9.1f %9.4f %9.1f %7.2f"):format(name, ("matmul %d"):format(n), queued, rate(queued), one,
    rate(one), queued / one))
  results:write { kind = "matmul", type = name, size = n, ms_queued = queued, tflops_queued = rate(queued),
                  ms_one = one, tflops_one = rate(one) }
end

print(experiment.device_line(device))
print(("%-9s %-22s %10s %9s %9s %7s"):format("type", "operation", "MB", "ms", "GB/s", "of copy"))
for _, dtype in ipairs(option.dtypes) do bandwidths(dtype) end
if wanted("matmul") then
  print(("%-9s %-22s %9s %9s %9s %9s %7s"):format("type", "product", "queued ms", "TFLOP/s", "one ms", "TFLOP/s",
    "of it"))
  for _, form in ipairs { { "float32", "float32" }, { "tf32", "float32" }, { "bfloat16", "bfloat16" },
    { "float16", "float16" } } do
    for _, n in ipairs(option.matrices) do products(form[1], form[2], n) end
  end
end
