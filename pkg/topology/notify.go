package topology

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// notifySuffix makes the id of the node that delivers what a bolt tells others.
const notifySuffix = "-notify"

// DefaultNotifyTimeout is what one POST may take where a document says nothing.
const DefaultNotifyTimeout = 10 * time.Second

func (r *reader) notify(bolt object, kind string) *Notify {
	n := bolt.node("notify")
	if n == nil {
		return nil
	}
	if kind == KindStat {
		r.fail(bolt.keys["notify"], "write it on an alarm that receives from this node", "a statistic emits nothing that has notify: true")
	}
	o := r.object(n, "notify", shapes["notify"], nil)
	if o.bad {
		return nil
	}
	r.deferred = true
	out := &Notify{Subject: o.text("subject", ""), Webhook: o.text("webhook", ""), Secret: o.text("secret", ""), At: n.at}
	r.deferred = false
	out.Timeout, out.Retry = o.duration("timeout", DefaultNotifyTimeout, time.Millisecond), r.retry(o)
	if !o.has("subject") && !o.has("webhook") {
		r.fail(n.at, "write {subject: alarms.hot} or {webhook: \"${ALARM_HOOK}\"}", "notify names neither a subject nor a webhook")
	}
	if s := out.Subject; s != "" && !strings.Contains(s, "${") && !isSubject(s) {
		r.fail(o.place("subject"), subjectHint, "%q cannot be a subject", clip(s))
	}
	switch w := out.Webhook; {
	case w != "" && !strings.Contains(w, "${") && !isAddress(w):
		r.fail(o.place("webhook"), webhookHint, "the webhook is no http or https address")
	case tellsLogin(w):
		r.fail(o.place("webhook"), "write \"${ALARM_HOOK}\", and set the variable to the address where the output service runs", "a login or a query that stands in the webhook's address would be stored with the document")
	}
	if s := out.Secret; s != "" && !deferredWhole(s) {
		r.fail(o.place("secret"), "write \"${ALARM_SECRET}\", and set the variable where the output service runs", "a secret that stands in the document would be stored with it")
	}
	for _, k := range []string{"secret", "timeout", "retry"} {
		if o.has(k) && !o.has("webhook") {
			r.fail(o.keys[k], "remove it, or write webhook: too", "%s has no meaning without a webhook", k)
		}
	}
	return out
}

const (
	subjectHint = "write words of letters, digits, - and _, joined by dots, at most 128 characters"
	webhookHint = "write \"${ALARM_HOOK}\", or an address such as https://example.com/alarms"
)

// notified checks what a notify adds to the plan.
func (c *checker) notified(b *parsed) {
	if b.Notify == nil {
		return
	}
	at := b.o.place("id")
	switch id := b.ID + notifySuffix; {
	case c.bolts[id] != nil || c.t.Spout.ID == id:
		c.fail(at, "rename one", "%q is what the node is called that delivers what %q tells others", id, b.ID)
	case !isID(id):
		c.fail(at, "choose a shorter id", "the node that delivers what %q tells others would be called %s, which is too long", b.ID, id)
	}
	if b.Notify.Webhook != "" && b.Notify.Secret == "" {
		c.warn(b.Notify.At, "write secret: \"${ALARM_SECRET}\"", "the POSTs of %q are not signed, so that their receiver cannot tell whose they are", b.ID)
	}
}

// deferredWhole says whether s is one ${VAR} without a default, and nothing else.
func deferredWhole(s string) bool {
	name, ok := strings.CutPrefix(s, "${")
	name, closed := strings.CutSuffix(name, "}")
	return ok && closed && isVariable(name)
}

func isSubject(s string) bool {
	for _, word := range strings.Split(s, ".") {
		for i := range len(word) {
			c := word[i]
			if c != '-' && c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
				return false
			}
		}
		if word == "" {
			return false
		}
	}
	return len(s) <= 128
}

// isAddress says whether s is an absolute address of http or https.
func isAddress(s string) bool {
	rest, ok := strings.CutPrefix(s, "https://")
	if !ok {
		rest, ok = strings.CutPrefix(s, "http://")
	}
	host, _, _ := strings.Cut(rest, "/")
	return ok && host != "" && !strings.ContainsAny(s, " \t\r\n")
}

// tellsLogin says whether an address, as it stands in the document with the defaults of its variables, has a user, a password or a query. Those that are
// ${VAR} as a whole do not stand there.
func tellsLogin(s string) bool {
	var b strings.Builder
	for {
		text, rest, found := strings.Cut(s, "${")
		b.WriteString(text)
		if !found {
			break
		}
		variable, after, _ := strings.Cut(rest, "}")
		_, fallback, _ := strings.Cut(variable, ":")
		b.WriteString(fallback)
		s = after
	}
	address, query, _ := strings.Cut(b.String(), "?")
	if _, rest, found := strings.Cut(address, "://"); found {
		address = rest
	}
	host, _, _ := strings.Cut(address, "/")
	login, _, found := strings.Cut(host, "@")
	for _, part := range strings.Split(query, "&") {
		if name, value, pair := strings.Cut(part, "="); value != "" || !pair && name != "" {
			return true
		}
	}
	return found && strings.Trim(login, ":") != ""
}

// Resolve returns n with its ${VAR:default} replaced, to be done where the output service runs, so that an address or a secret is never stored. The
// error names the key, and never a value.
func (n Notify) Resolve(vars Lookup) (Notify, error) {
	for _, s := range []struct {
		key   string
		value *string
	}{{"subject", &n.Subject}, {"webhook", &n.Webhook}, {"secret", &n.Secret}} {
		out, err := substitute(*s.value, vars, nil)
		if err != nil {
			return Notify{}, fmt.Errorf("notify.%s: %w", s.key, err)
		}
		if out == "" && *s.value != "" {
			return Notify{}, fmt.Errorf("notify.%s: %s is empty", s.key, *s.value)
		}
		*s.value = out
	}
	if n.Subject != "" && !isSubject(n.Subject) {
		return Notify{}, fmt.Errorf("notify.subject: %q cannot be a subject: %s", n.Subject, subjectHint)
	}
	if n.Webhook != "" && !isAddress(n.Webhook) { // not repeated: it may be a secret as a whole
		return Notify{}, errors.New("notify.webhook: it is no http or https address")
	}
	return n, nil
}

// notices returns the topology with a bolt more for each one that tells others something. It is divided by what the alarm is grouped by, so that a
// group's notices are delivered in order and by one worker at a time.
func (t *Topology) notices() *Topology {
	out := *t
	out.Bolts = nil
	for _, b := range t.Bolts {
		out.Bolts = append(out.Bolts, b)
		if b.Notify == nil {
			continue
		}
		told := Bolt{ID: b.ID + notifySuffix, Kind: KindNotify, Notify: b.Notify, Retry: b.Notify.Retry}
		by, streams := []string{"group"}, []string{"default"}
		if b.Kind != KindAlarm {
			by, streams = []string{"device"}, b.streamNames()
		}
		for _, s := range streams {
			told.From = append(told.From, From{Node: b.ID, Stream: s, Grouping: Fields, By: by})
		}
		out.Bolts = append(out.Bolts, told)
	}
	return &out
}
