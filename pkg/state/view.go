package state

// Value is a decoded state value: what bolts work on instead of bytes.
type Value interface {
	// Clone returns a copy that shares nothing mutable.
	Clone() Value
	// Append encodes the value behind b.
	Append(b []byte) ([]byte, error)
}

// Decode makes a value from its bytes; from nil, the value that a key has before anything was stored.
type Decode func(b []byte) (Value, error)

// View is a task's state during one batch: committed values from the cache or the store, and the batch's private copies.
type View struct{}
