package topology

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaFile = "../../docs/topology.schema.json"

type dict = map[string]any

// TestSchema holds docs/topology.schema.json to the table of keys that the parser works by.
func TestSchema(t *testing.T) {
	got, err := json.MarshalIndent(schema(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.MkdirAll(filepath.Dir(schemaFile), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(schemaFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the keys say, run with -update", schemaFile)
	}
}

func schema() any {
	definitions := dict{}
	for name, keys := range shapes {
		switch name {
		case "topology", "bolt", KindConvert, KindStat, KindAlarm, KindCustom:
		default:
			definitions[name] = mappingOf(keys)
		}
	}
	definitions["bolt"] = boltSchema()
	top := mappingOf(shapes["topology"])
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["$id"] = "https://github.com/boltmesh/boltmesh/docs/topology.schema.json"
	top["title"] = "boltmesh topology"
	top["$defs"] = definitions
	return top
}

func mappingOf(keys []key) dict {
	properties, required := dict{}, []string{}
	for _, k := range keys {
		property := typeSchema(k.of)
		property["description"] = k.about
		properties[k.name] = property
		if k.need {
			required = append(required, k.name)
		}
	}
	out := dict{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// boltSchema is one mapping with the keys of all kinds, and for each kind a condition that leaves only its own.
func boltSchema() dict {
	out := mappingOf(shapes["bolt"])
	properties := out["properties"].(dict)
	var each []any
	for _, kind := range kinds {
		for name, p := range mappingOf(shapes[kind])["properties"].(dict) {
			if _, ok := properties[name]; !ok {
				properties[name] = p
			}
		}
		then := dict{"propertyNames": dict{"enum": namesOf(keysOf(kind))}}
		if required := mappingOf(shapes[kind])["required"]; required != nil {
			then["required"] = required
		}
		each = append(each, dict{
			"if":   dict{"properties": dict{"kind": dict{"const": kind}}, "required": []string{"kind"}},
			"then": then,
		})
	}
	out["allOf"] = each
	return out
}

// typeSchema turns a key's type into JSON Schema. Where a variable may stand for a value, a string with one is allowed.
func typeSchema(of string) dict {
	text := func(pattern string) dict { return dict{"type": "string", "pattern": pattern} }
	ref := func(name string) dict { return dict{"$ref": "#/$defs/" + name} }
	anyOf := func(of ...any) dict { return dict{"anyOf": of} }
	variable := text(`\$\{`)
	names := dict{"type": "array", "items": dict{"type": "string"}}
	scalarText := dict{"type": []string{"string", "number", "boolean"}}
	mapOf := func(v any) dict { return dict{"type": "object", "additionalProperties": v} }
	switch of {
	case "id":
		return text(`^([a-z][a-z0-9-]{0,63}|.*\$\{.*)$`)
	case "stream":
		return dict{"type": "string"}
	case "string", "field", "script", "start", "database", "collection":
		return dict{"type": "string", "minLength": 1}
	case "expr":
		return scalarText
	case "int":
		return anyOf(dict{"type": "integer", "minimum": 0}, variable)
	case "tasks":
		return anyOf(dict{"type": "integer", "minimum": 1, "maximum": MaxTasks}, variable)
	case "bool":
		return anyOf(dict{"type": "boolean"}, variable)
	case "duration", "duration0":
		return text(`^([0-9.]+(ms|s|m|h|d))+$|\$\{`)
	case "slide":
		return anyOf(dict{"type": "integer", "minimum": 1}, text(`^([0-9.]+(ms|s|m|h|d))+$|\$\{`))
	case "object":
		return dict{"type": "object"}
	case "strings", "group":
		return anyOf(dict{"type": "string"}, names)
	case "fields":
		return mapOf(dict{"enum": fieldTypes})
	case "set":
		return mapOf(scalarText)
	case "aggregates":
		return mapOf(dict{"type": []string{"string", "null"}}) // null: the rest of a call that a comma has divided
	case "streams":
		return mapOf(anyOf(dict{"type": "string"}, names, dict{"type": "null"}))
	case "indexes":
		return dict{"type": "array", "items": anyOf(dict{"type": "string"}, names)}
	case "bolts":
		return dict{"type": "array", "items": ref("bolt"), "minItems": 1, "maxItems": MaxBolts}
	case "from":
		one := anyOf(dict{"type": "string"}, ref("from"))
		return anyOf(dict{"type": "string"}, ref("from"), dict{"type": "array", "items": one, "minItems": 1})
	case "stored fields":
		return anyOf(dict{"type": "string"}, names, mapOf(dict{"type": "string"}))
	case "save":
		return anyOf(dict{"type": "string", "minLength": 1}, ref("save"))
	case "grouping":
		return anyOf(dict{"enum": groupings}, ref("grouping"))
	case "archive name":
		return text(`^[a-z][a-z0-9_]{0,47}$|\$\{`)
	case "archive":
		return anyOf(dict{"type": "string", "minLength": 1}, ref("archive"))
	case "levels":
		return dict{"type": "array", "items": ref("level"), "minItems": 1, "maxItems": maxLevels}
	case "window":
		return anyOf(dict{"const": WindowLifetime}, ref("window"))
	}
	if strings.Contains(of, "|") {
		words := []any{}
		for w := range strings.SplitSeq(of, "|") {
			words = append(words, w)
			if w == "null" {
				words = append(words, nil)
			}
		}
		return dict{"enum": words}
	}
	return ref(of)
}

// TestExamplesFulfilSchema: what an editor says of the examples is what the parser says.
func TestExamplesFulfilSchema(t *testing.T) {
	compiled, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	check := func(file string) error {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := yaml.Unmarshal(source, &v); err != nil {
			t.Fatal(file, err)
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		v, err = jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return compiled.Validate(v)
	}
	good, _ := filepath.Glob("../../examples/*/topology.yaml")
	more, _ := filepath.Glob("testdata/plans/*.yaml")
	if len(good) < 2 || len(more) == 0 {
		t.Fatal("no examples")
	}
	for _, file := range append(good, more...) {
		if err := check(file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	for _, name := range []string{"unknown-keys", "missing-keys", "types", "no-spout"} {
		if check("testdata/problems/"+name+".yaml") == nil {
			t.Errorf("%s: the schema finds nothing wrong", name)
		}
	}
}

// TestTypesOfKeys: the words in the table of keys are the words that the parser takes.
func TestTypesOfKeys(t *testing.T) {
	words := map[string][]string{
		"kind": kinds, "decode": decoders, "unit": timeUnits, "mechanism": mechanisms,
	}
	for _, keys := range shapes {
		for _, k := range keys {
			if want, ok := words[k.name]; ok && k.of != strings.Join(want, "|") {
				t.Errorf("%s: %s, the parser takes %v", k.name, k.of, want)
			}
			if k.about == "" || !strings.HasSuffix(k.about, ".") {
				t.Errorf("%s is not described", k.name)
			}
		}
	}
}
