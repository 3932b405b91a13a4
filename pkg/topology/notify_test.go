package topology

import (
	"strings"
	"testing"
)

func TestNotifyResolve(t *testing.T) {
	vars := func(name string) (string, bool) {
		v, ok := map[string]string{"HOOK": "https://example.com/T0/hunter2", "SECRET": "hunter2", "EMPTY": "", "ODD": "hunter2 is no address"}[name]
		return v, ok
	}
	for _, tt := range []struct {
		in   Notify
		want string // of the error; "": it resolves
	}{
		{Notify{Subject: "alarms.hot", Webhook: "${HOOK}", Secret: "${SECRET}"}, ""},
		{Notify{Webhook: "${NONE}"}, "notify.webhook: the variable NONE is not set"},
		{Notify{Webhook: "${ODD}"}, "notify.webhook: it is no http or https address"},
		{Notify{Webhook: "${HOOK}", Secret: "${EMPTY}"}, "notify.secret: ${EMPTY} is empty"},
		{Notify{Subject: "${NONE:a.*}"}, `notify.subject: "a.*" cannot be a subject`},
	} {
		got, err := tt.in.Resolve(vars)
		switch {
		case tt.want == "" && (err != nil || got.Webhook != "https://example.com/T0/hunter2" || got.Secret != "hunter2" || tt.in.Secret != "${SECRET}"):
			t.Errorf("%+v: %+v, %v", tt.in, got, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%+v: %v, want %q and no secret", tt.in, err, tt.want)
		}
	}
}

// What a stored topology holds of an address and a secret is the name of the variable, though it is set where the topology is applied.
func TestNotifyIsNotStored(t *testing.T) {
	source := "topology: a\nspout: {id: r, kafka: {topics: [r]}}\nbolts:\n  - {id: hot, kind: alarm, from: r, when: n > 1, notify: {webhook: \"${HOOK}\", secret: \"${SECRET}\"}}\n"
	parsed, problems := Parse("a.yaml", []byte(source), Options{Vars: func(string) (string, bool) { return "hunter2", true }})
	if problems != nil {
		t.Fatal(problems)
	}
	stored, err := parsed.Encode()
	if err != nil || strings.Contains(string(stored), "hunter2") || !strings.Contains(string(stored), "${SECRET}") {
		t.Errorf("%s, %v", stored, err)
	}
}
