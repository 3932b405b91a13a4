-- Raises a log's floor and forgets the entries below it.
-- KEYS: generation, floor, entries. ARGV: generation, floor, 1 if the floor may lie beyond the log's end. Returns 1 when done, 0 when fenced, -1 when the log is shorter than that.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local old, new = tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[2])
if ARGV[3] ~= '1' and new > old + redis.call('LLEN', KEYS[3]) then
  return -1
end
if new > old then
  redis.call('LTRIM', KEYS[3], new - old, -1)
  redis.call('SET', KEYS[2], ARGV[2])
end
return 1
