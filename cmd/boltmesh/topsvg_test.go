package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/boltmesh/boltmesh/pkg/control"
)

// A letter's place in the picture, and what surrounds all of them, in pixels.
const (
	letterWide, lineHigh = 8.4, 19
	pictureLeft          = 16
	pictureInk           = "#d8dee9"
	picturePaper         = "#1f2430"
)

// TestTopPicture draws docs/top.svg: a page of top for what `boltmesh top -o json` has said of a mesh (testdata/top.json).
func TestTopPicture(t *testing.T) {
	said, err := os.ReadFile("testdata/top.json")
	if err != nil {
		t.Fatal(err)
	}
	var rates []control.Rates
	if err := json.Unmarshal(said, &rates); err != nil {
		t.Fatal(err)
	}
	p := page{rates: rates, at: time.UnixMilli(rates[0].At).UTC(), colour: true}
	golden(t, "../../../docs/top.svg", pictureOf(p.frame(80, 4+len(rates[0].Nodes)+3)))
}

// pictureOf draws what a terminal shows of lines.
func pictureOf(lines []string) string {
	var b strings.Builder
	wide, high := 2*pictureLeft+int(80*letterWide), 28+lineHigh*(len(lines)-1)+19
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">`+"\n", wide, high, wide, high)
	fmt.Fprintf(&b, "<title>boltmesh top</title>\n<rect width=\"%d\" height=\"%d\" rx=\"8\" fill=\"%s\"/>\n", wide, high, picturePaper)
	for i, l := range lines {
		pictureLine(&b, l, 28+lineHigh*i)
	}
	return b.String() + "</svg>\n"
}

// styles and words are the parts of a line: what a terminal is told, and texts that two spaces divide.
var (
	styles = regexp.MustCompile("\x1b\\[[0-9]*m")
	words  = regexp.MustCompile(`\S+(?: \S+)*`)
)

func pictureLine(b *strings.Builder, line string, y int) {
	column, style := 0, plain
	draw := func(text string) {
		wide := float64(utf8.RuneCountInString(text)) * letterWide
		left := pictureLeft + float64(column)*letterWide
		ink := pictureInk
		switch style {
		case red:
			ink = "#bf616a"
		case yellow:
			ink = "#ebcb8b"
		case inverse:
			fmt.Fprintf(b, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", left, y-14, wide, lineHigh, pictureInk)
			ink = picturePaper
		}
		more := map[string]string{bold: ` font-weight="700"`, faint: ` opacity="0.6"`}[style]
		for _, at := range words.FindAllStringIndex(text, -1) {
			word := text[at[0]:at[1]]
			fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\" textLength=\"%.1f\" fill=\"%s\"%s>%s</text>\n", left+float64(utf8.RuneCountInString(text[:at[0]]))*letterWide, y,
				float64(utf8.RuneCountInString(word))*letterWide, ink, more, escaped(word))
		}
		column += utf8.RuneCountInString(text)
	}
	for line != "" {
		at := styles.FindStringIndex(line)
		if at == nil {
			draw(line)
			return
		}
		if at[0] > 0 {
			draw(line[:at[0]])
		}
		if style = line[at[0]:at[1]]; style == reset {
			style = plain
		}
		line = line[at[1]:]
	}
}
