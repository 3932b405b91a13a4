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

	"github.com/boltmesh/boltmesh/tests/integration/figures"
)

const airQuality = "../../examples/air-quality"

// airData invents what the stations send in three days, in the order in which it arrives. st-11 is in no archive.
func airData() (out []figures.AirReading) {
	type arrival struct {
		figures.AirReading
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
			v := arrival{figures.AirReading{Device: fmt.Sprintf("st-%02d", s), TS: begin + k*step + r.Int64N(step)}, 0}
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
		out = append(out, a.AirReading)
	}
	return out
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
	stations, err := figures.Stations(filepath.Join(airQuality, "archives.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	want := figures.TruthOfAir(data, stations)
	if len(want.Events) < 50 || want.Left < 500 {
		t.Fatalf("the data are too dull: %d events, %d left out", len(want.Events), want.Left)
	}

	export := t.TempDir()
	s, code := devOnce(t, "", airQuality, "--export", export)
	if code != exitOK || s.Readings != int64(len(data)) || s.DeadLetters != 0 || s.Documents["readings"] != int64(want.Stored) {
		t.Errorf("exit %d, %+v; want %d readings, %d stored", code, s, len(data), want.Stored)
	}
	for _, wrong := range want.Differences(figures.AirStored{
		Hours: lines[figures.AirHour](t, filepath.Join(export, "hourly.jsonl")), Sites: lines[figures.AirSite](t, filepath.Join(export, "site_hours.jsonl")),
		Totals: lines[figures.AirTotal](t, filepath.Join(export, "totals.jsonl")), Events: lines[figures.AirEvent](t, filepath.Join(export, "alarms.jsonl")),
	}) {
		t.Error(wrong)
	}
}
