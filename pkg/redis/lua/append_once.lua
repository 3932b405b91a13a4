-- Appends an entry to a log unless its name was given before.
-- KEYS: floor, entries, once, names. ARGV: name, entry. Returns the entry's index, and 1 when it is new.
local known = redis.call('HGET', KEYS[3], ARGV[1])
if known then
  return {tonumber(known), 0}
end
local index = tonumber(redis.call('GET', KEYS[1]) or '0') + redis.call('LLEN', KEYS[2])
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[3], ARGV[1], index)
redis.call('RPUSH', KEYS[4], ARGV[1]) -- in the order of indexes, to be forgotten in it
return {index, 1}
