package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/boltmesh/boltmesh/pkg/devstack"
	"github.com/boltmesh/boltmesh/pkg/jetstream"
)

func TestArchivesHelp(t *testing.T) {
	for _, verb := range []string{"import", "get", "set", "delete", "ls"} {
		help, _, _ := strings.Cut(ok(t, "archives", verb, "--help"), "Global Flags:")
		if !strings.Contains(help, "Examples:") {
			t.Error(verb, "is without an example")
		}
		golden(t, "help/archives-"+verb+".txt", help)
	}
}

// TestArchives goes through the life of an archive, and hears what workers would hear.
func TestArchives(t *testing.T) {
	stack, err := devstack.Start(t.Context(), devstack.Options{Dir: t.TempDir(), NoKafka: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stack.Close() })
	conn, err := jetstream.Connect(t.Context(), jetstream.Options{URL: stack.NATSURL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	heard := make(chan string, 100)
	stop, err := conn.WatchArchives(t.Context(), func(name string, devices []string) { heard <- fmt.Sprint(name, devices) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	dir := t.TempDir()
	where := []string{"--sqlite", filepath.Join(dir, "state.db"), "--nats", stack.NATSURL(), "--archive", "machines"}
	do := func(args ...string) []string { return slices.Concat([]string{"archives"}, args, where) }

	csv := filepath.Join(dir, "machines.csv")
	if err := os.WriteFile(csv, []byte("id,site,limit\nm1,north,80\nm2,south\nm3,\"east\",\nm1,west,1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := call(t, do("import", csv, "--key", "id")...)
	if code != exitFailed || out != "2 devices imported into machines, 2 lines refused\n" {
		t.Errorf("exit %d, %s", code, out)
	}
	want := csv + ":3: 2 cells, the header has 3: write one cell for each column, an empty one for an absent field\n" +
		csv + `:5: the device "m1" is on line 2 already: remove one` + "\n2 lines refused: correct and import again\n"
	if errs != want {
		t.Errorf("told\n%swant\n%s", errs, want)
	}
	if got := <-heard; got != "machines[m1 m3]" {
		t.Error("heard", got)
	}
	code, out, errs = callWith(t, `{"device":"m4","site":"<north>"}`+"\n", do("import", "-", "--format", "jsonl", "-o", "json")...)
	if r := decode[imported](t, out); code != exitOK || r != (imported{Archive: "machines", Imported: 1}) {
		t.Errorf("exit %d, %+v %s", code, r, errs)
	}
	if got := <-heard; got != "machines[m4]" {
		t.Error("heard", got)
	}
	code, out, _ = callWith(t, "{}\n", do("import", "-", "--format", "jsonl", "--dry-run")...)
	if code != exitFailed || out != "0 devices would be imported into machines, 1 line refused\n" {
		t.Errorf("exit %d, %s", code, out)
	}

	p := decode[[]profile](t, ok(t, do("set", "m1", "limit=85.5", "site=007", `tags=["a"]`, "--unset", "none", "-o", "json")...))[0]
	if string(p.Fields) == "" || p.Version != 2 || compact(t, p.Fields) != `{"limit":85.5,"site":"007","tags":["a"]}` {
		t.Errorf("%+v %s", p, p.Fields)
	}
	if got := <-heard; got != "machines[m1]" {
		t.Error("heard", got)
	}
	if got := ok(t, do("get", "m1")...); got != "device   m1\nversion  2\nlimit    85.5\nsite     \"007\"\ntags     [\"a\"]\n" {
		t.Errorf("%q", got)
	}
	if code, out, errs := call(t, do("get", "m1", "m9", "-o", "json")...); code != exitFailed || len(decode[[]profile](t, out)) != 1 || !strings.Contains(errs, "machines has no device m9") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	ok(t, do("delete", "m3")...)
	if got := <-heard; got != "machines[m3]" {
		t.Error("heard", got)
	}
	if got := ok(t, do("ls", "m")...); got != "DEVICE  VERSION  FIELDS\nm1      2        {\"limit\":85.5,\"site\":\"007\",\"tags\":[\"a\"]}\nm4      1        {\"site\":\"<north>\"}\n" {
		t.Errorf("%s", got)
	}
	if _, out, errs := call(t, do("ls", "--limit", "1", "-o", "json")...); len(decode[[]profile](t, out)) != 1 || !strings.Contains(errs, `--after "m1"`) {
		t.Errorf("%s%s", out, errs)
	}
	for line, message := range map[string]string{
		"set m1 limit":             "write field=value",
		"set m1":                   "nothing is to change",
		"set m1 a.b=1":             "cannot be the name of a field",
		"set m1 a=1 --unset a":     "given twice",
		"import x.txt":             "is it CSV or JSON lines",
		"ls --limit 0":             "not a number of devices",
		"ls --archive My-machines": "the name of an archive is",
		"get":                      "requires at least 1 arg",
	} {
		args := append([]string{"archives"}, strings.Fields(line)...)
		if code, _, errs := call(t, append(args, where[:4]...)...); code != exitUsage || !strings.Contains(errs, message) {
			t.Errorf("%s: exit %d, %s", line, code, errs)
		}
	}
	select {
	case got := <-heard:
		t.Error("heard", got)
	default:
	}
	code, _, errs = call(t, "archives", "set", "m1", "a=1", "--sqlite", filepath.Join(dir, "state.db"), "--nats", "nats://127.0.0.1:1", "--timeout", "100ms")
	if code != exitFailed || !strings.Contains(errs, "--offline") {
		t.Errorf("without NATS: exit %d, %s", code, errs)
	}
	ok(t, "archives", "set", "m1", "a=1", "--sqlite", filepath.Join(dir, "state.db"), "--offline")
}

func compact(t *testing.T, b []byte) string {
	t.Helper()
	return strings.Join(strings.Fields(string(b)), "")
}
