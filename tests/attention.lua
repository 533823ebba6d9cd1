-- What the specifications of attention share: the plain composition that it is compared with, and operands as layers
-- make them.
local pl = require "perilune"

local attention = {}

--- softmax(scale q k^T) v by products and a softmax with all scores in memory; with `causal`, query t sees the keys up
-- to S - T + t.
function attention.plain(q, k, v, option)
  local queries, keys = q.shape[3], k.shape[3]
  local scores = (q * (option.scale or 1 / math.sqrt(q.shape[4]))):matmul(k:transpose(3, 4))
  if option.causal then
    local key = pl.arange(1, keys, { device = q.device }):unsqueeze(1)
    local last = pl.arange(keys - queries + 1, keys, { device = q.device }):unsqueeze(2)
    scores = scores:masked_fill(pl.gt(key, last), -math.huge)
  end
  return scores:softmax(-1):matmul(v)
end

--- The result of attend(q, k, v, option) and the gradients of leaves q, k, v of the same numbers, all in float64 on the
-- CPU, when `arriving` is the gradient at the result.
function attention.results(attend, q, k, v, arriving, option)
  local leaves = {}
  for i, t in ipairs { q, k, v } do leaves[i] = t:detach():clone():requires_grad() end
  local y = attend(leaves[1], leaves[2], leaves[3], option)
  y:backward(arriving:to(y.device, y.dtype))
  local results = { y:detach(), leaves[1].grad, leaves[2].grad, leaves[3].grad }
  for i, t in ipairs(results) do results[i] = t:to("cpu", "float64") end
  return results
end

--- The largest difference of two tensors over the largest element of the first, or over 1e-3 where that is smaller.
function attention.distance(expected, got)
  assert(got:ne(got):sum():item() == 0, "NaN in a result")
  return (expected - got):abs():max():item() / math.max(1e-3, expected:abs():max():item())
end

attention.names = { "result", "gradient of q", "gradient of k", "gradient of v" }

return attention
