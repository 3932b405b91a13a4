// What the words of a page are like: how many, the longest, and how often one begins with the letter that the word before it ended with.
function compute(t, state, ctx) {
  const word = t.word
  state.words = (state.words || 0) + 1
  if (state.longest === undefined || word.length > state.longest.length) state.longest = word
  const before = ctx.previous && ctx.previous.word // the page's word before this one
  if (before && before[before.length - 1].toLowerCase() === word[0].toLowerCase()) state.chained = (state.chained || 0) + 1
}

function output(state, window) {
  return {words: state.words, longest: state.longest, chained: state.chained || 0}
}
