package service

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/pflag"
)

// ErrHelp is returned by LoadConfig when help is asked for: print Help and exit with 0.
var ErrHelp = errors.New("help is asked for")

// foreign are prefixes of variables that topology files may use in ${...}; they are no keys, and no mistakes either.
var foreign = []string{envPrefix + "KAFKA_", envPrefix + "VAR_"}

// LoadConfig reads the configuration of a service: defaults, then the YAML file that --config or BOLTMESH_CONFIG names, then BOLTMESH_* of env (as
// os.Environ gives it; empty ones count as absent), then args (without the program's name). The later wins, lists included. The error names
// every mistake, one a line, with its place and what to write instead; it never repeats a password.
func LoadConfig(service string, args, env []string) (Config, error) {
	flags, path, err := parseFlags(service, args)
	if err != nil {
		return Config{}, err
	}
	c := defaultConfig()
	c.SampleRatio = ratioFrom(env, c.SampleRatio)
	l := configLoader{keys: configKeys(&c), set: flagSet(service, &c)}
	if path == "" {
		path = lookupEnv(env, envPrefix+"CONFIG")
	}
	if path != "" {
		l.file(path)
	}
	l.environment(env)
	l.flags(flags)
	if len(l.problems) > 0 {
		return Config{}, errors.Join(l.problems...)
	}
	c.derive()
	if err := c.check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// flagSet returns flags that write into c.
func flagSet(service string, c *Config) *pflag.FlagSet {
	fs := pflag.NewFlagSet(service, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {}
	for _, k := range configKeys(c) {
		k.bind(fs, flagOf(k.name)[2:])
	}
	return fs
}

// parseFlags reads args into a set of its own, since the file that they may name comes first.
func parseFlags(service string, args []string) (fs *pflag.FlagSet, path string, err error) {
	scratch := defaultConfig()
	fs = flagSet(service, &scratch)
	fs.StringVar(&path, "config", "", "")
	err = fs.Parse(args)
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return nil, "", ErrHelp
	case errors.As(err, &unknown):
		var names []string
		fs.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		name := "--" + unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			name = "-" + unknown.GetSpecifiedName()
		}
		return nil, "", fmt.Errorf("%s: unknown flag%s", name, suggest(name, names))
	case errors.As(err, &invalid):
		for _, k := range configKeys(&scratch) {
			if flag := flagOf(k.name); flag[2:] == invalid.GetFlag().Name {
				return nil, "", fmt.Errorf("%s: %q is not %s", flag, invalid.GetValue(), k.takes)
			}
		}
		return nil, "", err
	case err != nil:
		return nil, "", err
	case fs.NArg() > 0:
		return nil, "", fmt.Errorf("%q: a service takes flags only; see --help", fs.Arg(0))
	}
	return fs, path, nil
}

// configLoader applies one source after the other and collects what is wrong with them.
type configLoader struct {
	keys     []configKey
	set      *pflag.FlagSet
	problems []error
}

func (l *configLoader) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Errorf(format, args...))
}

// put gives a key its value; where says what to call it in an error.
func (l *configLoader) put(k configKey, where string, values []string) {
	flag := l.set.Lookup(flagOf(k.name)[2:])
	if s, ok := flag.Value.(pflag.SliceValue); ok {
		if err := s.Replace(values); err != nil {
			l.problem("%s: %w", where, err)
		}
		return
	}
	if len(values) != 1 || l.set.Set(flag.Name, values[0]) != nil {
		l.problem("%s: %q is not %s", where, strings.Join(values, ", "), k.takes)
	}
}

func (l *configLoader) flags(from *pflag.FlagSet) {
	from.Visit(func(f *pflag.Flag) {
		i := slices.IndexFunc(l.keys, func(k configKey) bool { return flagOf(k.name)[2:] == f.Name })
		if i < 0 {
			return // --config
		}
		values := []string{f.Value.String()}
		if s, ok := f.Value.(pflag.SliceValue); ok {
			values = s.GetSlice()
		}
		l.put(l.keys[i], "--"+f.Name, values)
	})
}

func (l *configLoader) environment(env []string) {
	names := []string{envPrefix + "CONFIG"}
	for _, k := range l.keys {
		names = append(names, envOf(k.name))
	}
	for _, entry := range slices.Sorted(slices.Values(env)) {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.ContainsFunc(foreign, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		i := slices.Index(names, name)
		switch {
		case i < 0:
			l.problem("%s: unknown variable%s", name, suggest(name, names))
		case i == 0 || value == "":
		default:
			l.put(l.keys[i-1], name, l.split(l.keys[i-1], value))
		}
	}
}

// split divides the elements of a list.
func (l *configLoader) split(k configKey, value string) []string {
	if _, ok := l.set.Lookup(flagOf(k.name)[2:]).Value.(pflag.SliceValue); !ok {
		return []string{value}
	}
	parts := strings.Split(value, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

func (l *configLoader) file(path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		l.problem("read configuration: %w", err)
		return
	}
	f, err := parser.ParseBytes(b, 0)
	var located yaml.Error
	switch {
	case errors.As(err, &located) && located.GetToken() != nil:
		at := located.GetToken().Position
		l.problem("%s:%d:%d: %s", path, at.Line, at.Column, located.GetMessage())
	case err != nil:
		l.problem("%s: %w", path, err)
	case len(f.Docs) > 1:
		l.problem("%s: has several documents; write one", path)
	case len(f.Docs) == 1 && f.Docs[0].Body != nil:
		l.section(path, "", f.Docs[0].Body)
	}
}

// section walks a mapping; prefix is the section's name with a point behind it.
func (l *configLoader) section(path, prefix string, n ast.Node) {
	var entries []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		entries = m.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{m}
	case *ast.NullNode, *ast.CommentGroupNode:
		return
	default:
		l.problem("%s: a section with keys is expected here", filePlace(path, n))
		return
	}
	for _, e := range entries {
		l.entry(path, prefix+e.Key.GetToken().Value, e)
	}
}

func (l *configLoader) entry(path, name string, e *ast.MappingValueNode) {
	at := filePlace(path, e.Key)
	sections := map[string]bool{}
	names := make([]string, 0, len(l.keys))
	for _, k := range l.keys {
		if k.name == name {
			if values, ok := scalars(e.Value); ok {
				l.put(k, at+": "+name, values)
			} else {
				l.problem("%s: %s: write %s", at, name, k.takes)
			}
			return
		}
		names = append(names, k.name)
		for i, r := range k.name {
			if r == '.' {
				sections[k.name[:i]] = true
			}
		}
	}
	if sections[name] {
		l.section(path, name+".", e.Value)
		return
	}
	for s := range sections {
		names = append(names, s)
	}
	l.problem("%s: unknown key %s%s", at, name, suggest(name, names))
}

// scalars returns the text of a scalar, or of a sequence's elements.
func scalars(n ast.Node) ([]string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return []string{v.Value}, true
	case *ast.LiteralNode:
		return []string{v.Value.Value}, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return []string{v.GetToken().Value}, true
	case *ast.SequenceNode:
		var all []string
		for _, e := range v.Values {
			one, ok := scalars(e)
			if !ok || len(one) != 1 {
				return nil, false
			}
			all = append(all, one[0])
		}
		return all, true
	}
	return nil, false
}

func filePlace(path string, n ast.Node) string {
	at := n.GetToken().Position
	return fmt.Sprintf("%s:%d:%d", path, at.Line, at.Column)
}

func lookupEnv(env []string, name string) (value string) {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// ratioFrom takes the default share of traces from OpenTelemetry's own variables, where they are set.
func ratioFrom(env []string, otherwise float64) float64 {
	switch strings.TrimPrefix(lookupEnv(env, "OTEL_TRACES_SAMPLER"), "parentbased_") {
	case "always_on":
		return 1
	case "always_off":
		return 0
	case "traceidratio":
		if r, err := strconv.ParseFloat(lookupEnv(env, "OTEL_TRACES_SAMPLER_ARG"), 64); err == nil && r >= 0 && r <= 1 {
			return r
		}
		return 1 // as the specification has it
	}
	return otherwise
}

// suggest completes an error about an unknown name with the nearest known one, if any is near.
func suggest(name string, known []string) string {
	best, least := "", min(len(name)/3, 3)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return "; --help lists all"
	}
	return "; did you mean " + best + "?"
}

// distance counts the letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			d := last[j]
			if a[i] != b[j] {
				d++
			}
			d = min(d, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, before[j-1]+1)
			}
			row[j+1] = d
		}
	}
	return row[len(b)]
}

func sortedErrors(errs []error) []error {
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}
