// Package documenttest is the conformance suite of document.Store: what the output bolt relies on when it writes everything again.
// The memory store and every adapter run it in their tests. It never looks behind the interface.
package documenttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boltmesh/boltmesh/pkg/document"
)

// Traits are what stores may differ in.
type Traits struct {
	Ordered bool // Each follows the order of insertion
	TTL     bool // Ensure accepts a TTL
	Limited bool // the server behind the store takes neither arrays within arrays nor quotes and backslashes in names (FerretDB)
}

// Open returns an empty store and ends it with t.
type Open func(t *testing.T) document.Store

// Run checks one implementation.
func Run(t *testing.T, traits Traits, open Open) {
	for _, c := range []struct {
		name string
		test func(*storeTest)
	}{
		{"nothing there", testNothing},
		{"insert once", testInsertOnce},
		{"higher version replaces", testVersions},
		{"one id many times in one call", testSameID},
		{"known versions among new ones", testKnownAmongNew},
		{"first versions", testFirstVersions},
		{"concurrent versions", testConcurrentVersions},
		{"racing versions", testRacingVersions},
		{"concurrent inserts", testConcurrentInserts},
		{"refusals", testRefusals},
		{"values", testValues},
		{"time", testTime},
		{"many documents", testMany},
		{"collections", testCollections},
		{"each stops", testEachStops},
		{"indexes", testIndexes},
		{"ended context", testEndedContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(&storeTest{t, open(t), traits}) })
	}
}

var background = context.Background()

type storeTest struct {
	*testing.T
	store  document.Store
	traits Traits
}

// doc makes a document; fields is the inside of a JSON object after _id.
func doc(collection, id, fields string) document.Document {
	return document.Document{Collection: collection, ID: id, Body: fmt.Appendf(nil, `{"_id":%q,%s}`, id, fields)}
}

func versioned(id string, version int64, fields string) document.Document {
	d := doc("episodes", id, fmt.Sprintf(`"version":%d,%s`, version, fields))
	d.Version = version
	return d
}

func (t *storeTest) write(docs ...document.Document) {
	t.Helper()
	refused, err := t.store.Write(background, docs)
	if err != nil || len(refused) > 0 {
		t.Fatalf("write: %v, refused %v", err, refused)
	}
}

// all returns the documents of a collection, in order of _id when the store knows no order.
func (t *storeTest) all(collection string) (bodies []string) {
	t.Helper()
	err := t.store.Each(background, collection, func(body []byte) error {
		bodies = append(bodies, string(body))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := t.store.Count(background, collection); err != nil || n != int64(len(bodies)) {
		t.Errorf("count of %s is %d (%v), Each gave %d", collection, n, err, len(bodies))
	}
	if !t.traits.Ordered {
		slices.Sort(bodies) // each begins with its _id
	}
	return bodies
}

func (t *storeTest) holds(collection string, docs ...document.Document) {
	t.Helper()
	var want []string
	for _, d := range docs {
		want = append(want, canonical(t, d.Body))
	}
	got := t.all(collection)
	for i := range got {
		got[i] = canonical(t, []byte(got[i]))
	}
	if !t.traits.Ordered {
		slices.Sort(want)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", collection, d)
	}
}

// canonical keeps the order of keys and the text of integers; other numbers may be spelled differently.
func canonical(t testing.TB, body []byte) string {
	t.Helper()
	var b strings.Builder
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil {
			return b.String()
		}
		switch x := token.(type) {
		case json.Delim:
			fmt.Fprintf(&b, "%v ", x)
		case json.Number:
			if f, _ := x.Float64(); strings.ContainsAny(x.String(), ".eE") {
				fmt.Fprintf(&b, "float:%v ", f)
			} else {
				fmt.Fprintf(&b, "int:%s ", x)
			}
		default:
			fmt.Fprintf(&b, "%q ", fmt.Sprint(x))
		}
	}
}

func testNothing(t *storeTest) {
	t.holds("readings")
	if names, err := t.store.Collections(background); err != nil || len(names) > 0 {
		t.Errorf("collections %v (%v) of an empty store", names, err)
	}
	if err := t.store.Drop(background, "readings"); err != nil {
		t.Error(err)
	}
	t.write()
}

func testInsertOnce(t *storeTest) {
	a, b, c := doc("readings", "a", `"n":1`), doc("readings", "b", `"n":1`), doc("readings", "c", `"n":1`)
	t.write(a, b)
	t.write(a, b)
	t.write(doc("readings", "b", `"n":2`), c, doc("readings", "a", `"n":2`))
	t.holds("readings", a, b, c)
}

func testVersions(t *storeTest) {
	raised, cleared := versioned("e", 1, `"state":"raised"`), versioned("e", 2, `"state":"cleared","more":[1,2]`)
	t.write(raised)
	t.write(cleared)
	t.holds("episodes", cleared)
	t.write(raised) // late
	t.write(cleared)
	t.holds("episodes", cleared)
	late := versioned("f", 7, `"state":"cleared"`)
	t.write(late)
	t.write(versioned("f", 3, `"state":"raised"`), versioned("e", 2, `"state":"other"`))
	t.holds("episodes", cleared, late)
}

func testSameID(t *storeTest) {
	first := doc("readings", "a", `"n":1`)
	t.write(first, first, first)
	t.holds("readings", first)
	highest := versioned("e", 9, `"n":9`)
	t.write(versioned("e", 2, `"n":2`), highest, versioned("e", 1, `"n":1`), highest, versioned("e", 8, `"n":8`))
	t.holds("episodes", highest)
}

// testKnownAmongNew writes a batch again that has grown, as a replay does: what is known must not keep out what is new, wherever it stands.
func testKnownAmongNew(t *storeTest) {
	var some, more, all []document.Document
	for i := range 90 {
		d := versioned(fmt.Sprintf("e%02d", i), 2, fmt.Sprintf(`"n":%d`, i))
		if i%3 == 0 {
			some = append(some, d)
		} else {
			more = append(more, d)
		}
		all = append(all, d)
	}
	t.write(some...)
	t.write(all...)
	t.holds("episodes", append(some, more...)...)
}

// testFirstVersions writes first versions of episodes of which some are there already, in the same or a higher version, and of one in two versions at once.
func testFirstVersions(t *storeTest) {
	var some, more, firsts []document.Document
	for i := range 90 {
		id := fmt.Sprintf("e%02d", i)
		first := versioned(id, 1, fmt.Sprintf(`"n":%d`, i))
		switch i % 3 {
		case 0:
			some = append(some, first)
		case 1:
			some = append(some, versioned(id, int64(2+i), `"state":"cleared"`))
		default:
			more = append(more, first)
		}
		firsts = append(firsts, first)
	}
	t.write(some...)
	second := versioned("f", 2, `"n":2`)
	t.write(append(firsts, versioned("f", 1, `"n":1`), second)...)
	t.holds("episodes", append(append(some, more...), second)...)
}

// testConcurrentVersions has writers that race with all versions of the same episodes, as owners do around a takeover.
func testConcurrentVersions(t *storeTest) {
	const writers, episodes, versions = 4, 3, 5
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for _, i := range random.Perm(episodes * versions) {
				d := versioned(fmt.Sprint("e", i%episodes), int64(i/episodes+1), fmt.Sprintf(`"writer":%d`, 0))
				if refused, err := t.store.Write(background, []document.Document{d}); err != nil || len(refused) > 0 {
					t.Errorf("write: %v, refused %v", err, refused)
				}
			}
		})
	}
	wg.Wait()
	got := t.all("episodes")
	if len(got) != episodes {
		t.Fatalf("%d episodes, want %d", len(got), episodes)
	}
	for _, body := range got {
		if !strings.Contains(canonical(t, []byte(body)), fmt.Sprintf(`"version" int:%d `, versions)) {
			t.Errorf("episode stayed at %s, want version %d", body, versions)
		}
	}
}

// testRacingVersions has each version of an episode written once, at the same moment as the others: by different owners around a takeover, and by different
// workers of the output.
func testRacingVersions(t *storeTest) {
	const episodes, versions = 60, 4
	for i := range episodes {
		id := fmt.Sprint("e", i)
		t.write(versioned(id, 1, `"x":1`))
		var wg sync.WaitGroup
		for v := range int64(versions - 1) {
			wg.Go(func() {
				if refused, err := t.store.Write(background, []document.Document{versioned(id, v+2, `"x":1`)}); err != nil || len(refused) > 0 {
					t.Errorf("write: %v, refused %v", err, refused)
				}
			})
		}
		wg.Wait()
	}
	for _, body := range t.all("episodes") {
		if !strings.Contains(canonical(t, []byte(body)), fmt.Sprintf(`"version" int:%d `, versions)) {
			t.Errorf("episode stayed at %s, want version %d", body, versions)
		}
	}
}

func testConcurrentInserts(t *storeTest) {
	const writers, docs = 4, 50
	var all []document.Document
	for i := range docs {
		all = append(all, doc("readings", fmt.Sprintf("r%03d", i), `"n":1`))
	}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			if refused, err := t.store.Write(background, all); err != nil || len(refused) > 0 {
				t.Errorf("write: %v, refused %v", err, refused)
			}
		})
	}
	wg.Wait()
	t.holds("readings", all...)
}

func testRefusals(t *storeTest) {
	good, alsoGood := doc("readings", "a", `"n":1`), doc("readings", "z", `"n":1`)
	mismatched := versioned("e", 2, `"n":1`)
	mismatched.Version = 3
	docs := []document.Document{
		good,
		{Collection: "readings", ID: "b", Body: []byte(`{"_id":"b"`)},
		{Collection: "readings", ID: "b", Body: []byte(`{"_id":"c"}`)},
		{Collection: "readings", ID: "b", Body: []byte(`{"n":1}`)},
		{Collection: "readings", ID: "b", Body: []byte(`[1]`)},
		{Collection: "readings", ID: "b", Body: []byte(`null`)},
		{Collection: "readings", ID: "b", Body: []byte(`{"_id":"b"} {}`)},
		{Collection: "readings", ID: "", Body: []byte(`{"_id":""}`)},
		{Collection: "", ID: "b", Body: []byte(`{"_id":"b"}`)},
		{Collection: "a$b", ID: "b", Body: []byte(`{"_id":"b"}`)},
		mismatched,
		{Collection: "readings", ID: "b", Body: nil},
		alsoGood,
	}
	refused, err := t.store.Write(background, docs)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(refused, func(a, b document.Refusal) int { return a.Index - b.Index })
	var got []int
	for _, r := range refused {
		got = append(got, r.Index)
		if r.Err == nil {
			t.Errorf("refusal %d has no reason", r.Index)
		}
	}
	if d := cmp.Diff([]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, got); d != "" {
		t.Errorf("refused (-want +got):\n%s", d)
	}
	t.holds("readings", good, alsoGood)
}

func testValues(t *storeTest) {
	docs := []document.Document{
		doc("readings", "a integers", `"zero":0,"small":-7,"int32":2147483648,"odd":9007199254740993,"max":9223372036854775807,"min":-9223372036854775808`),
		doc("readings", "b floats", `"f":1.5,"whole":2.0,"tiny":1e-300,"huge":1.7976931348623157e308,"tenth":0.1,"negative":-0.25`),
		doc("readings", "c order", `"z":1,"a":2,"m":{"y":1,"b":{"k":[1,{"q":1,"c":2}],"e":[]},"a":{}},"b":3`),
		doc("readings", "d words", `"null":null,"yes":true,"no":false,"empty":"","text":"ключ \u0001 \" \\ 😀","list":[null,"x",1,1.5,true]`),
		doc("readings", "e names", `"with space":1,"":2,"Ünï":3`),
		doc("readings", "f escapes", `"a<b>&c":"</script>\u2028"`),
		doc("readings", "g large", fmt.Sprintf(`"text":%q`, strings.Repeat("0123456789", 100_000))),
	}
	if !t.traits.Limited {
		docs = append(docs, doc("readings", "h nested", `"list":[[],[1,[2]]]`), doc("readings", "i quotes", `"a\"b":1,"back\\slash":2`))
	}
	t.write(docs...)
	t.holds("readings", docs...)
}

func testTime(t *storeTest) {
	for i, c := range []struct{ in, want string }{
		{"2026-11-21T09:32:52.123Z", "2026-11-21T09:32:52.123Z"},
		{"2026-11-21T09:32:52Z", "2026-11-21T09:32:52Z"},
		{"2026-11-21T10:32:52.5+01:00", "2026-11-21T09:32:52.5Z"},
		{"1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"},
	} {
		collection := fmt.Sprint("times", i)
		t.write(doc(collection, "a", fmt.Sprintf(`"time":%q,"inner":{"time":%q}`, c.in, c.in)))
		var got struct {
			Time  time.Time
			Inner struct{ Time string }
		}
		if err := json.Unmarshal([]byte(t.all(collection)[0]), &got); err != nil {
			t.Fatal(err)
		}
		if want, _ := time.Parse(time.RFC3339, c.want); !got.Time.Equal(want) || got.Inner.Time != c.in {
			t.Errorf("time %s came back as %s, the inner one as %s", c.in, got.Time, got.Inner.Time)
		}
	}
	odd := []document.Document{doc("odd", "a", `"time":"yesterday"`), doc("odd", "b", `"time":1763717572123`), doc("odd", "c", `"time":null`)}
	t.write(odd...)
	t.holds("odd", odd...)
}

func testMany(t *storeTest) {
	var docs []document.Document
	for i := range 1500 {
		docs = append(docs, doc("readings", fmt.Sprintf("r%05d", i*7919%1500), fmt.Sprintf(`"n":%d`, i)))
	}
	t.write(docs...)
	t.write(docs[100:300]...)
	t.holds("readings", docs...)
	docs = nil
	for i := range 120 {
		docs = append(docs, versioned(fmt.Sprintf("e%05d", i), 1, `"n":1`))
	}
	t.write(docs...)
	for i := range docs {
		docs[i] = versioned(docs[i].ID, 2, `"n":2`)
	}
	t.write(docs...)
	t.holds("episodes", docs...)
}

func testCollections(t *storeTest) {
	a, b := doc("with space.and-dots", "a", `"n":1`), doc("b", "a", `"n":2`)
	t.write(a, b)
	names, err := t.store.Collections(background)
	if d := cmp.Diff([]string{"b", "with space.and-dots"}, names); d != "" || err != nil {
		t.Errorf("collections (%v, -want +got):\n%s", err, d)
	}
	t.holds("with space.and-dots", a)
	if err := t.store.Drop(background, "b"); err != nil {
		t.Fatal(err)
	}
	t.holds("b")
	names, err = t.store.Collections(background)
	if d := cmp.Diff([]string{"with space.and-dots"}, names); d != "" || err != nil {
		t.Errorf("collections (%v, -want +got):\n%s", err, d)
	}
	t.write(b) // it starts anew
	t.holds("b", b)
}

func testEachStops(t *storeTest) {
	t.write(doc("readings", "a", `"n":1`), doc("readings", "b", `"n":1`))
	stop, calls := errors.New("stop"), 0
	err := t.store.Each(background, "readings", func([]byte) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("Each returned %v after %d calls, want the function's own error after 1", err, calls)
	}
}

func testIndexes(t *storeTest) {
	indexes := []document.Index{
		{Collection: "readings", Fields: []string{"device", "-time"}},
		{Collection: "sites", Fields: []string{"name"}, Unique: true},
	}
	for range 2 { // the second time they are there
		if err := t.store.Ensure(background, indexes); err != nil {
			t.Fatal(err)
		}
	}
	// A second document with the same unique field is refused: it is not the one that is stored.
	first, other := doc("sites", "a", `"name":"north"`), doc("sites", "c", `"name":"south"`)
	t.write(first)
	refused, err := t.store.Write(background, []document.Document{doc("sites", "b", `"name":"north"`), first, other})
	if err != nil || len(refused) != 1 || refused[0].Index != 0 {
		t.Errorf("write: %v, refused %v, want the first document refused", err, refused)
	}
	t.holds("sites", first, other)
	err = t.store.Ensure(background, []document.Index{{Collection: "readings", Fields: []string{"time"}, TTL: 3600}})
	if (err == nil) != t.traits.TTL {
		t.Errorf("index with a TTL: %v", err)
	}
}

func testEndedContext(t *storeTest) {
	ctx, cancel := context.WithCancel(background)
	cancel()
	d := doc("readings", "a", `"n":1`)
	if _, err := t.store.Write(ctx, []document.Document{d}); err == nil {
		t.Error("wrote in an ended context")
	}
	t.write(d)
	t.holds("readings", d)
}
