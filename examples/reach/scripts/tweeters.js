// Who tweeted a link. It stands for a database, so that the example runs by itself.
const tweeters = {
  "foo.com/blog/1": ["sally", "bob", "tim", "george", "nathan"],
  "engineering.twitter.com/blog/5": ["adam", "david", "sally", "nathan"],
  "tech.backtype.com/blog/123": ["tim", "mike", "john"],
};

// One question in, one output per tweeter; none for a link that nobody has tweeted.
function convert(t) {
  if (typeof t.url !== "string") throw new Error('a question names a link: {"url": "foo.com/blog/1"}');
  return (tweeters[t.url] || []).map(name => ({tweeter: name}));
}
