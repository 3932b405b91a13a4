-- Reads a log. KEYS: floor, entries. ARGV: first index, limit. Returns the length, the floor, and the entries from max(first index, floor) on.
local floor, limit = tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[2])
local first = math.max(tonumber(ARGV[1]) - floor, 0)
local entries = {}
if limit > 0 then
  entries = redis.call('LRANGE', KEYS[2], first, first + limit - 1)
end
return {floor + redis.call('LLEN', KEYS[2]), floor, entries}
