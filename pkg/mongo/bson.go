package mongo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// maxDepth is how deep objects and arrays may nest: the server's own limit is 100.
const maxDepth = 90

// appendBSON encodes a JSON object behind b. The order of keys stays; integers become int64, and doubles only when they do not fit and a double holds
// them exactly; a top-level "time" in RFC 3339 becomes a date, to the millisecond.
func appendBSON(b []byte, object []byte) ([]byte, error) {
	if !gjson.ValidBytes(object) {
		return nil, errors.New("the document is not JSON")
	}
	x := gjson.ParseBytes(object)
	if !x.IsObject() {
		return nil, errors.New("the document is not a JSON object")
	}
	return appendMembers(b, x, 1)
}

// appendMembers encodes a valid object, or an array, which in BSON is a document with numbers for keys.
func appendMembers(b []byte, x gjson.Result, depth int) (_ []byte, err error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("the document nests deeper than %d levels", maxDepth)
	}
	array, n := x.IsArray(), 0
	start, b := bsoncore.AppendDocumentStart(b)
	x.ForEach(func(name, value gjson.Result) bool {
		var key string
		if array {
			key = strconv.Itoa(n)
			n++
		} else if key = text(name); strings.IndexByte(key, 0) >= 0 {
			err = fmt.Errorf("the name %q holds a zero byte", key)
			return false
		}
		b, err = appendElement(b, key, value, depth)
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	return bsoncore.AppendDocumentEnd(b, start)
}

func appendElement(b []byte, key string, x gjson.Result, depth int) ([]byte, error) {
	switch x.Type {
	case gjson.JSON:
		kind := bsoncore.TypeEmbeddedDocument
		if x.IsArray() {
			kind = bsoncore.TypeArray
		}
		return appendMembers(bsoncore.AppendHeader(b, kind, key), x, depth+1)
	case gjson.String:
		s := text(x)
		if depth == 1 && key == "time" {
			if t, err := time.Parse(time.RFC3339, s); err == nil {
				return bsoncore.AppendDateTimeElement(b, key, t.UnixMilli()), nil
			}
		}
		return bsoncore.AppendStringElement(b, key, s), nil
	case gjson.Number:
		return appendNumber(b, key, x.Raw)
	case gjson.True, gjson.False:
		return bsoncore.AppendBooleanElement(b, key, x.Type == gjson.True), nil
	default:
		return bsoncore.AppendNullElement(b, key), nil
	}
}

// text is the value of a string: as encoding/json has it where that is not plain, which takes a lone half of a surrogate pair for what it is.
func text(x gjson.Result) (s string) {
	if !strings.Contains(x.Raw, `\u`) && utf8.ValidString(x.Str) {
		return x.Str
	}
	_ = json.Unmarshal([]byte(x.Raw), &s) // the whole was found valid
	return s
}

func appendNumber(b []byte, key, number string) ([]byte, error) {
	if strings.ContainsAny(number, ".eE") {
		f, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return nil, fmt.Errorf("the number %s of %q is too large", number, key)
		}
		return bsoncore.AppendDoubleElement(b, key, f), nil
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		return bsoncore.AppendInt64Element(b, key, n), nil
	}
	n, _ := new(big.Int).SetString(number, 10)
	f, accuracy := new(big.Float).SetInt(n).Float64()
	if accuracy != big.Exact {
		return nil, fmt.Errorf("the integer %s of %q fits neither 64 bits nor a double", number, key)
	}
	return bsoncore.AppendDoubleElement(b, key, f), nil
}

// appendJSON writes a document as JSON: dates as RFC 3339 in UTC to the millisecond, doubles so that they can be told from integers, what JSON has no
// word for as MongoDB's extended JSON.
func appendJSON(b []byte, doc bson.Raw) ([]byte, error) {
	elements, err := doc.Elements()
	if err != nil {
		return nil, err
	}
	b = append(b, '{')
	for i, e := range elements {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, e.Key()), ':')
		if b, err = appendValue(b, e.Value()); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, v bson.RawValue) ([]byte, error) {
	switch v.Type {
	case bson.TypeEmbeddedDocument:
		return appendJSON(b, v.Document())
	case bson.TypeArray:
		values, err := v.Array().Values()
		if err != nil {
			return nil, err
		}
		b = append(b, '[')
		for i, x := range values {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendValue(b, x); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case bson.TypeString:
		return appendString(b, v.StringValue()), nil
	case bson.TypeInt32:
		return strconv.AppendInt(b, int64(v.Int32()), 10), nil
	case bson.TypeInt64:
		return strconv.AppendInt(b, v.Int64(), 10), nil
	case bson.TypeDouble:
		return appendDouble(b, v.Double()), nil
	case bson.TypeBoolean:
		return strconv.AppendBool(b, v.Boolean()), nil
	case bson.TypeNull, bson.TypeUndefined:
		return append(b, "null"...), nil
	case bson.TypeDateTime:
		return append(b, v.Time().UTC().Format(`"2006-01-02T15:04:05.000Z"`)...), nil
	default:
		return append(b, v.String()...), nil
	}
}

func appendDouble(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'g', -1, 64)
	if !bytes.ContainsAny(b[start:], ".e") {
		b = append(b, ".0"...)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string cannot fail
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}
