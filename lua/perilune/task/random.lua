-- Random numbers of tasks: streams of 64-bit words, each found without those before it, so that the same seed gives the
-- same batches on every device and in any order, whatever else draws random numbers.
local random = {}

-- The n-th word of a stream (Steele, Lea and Flood 2014, SplitMix64).
local function word(stream, n)
  local z = stream + n * 0x9E3779B97F4A7C15
  z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
  z = (z ~ (z >> 27)) * 0x94D049BB133111EB
  return z ~ (z >> 31)
end

--- The stream within a stream that has this number.
random.substream = word

--- The stream of a seed, a use (training or an evaluation) and a number within it.
function random.stream(seed, use, number) return word(word(word(seed, 1), use), number) end

--- An integer in [low, high] from the n-th word of a stream; ranges are far below 2^31, so the remainder's bias is too
-- small to matter.
function random.integer(stream, n, low, high) return low + (word(stream, n) >> 1) % (high - low + 1) end

--- What draws from a stream from its first word on: below(n), an integer in 0 .. n - 1, and bit(), 0 or 1, of which a
-- word gives 64. Both are called for every symbol of a batch, so they keep their places in locals.
function random.source(stream)
  local words, bits, left = 0, 0, 0
  local function below(n)
    words = words + 1
    return (word(stream, words) >> 1) % n
  end
  local function bit()
    if left == 0 then
      words, left = words + 1, 64
      bits = word(stream, words)
    end
    local drawn = bits & 1
    bits, left = bits >> 1, left - 1
    return drawn
  end
  return { below = below, bit = bit }
end

return random
