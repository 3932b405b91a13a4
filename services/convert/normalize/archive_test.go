package normalize

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/archive"
	"github.com/boltmesh/boltmesh/pkg/bolt/bolttest"
	"github.com/boltmesh/boltmesh/pkg/topology"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// profiles returns a reader of an archive with the device m1, and counts its reads.
func profiles(t *testing.T, reject bool) (*archive.Reader, *reads) {
	t.Helper()
	p, err := archive.New("m1", []byte(`{"site":"north","gain":2,"tags":["a","b"],"off":null}`))
	if err != nil {
		t.Fatal(err)
	}
	s := &reads{}
	if err := s.Write(t.Context(), "machines", []archive.Profile{p}); err != nil {
		t.Fatal(err)
	}
	c := archive.NewCache(s, archive.CacheOptions{})
	t.Cleanup(c.Close)
	return &archive.Reader{Cache: c, Archive: "machines", Reject: reject}, s
}

type reads struct {
	archive.Memory
	n    int
	down int // the next so many fail
}

func (r *reads) Read(ctx context.Context, name string, devices []string) ([]*archive.Profile, error) {
	r.n++
	if r.down > 0 {
		r.down--
		return nil, errors.New("down")
	}
	return r.Memory.Read(ctx, name, devices)
}

func TestArchive(t *testing.T) {
	fields := topology.Bolt{
		Where: expr("archive == nil or archive.site == 'north'"),
		Set:   []topology.Assignment{set("x", "x * archive.gain"), set("site", "archive.site"), set("tag", "archive.tags[1]"), set("off", "archive.off ?? 'on'")},
	}
	scripted := topology.Bolt{Script: inline("function convert(t, ctx) { const a = ctx.archive; t.site = a ? a.site + '/' + a.tags.length : 'nowhere'; return t }")}
	for _, tt := range []struct {
		name   string
		spec   topology.Bolt
		reject bool
		want   string // of m1, then of m2
		letter string
	}{
		{"fields", fields, false, `{"x":6,"site":"north","tag":"b","off":"on"} {"x":3,"off":"on"}`, ""},
		{"unknown is rejected", fields, true, `{"x":6,"site":"north","tag":"b","off":"on"}`, `the device "m2" is not in the archive machines`},
		{"a script", scripted, false, `{"x":3,"site":"north/2"} {"x":3,"site":"nowhere"}`, ""},
		{"a script, unknown is rejected", scripted, true, `{"x":3,"site":"north/2"}`, `the device "m2" is not in the archive machines`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := New(tt.spec, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !b.UsesArchive() {
				t.Fatal("it does not say that it uses the archive")
			}
			read, store := profiles(t, tt.reject)
			b.Archive = read
			store.down = 7 // an outage is waited out, whatever the number of attempts
			h := bolttest.New(t, b)
			var got []string
			for _, o := range h.Feed(tuple.Tuple{Key: "m1", Payload: []byte(`{"x":3}`)}, tuple.Tuple{Key: "m2", Payload: []byte(`{"x":3}`)}) {
				got = append(got, string(o.Payload))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("%s\nwant %s", s, tt.want)
			}
			if store.n != 8 {
				t.Errorf("%d reads, want 7 that fail and one for both devices", store.n)
			}
			switch {
			case tt.letter == "" && len(h.Letters) > 0, tt.letter != "" && (len(h.Letters) != 1 || !strings.Contains(h.Letters[0].Error, tt.letter)):
				t.Errorf("letters: %+v", h.Letters)
			}
		})
	}
	b, err := New(topology.Bolt{Where: expr("x > 1"), Script: inline("function convert(t) { return t }")}, nil)
	if err != nil || b.UsesArchive() {
		t.Error("says that it uses the archive", err)
	}
}
