package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A picture is three panels in a row; units are pixels.
const (
	panelWidth, panelHeight = 300.0, 250.0
	panelLeft, panelRight   = 56.0, 18.0 // of the axis, within the panel
	panelTop, panelBottom   = 44.0, 48.0
)

// The colours are chosen by what the reader's system prefers; the card has its own background, so that the page's does not matter.
const svgStyle = `<style>
.card{fill:#fff;stroke:#d0d7de}.grid{stroke:#d8dee4}.axis{stroke:#57606a}
.line{fill:none;stroke:#0969da;stroke-width:2}.dot{fill:#0969da}.part{fill:none;stroke:#bc4c00;stroke-width:1.5;stroke-dasharray:5 3}
text{font:11px system-ui,sans-serif;fill:#57606a}.title{font-size:13px;font-weight:600;fill:#1f2328}.num{font-variant-numeric:tabular-nums}
@media(prefers-color-scheme:dark){.card{fill:#0d1117;stroke:#30363d}.grid{stroke:#262c34}.axis{stroke:#8b949e}
.line{stroke:#58a6ff}.dot{fill:#58a6ff}.part{stroke:#f0883e}text{fill:#9198a1}.title{fill:#e6edf3}}
</style>
`

// panel is one figure against what is varied.
type panel struct {
	title string
	of    func(result) float64
	part  func(result) float64 // a second line, dashed; nil: none
	key   string               // what the dashed line is
}

// svg draws a curve: tuples/s, CPU per tuple with the services' part of it, and that CPU as a ratio to the reference's.
func (c curveResult) svg() []byte {
	panels := []panel{
		{title: "tuples/s", of: func(r result) float64 { return r.TuplesPerS }},
		{title: "CPU per tuple, µs", of: func(r result) float64 { return r.CPU }, part: func(r result) float64 { return r.ServicesCPU }, key: "of it services"},
		{title: "CPU per tuple, times R's", of: func(r result) float64 { return r.CPURatio }},
	}
	var b bytes.Buffer
	width := panelWidth * float64(len(panels))
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img">`+"\n", width, panelHeight)
	fmt.Fprintf(&b, "<title>%s: tuples/s and CPU per tuple against %s</title>\n", c.Scenario, escaped(c.Axis))
	b.WriteString(svgStyle)
	fmt.Fprintf(&b, `<rect class="card" x=".5" y=".5" width="%.0f" height="%.0f" rx="6"/>`+"\n", width-1, panelHeight-1)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%.0f 0)">`+"\n", float64(i)*panelWidth)
		c.panel(&b, p)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (c curveResult) panel(b *bytes.Buffer, p panel) {
	var xs, ys, parts []float64
	for _, pt := range c.Points {
		xs, ys = append(xs, float64(pt.X)), append(ys, p.of(pt.result))
		if p.part != nil {
			parts = append(parts, p.part(pt.result))
		}
	}
	if len(xs) == 0 {
		return
	}
	x, y := logScale(xs[0], xs[len(xs)-1], panelLeft, panelWidth-panelRight), scaleOf(slices.Concat(ys, parts), panelHeight-panelBottom, panelTop)
	fmt.Fprintf(b, `<text class="title" x="%.0f" y="20">%s</text>`+"\n", 14.0, escaped(p.title))
	for _, v := range y.ticks {
		fmt.Fprintf(b, `<path class="grid" d="M%.0f %.1fH%.0f"/><text class="num" text-anchor="end" x="%.0f" y="%.1f">%s</text>`+"\n",
			panelLeft, y.at(v), panelWidth-panelRight, panelLeft-6, y.at(v)+4, tick(v))
	}
	fmt.Fprintf(b, `<path class="axis" d="M%.0f %.0fH%.0f"/>`+"\n", panelLeft, panelHeight-panelBottom, panelWidth-panelRight)
	for _, v := range xs {
		fmt.Fprintf(b, `<path class="axis" d="M%.1f %.0fv4"/><text class="num" text-anchor="middle" x="%.1f" y="%.0f">%s</text>`+"\n",
			x.at(v), panelHeight-panelBottom, x.at(v), panelHeight-panelBottom+17, tick(v))
	}
	fmt.Fprintf(b, `<text text-anchor="middle" x="%.0f" y="%.0f">%s</text>`+"\n", (panelLeft+panelWidth-panelRight)/2, panelHeight-12, escaped(c.Axis))
	if p.part != nil {
		fmt.Fprintf(b, `<path class="part" d="%s"/>`+"\n", polyline(x, y, xs, parts))
		fmt.Fprintf(b, `<path class="part" d="M%.0f 16h22"/><text text-anchor="end" x="%.0f" y="20">%s</text>`+"\n", panelWidth-panelRight-104, panelWidth-panelRight, escaped(p.key))
	}
	fmt.Fprintf(b, `<path class="line" d="%s"/>`+"\n", polyline(x, y, xs, ys))
	for i, v := range xs {
		fmt.Fprintf(b, `<circle class="dot" cx="%.1f" cy="%.1f" r="3.5"><title>%s: %s</title></circle>`+"\n", x.at(v), y.at(ys[i]), grouped(v), rounded(ys[i]))
	}
}

// scale maps values to pixels.
type scale struct {
	log            bool
	from, to       float64 // values
	pixel0, pixel1 float64
	ticks          []float64
}

func (s scale) at(v float64) float64 {
	from, to := s.from, s.to
	if s.log {
		v, from, to = math.Log(v), math.Log(from), math.Log(to)
	}
	if from == to {
		return (s.pixel0 + s.pixel1) / 2
	}
	return s.pixel0 + (v-from)/(to-from)*(s.pixel1-s.pixel0)
}

func logScale(from, to, pixel0, pixel1 float64) scale {
	return scale{log: true, from: from, to: to, pixel0: pixel0, pixel1: pixel1}
}

// wide is the ratio of greatest to least from which on a scale is logarithmic: from zero, the least would lie on the axis.
const wide = 20

// mostDecades is how many powers of ten an axis names each.
const mostDecades = 6

// scaleOf begins at zero, with up to six round ticks; of values far apart it is logarithmic, with powers of ten.
func scaleOf(values []float64, pixel0, pixel1 float64) scale {
	least, most := slices.Min(values), slices.Max(values)
	s := scale{pixel0: pixel0, pixel1: pixel1}
	if least > 0 && most/least >= wide {
		s.log, s.from, s.to = true, math.Pow(10, math.Floor(math.Log10(least))), math.Pow(10, math.Ceil(math.Log10(most)))
		step := math.Pow(10, math.Ceil(math.Log10(s.to/s.from)/mostDecades))
		for v := s.from; v <= s.to*1.001; v *= step {
			s.ticks = append(s.ticks, v)
		}
		return s
	}
	step := stepOf(most)
	s.to = max(step, step*math.Ceil(most/step-1e-9))
	for i := 0; float64(i)*step <= s.to+step/2; i++ {
		s.ticks = append(s.ticks, float64(i)*step)
	}
	return s
}

// stepOf is 1, 2 or 5 times a power of ten, of which at most five reach most.
func stepOf(most float64) float64 {
	if most <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(most/5)))
	for _, m := range []float64{1, 2, 5, 10} {
		if most/(m*power) <= 5+1e-9 {
			return m * power
		}
	}
	return 10 * power
}

func polyline(x, y scale, xs, ys []float64) string {
	var b strings.Builder
	for i := range xs {
		fmt.Fprintf(&b, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[i == 0], x.at(xs[i]), y.at(ys[i]))
	}
	return b.String()
}

// tick is a short number: 64, 1k, 1M, 0.5; 4Ki of 4096.
func tick(v float64) string {
	if v >= 1<<10 && math.Mod(v, 1<<10) == 0 {
		return fmt.Sprintf("%.0fKi", v/(1<<10))
	}
	for _, u := range []struct {
		of     float64
		suffix string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= u.of {
			return fmt.Sprintf("%.3g%s", v/u.of, u.suffix)
		}
	}
	return fmt.Sprintf("%.3g", v)
}

func escaped(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
