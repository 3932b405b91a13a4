package feed

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/boltmesh/boltmesh/pkg/topology"
)

// source is a file being fed.
type source struct {
	index  int
	name   string
	id     string // HeaderFile
	feed   string // HeaderID
	rows   int64  // 0: not known
	resume bool   // it has an identity by which rows can be found again
	*Reader

	head *Row  // the next row, for merging
	time int64 // its place in time
}

// item is a row on its way.
type item struct {
	source *source
	row    Row
}

// prepare opens every file. Regular ones are read once beforehand, for their hash and number of rows.
func prepare(o Options) (sources []*source, err error) {
	seen := map[string]string{}
	for i, path := range o.Files {
		s := &source{index: i, name: path, time: math.MinInt64}
		if o.Again {
			s.feed = random()
		}
		if err := s.open(path, o); err != nil {
			return sources, err
		}
		sources = append(sources, s)
		if other, double := seen[s.id]; double {
			return sources, fmt.Errorf("%s and %s have the same content: their rows could not be told apart; give one of them", other, path)
		}
		seen[s.id] = path
	}
	return sources, nil
}

func (s *source) open(path string, o Options) (err error) {
	info, err := os.Stat(path)
	if path == Stdin || err == nil && !info.Mode().IsRegular() {
		s.id = "stream-" + random()
		s.Reader, err = Open(path, o.Spout, o.Stdin)
		return err
	}
	if err != nil {
		return err
	}
	o.Progress(Progress{Doing: "read"})
	if s.id, s.rows, err = identify(path, info.Size(), o.Spout); err != nil {
		return err
	}
	s.resume = true
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	if s.Reader, err = newReader(path, o.Spout, io.LimitReader(file, info.Size()), file.Close); err != nil {
		return errors.Join(err, file.Close())
	}
	return nil
}

// identify reads a file of size bytes and returns its hash and its number of rows. The hash is of the bytes as they lie on the disk. What is appended
// meanwhile is not read.
func identify(path string, size int64, spec topology.Spout) (id string, rows int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = file.Close() }()
	hash := sha256.New()
	content := io.TeeReader(io.LimitReader(file, size), hash)
	r, err := newReader(path, spec, content, file.Close)
	if err != nil {
		return "", 0, err
	}
	for {
		more, err := r.skip()
		if err != nil {
			return "", 0, err
		}
		if !more {
			break
		}
		rows++
	}
	if _, err := io.Copy(io.Discard, content); err != nil { // what follows a compressed text
		return "", 0, err
	}
	return hex.EncodeToString(hash.Sum(nil))[:16], rows, nil
}

func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func closeAll(sources []*source) {
	for _, s := range sources {
		if s.Reader != nil {
			_ = s.Close() // only read from
		}
	}
}

// merge hands out the rows of several sources: by event time when ordered, else one source after the other. The order within a source never changes;
// a row that is older than its predecessor, or has no readable time, comes right after it.
type merge struct {
	sources []*source
	ordered bool
}

func (m *merge) next() (item, error) {
	var best *source
	for i := 0; i < len(m.sources); i++ {
		s := m.sources[i]
		if s.head == nil {
			row, err := s.Next()
			if errors.Is(err, io.EOF) {
				m.sources = append(m.sources[:i:i], m.sources[i+1:]...)
				i--
				continue
			}
			if err != nil {
				return item{}, err
			}
			s.head = &row
			if row.Bad == nil {
				s.time = max(s.time, row.Time)
			}
		}
		if best == nil || m.ordered && s.time < best.time {
			best = s
		}
		if !m.ordered {
			break
		}
	}
	if best == nil {
		return item{}, io.EOF
	}
	it := item{best, *best.head}
	best.head = nil
	return it, nil
}
