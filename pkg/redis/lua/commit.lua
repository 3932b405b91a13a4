-- One commit of a task: all of it, or nothing when the fence says that the task has another owner.
-- KEYS: fence, floors, packs, applied, positions, outputs, agenda, order, then the keys to set, then the keys to delete.
-- ARGV: epoch, the number of: values, packs, applied records, outputs, floors, agenda entries, struck keys; then these in that order, the applied
-- records twice: first by id, then by position. Returns 1, or 0 when fenced.
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
  redis.call('SET', KEYS[8 + i], ARGV[at])
  at = at + 1
end
for first = 9 + values, #KEYS, chunk do
  redis.call('UNLINK', unpack(KEYS, first, math.min(first + chunk - 1, #KEYS)))
end

each('ZADD', KEYS[3], 2 * tonumber(ARGV[3]))
each('HSET', KEYS[4], 2 * tonumber(ARGV[4]))
each('ZADD', KEYS[5], 2 * tonumber(ARGV[4]))
each('HSET', KEYS[6], 2 * tonumber(ARGV[5]))

-- forget removes the records, with their outputs, of the members of positions that lie between two names.
local function forget(from, to)
  local below = redis.call('ZRANGEBYLEX', KEYS[5], from, to)
  for first = 1, #below, chunk do
    local ids, outputs = {}, {}
    for i = first, math.min(first + chunk - 1, #below) do
      ids[#ids + 1] = string.sub(below[i], 17)
    end
    for i, record in ipairs(redis.call('HMGET', KEYS[4], unpack(ids))) do
      for slice = 0, record and struct.unpack('>I4', record) - 1 or -1 do
        outputs[#outputs + 1] = ids[i] .. struct.pack('>I4', slice)
        if #outputs == chunk then
          redis.call('HDEL', KEYS[6], unpack(outputs))
          outputs = {}
        end
      end
    end
    if #outputs > 0 then
      redis.call('HDEL', KEYS[6], unpack(outputs))
    end
    redis.call('HDEL', KEYS[4], unpack(ids))
  end
  if #below > 0 then
    redis.call('ZREMRANGEBYLEX', KEYS[5], from, to)
  end
end

for _ = 1, tonumber(ARGV[6]) do -- a floor never falls; what lies below one that has risen goes
  local origin, floor, place = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local old = redis.call('HGET', KEYS[2], origin)
  if not old or tonumber(old) < tonumber(floor) then
    redis.call('HSET', KEYS[2], origin, floor)
    local from, to = '[' .. string.sub(place, 1, 8), '(' .. place
    redis.call('ZREMRANGEBYLEX', KEYS[3], from, to)
    forget(from, to)
  end
  at = at + 3
end

for _ = 1, tonumber(ARGV[7]) do
  redis.call('ZADD', KEYS[7], ARGV[at + 1], ARGV[at])
  redis.call('ZADD', KEYS[8], 0, ARGV[at])
  at = at + 2
end
local strike = tonumber(ARGV[8])
each('ZREM', KEYS[7], strike)
at = at - strike
each('ZREM', KEYS[8], strike)
return 1
