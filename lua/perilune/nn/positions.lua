-- Positions of a sequence, for layers that do not know the order by themselves: SinusoidalPositions, which are added to
-- embeddings, and rotary, which turns queries and keys.
local pl = require "perilune"
local check = require "perilune.nn.check"
local module = require "perilune.nn.module"

local longest_wave <const> = 10000

-- Angles [T,D/2] of T positions from `first` on: position / 10000^(2k/D) for the k-th pair of features, from 0.
local function angles(first, steps, size, like)
  local where = { dtype = like.dtype, device = like.device }
  local pair = pl.arange(0, size // 2 - 1, where)
  return pl.arange(first, first + steps - 1, where):unsqueeze(2) * pl.exp(pair * (-2 * math.log(longest_wave) / size))
end

local function check_even(who, name, size)
  if size % 2 ~= 0 then check.fail("%s: %s: expected an even number of features, got %d", who, name, size) end
end

--- rotary(x [, first = 0]) -> tensor: x [..,T,D], D even, with features k and k + D/2 turned by the angle of the
-- position, counted from `first`, so that products of two positions depend on their distance only (Su et al. 2021,
-- "RoFormer").
local function rotary(x, first)
  local shape = check.tensor("nn.rotary", "x", x).shape
  if #shape < 2 then check.fail("nn.rotary: x: expected at least 2 dimensions, got %s", check.shape_text(shape)) end
  check_even("nn.rotary", "x", shape[#shape])
  local half, angle = shape[#shape] // 2, angles(first or 0, shape[#shape - 1], shape[#shape], x)
  local cosine, sine = pl.cos(angle), pl.sin(angle)
  local a, b = x:narrow(-1, 1, half), x:narrow(-1, half + 1, half)
  return pl.cat({ a * cosine - b * sine, b * cosine + a * sine }, -1)
end

local SinusoidalPositions = module.class("nn.SinusoidalPositions")

--- nn.SinusoidalPositions(size): x [B,T,size] [, first = 0] -> x plus, at position t from `first` on, sin and cos of
-- t / 10000^(2k/size) in the features 2k + 1 and 2k + 2, k from 0 (Vaswani et al. 2017). size is even; sequences may be
-- of any length.
function SinusoidalPositions:init(size)
  self.size = check.integer("nn.SinusoidalPositions", "size", size)
  check_even("nn.SinusoidalPositions", "size", size)
end

function SinusoidalPositions:forward(x, first)
  local steps = check.tensor("nn.SinusoidalPositions", "x", x, 3, self.size).shape[2]
  local angle = angles(first or 0, steps, self.size, x)
  return x + pl.stack({ pl.sin(angle), pl.cos(angle) }, 3):reshape { steps, self.size }
end

function SinusoidalPositions:extra()
  return tostring(self.size)
end

return { SinusoidalPositions = SinusoidalPositions, rotary = rotary }
