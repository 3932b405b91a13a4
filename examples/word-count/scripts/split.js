// One line in, one output per word.
function convert(t, ctx) {
  return t.line.split(/\s+/).filter(word => word !== "").map(word => ({word: word}));
}
