-- Models of sequences on a GPU: logits and gradients of every mixer are the processor's.
local pl = require "perilune"
local devices = require "tests.devices"

if not devices.has("cuda", "models of sequences") then return end

local names = {}
for name in pairs(pl.nn.mixers) do names[#names + 1] = name end
table.sort(names)

-- Logits and gradients by name of one batch, brought to the CPU; parameters are of type `dtype`.
local function results(name, labels, device, dtype)
  pl.seed(12)
  local model = pl.nn.SequenceModel {
    mixer = name, vocabulary = 8, classes = 5, width = 16, layers = 2, heads = 2, convolution = 4, labels = labels,
  }
  model:to(device):to(dtype)
  local task = pl.task.modular_arithmetic {
    size = 8, min = 5, max = 30, inputs = "ids", labels = labels, ragged = true, seed = 3, device = device,
  }
  local batch = task:batch(1)
  local logits = model(batch.x, batch.lengths)
  pl.cross_entropy(logits, batch.y, { ignore_index = 0 }):backward()
  local found = { logits = logits:detach():to("cpu") }
  for _, p in ipairs(model:named_parameters()) do found[p[1]] = p[2].grad:to("cpu") end
  return found
end

describe("models of sequences on a GPU", function()
  for _, name in ipairs(names) do
    for _, labels in ipairs { "every", "last" } do
      it(("%s, labels at %s position"):format(name, labels == "last" and "the last" or "every"), function()
        local expected, got = results(name, labels, "cpu", "float32"), results(name, labels, "cuda", "float32")
        for what, tensor in pairs(expected) do
          local bound = 1e-4 * math.max(1, tensor:abs():max():item())
          local difference = (tensor - got[what]):abs():max():item()
          assert.is_true(difference < bound, ("%s differs by %g"):format(what, difference))
        end
      end)
    end
  end

  for _, name in ipairs(names) do
    it(name .. " in bfloat16", function()
      local expected, got = results(name, "every", "cpu", "bfloat16"), results(name, "every", "cuda", "bfloat16")
      for what, tensor in pairs(expected) do
        assert.are.equal("bfloat16", got[what].dtype)
        local difference = (tensor:float() - got[what]:float()):norm():item() / tensor:float():norm():item()
        -- mLSTM divides by numbers near zero, which makes much of a rounding.
        assert.is_true(difference < (name == "mlstm" and 0.3 or 0.1), ("%s differs by %g"):format(what, difference))
      end
    end)
  end

  it("learn, and are measured there", function()
    pl.seed(1)
    local task = pl.task.parity { inputs = "ids", max = 20, device = "cuda" }
    local model = pl.nn.SequenceModel { mixer = "lstm", vocabulary = 2, classes = 2, width = 32, layers = 1 }
    model:to("cuda")
    pl.train.loop {
      model = model, optimizer = pl.optim.AdamW(model:parameters(), { lr = 3e-3 }), steps = 600, clip = 1,
      progress = false,
      batch = function(step) return task:batch(step) end,
      loss = function(m, batch) return pl.cross_entropy(m(batch.x), batch.y) end,
    }
    assert.are.equal(1, (task:accuracy(model, 40, 256)))
  end)
end)
