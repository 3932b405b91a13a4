function convert(t, ctx) {
  return t..line
}
