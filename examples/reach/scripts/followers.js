// Who follows whom.
const followers = {
  sally: ["bob", "tim", "alice", "adam", "jim", "chris", "jai"],
  bob: ["sally", "nathan", "jim", "mary", "david", "vivian"],
  tim: ["alex"],
  nathan: ["sally", "bob", "adam", "harry", "chris", "vivian", "emily", "jordan"],
  adam: ["david", "carissa"],
  mike: ["john", "bob"],
  john: ["alice", "nathan", "jim", "mike", "bob"],
};

// One tweeter in, one reply per follower. Somebody who follows two of the tweeters comes twice: the caller takes each once (--distinct).
function convert(t, ctx) {
  for (const name of followers[t.tweeter] || []) ctx.emit("reply", {follower: name});
}
