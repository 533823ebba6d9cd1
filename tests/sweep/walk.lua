-- An experiment for tests of sweeps: takes a number of steps with a checkpoint behind each, and leaves a trace of what
-- it did, "begin FIRST PROCESS", "step N PROCESS" and "end PROCESS", which tells a test what ran, and how often.
local core = require "perilune.core"
local experiment = require "perilune.experiment"
local options = require "perilune.options"

local option = options.read {
  { "cell", "string", default = "lstm" },
  { "seed", "integer", default = 1 },
  { "steps", "integer", default = 1 },
  { "pause", "number", default = 0, help = "seconds of a step" },
  { "fail", "string", help = "the cell that fails" },
  { "metric", "string", help = "names the metric: accuracy or loss" },
  { "notes", "list" },
  { "fast", "flag" },
  { "out", "string" },
}

local checkpoint <const> = option.out .. "/checkpoint"

local function process()
  local file <close> = assert(io.open "/proc/self/stat")
  return file:read "n"
end

local function trace(...)
  local words = { ... }
  words[#words + 1] = process()
  assert(core.append_lines(option.out .. "/trace", table.concat(words, " ") .. "\n"))
end

local function steps_done()
  local file <close> = io.open(checkpoint)
  return file and file:read "n" or 0
end

local first = steps_done() + 1
trace("begin", first)
for step = first, option.steps do
  core.sleep(option.pause)
  trace("step", step)
  core.write_file(checkpoint, tostring(step))
end
print("walked " .. option.cell)
if option.fail == option.cell then error("no way for " .. option.cell, 0) end

local results <close> = experiment.results(option.out .. "/walk.jsonl", option)
local accuracy = (option.cell == "lstm" and 0.5 or 0.25) + option.seed / 16
results:write { kind = "result", cell = option.cell, seed = option.seed, loss = option.seed / 4, steps = option.steps,
                lengths = { 8, 64 }, accuracy = { 1, accuracy }, metric = option.metric,
                x = option.metric == "accuracy" and "lengths" or nil }
trace "end"
