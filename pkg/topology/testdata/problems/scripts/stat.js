function compute(t, state) { state.n = (state.n || 0) + 1 }
