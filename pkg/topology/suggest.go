package topology

// Suggest returns `did you mean "x"?` for the known name nearest to name, or "" when none is near.
func Suggest(name string, known []string) string { return suggest(name, known) }
