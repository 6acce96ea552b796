package fault

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Row is a line of the table: what one kind of fault did to one kind of cluster, over all times it was injected.
type Row struct {
	Cluster   string  `json:"cluster"` // trio, pair; in the total: all
	Fault     string  `json:"fault"`
	Times     int     `json:"times"`
	Conflicts int     `json:"conflicts"`
	SilenceMS float64 `json:"longest_silence_ms"`
	Lost      int     `json:"lost_configuration"`
}

// Table has a row for each cluster and kind, in the order in which they came first. Add may be
// called from several goroutines.
type Table struct {
	mu   sync.Mutex // guards Rows while there is who adds
	Rows []Row
}

// Add adds what another injection did.
func (t *Table) Add(r Row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.Rows {
		if o := &t.Rows[i]; o.Cluster == r.Cluster && o.Fault == r.Fault {
			o.Times += r.Times
			o.Conflicts += r.Conflicts
			o.SilenceMS = max(o.SilenceMS, r.SilenceMS)
			o.Lost += r.Lost
			return
		}
	}
	t.Rows = append(t.Rows, r)
}

// Total is the row over all rows.
func (t *Table) Total() Row {
	sum := Row{Cluster: "all", Fault: "all"}
	for _, r := range t.Rows {
		sum.Times += r.Times
		sum.Conflicts += r.Conflicts
		sum.SilenceMS = max(sum.SilenceMS, r.SilenceMS)
		sum.Lost += r.Lost
	}
	return sum
}

// String is the table as text.
func (t *Table) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "cluster\tfault\ttimes injected\tconflicts\tlongest silence\tlost configuration")
	for _, r := range append(t.Rows[:len(t.Rows):len(t.Rows)], t.Total()) {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%v\t%d\n", r.Cluster, r.Fault, r.Times, r.Conflicts, time.Duration(r.SilenceMS*1e6).Round(time.Millisecond), r.Lost)
	}
	w.Flush() // of a builder: it cannot fail
	return b.String()
}

// JSON is the table as one line.
func (t *Table) JSON() string {
	b, err := json.Marshal(struct {
		Rows  []Row `json:"faults"`
		Total Row   `json:"total"`
	}{t.Rows, t.Total()})
	if err != nil {
		panic(err) // strings and numbers
	}
	return string(b)
}
