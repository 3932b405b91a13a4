package topology

import "slices"

// Where calls enter and answers leave. A spout with calls emits each request on CallStream; what any bolt emits on ReplyStream goes to ReplyNode, which
// is no node of the plan: the spout worker that owns the calls reads it.
const (
	CallStream  = "call"
	ReplyStream = "reply"
	ReplyNode   = "reply"
)

// Reads reports whether the spout reads from Kafka; one that takes calls need not.
func (s *Spout) Reads() bool { return s.Kafka.Brokers != "" }

// Answers reports whether what the bolt emits on ReplyStream answers calls of the topology.
func (t *Topology) Answers(b *Bolt) bool {
	return t.Spout.Calls && b != nil && oneOf(ReplyStream, b.streamNames())
}

// source checks that a spout has something to emit.
func (r *reader) source(o object, s *Spout) {
	s.Calls = o.flag("calls")
	if o.node("kafka") == nil && !s.Calls {
		r.fail(o.at, "write kafka: "+example("kafka")+", or calls: true", "the key %q is missing in %s", "kafka", "the spout")
	}
}

// spoutStream checks an edge from the spout, and reports whether it is fit.
func (c *checker) spoutStream(f From, at parsedFrom) bool {
	stream := nameOf(f.Stream)
	switch {
	case stream == CallStream && c.t.Spout.Calls:
		return true
	case stream == CallStream:
		c.fail(at.stream, "write calls: true in the spout", "unknown stream %q of the spout %q: it takes no calls", stream, f.Node)
	case stream != "default":
		hint := "a spout has one output, default"
		if c.t.Spout.Calls {
			hint = "a spout that takes calls has default and call"
		}
		c.fail(at.stream, hint, "unknown stream %q of the spout %q", clip(f.Stream), f.Node)
	case c.t.Spout.Calls && !c.t.Spout.Reads():
		c.fail(at.node, "write {node: "+f.Node+", stream: call}", "the spout %q has no kafka, so nothing comes on its default stream", f.Node)
	default:
		return true
	}
	return false
}

// callable checks a topology whose spout takes calls as a whole.
func (c *checker) callable(spout object, bolts []*parsed) {
	if !c.t.Spout.Calls {
		return
	}
	if b := c.bolts[ReplyNode]; b != nil {
		c.fail(b.o.place("id"), "choose another", "%q is the name of the input that answers of calls go to", ReplyNode)
	}
	if c.t.Spout.ID == ReplyNode {
		c.fail(spout.place("id"), "choose another", "%q is the name of the input that answers of calls go to", ReplyNode)
	}
	asked := slices.ContainsFunc(bolts, func(b *parsed) bool {
		return slices.ContainsFunc(b.From, func(f From) bool { return f.Node == c.t.Spout.ID && f.Stream == CallStream })
	})
	if !asked {
		c.warn(spout.place("calls"), "let a node receive {node: "+c.t.Spout.ID+", stream: call}", "calls reach no node: each is answered at once, with nothing")
		return
	}
	if !slices.ContainsFunc(bolts, func(b *parsed) bool { return c.t.Answers(&b.Bolt) }) {
		c.warn(spout.place("calls"), "declare streams: {reply: []} where the answer arises, and emit there", "no node answers calls: they return when they are processed, with nothing")
	}
}
