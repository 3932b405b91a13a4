package mesh

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/boltmesh/boltmesh/tests/servers"
)

// Metric sums a metric of one service over all its labels. A pattern such as `task="-2"` restricts it to the series whose labels hold that text; one
// that begins with ! leaves those out.
func Metric(ctx context.Context, p *servers.Process, name string, patterns ...string) (sum float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), "} ")
		labels, found := strings.CutPrefix(series, name+"{")
		if !ok || !found || !matches(labels, patterns) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", lines.Text(), err)
		}
		sum += v
	}
	return sum, lines.Err()
}

func matches(labels string, patterns []string) bool {
	for _, p := range patterns {
		text, without := strings.CutPrefix(p, "!")
		if strings.Contains(labels, text) == without {
			return false
		}
	}
	return true
}

// Memory is how many bytes of a process are in memory (Linux only).
func Memory(p *servers.Process) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s: /proc says nothing of its memory", p.Name)
}
