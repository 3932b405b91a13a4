-- The due entries of an agenda after a key, in the order of keys.
-- KEYS: agenda (by time), order (by name). ARGV: until, after, limit. Returns key, time, key, time, ...
--
-- Two ways lead there: take all that is due and sort it (D entries), or walk the names and look each one's time up (about limit * N / D entries). The
-- cheaper one is taken, so that neither one due device among a million nor a million due devices make a call long: at worst sqrt(N * limit) entries.
local until_, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local due = redis.call('ZCOUNT', KEYS[1], '-inf', until_)
if due == 0 or limit <= 0 then
  return {}
end
local all = redis.call('ZCARD', KEYS[1])
local out = {}

if due * math.log(due + 1) <= limit * all / due then
  local entries = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', until_, 'WITHSCORES')
  local keys, times = {}, {}
  for i = 1, #entries, 2 do
    if entries[i] > after then
      keys[#keys + 1] = entries[i]
      times[entries[i]] = entries[i + 1]
    end
  end
  table.sort(keys)
  for i = 1, math.min(limit, #keys) do
    out[#out + 1] = keys[i]
    out[#out + 1] = times[keys[i]]
  end
  return out
end

local bound, page = tonumber(until_), math.min(limit, 1000)
while true do
  local keys = redis.call('ZRANGEBYLEX', KEYS[2], '(' .. after, '+', 'LIMIT', 0, page)
  if #keys == 0 then
    return out
  end
  local times = redis.call('ZMSCORE', KEYS[1], unpack(keys))
  for i, key in ipairs(keys) do
    if tonumber(times[i]) <= bound then
      out[#out + 1] = key
      out[#out + 1] = times[i]
      if #out == 2 * limit then
        return out
      end
    end
  end
  after = keys[#keys]
end
