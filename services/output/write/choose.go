package write

import (
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// choose leaves of the payload what is to be stored, under the names that it is to have and with the digits that it came with. What is absent or null
// stays absent, and figures that are replaced keep their version.
func (b *Bolt) choose(payload []byte, fields []topology.StoredField, version int64) {
	b.doc.Reset([]byte("{}"))
	for _, f := range fields {
		if v := fieldOf(payload, f.From); v.Exists() && v.Type != gjson.Null {
			b.doc.Set(f.Name, json.RawMessage(v.Raw))
		}
	}
	if version > 0 {
		b.doc.Set("version", version)
	}
}

// fieldOf follows a path; a field whose own name contains the dots wins.
func fieldOf(payload []byte, path string) gjson.Result {
	if v := gjson.GetBytes(payload, gjson.Escape(path)); v.Exists() {
		return v
	}
	parts := strings.Split(path, ".")
	for i := range parts {
		parts[i] = gjson.Escape(parts[i])
	}
	return gjson.GetBytes(payload, strings.Join(parts, "."))
}
