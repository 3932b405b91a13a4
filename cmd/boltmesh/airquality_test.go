package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const airQuality = "../../examples/air-quality"

// airReading is a row of the example's data; a field that is absent is nil.
type airReading struct {
	Device string   `json:"device"`
	TS     int64    `json:"ts"`
	PM25   *float64 `json:"pm25,omitempty"`
	NO2    *float64 `json:"no2,omitempty"`
}

// station is a line of the example's archive.
type station struct {
	Device, Site string
	Active       bool
	Gain, Offset float64
	Limit        *float64 `json:"pm25_limit"`
	Limits       struct{ NO2 float64 }
}

// airData invents what the stations send in three days, in the order in which it arrives. st-11 is in no archive.
func airData() (out []airReading) {
	type arrival struct {
		airReading
		at int64
	}
	const begin, step = int64(1767225600000), int64(600_000) // 2026-01-01T00:00:00Z, ten minutes
	r := rand.New(rand.NewPCG(25, 26))
	var all []arrival
	round := func(f float64) *float64 { f = math.Round(f*10) / 10; return &f }
	for s := 1; s <= 11; s++ {
		gap, late, level := 0, int64(0), 0.0
		for k := range int64(3 * 144) {
			if gap == 0 && r.IntN(100) == 0 {
				gap = 6 + r.IntN(24) // one to five hours
			}
			if gap > 0 {
				gap--
				continue
			}
			if late == 0 && r.IntN(80) == 0 {
				late = 2 + r.Int64N(16) // what follows is held back for up to three hours
			}
			level = 0.97*level + 4*r.NormFloat64()
			hour := float64(k%144) / 6
			v := arrival{airReading{Device: fmt.Sprintf("st-%02d", s), TS: begin + k*step + r.Int64N(step)}, 0}
			v.at = v.TS + late*step
			if late > 0 {
				late--
			}
			if r.IntN(50) > 0 {
				v.PM25 = round(math.Max(0, 14+2*float64(s%5)+8*math.Sin((hour-6)/24*2*math.Pi)+level))
			}
			if s%3 != 1 {
				v.NO2 = round(math.Max(0, 35+15*math.Sin((hour-3)/12*2*math.Pi)+10*r.NormFloat64()))
			}
			all = append(all, v)
			if r.IntN(60) == 0 { // a second reading of the same moment: it counts like any other
				v.PM25 = round(r.Float64() * 40)
				all = append(all, v)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return int(a.at - b.at) })
	for _, a := range all {
		out = append(out, a.airReading)
	}
	return out
}

// airTruth is what must come of the data, found without anything of boltmesh: one reading after the other, in plain loops.
type airTruth struct {
	stored, left int
	hourly       map[string]string    // station and hour -> n, mean, high
	sites        map[string]string    // site and hour -> n, mean, high, stations
	ranked       map[string][]float64 // site and hour -> values in order
	totals       map[string]string
	events       []string
}

func truthOfAir(data []airReading, stations map[string]station) airTruth {
	t := airTruth{hourly: map[string]string{}, sites: map[string]string{}, ranked: map[string][]float64{}, totals: map[string]string{}}
	pm, no2, all := map[string][]float64{}, map[string][]float64{}, map[string]int{}
	hours, there := map[string][]float64{}, map[string]map[string]bool{}
	streak, dust, nitrogen := map[string]int{}, map[string]bool{}, map[string]bool{}
	tell := func(alarm, event string, r airReading) {
		t.events = append(t.events, fmt.Sprint(alarm, " ", r.Device, " ", event, " ", r.TS))
	}
	for _, r := range data {
		s, known := stations[r.Device]
		if !known || !s.Active {
			t.left++
			continue
		}
		t.stored++
		all[r.Device]++
		if r.NO2 != nil {
			no2[r.Device] = append(no2[r.Device], *r.NO2)
			if over := *r.NO2 > s.Limits.NO2; s.Limits.NO2 > 0 && over != nitrogen[r.Device] {
				nitrogen[r.Device] = over
				tell("nitrogen", map[bool]string{true: "raise", false: "clear"}[over], r)
			}
		}
		if r.PM25 == nil {
			continue
		}
		v := *r.PM25*s.Gain + s.Offset
		pm[r.Device] = append(pm[r.Device], v)
		hour := fmt.Sprint(r.Device, " ", r.TS/3600_000*3600_000)
		hours[hour] = append(hours[hour], v)
		hour = fmt.Sprint(s.Site, " ", r.TS/3600_000*3600_000)
		t.ranked[hour] = append(t.ranked[hour], v)
		if there[hour] == nil {
			there[hour] = map[string]bool{}
		}
		there[hour][r.Device] = true
		switch {
		case s.Limit == nil:
		case dust[r.Device]:
			if v < *s.Limit*0.8 {
				dust[r.Device] = false
				tell("dust", "clear", r)
			}
		case v > *s.Limit:
			if streak[r.Device]++; streak[r.Device] == 3 {
				dust[r.Device], streak[r.Device] = true, 0
				tell("dust", "raise", r)
			}
		default:
			streak[r.Device] = 0
		}
	}
	for hour, vs := range hours {
		t.hourly[hour] = fmt.Sprintf("%d %.9f %.9f", len(vs), mean(vs), slices.Max(vs))
	}
	for hour, vs := range t.ranked {
		slices.Sort(vs)
		t.sites[hour] = fmt.Sprintf("%d %.9f %.9f %d", len(vs), mean(vs), slices.Max(vs), len(there[hour]))
	}
	for d, n := range all {
		t.totals[d] = fmt.Sprintf("%d %d %.9f %.9f", n, len(pm[d]), mean(pm[d]), mean(no2[d]))
	}
	slices.Sort(t.events)
	return t
}

func mean(vs []float64) float64 {
	sum := 0.0
	for _, v := range vs {
		sum += v
	}
	return sum / float64(max(1, len(vs)))
}

// TestDevAirQuality runs the example as its first lines say, and compares everything stored with the truth.
func TestDevAirQuality(t *testing.T) {
	data := airData()
	var file bytes.Buffer
	for _, r := range data {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		file.Write(append(b, '\n'))
	}
	name := filepath.Join(airQuality, "data", "readings.jsonl")
	if *update {
		if err := os.WriteFile(name, file.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, file.Bytes()) {
		t.Fatalf("%s is not what airData makes (%v): write it anew with -update", name, err)
	}
	stations := map[string]station{}
	for _, s := range lines[station](t, filepath.Join(airQuality, "archives.jsonl")) {
		stations[s.Device] = s
	}
	want := truthOfAir(data, stations)
	if len(want.events) < 50 || want.left < 500 {
		t.Fatalf("the data are too dull: %d events, %d left out", len(want.events), want.left)
	}

	export := t.TempDir()
	s, code := devOnce(t, "", airQuality, "--export", export)
	if code != exitOK || s.Readings != int64(len(data)) || s.DeadLetters != 0 || s.Documents["readings"] != int64(want.stored) {
		t.Errorf("exit %d, %+v; want %d readings, %d stored", code, s, len(data), want.stored)
	}
	hourly := map[string]string{}
	for _, d := range lines[struct {
		Device     string
		Window     struct{ Start int64 }
		N          int
		Mean, High float64
	}](t, filepath.Join(export, "hourly.jsonl")) {
		hourly[fmt.Sprint(d.Device, " ", d.Window.Start)] = fmt.Sprintf("%d %.9f %.9f", d.N, d.Mean, d.High)
	}
	same(t, "hourly", hourly, want.hourly)
	sites := map[string]string{}
	for _, d := range lines[struct {
		Group           string
		Window          struct{ Start int64 }
		N, Stations     int
		Mean, High, P90 float64
	}](t, filepath.Join(export, "site_hours.jsonl")) {
		hour := fmt.Sprint(d.Group, " ", d.Window.Start)
		if _, twice := sites[hour]; twice {
			t.Errorf("two documents of %s", hour)
		}
		sites[hour] = fmt.Sprintf("%d %.9f %.9f %d", d.N, d.Mean, d.High, d.Stations)
		if vs := want.ranked[hour]; len(vs) > 0 {
			if p90 := vs[int(0.9*float64(len(vs)-1))]; math.Abs(d.P90-p90) > 0.01*math.Abs(p90)+1e-9 {
				t.Errorf("the 0.9 quantile of %s: %v, want %v within 1 %%", hour, d.P90, p90)
			}
		}
	}
	same(t, "site_hours", sites, want.sites)
	totals := map[string]string{}
	for _, d := range lines[struct {
		Device         string
		Readings, PM25 int
		Mean, NO2      float64
	}](t, filepath.Join(export, "totals.jsonl")) {
		totals[d.Device] = fmt.Sprintf("%d %d %.9f %.9f", d.Readings, d.PM25, d.Mean, d.NO2)
	}
	same(t, "totals", totals, want.totals)
	var events []string
	for _, e := range lines[struct {
		Alarm, Device, Event string
		TS                   int64
	}](t, filepath.Join(export, "alarms.jsonl")) {
		events = append(events, fmt.Sprint(e.Alarm, " ", e.Device, " ", e.Event, " ", e.TS))
	}
	slices.Sort(events)
	if !slices.Equal(events, want.events) {
		t.Errorf("%d events, want %d; the first that differ: %v", len(events), len(want.events), firstDifference(events, want.events))
	}
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s of %s: %q, want %q", what, k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d documents, want %d", what, len(got), len(want))
	}
}
