package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tidwall/gjson"

	"github.com/boltmesh/boltmesh/pkg/feed"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// summary is what `boltmesh dev` says at the end; -o json prints it as it is.
type summary struct {
	Topology    string                 `json:"topology"`
	Readings    int64                  `json:"readings"` // rows of the files that are in the topic
	Tuples      map[string]nodeCounts  `json:"tuples"`
	Documents   map[string]int64       `json:"documents"`
	Alarms      map[string]alarmCounts `json:"alarms"`
	DeadLetters int                    `json:"dead_letters"`
	Lost        int64                  `json:"lost"` // rows that Kafka did not take
	ElapsedMS   int64                  `json:"elapsed_ms"`
	TuplesPerS  float64                `json:"tuples_per_s"` // handled by all nodes together
	Feeds       []feed.FileResult      `json:"feeds,omitempty"`

	order []string // of nodes
}

func (m *devMesh) summary(ctx context.Context, r feed.Result, elapsed time.Duration) (*summary, error) {
	s := &summary{
		Topology: m.plan.Topology.Name, Tuples: map[string]nodeCounts{}, Documents: map[string]int64{}, Alarms: map[string]alarmCounts{},
		ElapsedMS: elapsed.Milliseconds(), Feeds: r.Files,
	}
	for _, f := range r.Files {
		s.Readings += f.Found + f.Sent
		s.Lost += f.Refused
	}
	letters, err := m.conn.Letters(ctx)
	if err != nil {
		return nil, err
	}
	if s.DeadLetters, err = letters.Count(ctx, m.plan.Topology.Name); err != nil {
		return nil, err
	}
	var handled int64
	m.counts.mu.Lock()
	for _, n := range m.plan.Nodes {
		s.order = append(s.order, n.ID)
		c := nodeCounts{}
		if seen := m.counts.nodes[n.ID]; seen != nil {
			c = *seen
		}
		s.Tuples[n.ID] = c
		handled += c.In
		if n.Kind == topology.KindAlarm {
			s.Alarms[n.ID] = alarmCounts{}
			if seen := m.counts.alarms[n.ID]; seen != nil {
				s.Alarms[n.ID] = *seen
			}
		}
	}
	m.counts.mu.Unlock()
	if elapsed > 0 {
		s.TuplesPerS = float64(int64(float64(handled)/elapsed.Seconds()*10)) / 10
	}
	return s, m.stored(ctx, s)
}

// stored counts the documents, and the events of the alarms that are saved.
func (m *devMesh) stored(ctx context.Context, s *summary) error {
	docs := m.documents.Documents()
	names, err := docs.Collections(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if s.Documents[name], err = docs.Count(ctx, name); err != nil {
			return err
		}
	}
	saved := map[string]bool{}
	for _, n := range m.plan.Nodes {
		if n.Kind == topology.KindAlarm && n.Bolt.Save != nil {
			s.Alarms[n.ID] = alarmCounts{}
			saved[n.Bolt.Save.Collection] = true
		}
	}
	for name := range saved {
		err := docs.Each(ctx, name, func(body []byte) error {
			node := gjson.GetBytes(body, "node").Str
			if a, known := s.Alarms[node]; known {
				a.add(gjson.GetBytes(body, "event").Str)
				s.Alarms[node] = a
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *summary) clean() bool { return s.DeadLetters == 0 && s.Lost == 0 }

func (s *summary) unclean() string {
	var why []string
	if s.DeadLetters > 0 {
		why = append(why, fmt.Sprintf("%d dead letters", s.DeadLetters))
	}
	if s.Lost > 0 {
		why = append(why, fmt.Sprintf("%d rows that Kafka did not take", s.Lost))
	}
	return strings.Join(why, ", ")
}

func (s *summary) print(w io.Writer, format string) error {
	if format == "json" {
		e := json.NewEncoder(w)
		return e.Encode(s)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "node\tin\tout\tfailed\traises\tclears\tactive\t")
	for _, id := range s.order {
		n := s.Tuples[id]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t", id, n.In, n.Out, n.Failed)
		if a, ok := s.Alarms[id]; ok {
			fmt.Fprintf(t, "%d\t%d\t%d\t\n", a.Raises, a.Clears, a.Active)
		} else {
			fmt.Fprintln(t, "\t\t\t")
		}
	}
	fmt.Fprintln(t, "\t\t\t\t\t\t\ncollection\tdocuments\t\t\t\t\t")
	for _, name := range slices.Sorted(maps.Keys(s.Documents)) {
		fmt.Fprintf(t, "%s\t%d\t\t\t\t\t\n", name, s.Documents[name])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d readings in %.1f s, %.0f tuples/s through all nodes, %d dead letters\n",
		s.Readings, float64(s.ElapsedMS)/1000, s.TuplesPerS, s.DeadLetters)
	return err
}
