-- Deletes keys of a task, unless the fence says that the task has another owner.
-- KEYS: fence, then the keys to delete. ARGV: epoch. Returns 1, or 0 when fenced.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if #KEYS > 1 then
  redis.call('UNLINK', unpack(KEYS, 2))
end
return 1
