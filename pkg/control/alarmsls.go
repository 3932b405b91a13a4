package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/boltmesh/boltmesh/pkg/document"
	"github.com/boltmesh/boltmesh/pkg/topology"
)

// Episode is a stored episode of an alarm; docs/documents.md says what its fields are.
type Episode struct {
	Topology       string          `json:"topology"`
	ID             string          `json:"id"`
	Alarm          string          `json:"alarm"`
	Group          string          `json:"group"`
	Device         string          `json:"device"`
	Severity       string          `json:"severity,omitempty"`
	Number         int64           `json:"number"`
	Version        int64           `json:"version"`
	State          string          `json:"state"` // open, acknowledged or cleared
	Reason         string          `json:"reason,omitempty"`
	RaisedAt       int64           `json:"raised_at"`
	AcknowledgedAt int64           `json:"acknowledged_at,omitempty"`
	AcknowledgedBy string          `json:"acknowledged_by,omitempty"`
	Escalated      bool            `json:"escalated,omitempty"`
	Flapping       bool            `json:"flapping,omitempty"`
	ClearedAt      int64           `json:"cleared_at,omitempty"`
	RaiseValue     json.RawMessage `json:"raise_value,omitempty"`
	ClearValue     json.RawMessage `json:"clear_value,omitempty"`
	History        []Happening     `json:"history,omitempty"`
	Omitted        int64           `json:"omitted,omitempty"` // events before the history
}

// Happening is one event in the life of an episode.
type Happening struct {
	What     string `json:"what"`
	At       int64  `json:"at"` // ms
	Severity string `json:"severity,omitempty"`
	By       string `json:"by,omitempty"`
	Note     string `json:"note,omitempty"`
}

// EpisodeFilter chooses episodes; what is zero chooses all.
type EpisodeFilter struct {
	Alarm    string // node
	Group    string
	Severity string
	Open     bool // only those that are not cleared
	Most     int  // so many, those raised last; however many are stored, no more than a few times as many are held
}

func (f *EpisodeFilter) matches(e *Episode) bool {
	return (f.Alarm == "" || e.Alarm == f.Alarm) && (f.Group == "" || e.Group == f.Group) && (f.Severity == "" || e.Severity == f.Severity) &&
		(!f.Open || e.State != "cleared")
}

// episodesSuffix ends the name of the collection that the output node keeps episodes in, beside that of their events.
const episodesSuffix = "_episodes"

// EpisodeCollections says for each alarm of a plan in which collections its episodes are: what it saves itself, or what convert nodes below it save of it;
// none when nobody does.
func EpisodeCollections(plan *topology.Plan) map[string][]string {
	out := map[string][]string{}
	for _, a := range plan.Alarms() {
		out[a.ID] = nil
		passed := map[string]bool{a.ID: true} // the alarm, and converts that its events may come out of
		for i := range plan.Nodes {
			n := &plan.Nodes[i]
			passed[n.ID] = passed[n.ID] || n.Kind == topology.KindConvert && slices.ContainsFunc(n.In, func(e topology.Edge) bool { return passed[e.From] })
			if !passed[n.ID] || n.Bolt.Save == nil {
				continue
			}
			if c := n.Bolt.Save.Collection + episodesSuffix; !slices.Contains(out[a.ID], c) {
				out[a.ID] = append(out[a.ID], c)
			}
		}
	}
	return out
}

// Episodes returns the stored episodes of a topology that the filter chooses, the one that was raised last first. Those of alarms that nothing saves are not
// stored: EpisodeCollections tells.
func Episodes(ctx context.Context, plan *topology.Plan, store document.Store, f EpisodeFilter) ([]Episode, error) {
	wanted := map[string]bool{}
	for alarm, collections := range EpisodeCollections(plan) {
		if f.Alarm == "" || f.Alarm == alarm {
			for _, c := range collections {
				wanted[c] = true
			}
		}
	}
	found := map[string]Episode{} // a convert beside the alarm stores the same episodes
	for c := range wanted {
		err := store.Each(ctx, c, func(body []byte) error {
			d := struct {
				ID string `json:"_id"`
				*Episode
			}{Episode: &Episode{}}
			if err := json.Unmarshal(body, &d); err != nil {
				return fmt.Errorf("an episode in %s: %w", c, err)
			}
			e := *d.Episode
			e.Topology, e.ID = plan.Topology.Name, d.ID
			if old, known := found[e.ID]; f.matches(&e) && (!known || old.Version < e.Version) {
				found[e.ID] = e
			}
			if f.Most > 0 && len(found) > 4*f.Most {
				newest(found, f.Most)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return newest(found, f.Most), nil
}

// newest deletes from found all but the most that were raised last, if most is not 0, and returns what is left, the last one first. A later version of an
// episode is as old as the others, so whichever of them comes when does not matter.
func newest(found map[string]Episode, most int) []Episode {
	out := slices.SortedFunc(maps.Values(found), func(a, b Episode) int {
		return cmp.Or(cmp.Compare(b.RaisedAt, a.RaisedAt), cmp.Compare(a.Alarm, b.Alarm), cmp.Compare(a.Group, b.Group), cmp.Compare(b.Number, a.Number))
	})
	if most == 0 || len(out) <= most {
		return out
	}
	for _, e := range out[most:] {
		delete(found, e.ID)
	}
	return out[:most]
}
