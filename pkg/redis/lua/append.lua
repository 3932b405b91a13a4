-- Appends an entry to a log, at the index the caller believes to be its end.
-- KEYS: generation, floor, entries. ARGV: generation, index, entry. Returns 1 when done, 0 when fenced, -1 when the log has another length.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if tonumber(redis.call('GET', KEYS[2]) or '0') + redis.call('LLEN', KEYS[3]) ~= tonumber(ARGV[2]) then
  return -1
end
redis.call('RPUSH', KEYS[3], ARGV[3])
return 1
