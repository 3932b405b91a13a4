-- One commit of a task: all of it, or nothing when the fence says that the task has another owner.
-- KEYS: fence, floors, applied, outputs, agenda, order, then the keys to set, then the keys to delete.
-- ARGV: epoch, the number of: values, floors, applied records, outputs, pruned ids, agenda entries, struck keys; then these in that order.
-- Returns 1, or 0 when fenced. The parts are written in the order of state.Batch.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end

local at = 9 -- the next argument
local chunk = 1000 -- what unpack may put on Lua's stack at once; even, for pairs

-- each calls command on key with the next n arguments, a chunk at a time.
local function each(command, key, n)
  for first = at, at + n - 1, chunk do
    redis.call(command, key, unpack(ARGV, first, math.min(first + chunk, at + n) - 1))
  end
  at = at + n
end

local values = tonumber(ARGV[2])
for i = 1, values do
  redis.call('SET', KEYS[6 + i], ARGV[at])
  at = at + 1
end
for first = 7 + values, #KEYS, chunk do
  redis.call('UNLINK', unpack(KEYS, first, math.min(first + chunk - 1, #KEYS)))
end

for _ = 1, tonumber(ARGV[3]) do -- a floor never falls
  local old = redis.call('HGET', KEYS[2], ARGV[at])
  if not old or tonumber(old) < tonumber(ARGV[at + 1]) then
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  end
  at = at + 2
end

each('HSET', KEYS[3], 2 * tonumber(ARGV[4]))
each('HSET', KEYS[4], 2 * tonumber(ARGV[5]))

local prune = tonumber(ARGV[6])
for first = at, at + prune - 1, chunk do
  local ids = {unpack(ARGV, first, math.min(first + chunk, at + prune) - 1)}
  local records = redis.call('HMGET', KEYS[3], unpack(ids))
  local outputs = {}
  for i, record in ipairs(records) do
    if record then
      for slice = 0, struct.unpack('>I4', record) - 1 do
        outputs[#outputs + 1] = ids[i] .. struct.pack('>I4', slice)
        if #outputs == chunk then
          redis.call('HDEL', KEYS[4], unpack(outputs))
          outputs = {}
        end
      end
    end
  end
  if #outputs > 0 then
    redis.call('HDEL', KEYS[4], unpack(outputs))
  end
  redis.call('HDEL', KEYS[3], unpack(ids))
end
at = at + prune

for _ = 1, tonumber(ARGV[7]) do
  redis.call('ZADD', KEYS[5], ARGV[at + 1], ARGV[at])
  redis.call('ZADD', KEYS[6], 0, ARGV[at])
  at = at + 2
end
local strike = tonumber(ARGV[8])
each('ZREM', KEYS[5], strike)
at = at - strike
each('ZREM', KEYS[6], strike)
return 1
