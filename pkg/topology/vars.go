package topology

import (
	"fmt"
	"strings"
)

// Lookup returns the value of a variable and whether it is set; os.LookupEnv is one.
type Lookup func(name string) (value string, ok bool)

// substitute replaces every ${NAME} and ${NAME:default} in text; $${ stands for ${ itself. used is told each variable that was set.
func substitute(text string, vars Lookup, used func(name, value string)) (string, error) {
	var b strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			b.WriteString(text)
			return b.String(), nil
		}
		if i > 0 && text[i-1] == '$' {
			b.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		end := strings.IndexByte(text[i:], '}')
		if end < 0 {
			return "", fmt.Errorf("%q has no closing brace", text[i:min(len(text), i+40)])
		}
		name, fallback, hasFallback := strings.Cut(text[i+2:i+end], ":")
		if !isVariable(name) {
			return "", fmt.Errorf("%q is not the name of a variable", name)
		}
		b.WriteString(text[:i])
		text = text[i+end+1:]
		value, ok := "", false
		if vars != nil {
			value, ok = vars(name)
		}
		switch {
		case ok:
			b.WriteString(value)
			if used != nil {
				used(name, value)
			}
		case hasFallback:
			b.WriteString(fallback)
		default:
			return "", fmt.Errorf("the variable %s is not set and has no default", name)
		}
	}
}

func isVariable(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// Resolve returns k with its ${VAR:default} replaced, to be done where the spout runs, so that a login is never stored. The error names the key.
func (k Kafka) Resolve(vars Lookup) (Kafka, error) {
	var failed error
	put := func(key string, s *string) {
		out, err := substitute(*s, vars, nil)
		if err != nil && failed == nil {
			failed = fmt.Errorf("spout.kafka.%s: %w", key, err)
		}
		*s = out
	}
	put("brokers", &k.Brokers)
	k.Topics = append([]string(nil), k.Topics...)
	for i := range k.Topics {
		put("topics", &k.Topics[i])
	}
	put("start", &k.Start)
	put("group", &k.Group)
	put("incarnation", &k.Incarnation)
	if k.TLS != nil {
		t := *k.TLS
		put("tls.ca", &t.CA)
		put("tls.cert", &t.Cert)
		put("tls.key", &t.Key)
		put("tls.server_name", &t.ServerName)
		k.TLS = &t
	}
	if k.SASL != nil {
		s := *k.SASL
		put("sasl.mechanism", &s.Mechanism)
		put("sasl.username", &s.Username)
		put("sasl.password", &s.Password)
		k.SASL = &s
	}
	if failed != nil {
		return Kafka{}, failed
	}
	if !validStart(k.Start) {
		return Kafka{}, fmt.Errorf("spout.kafka.start: %q is not a start, write earliest, latest, committed or an RFC 3339 time", k.Start)
	}
	if k.SASL != nil && !oneOf(k.SASL.Mechanism, mechanisms) {
		return Kafka{}, fmt.Errorf("spout.kafka.sasl.mechanism: %q is not one of %s", k.SASL.Mechanism, orList(mechanisms))
	}
	return k, nil
}
