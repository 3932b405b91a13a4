package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/script"
	"github.com/boltmesh/boltmesh/pkg/tuple"
)

// tryout is one run of `boltmesh try`.
type tryout struct {
	kind, expr, state, archive, params, key, time string

	out, errs io.Writer
	archived  map[string]any
	states    map[string]*script.State // of a stat, by device
	devices   []string                 // in the order in which they came
	doc       script.Doc
	failed    int
}

func newTry() *cobra.Command {
	t := &tryout{}
	cmd := &cobra.Command{
		Use:   "try [SCRIPT.js]",
		Short: "Run one script or expression on readings from standard input",
		Long: `Runs a script, or with --expr an expression, on readings: JSON objects one after the other, each on one line or on many. Prints what comes of each as JSON, and on
standard error where it failed, as file:line:column. Nothing is connected to.

The functions that the script declares say what it is for, unless --kind does:
  convert   convert(t, ctx)                    what it emits; on other streams than the default one behind the stream's name
  stat      compute(t, state), output(state, window)   per device what it outputs at the end; with --state the states begin and end in a file
  alarm     when(t, ctx)                       true, false or null for no opinion
An expression prints its value, null where a field that it needs is absent; with --kind filter it prints the readings for which it is true.`,
		Example: `  echo '{"device": "m1", "line": "a b"}' | boltmesh try scripts/split.js
  boltmesh try scripts/split.js < reading.json
  boltmesh try --expr 'temperature > archive.limit' --archive '{"limit": 100}' < readings.jsonl
  boltmesh try scripts/by-site.js --state state.json < readings.jsonl`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			t.out, t.errs = cmd.OutOrStdout(), cmd.ErrOrStderr()
			if (len(files) == 1) == (t.expr != "") {
				return usageError{errors.New("give either a script or --expr")}
			}
			file := ""
			if len(files) == 1 {
				file = files[0]
			}
			return t.run(cmd.InOrStdin(), file)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&t.expr, "expr", "", "an expression instead of a script")
	fs.StringVar(&t.kind, "kind", "", "convert, stat, alarm, or with --expr filter (default: what the script's functions say)")
	fs.StringVar(&t.state, "state", "", "file with the states of a stat script, {device: state}; it is written anew at the end")
	fs.StringVar(&t.archive, "archive", "", "profile of every device, a JSON object")
	fs.StringVar(&t.params, "params", "", "ctx.params, a JSON object")
	fs.StringVar(&t.key, "key", "device", "field that names the device")
	fs.StringVar(&t.time, "time", "ts", "field with the event time, ms")
	return cmd
}

// handler does with one reading what a node would.
type handler func(in *script.Input) error

func (t *tryout) run(in io.Reader, file string) error {
	if t.archive != "" {
		if err := json.Unmarshal([]byte(t.archive), &t.archived); err != nil {
			return usageError{fmt.Errorf("--archive: not a JSON object: %w", err)}
		}
	}
	handle, finish, err := t.prepare(file)
	if err != nil {
		return err
	}
	if err := t.readings(in, handle); err != nil {
		return err
	}
	if err := finish(); err != nil {
		return err
	}
	if t.failed > 0 {
		return errSaid
	}
	return nil
}

// readings has every object handled; faults are told and counted.
func (t *tryout) readings(in io.Reader, handle handler) error {
	d := json.NewDecoder(in)
	for n := 1; ; n++ {
		var reading json.RawMessage
		err := d.Decode(&reading)
		switch {
		case err == io.EOF:
			return nil
		case errors.As(err, new(*json.SyntaxError)), errors.Is(err, io.ErrUnexpectedEOF):
			rest := bufio.NewReader(io.MultiReader(d.Buffered(), in))
			t.fault(n, fmt.Errorf("not a JSON object: %.60s (%w)", skipped(rest), err))
			in, d = rest, json.NewDecoder(rest)
			continue
		case err != nil:
			return err
		}
		if err := t.reading(n, reading, handle); err != nil {
			t.fault(n, err)
		}
	}
}

// skipped skips what cannot be read, up to the next line that begins with an object, and returns its first line.
func skipped(r *bufio.Reader) (bad string) {
	for {
		line, err := r.ReadString('\n')
		if bad == "" {
			bad = strings.TrimSpace(line)
		}
		if err != nil {
			return bad
		}
		if next, _ := r.Peek(1); bad != "" && string(next) == "{" {
			return bad
		}
	}
}

// reading has the n-th reading handled.
func (t *tryout) reading(n int, reading []byte, handle handler) error {
	switch {
	case reading[0] != '{':
		return fmt.Errorf("not a JSON object: %.60s: write one object after the other", reading)
	case len(reading) > tuple.MaxPayload:
		return fmt.Errorf("%d bytes: at most %d are allowed", len(reading), tuple.MaxPayload)
	case bytes.ContainsAny(reading, "\r\n"): // what comes out stands on one line
		var one bytes.Buffer
		if err := json.Compact(&one, reading); err != nil {
			return err
		}
		reading = one.Bytes()
	}
	t.doc.Reset(bytes.Clone(reading))
	return handle(&script.Input{
		Doc: &t.doc, ID: tuple.RootID(tuple.Position{Offset: int64(n)}), Device: gjson.GetBytes(reading, t.key).String(), Stream: tuple.DefaultStream,
		Time: gjson.GetBytes(reading, t.time).Int(), Archive: t.archived,
	})
}

func (t *tryout) fault(line int, err error) {
	t.failed++
	fmt.Fprintf(t.errs, "reading %d: %v\n", line, err)
}

// prepare compiles what is tried.
func (t *tryout) prepare(file string) (handle handler, finish func() error, err error) {
	finish = func() error { return nil }
	if t.expr != "" {
		handle, err = t.expression()
		return handle, finish, err
	}
	source, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	p, err := script.CompileJS(filepath.ToSlash(file), string(source))
	if err != nil {
		return nil, nil, err
	}
	var params map[string]any
	if t.params != "" {
		if err := json.Unmarshal([]byte(t.params), &params); err != nil {
			return nil, nil, usageError{fmt.Errorf("--params: not a JSON object: %w", err)}
		}
	}
	rt, err := script.NewRuntime(p, script.RuntimeOptions{Params: params})
	if err != nil {
		return nil, nil, err
	}
	functions := map[string][]string{"convert": {"convert"}, "stat": {"compute", "output"}, "alarm": {"when"}}
	for _, kind := range []string{"convert", "stat", "alarm"} {
		if t.kind == "" && p.Has(functions[kind][0]) {
			t.kind = kind
		}
	}
	for _, f := range functions[t.kind] {
		if !p.Has(f) {
			return nil, nil, fmt.Errorf("%s:1:1: a %s script needs a function %s, which it does not declare", file, t.kind, f)
		}
	}
	switch t.kind {
	case "convert":
		return t.convert(rt), finish, nil
	case "alarm":
		return recalling(t.alarm(rt)), finish, nil
	case "stat":
		handle, err = t.stat(rt)
		return recalling(handle), func() error { return t.output(rt) }, err
	case "":
		return nil, nil, fmt.Errorf("%s:1:1: the script declares none of convert, compute and when: say what it is for with one of them", file)
	}
	return nil, nil, usageError{fmt.Errorf("--kind: %q is none of convert, stat, alarm", t.kind)}
}

// recalling gives each device's reading before it to the script, as nodes with state do.
func recalling(handle handler) handler {
	last := map[string][]byte{}
	return func(in *script.Input) error {
		if raw := last[in.Device]; raw != nil {
			in.Previous = script.NewDoc(raw)
		}
		raw, err := in.Doc.Bytes() // before the script changes it
		if err != nil {
			return err
		}
		raw = bytes.Clone(raw)
		if err := handle(in); err != nil {
			return err
		}
		if last[in.Device] = raw; len(raw) > script.MaxPrevious {
			delete(last, in.Device)
		}
		return nil
	}
}

func (t *tryout) print(v any) error {
	e := json.NewEncoder(t.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (t *tryout) expression() (handler, error) {
	if t.kind != "" && t.kind != "filter" {
		return nil, usageError{fmt.Errorf("--kind: an expression is tried as it is, or as filter, not as %q", t.kind)}
	}
	want := script.Any
	if t.kind == "filter" {
		want = script.Bool
	}
	e, err := script.CompileExpr(t.expr, script.ExprOptions{Open: true, Want: want, File: "--expr"})
	if err != nil {
		return nil, err
	}
	var env script.Env
	return func(in *script.Input) error {
		env.Doc, env.Device, env.Time, env.Stream, env.Archive = in.Doc, in.Device, in.Time, in.Stream, in.Archive
		v, err := e.Eval(&env)
		switch {
		case errors.Is(err, script.ErrAbsent):
			v = nil
		case err != nil:
			return err
		}
		if t.kind != "filter" {
			return t.print(v)
		}
		if v == true {
			b, err := in.Doc.Bytes()
			fmt.Fprintf(t.out, "%s\n", b)
			return err
		}
		return nil
	}, nil
}

func (t *tryout) convert(rt *script.Runtime) handler {
	return func(in *script.Input) error {
		outputs, err := rt.Convert(in)
		for _, o := range outputs {
			stream := ""
			if o.Stream != "" && o.Stream != tuple.DefaultStream {
				stream = o.Stream + ": "
			}
			fmt.Fprintf(t.out, "%s%s\n", stream, o.Payload)
		}
		return err
	}
}

func (t *tryout) alarm(rt *script.Runtime) handler {
	return func(in *script.Input) error {
		yes, err := rt.Test(in)
		if errors.Is(err, script.ErrAbsent) {
			return t.print(nil)
		}
		if err != nil {
			return err
		}
		return t.print(yes)
	}
}

// stat keeps a state for each device, as a lifetime grouped by device does.
func (t *tryout) stat(rt *script.Runtime) (handler, error) {
	t.states = map[string]*script.State{}
	if b, err := os.ReadFile(t.state); t.state != "" && !errors.Is(err, os.ErrNotExist) {
		if err != nil {
			return nil, err
		}
		var kept map[string]json.RawMessage
		if err := json.Unmarshal(b, &kept); err != nil {
			return nil, fmt.Errorf("%s: not a JSON object of states by device: %w", t.state, err)
		}
		for device, state := range kept {
			t.states[device] = script.NewState(state)
		}
	}
	return func(in *script.Input) error {
		if t.states[in.Device] == nil {
			t.states[in.Device] = script.NewState(nil)
		}
		if !strings.Contains("\x00"+strings.Join(t.devices, "\x00")+"\x00", "\x00"+in.Device+"\x00") {
			t.devices = append(t.devices, in.Device)
		}
		before, err := t.states[in.Device].Bytes()
		if err != nil {
			return err
		}
		before = bytes.Clone(before)
		if err := rt.Compute(in, t.states[in.Device]); err != nil {
			t.states[in.Device].Reset(before) // as after a tuple that was rejected
			return err
		}
		return nil
	}, nil
}

// output prints what the devices that had readings output, and keeps the states.
func (t *tryout) output(rt *script.Runtime) error {
	for _, device := range t.devices {
		payloads, err := rt.OutputOf(t.states[device], map[string]any{"kind": "lifetime", "group": device, "device": device})
		if err != nil {
			t.failed++
			fmt.Fprintf(t.errs, "output of %q: %v\n", device, err)
		}
		for _, p := range payloads {
			fmt.Fprintf(t.out, "%s\n", p)
		}
	}
	if t.state == "" {
		return nil
	}
	kept := map[string]json.RawMessage{}
	for device, s := range t.states {
		b, err := s.Bytes()
		if err != nil {
			return fmt.Errorf("state of %q: %w", device, err)
		}
		kept[device] = b
	}
	b, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(t.state, append(b, '\n'), 0o600)
}
