-- Forgets the names of a log's entries below an index, the oldest first, a number of them at most.
-- KEYS: once, names. ARGV: index, number. Returns how many it has forgotten.
for n = 0, tonumber(ARGV[2]) - 1 do
  local name = redis.call('LINDEX', KEYS[2], 0)
  if not name or tonumber(redis.call('HGET', KEYS[1], name)) >= tonumber(ARGV[1]) then
    return n
  end
  redis.call('LPOP', KEYS[2])
  redis.call('HDEL', KEYS[1], name)
end
return tonumber(ARGV[2])
