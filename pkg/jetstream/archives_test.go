package jetstream_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
)

// TestArchiveChanges: word of a change reaches whoever watches; who was cut off is told to forget everything, once it is sure to hear again.
func TestArchiveChanges(t *testing.T) {
	stack, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	at, err := url.Parse(stack.NATSURL())
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, at.Host)
	teller, err := jetstream.Connect(t.Context(), jetstream.Options{URL: stack.NATSURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(teller.Close)
	listener, err := jetstream.Connect(t.Context(), jetstream.Options{URL: "nats://" + w.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listener.Close)
	heard := make(chan string, 10_000)
	stop, err := listener.WatchArchives(t.Context(), func(archive string, devices []string) {
		heard <- fmt.Sprintf("%s%d%v", archive, len(devices), devices[:min(len(devices), 2)])
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	next := func() string {
		select {
		case s := <-heard:
			return s
		case <-time.After(30 * time.Second):
			t.Fatal("nothing was heard")
			return ""
		}
	}
	tell := func(devices ...string) {
		if err := teller.ArchiveChanged(t.Context(), "machines", devices); err != nil {
			t.Fatal(err)
		}
	}
	tell("a", "b")
	if got := next(); got != "machines2[a b]" {
		t.Error(got)
	}
	tell(slices.Repeat([]string{"x"}, 2500)...)
	if got := next() + next() + next(); got != "machines1000[x x]machines1000[x x]machines500[x x]" {
		t.Error(got)
	}
	tell()
	if got := next(); got != "machines0[]" {
		t.Error(got)
	}
	w.cut()
	tell("lost, perhaps")
	for n := 0; n < 2; { // one before the server has the subscription, one after
		if next() == "0[]" {
			n++
		}
	}
	tell("c")
	for got := next(); got != "machines1[c]"; got = next() {
		if got != "machines1[lost, perhaps]" {
			t.Error("after the break:", got)
		}
	}
}
